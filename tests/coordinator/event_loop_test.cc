// The shell: one commit per turn, and nothing said before it.
#include "coordinator/event_loop.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>

#include "common/memory_transport.h"
#include "common/version.h"
#include "tests/coordinator/harness.h"
#include "tests/coordinator/service_site.h"

namespace pare::coordinator {
namespace {

using testing::HasSubstr;

class EventLoopTest : public testing::Test {
 protected:
  EventLoopTest() {
    // What was committed when a message left.
    network_.set_filter([this](const PeerId&, bool to_server, std::string_view bytes) {
      if (!to_server) left_after_.emplace_back(std::string(bytes), site_.index.transactions.size());
      return 1;
    });
    transport_ = std::move(network_.Listen()).value();
    client_ = network_.Connect();
    Start();
  }

  void Start() {
    loop_.reset();
    service_ = std::move(Service::Create({&site_.index, &site_.blobs, &site_.clock, ""}, {.config = {}, .host = "here"})).value();
    loop_.emplace(LoopParts{service_.get(), transport_.get(), &site_.clock, -1, alive_});
  }
  void Ask(ClientTransport& client, const std::string& method, Json args, int64_t id) {
    Request request;
    request.id = id;
    request.method = method;
    request.args = std::move(args);
    client.Send(Encode(request));
  }
  // The client's next message.
  template <typename T = Reply>
  std::optional<T> Next(ClientTransport& client) {
    auto bytes = client.Receive(Millis(0));
    if (!bytes) return std::nullopt;
    auto message = Decode(*bytes);
    EXPECT_TRUE(message.ok());
    return std::get<T>(*message);
  }
  Hello HelloOf(const std::string& worker) { return {worker, std::string(kPareVersion), "here", "cpu", 1, {}, {}}; }

  ServiceSite site_;  // its parts; the loop has a service of its own
  std::map<int64_t, bool> processes_;
  std::function<bool(int64_t)> alive_;
  MemoryNetwork network_;
  std::unique_ptr<ServerTransport> transport_;
  std::unique_ptr<ClientTransport> client_;
  std::unique_ptr<Service> service_;
  std::optional<EventLoop> loop_;
  std::vector<std::pair<std::string, size_t>> left_after_;
};

TEST_F(EventLoopTest, AnAnswerLeavesAfterItsTransaction) {
  size_t before = site_.index.transactions.size();
  Ask(*client_, "submit", site_.SubmitArgs(kSmallRecipe), 1);
  ASSERT_TRUE(loop_->Turn().ok());
  ASSERT_EQ(left_after_.size(), 1u);
  EXPECT_EQ(left_after_[0].second, before + 1);
  EXPECT_TRUE(Next(*client_)->ok);
}

TEST_F(EventLoopTest, AllEventsOfATurnShareOneTransaction) {
  auto second = network_.Connect(), agent = network_.Connect();
  std::string other = kSmallRecipe;
  other.replace(other.find("name: small"), 11, "name: other");
  Ask(*client_, "submit", site_.SubmitArgs(kSmallRecipe), 1);
  Ask(*second, "submit", site_.SubmitArgs(other), 2);
  agent->Send(Encode(HelloOf("w1")));
  Ask(*client_, "pause", {{"job", "last"}}, 3);
  size_t before = site_.index.transactions.size();
  ASSERT_TRUE(loop_->Turn().ok());
  EXPECT_EQ(site_.index.transactions.size(), before + 1);
  EXPECT_TRUE(Next(*client_)->ok);
  EXPECT_EQ(Next(*client_)->id, 3);
  EXPECT_TRUE(Next(*second)->ok);
  EXPECT_TRUE(Next<Welcome>(*agent).has_value());
  EXPECT_TRUE(Next<Grant>(*agent).has_value());
}

TEST_F(EventLoopTest, ATurnWithoutNewsWritesNothing) {
  size_t before = site_.index.transactions.size();
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(loop_->Turn().ok());
  EXPECT_EQ(site_.index.transactions.size(), before);
}

TEST_F(EventLoopTest, AFullDiskHoldsEverythingBackAndSaysSo) {
  site_.index.failure = Error{ErrorCode::kNoSpace, "index: database or disk is full"};
  Ask(*client_, "submit", site_.SubmitArgs(kSmallRecipe), 1);
  ASSERT_TRUE(loop_->Turn().ok());
  EXPECT_TRUE(left_after_.empty());
  Ask(*client_, "list", Json::object(), 2);
  ASSERT_TRUE(loop_->Turn().ok());
  Reply refused = *Next(*client_);
  EXPECT_EQ(refused.id, 2);
  EXPECT_EQ(refused.code, "no_space");
  EXPECT_THAT(refused.message, HasSubstr("index: database or disk is full"));
  EXPECT_THAT(refused.message, HasSubstr("free some space"));
  site_.index.failure.reset();
  ASSERT_TRUE(loop_->Turn().ok());
  Reply late = *Next(*client_);
  EXPECT_EQ(late.id, 1);
  EXPECT_TRUE(late.ok);
  ASSERT_TRUE(loop_->Turn().ok());
  Ask(*client_, "list", Json::object(), 3);
  ASSERT_TRUE(loop_->Turn().ok());
  EXPECT_EQ(Next(*client_)->result[0]["id"], late.result["job"]);
}

// A reserve that cannot be made, from the first turn on, and for a command that opens the store itself.
TEST_F(EventLoopTest, AStoreThatCannotKeepItsReserveAcceptsNothing) {
  std::string root = testing::TempDir() + "pare-without-reserve-" + std::to_string(::getpid());
  std::filesystem::create_directories(root + "/reserve");
  {
    auto service = std::move(Service::Open(root)).value();
    Request submit;
    submit.id = 1;
    submit.method = "submit";
    submit.args = site_.SubmitArgs(kSmallRecipe);
    Reply refused = service->Handle(submit);
    EXPECT_FALSE(refused.ok);
    EXPECT_THAT(refused.message, HasSubstr("nothing is accepted"));
    EXPECT_THAT(refused.message, HasSubstr(root + "/reserve"));
    Request list;
    list.method = "list";
    EXPECT_EQ(service->Handle(list).result, Json::array());

    MemoryNetwork network;
    auto transport = std::move(network.Listen()).value();
    auto client = network.Connect();
    EventLoop loop({service.get(), transport.get(), &site_.clock, -1, {}});
    Ask(*client, "submit", submit.args, 2);
    (void)loop.Turn();
    auto reply = Next(*client);
    ASSERT_TRUE(reply.has_value());
    EXPECT_EQ(reply->code, "no_space");
    EXPECT_TRUE(service->scheduler().state().jobs.empty());
  }
  std::filesystem::remove_all(root);
}

TEST_F(EventLoopTest, WhileTheDiskIsFullAnAgentIsNeitherHeardNorAcknowledged) {
  auto agent = network_.Connect();
  site_.index.failure = Error{ErrorCode::kNoSpace, "full"};
  Ask(*client_, "submit", site_.SubmitArgs(kSmallRecipe), 1);
  ASSERT_TRUE(loop_->Turn().ok());
  agent->Send(Encode(HelloOf("w1")));
  ASSERT_TRUE(loop_->Turn().ok());
  site_.index.failure.reset();
  ASSERT_TRUE(loop_->Turn().ok());
  EXPECT_EQ(agent->Receive(Millis(0)), std::nullopt);
  agent->Send(Encode(HelloOf("w1")));  // as agents do
  ASSERT_TRUE(loop_->Turn().ok());
  EXPECT_TRUE(Next<Welcome>(*agent).has_value());
}

TEST_F(EventLoopTest, AManifestThatCannotBeStoredHoldsItsRowsBack) {
  site_.Join("w1");
  site_.Submit(kSmallRecipe);
  while (site_.NameOf(*site_.Granted("w1")).find("most/02-retrain/evaluate") == std::string::npos) site_.Finish("w1");
  Grant last = *site_.Granted("w1");
  Json manifest = site_.ManifestFor(last);
  Start();  // goes on from here
  site_.blobs.failure = Error{ErrorCode::kNoSpace, "no space for blobs"};
  auto agent = network_.Connect();
  agent->Send(Encode(StepFinished{last.lease, ArtifactOf(manifest), manifest, 5}));
  size_t before = site_.index.transactions.size();
  ASSERT_TRUE(loop_->Turn().ok());
  EXPECT_TRUE(left_after_.empty());
  EXPECT_EQ(site_.index.transactions.size(), before);
  site_.blobs.failure.reset();
  ASSERT_TRUE(loop_->Turn().ok());
  EXPECT_EQ(site_.index.transactions.size(), before + 1);
  EXPECT_FALSE(left_after_.empty());
}

TEST_F(EventLoopTest, AnyOtherFailureOfTheCommitEndsTheLoopWithNothingSaid) {
  site_.index.failure = Error{ErrorCode::kIo, "index: disk I/O error"};
  Ask(*client_, "submit", site_.SubmitArgs(kSmallRecipe), 1);
  Status status = loop_->Turn();
  ASSERT_FALSE(status.ok());
  EXPECT_THAT(status.error().message, HasSubstr("disk I/O error"));
  EXPECT_TRUE(left_after_.empty());
}

TEST_F(EventLoopTest, AMessageThatIsNoneIsRefused) {
  client_->Send("GET / HTTP/1.1");
  ASSERT_TRUE(loop_->Turn().ok());
  EXPECT_EQ(Next<Refused>(*client_)->code, "invalid");
}

TEST_F(EventLoopTest, AnotherProtocolVersionIsToldBothVersions) {
  Json request = Json::parse(Encode(Request{}));
  request["v"] = 99;
  client_->Send(Canonical(request));
  ASSERT_TRUE(loop_->Turn().ok());
  Refused refused = *Next<Refused>(*client_);
  EXPECT_EQ(refused.code, "version");
  EXPECT_THAT(refused.message, HasSubstr("99"));
  EXPECT_THAT(refused.message, HasSubstr("version " + std::to_string(kProtocolVersion)));
}

TEST_F(EventLoopTest, AnAnswerThatIsTooLargeIsReplacedByTheReason) {
  std::string job = site_.Submit(kSmallRecipe);
  Start();
  std::vector<storage::Row> rows;
  for (int64_t i = 1; i <= kMaxRowsPerReply; ++i) {
    rows.push_back(storage::EventRow{.job = job, .sequence = 1000 + i, .level = "info", .text = std::string(2'000, 'x')});
  }
  ASSERT_TRUE(site_.index.Commit(rows).ok());
  Ask(*client_, "logs", {{"job", job}, {"limit", kMaxRowsPerReply}}, 9);
  ASSERT_TRUE(loop_->Turn().ok());
  Reply reply = *Next(*client_);
  EXPECT_EQ(reply.id, 9);
  EXPECT_FALSE(reply.ok);
  EXPECT_THAT(reply.message, HasSubstr("at most " + std::to_string(kMaxMessageBytes) + " fit into a message"));
}

TEST_F(EventLoopTest, AShutdownIsAnsweredAndEndsTheLoop) {
  EXPECT_FALSE(loop_->stopping());
  Ask(*client_, "shutdown", Json::object(), 1);
  ASSERT_TRUE(loop_->Turn().ok());
  EXPECT_TRUE(Next(*client_)->ok);
  EXPECT_TRUE(loop_->stopping());
}

// ---- workers of this host ----

TEST_F(EventLoopTest, AWorkerOfThisHostWhoseProcessEndsIsMissedAtOnce) {
  processes_[41] = true;
  alive_ = [this](int64_t pid) { return processes_[pid]; };
  Start();
  auto agent = network_.Connect();
  agent->Send(Encode(HelloOf("here-41-0")));
  Ask(*client_, "submit", site_.SubmitArgs(kSmallRecipe), 1);
  ASSERT_TRUE(loop_->Turn().ok());
  site_.clock.Advance(Millis(200));
  ASSERT_TRUE(loop_->Turn().ok());
  EXPECT_EQ(service_->scheduler().state().workers.size(), 1u);
  processes_[41] = false;
  site_.clock.Advance(Millis(200));
  ASSERT_TRUE(loop_->Turn().ok());
  EXPECT_TRUE(service_->scheduler().state().workers.empty());
  EXPECT_TRUE(service_->scheduler().state().running.empty());
}

TEST_F(EventLoopTest, AWorkerInAnotherContainerIsNotTakenForDead) {
  alive_ = [](int64_t) { return false; };  // its pid means nothing here
  Start();
  auto agent = network_.Connect();
  agent->Send(Encode(HelloOf("here-41-0")));
  for (int i = 0; i < 3; ++i) {
    site_.clock.Advance(Millis(200));
    ASSERT_TRUE(loop_->Turn().ok());
  }
  EXPECT_EQ(service_->scheduler().state().workers.size(), 1u);
}

TEST_F(EventLoopTest, AfterARestartAStepOfADeadWorkerOfThisHostIsNotWaitedFor) {
  site_.Join("here-41-0");
  site_.Submit(kSmallRecipe);
  ASSERT_NE(site_.Granted("here-41-0"), nullptr);
  alive_ = [](int64_t) { return false; };
  Start();
  ASSERT_TRUE(loop_->Turn().ok());
  EXPECT_TRUE(service_->scheduler().state().running.empty());
}

TEST(LocalPidTest, IsReadFromNamesOfThisHostAlone) {
  EXPECT_EQ(LocalPidOf("node-7-0", "node"), 7);
  EXPECT_EQ(LocalPidOf("my-node-123-4", "my-node"), 123);
  for (const char* name : {"other-7-0", "node-x-0", "node-7", "node-", "node", "node--7-0", "node-0-0", "node-99999999999999999999-0"}) {
    EXPECT_EQ(LocalPidOf(name, "node"), std::nullopt) << name;
  }
  EXPECT_EQ(LocalPidOf("node-7-0", ""), std::nullopt);
}

}  // namespace
}  // namespace pare::coordinator
