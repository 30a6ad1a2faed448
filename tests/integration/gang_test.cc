// Several workers run a training step together: real processes, the digest of one worker alone, also when they are killed.
#include <gmock/gmock.h>
#include <signal.h>

#include "tests/cli/fixture.h"

namespace pare::cli {
namespace {

// Every way of training, and nothing that could run beside the dense baseline: dense, gradual pruning, retraining under a mask (which exchanges what is left), distillation.
constexpr const char* kRecipe = R"(model: {architecture: mlp, hidden: [64, 32]}
train: {epochs: 600, batch_size: 32, shards: 4, optimizer: adam, learning_rate: 0.002}
goal: {max_accuracy_drop: 100.0, minimize: bytes}
snapshot: {every_epochs: 1}
variants:
  gradual: [{prune: {schedule: cubic, final_sparsity: 0.8, epochs: 20, end_epoch: 10}}]
  masked: [{prune: {sparsity: 0.9}}, {retrain: {epochs: 20}}]
  taught: [{prune: {sparsity: 0.5}}, {distill: {teacher: baseline, epochs: 20}}]
promote: {as: together}
)";

class GangTest : public CliTest {
 protected:
  void SetUp() override {
    CliTest::SetUp();
    WriteData();
    std::string start = "version: 1\nname: together\nseed: 1\n" + std::string(kSmallData);
    Write("alone.yaml", start + kRecipe);
    Write("gang.yaml", start + "gang: 3\n" + kRecipe);
    if (!expected_.empty()) return;
    Outcome alone = Pare({"run", "alone.yaml", "--workers", "1"}, Path("alone"));
    ASSERT_EQ(alone.code, 0) << alone.err << alone.out;
    expected_ = Pare({"digest"}, Path("alone")).out;
    ASSERT_NE(expected_.find("total "), std::string::npos);
  }
  // How many attempts of the last job gangs of at least this size made, and the outcomes of those.
  static int Gangs(const Json& job, size_t size, const std::string& outcome = "") {
    int found = 0;
    for (const Json& step : job["steps"]) {
      for (const Json& attempt : step["attempts"]) found += attempt["workers"].size() >= size && (outcome.empty() || attempt["outcome"] == outcome);
    }
    return found;
  }
  Json Describe(const std::string& endpoint) { return Parsed(Run({"pare", "describe", "last", "--json", "--coordinator", endpoint}).out); }
  Started WorkerAt(const std::string& endpoint, int number) {
    return Start({"pare-worker", "--coordinator", endpoint, "--threads", "1", "--name", "worker-" + std::to_string(number)});
  }
  void ExpectTheSameBits(Started& submit, const std::string& endpoint) {
    Outcome outcome = submit.Finish();
    EXPECT_EQ(outcome.code, 0) << outcome.err << outcome.out;
    EXPECT_EQ(Run({"pare", "digest", "last", "--coordinator", endpoint}).out, expected_);
  }
  static std::string expected_;
};
std::string GangTest::expected_;

class RunningGangTest : public GangTest {
 protected:
  void SetUp() override {
    GangTest::SetUp();
    coordinator_ = StartCoordinator(Path("gang"), &endpoint_);
    for (int i = 0; i < 3; ++i) workers_.push_back(WorkerAt(endpoint_, i));
    for (Started& worker : workers_) {
      WaitUntil("a worker is there", [&] { return worker.err().find("runner ready") != std::string::npos; });
    }
    submit_ = Start({"pare", "submit", "gang.yaml", "--wait", "--coordinator", endpoint_});
    Json job;
    WaitUntil("a gang trains", [&] {
      job = Describe(endpoint_);
      EXPECT_NE(job.value("state", ""), "done") << job.dump(1);
      return job.contains("steps") && Gangs(job, 3, "running") > 0 && job["steps"].dump().find("samples_per_second") != std::string::npos;
    });
  }
  Started coordinator_, submit_;
  std::vector<Started> workers_;
  std::string endpoint_;
};

TEST_F(RunningGangTest, LeavesTheBitsOfOneWorker) {
  ExpectTheSameBits(submit_, endpoint_);
  Json job = Describe(endpoint_);
  EXPECT_GE(Gangs(job, 3, "done"), 1) << job.dump(1);
}

TEST_F(RunningGangTest, SurvivesTheKillOfAWorker) {
  workers_[1].process->Signal(SIGKILL);
  ExpectTheSameBits(submit_, endpoint_);
  Json job = Describe(endpoint_);
  EXPECT_GE(Gangs(job, 3, "lost") + Gangs(job, 3, "released"), 1) << job.dump(1);
}

TEST_F(RunningGangTest, AWorkerThatIsStoppedGivesTheStepBackForAllWithASnapshot) {
  workers_[2].process->Signal(SIGTERM);
  ExpectTheSameBits(submit_, endpoint_);
  Json job = Describe(endpoint_);
  EXPECT_GE(Gangs(job, 3, "released"), 1) << job.dump(1);
  EXPECT_EQ(Gangs(job, 1, "lost"), 0) << job.dump(1);
  EXPECT_THAT(Run({"pare", "logs", "last", "--coordinator", endpoint_}).out, testing::HasSubstr("given back with a snapshot"));
}

TEST_F(RunningGangTest, ARestartOfTheCoordinatorDisturbsNoGang) {
  coordinator_.process->Signal(SIGKILL);
  coordinator_.process->Wait(Millis(10'000));
  coordinator_ = Start({"pare-coordinator", "--store", Path("gang"), "--listen", endpoint_, "--lease-timeout-ms", "2000"});
  ExpectTheSameBits(submit_, endpoint_);
  Json job = Describe(endpoint_);
  EXPECT_EQ(Gangs(job, 1, "lost") + Gangs(job, 1, "released") + Gangs(job, 1, "failed"), 0) << job.dump(1);
  EXPECT_GE(Gangs(job, 3, "done"), 1) << job.dump(1);
}

}  // namespace
}  // namespace pare::cli
