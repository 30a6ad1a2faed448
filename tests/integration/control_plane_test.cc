// A real coordinator and real agents as processes, with runners that play steps (played_runner): what a stopped, ended or
// restarted process of the control plane may and may not change.
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>

#include "common/messages.h"
#include "common/process.h"
#include "common/transport.h"
#include "data/dataset.h"
#include "tests/coordinator/harness.h"
#include "tests/coordinator/service_site.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

constexpr Millis kLong{60'000};  // far more than anything takes; only a failing test waits for it
constexpr Millis kLook{20};

class ControlPlaneTest : public testing::Test {
 protected:
  ControlPlaneTest() : directory_(fs::path(testing::TempDir()) / ("pare-control-" + std::to_string(::getpid()) + "-" + std::to_string(++count_))) {
    fs::remove_all(directory_);
    fs::create_directories(directory_);
    Hold();
  }
  ~ControlPlaneTest() override {
    client_.reset();
    coordinator_.reset();
    fs::remove_all(directory_);
  }

  std::string Path(const std::string& name) const { return (directory_ / name).string(); }
  std::string Log(const std::string& name) const { return ReadFile(Path(name + ".log")).value(); }
  std::string Endpoint() const { return "ipc://" + Path("socket"); }

  // While held, training steps stay after their first point and snapshot.
  void Hold() { std::ofstream(Path("hold")) << "held"; }
  void LetGo() { fs::remove(Path("hold")); }

  void StartCoordinator() {
    SpawnOptions options;
    options.arguments = {PARE_COORDINATOR, "--store", Path("store"), "--listen", Endpoint(), "--heartbeat-ms", "100", "--lease-timeout-ms", "2000"};
    options.pipe_stdout = true;
    options.output_path = Path("coordinator.log");
    coordinator_ = std::move(Process::Spawn(options)).value();
    pollfd item{coordinator_->stdout_fd(), POLLIN, 0};
    ASSERT_EQ(::poll(&item, 1, static_cast<int>(kLong.count())), 1);
    client_ = std::move(ConnectZmq(Endpoint())).value();
    Call("ping");
  }
  std::unique_ptr<Process> StartWorker(const std::string& name) {
    SpawnOptions options;
    options.arguments = {PARE_WORKER, "--coordinator", Endpoint(), "--runner", PLAYED_RUNNER, "--threads", "1", "--name", name};
    options.environment["PARE_PLAYED_HOLD"] = Path("hold");
    options.output_path = Path(name + ".log");
    return std::move(Process::Spawn(options)).value();
  }
  Json Call(const std::string& method, Json args = Json::object()) {
    Request request;
    request.id = ++request_;
    request.method = method;
    request.args = std::move(args);
    client_->Send(Encode(request));
    while (auto bytes = client_->Receive(kLong)) {
      auto message = Decode(*bytes);
      auto* reply = message.ok() ? std::get_if<Reply>(&*message) : nullptr;
      if (reply == nullptr || reply->id != request.id) continue;
      EXPECT_TRUE(reply->ok) << reply->message;
      return reply->result;
    }
    ADD_FAILURE() << "no answer to " << method << "; log:\n" << Log("coordinator");
    return {};
  }
  std::string Submit() {
    return Call("submit", {{"recipe", coordinator::kSmallRecipe}, {"recipe_name", "small.yaml"}, {"data", data::ToJson(coordinator::TestData())}})["job"];
  }
  // Asks until it holds.
  void Until(const std::string& what, const std::function<bool()>& holds) {
    SystemClock clock;
    for (Millis end = clock.Monotonic() + kLong; !holds(); coordinator_->Wait(kLook)) {
      ASSERT_LT(clock.Monotonic(), end) << "never: " << what << "; log:\n" << Log("coordinator");
    }
  }
  Json Step(const std::string& name) {
    Json described = Call("describe", {{"job", "last"}});
    for (const Json& step : described["steps"]) {
      if (step["name"] == name) return step;
    }
    return {{"state", "not planned"}, {"attempts", Json::array()}};
  }
  // `worker` has the baseline, its first point and snapshot are durable.
  void AwaitBaselineOn(const std::string& worker) {
    Until("the baseline runs on " + worker, [&] {
      Json step = Step("baseline");
      return step["state"] == "running" && step["attempts"].back()["worker"] == worker && step["progress"].is_object() && step["progress"].contains("epoch");
    });
  }
  void AwaitDone() {
    Until("the job is done", [&] { return Call("watch", {{"job", "last"}})["job"]["state"] == "done"; });
  }
  size_t CountBlobs() const {
    auto all = fs::recursive_directory_iterator(Path("store") + "/blobs");
    return static_cast<size_t>(std::count_if(fs::begin(all), fs::end(all), [](const auto& entry) { return entry.is_regular_file(); }));
  }
  std::string Total() { return Call("digest", {{"job", "last"}})["total"]; }
  // Of a run that nothing disturbs.
  std::string ReferenceTotal() {
    LetGo();
    StartCoordinator();
    auto worker = StartWorker("reference");
    Submit();
    AwaitDone();
    std::string total = Total();
    worker.reset();
    client_.reset();
    coordinator_.reset();
    fs::remove_all(Path("store"));
    Hold();
    return total;
  }

  static inline int count_ = 0;
  fs::path directory_;
  std::unique_ptr<Process> coordinator_;
  std::unique_ptr<ClientTransport> client_;
  int64_t request_ = 0;
};

TEST_F(ControlPlaneTest, AStoppedWorkerThatWakesAfterItsLeaseExpiredChangesNothingAndIsCounted) {
  std::string reference = ReferenceTotal();
  StartCoordinator();
  auto zombie = StartWorker("zombie");
  Submit();
  AwaitBaselineOn("zombie");
  zombie->Signal(SIGSTOP);
  // Its runner goes on and ends the step: a blob and a manifest.
  size_t before_the_end = CountBlobs();
  LetGo();
  Until("the runner of the stopped worker ends the step", [&] { return CountBlobs() >= before_the_end + 2; });
  Until("the lease expires", [&] { return Step("baseline")["attempts"].back()["outcome"] == "lost"; });
  auto heir = StartWorker("heir");
  AwaitDone();
  Json before = Call("describe", {{"job", "last"}});
  EXPECT_EQ(Call("ping")["counters"]["stale_refused"], 0);
  zombie->Signal(SIGCONT);
  Until("the late result is refused", [&] { return Call("ping")["counters"]["stale_refused"] > 0; });
  Json after = Call("describe", {{"job", "last"}});
  EXPECT_EQ(after["steps"], before["steps"]);
  EXPECT_EQ(Total(), reference);
  Json attempts = Step("baseline")["attempts"];
  ASSERT_EQ(attempts.size(), 2u);
  EXPECT_EQ(attempts[0]["error_class"], "worker_lost");
  EXPECT_EQ(attempts[1]["outcome"], "done");
  EXPECT_EQ(attempts[1]["worker"], "heir");
  // It is of use again.
  heir->Terminate(kLong);
  Until("the woken worker is back, alone", [&] { return Call("ping")["workers"] == 1; });
}

TEST_F(ControlPlaneTest, AWorkerThatIsTerminatedGivesItsStepBackWithASnapshotAndEnds) {
  std::string reference = ReferenceTotal();
  StartCoordinator();
  auto first = StartWorker("first");
  Submit();
  AwaitBaselineOn("first");
  first->Signal(SIGTERM);
  ASSERT_TRUE(first->Wait(kLong).has_value());
  EXPECT_EQ(first->code(), 0) << Log("first");
  Until("the lease is given back", [&] { return Step("baseline")["attempts"].back()["outcome"] == "released"; });
  EXPECT_EQ(Call("ping")["counters"]["leases_lost"], 0);
  auto second = StartWorker("second");
  AwaitBaselineOn("second");
  EXPECT_EQ(Step("baseline")["progress"]["resumed"], true) << "it goes on from the snapshot";
  LetGo();
  AwaitDone();
  EXPECT_EQ(Total(), reference);
}

TEST_F(ControlPlaneTest, ACoordinatorThatIsTerminatedAndStartedAgainLosesNoRunningStep) {
  std::string reference = ReferenceTotal();
  StartCoordinator();
  auto worker = StartWorker("worker");
  Submit();
  AwaitBaselineOn("worker");
  client_.reset();
  coordinator_->Signal(SIGTERM);
  ASSERT_TRUE(coordinator_->Wait(kLong).has_value());
  EXPECT_EQ(coordinator_->code(), 0);
  LetGo();  // the step ends while there is no coordinator
  StartCoordinator();
  AwaitDone();
  Json attempts = Step("baseline")["attempts"];
  ASSERT_EQ(attempts.size(), 1u) << attempts;
  EXPECT_EQ(attempts[0]["outcome"], "done");
  EXPECT_EQ(Call("ping")["counters"]["leases_lost"], 0);
  EXPECT_EQ(Total(), reference);
}

TEST_F(ControlPlaneTest, CoordinatorAndWorkerKilledTogetherGoOnFromTheSnapshot) {
  std::string reference = ReferenceTotal();
  StartCoordinator();
  auto worker = StartWorker("worker");
  Submit();
  AwaitBaselineOn("worker");
  client_.reset();
  worker->Signal(SIGKILL);
  coordinator_->Signal(SIGKILL);
  ASSERT_TRUE(worker->Wait(kLong).has_value());
  ASSERT_TRUE(coordinator_->Wait(kLong).has_value());
  StartCoordinator();
  auto next = StartWorker("next");
  AwaitBaselineOn("next");
  EXPECT_EQ(Step("baseline")["progress"]["resumed"], true);
  LetGo();
  AwaitDone();
  EXPECT_EQ(Step("baseline")["attempts"][0]["outcome"], "lost");
  EXPECT_EQ(Total(), reference);
}

}  // namespace
}  // namespace pare
