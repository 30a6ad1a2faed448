// When jobs are planned again, and what of their plans stays in memory.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "tests/coordinator/harness.h"

namespace pare::coordinator {
namespace {

const std::vector<PlanLine> kTree = {{"root"}, {"left", "train", "l", {"root"}}, {"right", "train", "r", {"root"}}, {"leaf", "train", "l", {"left"}}};

// A core that counts how often it plans; the steps of the plans above are all wanted from the beginning.
std::unique_ptr<Scheduler> CountingCore(int* plans, bool waits_for_all) {
  Planner planner = TestPlanner();
  planner.next = [plans, next = planner.next](const recipes::ResolvedRecipe& recipe, const recipes::Outcomes& outcomes) {
    ++*plans;
    return next(recipe, outcomes);
  };
  planner.waits_for_all = waits_for_all;
  return std::make_unique<Scheduler>(Config(), Site{"/store", "host", ""}, std::move(planner));
}

size_t RecipesIn(const State& state) {
  return static_cast<size_t>(std::count_if(state.jobs.begin(), state.jobs.end(), [](const auto& job) { return job.second.recipe.has_value(); }));
}

TEST(PlanningTest, AJobIsPlannedAgainOnlyWhenItsLastStepEnded) {
  int plans = 0;
  Harness h;
  h.core = CountingCore(&plans, true);
  h.Join("w1");
  h.SubmitPlan("job", kTree);
  h.Tick();
  int before = plans;
  for (int i = 0; i < 3; ++i) {
    h.Finish("w1");
    h.Tick();
  }
  EXPECT_EQ(plans, before);
  h.Finish("w1");
  h.Tick();
  EXPECT_EQ(plans, before + 1);
  EXPECT_EQ(h.JobNamed().state, JobState::kDone);
}

TEST(PlanningTest, AJobIsPlannedAgainWhenAStepFailed) {
  int plans = 0;
  Harness h;
  h.core = CountingCore(&plans, true);
  h.Join("w1");
  h.SubmitPlan("job", kTree);
  h.Finish("w1");
  h.Tick();
  int before = plans;
  h.Abort("w1", "diverged");
  h.Tick();
  EXPECT_GT(plans, before);
}

TEST(PlanningTest, PlanningLessOftenDecidesTheSame) {
  auto history = [](bool waits_for_all) {
    int plans = 0;
    Harness h;
    h.core = CountingCore(&plans, waits_for_all);
    h.Join("w1");
    h.Join("w2");
    h.SubmitPlan("first", kTree);
    h.SubmitPlan("second", {{"root"}, {"other", "train", "o", {"root"}}, {"late", "train", "o", {"other"}}});
    for (int turn = 0; turn < 12; ++turn) {
      std::string worker = turn % 2 == 0 ? "w1" : "w2";
      if (h.HasGrant(worker)) turn == 3 ? h.Abort(worker, "diverged") : h.Finish(worker);
      h.Tick();
    }
    return h.history;
  };
  EXPECT_EQ(history(true), history(false));
}

TEST(PlanningTest, RecipesInMemoryAreLimitedAndJobsWithoutOneGoOn) {
  constexpr size_t kJobs = kMaxRecipesInMemory + 6;
  int plans = 0;
  Harness h;
  h.core = CountingCore(&plans, true);
  for (size_t i = 0; i < kJobs; ++i) {
    std::string name = "step" + std::to_string(i);
    h.SubmitPlan("job" + std::to_string(i), {{name}, {name + "-after", "train", "v", {name}}});
  }
  EXPECT_EQ(RecipesIn(h.core->state()), kMaxRecipesInMemory);
  h.Join("w1");
  h.Tick();
  for (size_t i = 0; i < 2 * kJobs; ++i) {
    h.Finish("w1");
    h.Tick();
  }
  for (const auto& [id, job] : h.core->state().jobs) EXPECT_EQ(job.state, JobState::kDone) << id;
  EXPECT_EQ(RecipesIn(h.core->state()), 0u);
}

}  // namespace
}  // namespace pare::coordinator
