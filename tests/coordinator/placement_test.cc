// Who gets what, who is there, and what a restart keeps.
#include <gmock/gmock.h>

#include "tests/coordinator/harness.h"

namespace pare::coordinator {
namespace {

using testing::HasSubstr;

const std::vector<PlanLine> kOne = {{.name = "a", .candidate = true}};

TEST(PlacementTest, PrefersTheWorkerThatHoldsTheInputs) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("job", {{.name = "x", .cost = 9}, {.name = "x2", .inputs = {"x"}, .candidate = true, .cost = 9}});
  h.Finish("w1");  // w1 holds x and runs x2
  h.Release("w1");
  h.Join("a0");    // first by name, holds nothing; x2 went to it while w1 seems to be draining
  EXPECT_EQ(h.WorkerOf("x2"), "a0");
  h.Release("a0");
  h.Pass(Millis(1'500));  // both are idle again
  EXPECT_EQ(h.WorkerOf("x2"), "w1");
  EXPECT_THAT(h.StepNamed("x2").hold->reason, HasSubstr("holds 1 of its 1 input"));
}

TEST(PlacementTest, ServesTheLongestRemainingChainFirst) {
  Harness h;
  h.SubmitPlan("job", {{.name = "base", .variant = ""},
                       {.name = "a-short", .inputs = {"base"}, .candidate = true, .cost = 5},
                       {.name = "z1", .inputs = {"base"}, .cost = 3},
                       {.name = "z2", .inputs = {"z1"}, .candidate = true, .cost = 3}});
  h.Join("w1");
  h.Finish("w1");
  EXPECT_EQ(h.WorkerOf("z1"), "w1");
  EXPECT_THAT(std::get<NotNow>(Explain(h.core->state(), h.StepNamed("a-short"), {h.clock.Monotonic(), h.clock.Wall()})).reason,
              HasSubstr("all 1 worker with device cpu are busy"));
}

TEST(PlacementTest, ServesPriorityThenAge) {
  Harness h;
  h.SubmitPlan("old", {{.name = "o", .candidate = true, .cost = 1}});
  h.SubmitPlan("new", {{.name = "n", .candidate = true, .cost = 100}});
  h.SubmitPlan("urgent", {{.name = "u", .candidate = true}}, true, 5);
  h.Join("w1");
  EXPECT_EQ(h.NameGranted("w1"), "u");
  h.Finish("w1");
  EXPECT_EQ(h.NameGranted("w1"), "o");
  h.Finish("w1");
  EXPECT_EQ(h.NameGranted("w1"), "n");
}

// Users' steps a1, a2, … and b1, b2, … without inputs.
std::vector<PlanLine> Many(const std::string& prefix, int count) {
  std::vector<PlanLine> plan;
  for (int i = 1; i <= count; ++i) plan.push_back({.name = prefix + std::to_string(i), .candidate = true});
  return plan;
}

TEST(FairShareTest, UsersOfOnePriorityHoldEquallyManyWorkers) {
  Harness h;
  h.SubmitPlanAs("ann", "a", Many("a", 9));
  h.SubmitPlanAs("bob", "b", Many("b", 9));
  for (const char* worker : {"w1", "w2", "w3", "w4"}) h.Join(worker);
  int anns = 0;
  for (const char* worker : {"w1", "w2", "w3", "w4"}) anns += h.NameGranted(worker)[0] == 'a';
  EXPECT_EQ(anns, 2);
  h.FinishAfter("w1", Millis(1'000));  // of ann: bob holds two, she holds one
  EXPECT_EQ(h.NameGranted("w1")[0], 'a');
}

TEST(FairShareTest, OnOneWorkerUsersTakeTurnsByTimeUsed) {
  Harness h;
  h.Join("w1");
  h.SubmitPlanAs("ann", "a", Many("a", 9));
  h.SubmitPlanAs("bob", "b", Many("b", 9));
  std::string order;
  for (int i = 0; i < 8; ++i) {
    char user = h.NameGranted("w1")[0];
    order += user;
    h.FinishAfter("w1", user == 'a' ? Millis(2'000) : Millis(1'000));  // ann's steps take twice as long
  }
  EXPECT_EQ(order, "abbbabba");  // her first step began 1 ms before bob came
}

TEST(FairShareTest, WhoComesLateStartsEqualAndDoesNotCatchUp) {
  Harness h;
  h.Join("w1");
  h.SubmitPlanAs("ann", "a", Many("a", 20));
  for (int i = 0; i < 10; ++i) h.FinishAfter("w1", Millis(1'000));
  h.SubmitPlanAs("bob", "b", Many("b", 9));
  std::string order;
  for (int i = 0; i < 6; ++i) {
    order += h.NameGranted("w1")[0];
    h.FinishAfter("w1", Millis(1'000));
  }
  EXPECT_EQ(std::count(order.begin(), order.end(), 'b'), 3) << order;
}

TEST(FairShareTest, PriorityComesBeforeShares) {
  Harness h;
  h.Join("w1");
  h.SubmitPlanAs("ann", "a", Many("a", 3));
  h.SubmitPlanAs("bob", "b", Many("b", 3), 7);
  std::string order;
  for (int i = 0; i < 6; ++i) {
    order += h.NameGranted("w1")[0];
    h.FinishAfter("w1", Millis(1'000));
  }
  EXPECT_EQ(order, "abbbaa");  // the first was granted before the other came
}

TEST(FairShareTest, WhySaysThatUsersTakeTurns) {
  Harness h;
  h.Join("w1");
  h.SubmitPlanAs("ann", "a", Many("a", 4));
  h.SubmitPlanAs("bob", "b", Many("b", 4));
  std::string reason = std::get<NotNow>(Explain(h.core->state(), h.StepNamed("b2"), {h.clock.Monotonic(), h.clock.Wall()})).reason;
  EXPECT_EQ(reason, "all 1 worker with device cpu are busy; 1 ready step before it; 2 users take turns");
}

TEST(PlacementTest, SaysWhyAStepCannotRun) {
  Harness h;
  h.SubmitPlan("job", {{.name = "a"}, {.name = "b", .inputs = {"a"}, .candidate = true}});
  Now now{h.clock.Monotonic(), h.clock.Wall()};
  EXPECT_THAT(std::get<NotNow>(Explain(h.core->state(), h.StepNamed("a"), now)).reason, HasSubstr("no worker is connected"));
  NotNow wait = std::get<NotNow>(Explain(h.core->state(), h.StepNamed("b"), now));
  EXPECT_EQ(wait.waiting_for, std::vector<std::string>{"a"});
  h.Join("gpu", {}, "cuda:0");
  EXPECT_THAT(std::get<Infeasible>(Explain(h.core->state(), h.StepNamed("a"), now)).reason, HasSubstr("device cpu"));
}

TEST(WorkerTest, AnotherVersionIsRefused) {
  Harness h;
  Actions actions = h.Do(FromAgent{"w1", Hello{"w1", "0.0.1", "here", "cpu", 1, {}, {}}});
  ASSERT_NE(LastSent<Refused>(actions.sends, "w1"), nullptr);
  EXPECT_EQ(LastSent<Refused>(actions.sends, "w1")->code, "version");
  EXPECT_TRUE(h.core->state().workers.empty());
}

TEST(WorkerTest, ANameInUseByALivingWorkerIsRefusedUntilThatOneIsSilent) {
  Harness h;
  h.Join("w1");
  Hello hello{"w1", std::string(kPareVersion), "here", "cpu", 1, {}, {}};
  EXPECT_EQ(LastSent<Refused>(h.Do(FromAgent{"another connection", hello}).sends, "another connection")->code, "conflict");
  h.Silence("w1");
  h.Pass(Millis(1'500));
  EXPECT_NE(LastSent<Welcome>(h.Do(FromAgent{"another connection", hello}).sends, "another connection"), nullptr);
}

TEST(WorkerTest, AStrangerIsAskedToSayHello) {
  Harness h;
  Actions actions = h.Do(FromAgent{"p", Heartbeat{"w9", {}, {}}});
  EXPECT_EQ(LastSent<Refused>(actions.sends, "p")->code, "not_found");
}

TEST(WorkerTest, GoodbyeAndADeadProcessGiveStepsBackAtOnce) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("job", kOne);
  h.Join("w2");
  h.Do(WorkerGone{"w1", "worker w1 has ended"});
  h.Silence("w1");
  h.Tick();
  EXPECT_EQ(h.WorkerOf("a"), "w2");
  h.Release("w2");
  h.Silence("w2");
  h.FromWorker("w2", Goodbye{"w2"});
  EXPECT_TRUE(h.core->state().workers.empty());
  EXPECT_EQ(h.StateOf("a"), "ready");
}

TEST(WorkerTest, AGrantThatNeverArrivedIsGivenAgain) {
  Harness h;
  h.Join("w1");
  h.Silence("w1");
  h.SubmitPlan("job", kOne);
  Lease lost = h.Granted("w1").lease;
  for (int i = 0; i < 24; ++i) {  // it lives, but knows nothing of the grant
    h.clock.Advance(Millis(250));
    h.FromWorker("w1", Heartbeat{"w1", {}, {}});
    h.Tick();
  }
  EXPECT_GT(h.Granted("w1").lease.epoch, lost.epoch);
  EXPECT_THAT(h.StepNamed("a").attempts()[0].message, HasSubstr("worker w1 did not get the step"));
  EXPECT_EQ(h.StepNamed("a").failures, 0);
}

TEST(WorkerTest, NobodyLosesALeaseForAnAbsenceOfTheCoordinatorItself) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("job", kOne);
  Lease lease = h.Granted("w1").lease;
  h.clock.Advance(Millis(60'000));  // stopped, or the machine slept
  h.Tick();
  EXPECT_EQ(h.StateOf("a"), "running");
  h.Pass(Millis(6'000));
  EXPECT_EQ(h.StepNamed("a").hold->epoch, lease.epoch);
}

TEST(RestartTest, RunningStepsAreKeptForTheirWorkers) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("job", kOne);
  Lease lease = h.Granted("w1").lease;
  h.Restart();
  EXPECT_EQ(h.StateOf("a"), "running");
  h.sent.clear();
  h.Pass(Millis(1'000));  // heartbeats of a worker it does not know: asked for a Hello, the lease lives
  EXPECT_EQ(LastSent<Refused>(h.sent, "w1")->code, "not_found");
  h.Join("w1", {lease});
  EXPECT_TRUE(LastSent<Welcome>(h.sent, "w1")->drop.empty());
  h.Pass(Millis(6'000));
  EXPECT_EQ(h.StepNamed("a").hold->epoch, lease.epoch);
  h.Finish("w1");
  EXPECT_EQ(h.JobNamed().state, JobState::kDone);
  EXPECT_EQ(h.StepNamed("a").attempts().size(), 1u);
}

// It was sent before the grant arrived, and came after the restart.
TEST(RestartTest, ALateHelloDoesNotMakeTheWorkerIdle) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("job", {{.name = "a"}, {.name = "b"}});
  Lease lease = h.Granted("w1").lease;
  h.Restart();
  h.sent.clear();
  h.Join("w1");
  EXPECT_EQ(LastSent<Grant>(h.sent, "w1"), nullptr);
  h.Join("w1", {lease});
  EXPECT_EQ(LastSent<Grant>(h.sent, "w1"), nullptr);
  EXPECT_TRUE(LastSent<Welcome>(h.sent, "w1")->drop.empty());
  h.Finish("w1");
  ASSERT_NE(LastSent<Grant>(h.sent, "w1"), nullptr);
  h.Finish("w1");
  EXPECT_EQ(h.JobNamed().state, JobState::kDone);
  for (const char* name : {"a", "b"}) EXPECT_EQ(h.StepNamed(name).attempts().size(), 1u);
}

TEST(RestartTest, AWorkerThatDoesNotComeBackLosesItsLeaseAndEpochsGoOn) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("job", kOne);
  Lease lease = h.Granted("w1").lease;
  h.FromWorker("w1", SnapshotTaken{lease, 1, DigestOf("s"), {{"epoch", 1}}});
  h.Silence("w1");
  h.Restart();
  h.Join("w2");
  h.Pass(Millis(5'500));
  EXPECT_GT(h.Granted("w2").lease.epoch, lease.epoch);
  EXPECT_EQ(worker::AssignmentFromText(h.Granted("w2").assignment)->snapshot, DigestOf("s"));
  // The zombie comes back and is told to drop it.
  h.Join("w1", {lease});
  EXPECT_EQ(LastSent<Welcome>(h.sent, "w1")->drop, std::vector<Lease>{lease});
}

TEST(RestartTest, ManyJobsArePlannedTurnByTurnInTheOrderOfServiceAndEndAlike) {
  auto run = [](bool restart) {
    Harness h(Config{.planned_at_once = 1});
    std::string text;
    for (std::string name : {"x", "y", "z"}) {
      h.SubmitPlan(name, {{.name = name + "1"}, {.name = name + "2", .inputs = {name + "1"}, .candidate = true}}, true, name == "z" ? 5 : 0);
    }
    if (restart) h.Restart();
    auto waiting = [&] {
      std::string names;
      for (const auto& [id, job] : h.core->state().jobs) {
        if (job.planned) continue;
        names += job.name;
        auto reason = std::get<NotNow>(Explain(h.core->state(), *h.core->state().FindStep(job.steps[0].key), {h.clock.Monotonic(), h.clock.Wall()})).reason;
        EXPECT_THAT(reason, testing::HasSubstr("has not come to its job yet"));
      }
      std::sort(names.begin(), names.end());
      return names;
    };
    EXPECT_EQ(waiting(), restart ? "xy" : "");
    if (restart) {
      EXPECT_LE(h.core->NextDeadline(), h.clock.Monotonic());
    }
    h.Join("w1");
    std::vector<std::string> served;
    for (served.push_back(h.NameGranted("w1")); h.HasGrant("w1");) {
      h.Finish("w1");
      if (h.HasGrant("w1")) served.push_back(h.NameGranted("w1"));
    }
    EXPECT_EQ(waiting(), "");
    for (const auto& [id, job] : h.core->state().jobs) EXPECT_EQ(job.state, JobState::kDone) << job.name;
    return served;
  };
  EXPECT_EQ(run(true), run(false));
}

TEST(RestartTest, MidRunEqualsUninterrupted) {
  const std::vector<PlanLine> plan = {{.name = "base", .variant = ""},
                                      {.name = "x1", .variant = "x", .inputs = {"base"}},
                                      {.name = "x2", .variant = "x", .inputs = {"x1"}, .candidate = true},
                                      {.name = "y1", .variant = "y", .inputs = {"base"}, .candidate = true},
                                      {.name = "promote", .kind = "promote", .variant = "", .inputs = {"x2", "y1"}, .local = true}};
  auto run = [&](int restart_after) {
    Harness h;
    h.Join("w1");
    h.SubmitPlan("job", plan);
    for (int finished = 0; h.HasGrant("w1"); ++finished) {
      if (finished == restart_after) {
        Lease lease = h.Granted("w1").lease;
        h.Restart();
        h.Join("w1", {lease});
      }
      h.Finish("w1");
    }
    std::string result(ToString(h.JobNamed().state));
    for (uint32_t at : h.JobNamed().by_name) {
      std::string name = h.JobNamed().steps[at].name;
      result += " " + name + ":" + h.StepNamed(name).artifact.hex();
    }
    const Model& model = h.core->state().models.at("model");
    result += " versions:" + std::to_string(model.versions.size()) + " champion:" + model.Alias("champion")->artifact.hex();
    return result;
  };
  std::string uninterrupted = run(-1);
  EXPECT_THAT(uninterrupted, testing::StartsWith("done"));
  for (int after = 0; after < 4; ++after) EXPECT_EQ(run(after), uninterrupted) << after;
}

TEST(RestartTest, FailedAndPausedStayWhatTheyWere) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("failing", kOne);
  h.Abort("w1", "bad_input", "why");
  h.SubmitPlan("paused", {{.name = "z", .candidate = true}});
  h.Change(ChangeJob::What::kPause);
  h.Release("w1", "s");
  h.Restart();
  h.Join("w1");
  h.Pass(Millis(2'000));
  EXPECT_EQ(h.JobNamed().state, JobState::kPaused);
  EXPECT_EQ(h.StateOf("z"), "ready");
  EXPECT_FALSE(h.HasGrant("w1"));
  h.Change(ChangeJob::What::kResume);
  EXPECT_TRUE(h.HasGrant("w1"));
}

}  // namespace
}  // namespace pare::coordinator
