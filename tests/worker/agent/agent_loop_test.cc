// The real loop on a memory network, a fake runner and a hand-cranked clock.
#include "worker/agent/agent_loop.h"

#include <gtest/gtest.h>

#include "common/memory_transport.h"
#include "common/random.h"
#include "tests/worker/agent/scripted_step.h"
#include "worker/agent/fake_step_runner.h"

namespace pare::worker {
namespace {

const Lease kLease{StepKey(std::array<uint8_t, 32>{1}), 7};

class AgentLoopTest : public testing::Test {
 protected:
  void Turn(int times = 1) {
    for (int i = 0; i < times; ++i) code_ = loop_.Turn(Millis(0));
  }
  // The next message of type M; of the others a Hello is welcomed and a Heartbeat acknowledged. Time goes on until it comes.
  template <typename M>
  M Await() {
    for (int turn = 0; turn < 3000; ++turn) {
      for (Incoming& incoming : server_->Receive(Millis(0), 1)) {
        peer_ = incoming.peer;
        Result<Message> message = Decode(incoming.message);
        EXPECT_TRUE(message.ok());
        if (auto* found = std::get_if<M>(&*message)) return *found;
        if (std::holds_alternative<Heartbeat>(*message)) Send(Ack{{}, "heartbeat", 0});
        if (std::holds_alternative<Hello>(*message)) SendWelcome();
      }
      Turn();
      clock_.Advance(Millis(10));
    }
    ADD_FAILURE() << "the message did not come";
    return {};
  }
  void Send(const Message& message) { server_->Send(peer_, Encode(message)); }
  void SendWelcome() { Send(Welcome{500, 5000, "/store", "here", "tcp://b", {}}); }
  void Welcomed() {
    Await<Hello>();
    SendWelcome();
    Turn(2);
  }
  void Start(std::vector<std::string> script) {
    Assignment assignment;
    assignment.key = kLease.step;
    assignment.spec = {{"script", script}};
    Send(Grant{kLease, 1, ToJson(assignment)});
    Turn();
  }

  MemoryNetwork network_;
  std::unique_ptr<ServerTransport> server_ = std::move(network_.Listen()).value();
  std::unique_ptr<ClientTransport> client_ = network_.Connect();
  FakeStepRunner runner_{PlayScript, [](const Assignment&) { return StoppedWithSnapshot(); }};
  FakeClock clock_;
  bool store_usable_ = true;
  AgentLoop loop_{AgentConfig{"w", "here", "cpu", 1},
                  {client_.get(), &runner_, &clock_, -1, [this](const std::string&, const std::string&) { return store_usable_; }}};
  PeerId peer_;
  std::optional<int> code_;
};

TEST_F(AgentLoopTest, CarriesAStepFromGrantToAck) {
  Welcomed();
  Start({"progress", "snapshot", "done"});
  EXPECT_EQ(Await<Progress>().points.size(), 1u);
  EXPECT_EQ(Await<SnapshotTaken>().blob, SnapshotBlob());
  StepFinished finished = Await<StepFinished>();
  EXPECT_EQ(finished.lease, kLease);
  EXPECT_EQ(Await<StepFinished>(), finished) << "repeated while unacknowledged";
  Send(Ack{kLease, "step_finished", 0});
  EXPECT_TRUE(Await<Heartbeat>().running.empty());
}

TEST_F(AgentLoopTest, TheStoreIsUsedOnlyWhereItCanBe) {
  store_usable_ = false;
  Welcomed();
  EXPECT_EQ(runner_.source(), (RunnerSource{"", "tcp://b"}));
}

TEST_F(AgentLoopTest, MessagesLostOnTheWayAreRepaired) {
  // Half of all messages are lost, in both directions; the coordinator repeats what Heartbeats show to be missing.
  RandomStream random(1, RandomPurpose::kTest);
  network_.set_filter([&](const PeerId&, bool, std::string_view) { return static_cast<int>(random.Below(2)); });
  for (int i = 0; i < 100 && !runner_.running(); ++i) {
    Await<Heartbeat>();
    Send(Ack{{}, "heartbeat", 0});
    Start({"progress", "wait"});
  }
  ASSERT_TRUE(runner_.running());
  EXPECT_EQ(Await<Progress>().lease, kLease);
  runner_.Emit(StepDone{DigestOf("a"), {}, 1});
  EXPECT_EQ(Await<StepFinished>().artifact, DigestOf("a"));
  for (int i = 0; i < 20; ++i) Send(Ack{kLease, "step_finished", 0});
  Turn();
  network_.set_filter({});
  clock_.Advance(Millis(5000));
  for (int i = 0; i < 10; ++i) {
    Await<Heartbeat>();
    Send(Ack{{}, "heartbeat", 0});
  }
  EXPECT_EQ(runner_.launches(), 1);
}

TEST_F(AgentLoopTest, GarbageFromTheCoordinatorIsSurvivedAndAnotherVersionIsNot) {
  Welcomed();
  server_->Send(peer_, "\x01\x02");
  server_->Send(peer_, R"({"v": 3, "type": "dance"})");
  Turn();
  EXPECT_FALSE(code_.has_value());
  server_->Send(peer_, R"({"v": 99, "type": "welcome"})");
  Turn();
  EXPECT_EQ(code_, 1);
}

TEST_F(AgentLoopTest, AShutdownReleasesTheStepAndSaysGoodbye) {
  Welcomed();
  Start({"wait"});
  Send(Shutdown{"maintenance"});
  EXPECT_EQ(Await<Released>().snapshot, SnapshotBlob());
  EXPECT_FALSE(code_.has_value());
  Send(Ack{kLease, "released", 0});
  EXPECT_EQ(Await<Goodbye>().worker, "w");
  EXPECT_EQ(code_, 0);
}

TEST_F(AgentLoopTest, ALostRunnerIsReplaced) {
  Welcomed();
  Start({"crash"});
  EXPECT_EQ(Await<StepAborted>().error_class, "runner_lost");
  EXPECT_EQ(runner_.launches(), 2);
}

TEST(StoreUsableHereTest, ADirectoryOfThisHostIsUsable) {
  EXPECT_TRUE(StoreUsableHere(testing::TempDir(), HostName()));
  EXPECT_FALSE(StoreUsableHere(testing::TempDir(), "another-host.example"));
  EXPECT_FALSE(StoreUsableHere("/no/such/directory", HostName()));
  EXPECT_FALSE(StoreUsableHere("", HostName()));
}

}  // namespace
}  // namespace pare::worker
