// Random events: a restart after any of them gives back the same state, what must hold always holds, and in the end every
// job ends.
#include <gtest/gtest.h>

#include <set>

#include "tests/coordinator/random_world.h"

namespace pare::coordinator {
namespace {

// Seeds are small numbers so that a failure names its own.
class RandomTest : public testing::TestWithParam<int> {};

// What must hold between any two turns.
void ExpectSound(const State& state) {
  std::map<std::string, int> held;
  std::map<size_t, int64_t> shares;
  for (const auto& [key, step] : state.steps) {
    EXPECT_EQ(step.state == StepState::kRunning, step.hold.has_value());
    EXPECT_EQ(state.running.count(key) == 1, step.hold.has_value());
    EXPECT_EQ(step.state == StepState::kDone, !step.artifact.is_none());
    EXPECT_EQ(state.artifacts.count(step.artifact), step.state == StepState::kDone ? 1u : 0u);
    int running = 0;
    for (const storage::AttemptRow& attempt : step.attempts()) running += attempt.outcome == "running";
    EXPECT_EQ(running, step.hold ? 1 : 0);
    for (const std::string& id : step.wanted_by) EXPECT_FALSE(state.jobs.at(id).finished());
    if (step.hold) ++shares[step.hold->share];
    if (step.state == StepState::kReady) {
      for (const auto& [role, input] : step.inputs) EXPECT_EQ(state.steps.at(input).state, StepState::kDone);
    }
  }
  for (size_t i = 0; i < state.shares.size(); ++i) {
    EXPECT_EQ(state.shares[i].held, shares[i]) << state.shares[i].user;
    int64_t jobs = 0;
    for (const auto& [id, job] : state.jobs) jobs += !job.finished() && job.user == state.shares[i].user;
    EXPECT_EQ(state.shares[i].jobs, jobs) << state.shares[i].user;
  }
  for (const auto& [name, worker] : state.workers) {
    bool idle = state.idle.at("cpu").count(name) == 1;
    bool resting = state.resting.count({worker.not_before, name}) == 1;
    EXPECT_EQ(idle, !worker.lease && !resting) << name;
  }
}

TEST_P(RandomTest, ARestartAfterAnyTurnGivesBackTheSameState) {
  RandomWorld world(static_cast<uint64_t>(GetParam()));
  for (int turn = 0; turn < 150 && !HasFailure(); ++turn) {
    world.Turn();
    ASSERT_EQ(DurableTextOf(world.Loaded()->state()), DurableTextOf(world.state())) << "turn " << turn;
    ExpectSound(world.state());
  }
}

TEST_P(RandomTest, RestartsOnTheWayDoNotHarm) {
  RandomWorld world(static_cast<uint64_t>(GetParam()));
  for (int turn = 0; turn < 300 && !HasFailure(); ++turn) {
    world.Turn();
    if (turn % 13 == GetParam() % 13) world.Restart();
    ExpectSound(world.state());
  }
  world.Settle(600);
  for (const auto& [id, job] : world.state().jobs) EXPECT_TRUE(job.finished()) << id << " " << job.message;
  std::set<Lease> once;
  for (const Lease& lease : world.finished) once.insert(lease);
  for (const auto& [key, step] : world.state().steps) {
    for (const storage::AttemptRow& attempt : step.attempts()) {
      // What was acknowledged as finished is, for ever.
      EXPECT_TRUE(attempt.outcome == "done" || once.count({key, attempt.epoch}) == 0);
    }
  }
}

TEST_P(RandomTest, TheSameSeedGivesTheSameHistory) {
  auto run = [] {
    RandomWorld world(static_cast<uint64_t>(GetParam()));
    for (int turn = 0; turn < 100; ++turn) world.Turn();
    return world.history;
  };
  EXPECT_EQ(run(), run());
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomTest, testing::Range(1, 11));

}  // namespace
}  // namespace pare::coordinator
