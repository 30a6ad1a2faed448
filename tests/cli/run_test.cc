// Jobs while they run: interrupted, watched, changed, with workers that die.
#include <gmock/gmock.h>
#include <signal.h>

#include <filesystem>
#include <set>

#include "tests/cli/fixture.h"

namespace pare::cli {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int kManyEpochs = 600;  // of the small data: seconds, not minutes

class RunTest : public CliTest {
 protected:
  void SetUp() override {
    CliTest::SetUp();
    if (!RunnerIsBuilt()) GTEST_SKIP() << "needs pare-runner (libtorch)";
    WriteData();
    WriteRecipe("small.yaml");
    WriteRecipe("long.yaml", {.name = "long", .epochs = kManyEpochs});
  }
  Json StepOf(const std::string& store, const std::string& name) const {
    Json job = Parsed(Pare({"describe", "last", "--json"}, store).out);
    for (const Json& step : job.value("steps", Json::array())) {
      if (step["name"] == name) return step;
    }
    return Json::object();
  }
  void WaitForProgress(const std::string& store, const std::string& step) const {
    WaitUntil(step + " is halfway", [&] {
      if (!std::filesystem::exists(store + "/index.db")) return false;
      Json found = StepOf(store, step);
      return found.value("state", "") == "done" || found.value("progress", Json()).is_object();
    });
  }
};

TEST_F(RunTest, InterruptPausesAndTheSameCommandResumes) {
  std::vector<std::string> command = {"pare", "run", Path("long.yaml"), "--workers", "1", "--store", Path("store")};
  Started first = Start(command);
  WaitForProgress(Path("store"), "baseline");
  first.process->Signal(SIGINT);
  Outcome paused = first.Finish();
  EXPECT_EQ(paused.code, 130) << paused.err;
  EXPECT_THAT(paused.err, AllOf(HasSubstr("pare: pausing"), HasSubstr("is paused; the same command resumes it\n")));
  EXPECT_EQ(paused.out, "");
  EXPECT_EQ(Ask({"list"}, Path("store"))[0]["state"], "paused");

  Outcome resumed = Run(command);
  EXPECT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_THAT(resumed.err, HasSubstr("long (resumed)"));
  EXPECT_EQ(Ask({"list"}, Path("store")).size(), 1u) << "the same job went on";
  EXPECT_EQ(StepOf(Path("store"), "baseline")["attempts"][0]["outcome"], "released");

  Run({"pare", "run", Path("long.yaml"), "--workers", "2", "--store", Path("other")});
  EXPECT_EQ(Pare({"digest"}, Path("store")).out, Pare({"digest"}, Path("other")).out);
}

TEST_F(RunTest, PlainLinesTellEachCandidateWhereThereIsNoTerminal) {
  Outcome outcome = Pare({"run", "small.yaml", "--workers", "1"}, Path("store"));
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("one-shot/02-retrain   "), HasSubstr("  accuracy "), HasSubstr("  sparsity 79.96 %"), Not(HasSubstr("\x1b["))));
  EXPECT_THAT(outcome.out, HasSubstr("promoted "));
}

TEST_F(RunTest, ChangingAVariantRunsItsNewStepsAndThePlanSaysWhich) {
  ASSERT_EQ(Pare({"run", "small.yaml", "--workers", "1"}, Path("store")).code, 0);
  WriteRecipe("changed.yaml", {.iterative = "0.4"});
  std::set<std::string> planned, ran;
  Json plan = Ask({"plan", "changed.yaml"}, Path("store"));
  for (const Json& step : plan["steps"]) {
    if (step["state"] != "to run") continue;
    planned.insert(step["name"]);
    EXPECT_TRUE(step["variant"] == "iterative" || step["kind"] == "promote") << step.dump();
  }
  EXPECT_EQ(plan["to_run"], planned.size());
  EXPECT_EQ(planned.count("iterative/01-prune"), 1u);
  Json report = Ask({"run", "changed.yaml", "--workers", "2"}, Path("store"));
  EXPECT_EQ(report["work"]["steps_run"], planned.size());
  Json job = Ask({"describe"}, Path("store"));
  for (const Json& step : job["steps"]) {
    if (!step["reused"].get<bool>()) ran.insert(step["name"]);
  }
  EXPECT_EQ(ran, planned);
  EXPECT_EQ(Ask({"plan", "changed.yaml"}, Path("store"))["to_run"], 0);
}

// The baseline is collected and a new variant reads it; what is kept, or read by nothing new, is not made again.
TEST_F(RunTest, AfterACollectionThePlanSaysWhatIsMadeAgain) {
  constexpr const char* kKeep = "keep: {policy: promoted, pinned: [\"one-shot/*\"]}\n";
  WriteRecipe("kept.yaml", {.more = kKeep});
  WriteRecipe("changed.yaml", {.iterative = "0.4", .more = kKeep});
  ASSERT_EQ(Pare({"run", "kept.yaml", "--workers", "1"}, Path("store")).code, 0);
  std::string digest = Pare({"digest"}, Path("store")).out;
  EXPECT_GE(Ask({"gc", "--min-age", "0"}, Path("store"))["removed_blobs"], 3);
  EXPECT_EQ(Pare({"fsck"}, Path("store")).code, 0);
  EXPECT_EQ(Ask({"plan", "kept.yaml"}, Path("store"))["to_run"], 0);

  std::set<std::string> planned, ran;
  Json plan = Ask({"plan", "changed.yaml"}, Path("store"));
  for (const Json& step : plan["steps"]) {
    if (step["state"] == "to run") planned.insert(step["name"]);
  }
  EXPECT_EQ(planned.count("baseline"), 1u);
  EXPECT_EQ(planned.count("one-shot/01-prune"), 0u);
  EXPECT_EQ(Ask({"run", "changed.yaml", "--workers", "1"}, Path("store"))["work"]["steps_run"], planned.size());
  Json job = Ask({"describe"}, Path("store"));
  for (const Json& step : job["steps"]) {
    if (!step["reused"].get<bool>()) ran.insert(step["name"]);
  }
  EXPECT_EQ(ran, planned);
  EXPECT_EQ(Pare({"run", "kept.yaml", "--workers", "1"}, Path("store")).code, 0);
  EXPECT_EQ(Pare({"digest"}, Path("store")).out, digest);
}

TEST_F(RunTest, DescribeShowsTheAttemptOfALostWorker) {
  std::string endpoint;
  Started coordinator = StartCoordinator(Path("store"), &endpoint);
  Started first = Start({"pare-worker", "--coordinator", endpoint, "--name", "first"});
  Started submit = Start({"pare", "submit", Path("long.yaml"), "--wait", "--coordinator", endpoint});
  WaitForProgress(Path("store"), "baseline");
  first.process->Signal(SIGKILL);
  Started second = Start({"pare-worker", "--coordinator", endpoint, "--name", "second"});
  EXPECT_EQ(submit.Finish().code, 0);
  Json lost = StepOf(Path("store"), "baseline")["attempts"][0];
  EXPECT_EQ(lost["worker"], "first");
  EXPECT_EQ(lost["outcome"], "lost");
  EXPECT_EQ(lost["error_class"], "worker_lost");
  EXPECT_THAT(Pare({"describe"}, Path("store")).out, HasSubstr("\nattempts that did not finish:\n  baseline, attempt 1 on first: lost (worker_lost: "));
}

TEST_F(RunTest, WatchEndsWithTheJobAndItsReport) {
  std::string endpoint;
  Started coordinator = StartCoordinator(Path("store"), &endpoint);
  ASSERT_EQ(Run({"pare", "submit", Path("small.yaml"), "--coordinator", endpoint}).code, 0);
  Started watch = Start({"pare", "watch", "last", "--coordinator", endpoint});
  Started logs = Start({"pare", "logs", "last", "-f", "--json", "--coordinator", endpoint});
  EXPECT_THAT(Pare({"why", "init"}, Path("store")).out, HasSubstr("no worker is connected"));
  Started worker = StartWorker(endpoint);
  Outcome watched = watch.Finish();
  EXPECT_EQ(watched.code, 0);
  EXPECT_EQ(watched.out, Pare({"report"}, Path("store")).out);
  Outcome followed = logs.Finish();
  EXPECT_EQ(followed.code, 0);
  EXPECT_THAT(followed.out, HasSubstr("\"text\":\"done\"}\n")) << "to the end";
}

TEST_F(RunTest, WatchIsInterruptedAndTheJobGoesOn) {
  std::string endpoint;
  Started coordinator = StartCoordinator(Path("store"), &endpoint);
  ASSERT_EQ(Run({"pare", "submit", Path("small.yaml"), "--coordinator", endpoint}).code, 0);
  Started watch = Start({"pare", "watch", "last", "--coordinator", endpoint});
  Started worker = Start({"pare-worker", "--coordinator", endpoint});
  WaitUntil("somebody has told of progress", [&] { return !watch.err().empty() || watch.process->Ended(); });
  watch.process->Signal(SIGINT);
  Outcome outcome = watch.Finish();
  if (outcome.code != 0) {  // 0: the job was faster
    EXPECT_EQ(outcome.code, 130);
    EXPECT_THAT(outcome.err, HasSubstr("the job goes on; follow it again with: pare watch last"));
  }
  EXPECT_EQ(Run({"pare", "watch", "last", "--coordinator", endpoint}).code, 0);
}

}  // namespace
}  // namespace pare::cli
