// Conformance suite of Transport, and what is particular to sockets and to the memory network.
#include "common/transport.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <set>

#include "common/client_fleet.h"
#include "common/files.h"
#include "common/memory_transport.h"

namespace pare {
namespace {

constexpr Millis kLong{10'000};  // far more than anything takes; only a failing test waits for it

// Makes servers and clients of one kind that can talk to each other.
class Network {
 public:
  virtual ~Network() = default;
  virtual std::unique_ptr<ServerTransport> Listen() = 0;
  virtual std::unique_ptr<ClientTransport> Connect() = 0;
};

class Memory : public Network {
 public:
  std::unique_ptr<ServerTransport> Listen() override { return std::move(network_.Listen()).value(); }
  std::unique_ptr<ClientTransport> Connect() override { return network_.Connect(); }

 private:
  MemoryNetwork network_;
};

class Zmq : public Network {
 public:
  explicit Zmq(std::string endpoint) : endpoint_(std::move(endpoint)) {}
  std::unique_ptr<ServerTransport> Listen() override {
    auto server = ListenZmq(endpoint_);
    if (!server.ok()) ADD_FAILURE() << server.error().message;
    endpoint_ = (*server)->endpoint();  // the same port again after a restart
    return std::move(server).value();
  }
  std::unique_ptr<ClientTransport> Connect() override { return std::move(ConnectZmq(endpoint_)).value(); }

 private:
  std::string endpoint_;
};

std::string LocalPath(const std::string& name) {
  return testing::TempDir() + "pare-" + std::to_string(getpid()) + "-" + name;
}

struct Kind {
  const char* name;
  std::function<std::unique_ptr<Network>()> make;
};

class TransportTest : public testing::TestWithParam<Kind> {
 protected:
  // At least `count` messages.
  std::vector<Incoming> Await(size_t count) {
    std::vector<Incoming> all;
    while (all.size() < count) {
      std::vector<Incoming> some = server_->Receive(kLong, 1000);
      if (some.empty()) break;
      all.insert(all.end(), some.begin(), some.end());
    }
    EXPECT_GE(all.size(), count);
    return all;
  }

  std::unique_ptr<Network> network_ = GetParam().make();
  std::unique_ptr<ServerTransport> server_ = network_->Listen();
};

TEST_P(TransportTest, CarriesBytesBothWays) {
  auto client = network_->Connect();
  client->Send("hello");
  auto received = Await(1);
  EXPECT_EQ(received[0].message, "hello");
  server_->Send(received[0].peer, "welcome");
  EXPECT_EQ(client->Receive(kLong), "welcome");
}

TEST_P(TransportTest, KeepsTheOrderOfEachPeer) {
  auto client = network_->Connect();
  for (int i = 0; i < 500; ++i) client->Send(std::to_string(i));
  auto received = Await(500);
  for (int i = 0; i < 500; ++i) {
    EXPECT_EQ(received[i].message, std::to_string(i));
    server_->Send(received[0].peer, std::to_string(i));
  }
  for (int i = 0; i < 500; ++i) EXPECT_EQ(client->Receive(kLong), std::to_string(i));
}

TEST_P(TransportTest, TellsPeersApartAndKeepsTheirIds) {
  auto first = network_->Connect(), second = network_->Connect();
  std::map<std::string, std::set<PeerId>> ids;
  for (int round = 0; round < 2; ++round) {
    first->Send("first");
    second->Send("second");
    for (const Incoming& incoming : Await(2)) ids[incoming.message].insert(incoming.peer);
  }
  ASSERT_EQ(ids["first"].size(), 1u);
  ASSERT_EQ(ids["second"].size(), 1u);
  EXPECT_NE(ids["first"], ids["second"]);
  server_->Send(*ids["second"].begin(), "for the second");
  server_->Send(*ids["first"].begin(), "for the first");
  EXPECT_EQ(first->Receive(kLong), "for the first");
  EXPECT_EQ(second->Receive(kLong), "for the second");
}

TEST_P(TransportTest, ReturnsAtMostTheLimit) {
  auto client = network_->Connect();
  for (int i = 0; i < 10; ++i) client->Send("x");
  size_t total = 0;
  while (total < 10) {
    size_t n = server_->Receive(kLong, 3).size();
    ASSERT_GT(n, 0u);
    ASSERT_LE(n, 3u);
    total += n;
  }
  EXPECT_EQ(total, 10u);
}

TEST_P(TransportTest, NothingToReceiveIsNothing) {
  auto client = network_->Connect();
  EXPECT_TRUE(server_->Receive(Millis(0), 10).empty());
  EXPECT_EQ(client->Receive(Millis(0)), std::nullopt);
}

TEST_P(TransportTest, AReadableDescriptorEndsTheWait) {
  UniqueFd wake(eventfd(1, EFD_CLOEXEC));
  auto client = network_->Connect();
  EXPECT_TRUE(server_->Receive(Millis(1 << 30), 10, wake.get()).empty());
  EXPECT_EQ(client->Receive(Millis(1 << 30), wake.get()), std::nullopt);
}

TEST_P(TransportTest, BinaryAndLargeMessagesArriveUnchanged) {
  std::string bytes(1 << 20, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 7 + (i >> 8));
  auto client = network_->Connect();
  client->Send(bytes);
  client->Send("");
  auto received = Await(2);
  EXPECT_TRUE(received[0].message == bytes);
  EXPECT_EQ(received[1].message, "");
  server_->Send(received[0].peer, bytes);
  EXPECT_TRUE(client->Receive(kLong) == bytes);
}

TEST_P(TransportTest, SendingToAPeerThatIsGoneOrUnknownIsHarmless) {
  auto gone = network_->Connect(), here = network_->Connect();
  gone->Send("bye");
  PeerId peer = Await(1)[0].peer;
  gone.reset();
  server_->Send(peer, "too late");
  server_->Send("nobody", "x");
  server_->Send("", "x");
  here->Send("still there");
  EXPECT_EQ(Await(1)[0].message, "still there");
}

TEST_P(TransportTest, AServerThatRestartsIsFoundAgainWithoutTheClientNoticing) {
  auto client = network_->Connect();
  client->Send("one");
  PeerId before = Await(1)[0].peer;
  server_.reset();
  server_ = network_->Listen();
  client->Send("two");
  auto received = Await(1);
  EXPECT_EQ(received[0].message, "two");
  EXPECT_EQ(received[0].peer, before);
  server_->Send(received[0].peer, "back");
  EXPECT_EQ(client->Receive(kLong), "back");
}

INSTANTIATE_TEST_SUITE_P(
    Transports, TransportTest,
    testing::Values(Kind{"Memory", [] { return std::make_unique<Memory>(); }},
                    Kind{"ZmqTcp", [] { return std::make_unique<Zmq>("tcp://127.0.0.1:0"); }},
                    Kind{"ZmqIpc", [] { return std::make_unique<Zmq>("ipc://" + LocalPath("conformance.sock")); }}),
    [](const auto& kind) { return kind.param.name; });

// ---- sockets ----

std::string ListenError(const std::string& endpoint, ErrorCode code = ErrorCode::kInvalid) {
  auto server = ListenZmq(endpoint);
  if (server.ok()) return "accepted";
  EXPECT_EQ(server.error().code, code) << endpoint;
  return server.error().message;
}

TEST(ZmqTransportTest, EndpointsAreChecked) {
  EXPECT_NE(ListenError("http://127.0.0.1:80").find("tcp://HOST:PORT"), std::string::npos);
  EXPECT_NE(ListenError("tcp://127.0.0.1").find("port is missing"), std::string::npos);
  EXPECT_NE(ListenError("tcp://:80").find("host is missing"), std::string::npos);
  EXPECT_NE(ListenError("tcp://127.0.0.1:70000").find("not a port"), std::string::npos);
  EXPECT_NE(ListenError("tcp://127.0.0.1:8o").find("not a port"), std::string::npos);
  EXPECT_NE(ListenError("ipc://").find("path is missing"), std::string::npos);
  EXPECT_NE(ListenError("ipc:///" + std::string(200, 'x')).find("107"), std::string::npos);
  EXPECT_NE(ListenError("").find("not an endpoint"), std::string::npos);
  EXPECT_FALSE(ConnectZmq("tcp://127.0.0.1:0").ok());
  EXPECT_FALSE(ConnectZmq("nonsense").ok());
}

TEST(ZmqTransportTest, OtherHostsAreLetInOnlyWhenAllowed) {
  EXPECT_NE(ListenError("tcp://0.0.0.0:0").find("loopback"), std::string::npos);
  EXPECT_NE(ListenError("tcp://*:0").find("loopback"), std::string::npos);
  auto server = ListenZmq("tcp://0.0.0.0:0", {.allow_remote = true});
  EXPECT_TRUE(server.ok());
}

TEST(ZmqTransportTest, TheEndpointNamesThePortReallyBound) {
  auto server = ListenZmq("tcp://localhost:*");
  ASSERT_TRUE(server.ok());
  std::string endpoint = (*server)->endpoint();
  EXPECT_EQ(endpoint.rfind("tcp://127.0.0.1:", 0), 0u) << endpoint;
  EXPECT_GT(std::stoi(endpoint.substr(16)), 0);
}

TEST(ZmqTransportTest, ATakenPortIsAConflictThatNamesIt) {
  auto server = ListenZmq("tcp://127.0.0.1:0");
  ASSERT_TRUE(server.ok());
  EXPECT_NE(ListenError((*server)->endpoint(), ErrorCode::kConflict).find((*server)->endpoint()), std::string::npos);
}

TEST(ZmqTransportTest, ATakenLocalSocketIsAConflictAndStaysUsable) {
  std::string endpoint = "ipc://" + LocalPath("taken.sock");
  auto server = ListenZmq(endpoint);
  ASSERT_TRUE(server.ok());
  EXPECT_NE(ListenError(endpoint, ErrorCode::kConflict).find(endpoint), std::string::npos);
  auto client = ConnectZmq(endpoint);
  (*client)->Send("x");
  EXPECT_EQ((*server)->Receive(kLong, 10).size(), 1u);
}

TEST(ZmqTransportTest, TheLocalSocketOfADeadProcessIsReplaced) {
  std::string path = LocalPath("dead.sock");
  {
    UniqueFd fd(socket(AF_UNIX, SOCK_STREAM, 0));  // bound, closed, never removed: what kill -9 leaves
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    ASSERT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  ASSERT_TRUE(std::filesystem::exists(path));
  EXPECT_TRUE(ListenZmq("ipc://" + path).ok());
}

TEST(ZmqTransportTest, AnUnwritableDirectoryIsAnErrorOfTheSystem) {
  auto server = ListenZmq("ipc:///no/such/directory/socket");
  ASSERT_FALSE(server.ok());
  EXPECT_NE(server.error().message.find("/no/such/directory/socket"), std::string::npos);
}

TEST(ZmqTransportTest, MessagesBeforeTheServerListensArrive) {
  std::string endpoint = "ipc://" + LocalPath("late.sock");
  auto client = ConnectZmq(endpoint);
  ASSERT_TRUE(client.ok());
  (*client)->Send("early");
  auto server = ListenZmq(endpoint);
  auto received = (*server)->Receive(kLong, 10);
  ASSERT_EQ(received.size(), 1u);
  EXPECT_EQ(received[0].message, "early");
}

TEST(ZmqTransportTest, TheLastMessageOfAClientLeaves) {
  auto server = ListenZmq("tcp://127.0.0.1:0");
  auto client = ConnectZmq((*server)->endpoint());
  (*client)->Send("goodbye");
  client->reset();
  auto received = (*server)->Receive(kLong, 10);
  ASSERT_EQ(received.size(), 1u);
}

TEST(ZmqTransportTest, AMessageOverTheLimitIsNotSentAndDoesNoHarm) {
  auto server = ListenZmq("tcp://127.0.0.1:0");
  auto client = ConnectZmq((*server)->endpoint());
  (*client)->Send(std::string(kMaxMessageBytes + 1, 'x'));
  (*client)->Send(std::string(kMaxMessageBytes, 'y'));
  auto received = (*server)->Receive(kLong, 10);
  ASSERT_EQ(received.size(), 1u);
  EXPECT_EQ(received[0].message[0], 'y');
}

TEST(ZmqTransportTest, AFleetIsManyPeersAndEachGetsItsOwnAnswers) {
  constexpr size_t kClients = 50;
  auto server = ListenZmq("tcp://127.0.0.1:0");
  auto fleet = ConnectFleetZmq((*server)->endpoint(), kClients);
  ASSERT_TRUE(fleet.ok());
  for (size_t i = 0; i < kClients; ++i) (*fleet)->Send(i, std::to_string(i));
  std::set<PeerId> peers;
  while (peers.size() < kClients) {
    auto received = (*server)->Receive(kLong, 100);
    ASSERT_FALSE(received.empty());
    for (const Incoming& incoming : received) {
      EXPECT_TRUE(peers.insert(incoming.peer).second);
      (*server)->Send(incoming.peer, "to " + incoming.message);
    }
  }
  for (size_t answered = 0; answered < kClients;) {
    auto received = (*fleet)->Receive(kLong);
    ASSERT_FALSE(received.empty());
    for (const auto& [client, message] : received) EXPECT_EQ(message, "to " + std::to_string(client));
    answered += received.size();
  }
}

// ---- the memory network ----

TEST(MemoryTransportTest, AFilterLosesDuplicatesAndDelays) {
  MemoryNetwork network;
  auto server = std::move(network.Listen()).value();
  auto client = network.Connect();
  Incoming kept;
  network.set_filter([&](const PeerId& peer, bool to_server, std::string_view message) {
    EXPECT_TRUE(to_server);
    if (message == "lose") return 0;
    if (message == "delay") return kept = {peer, std::string(message)}, 0;
    return message == "twice" ? 2 : 1;
  });
  for (const char* message : {"lose", "delay", "twice", "once"}) client->Send(message);
  network.Deliver(kept.peer, true, kept.message);
  std::vector<std::string> arrived;
  for (const Incoming& incoming : server->Receive(Millis(0), 10)) arrived.push_back(incoming.message);
  EXPECT_EQ(arrived, (std::vector<std::string>{"twice", "twice", "once", "delay"}));
}

TEST(MemoryTransportTest, WhatIsSentWhileNobodyListensIsLost) {
  MemoryNetwork network;
  auto client = network.Connect();
  client->Send("x");
  auto server = std::move(network.Listen()).value();
  EXPECT_TRUE(server->Receive(Millis(0), 10).empty());
  EXPECT_EQ(network.Listen().error().code, ErrorCode::kConflict);
}

}  // namespace
}  // namespace pare
