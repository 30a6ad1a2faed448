#include "coordinator/scheduler.h"

#include <gmock/gmock.h>

#include "tests/coordinator/harness.h"

namespace pare::coordinator {
namespace {

using testing::Contains;
using testing::HasSubstr;

const std::vector<PlanLine> kOne = {{.name = "a", .candidate = true}};
const std::vector<PlanLine> kChain = {{.name = "a", .variant = ""}, {.name = "b", .inputs = {"a"}}, {.name = "c", .inputs = {"b"}, .candidate = true}};

TEST(SchedulerTest, GrantsAStepToAnIdleWorkerAfterItsAttemptIsARow) {
  Harness h;
  h.SubmitPlan("job", kOne);
  h.Do(FromAgent{"w1", Hello{"w1", std::string(kPareVersion), "here", "cpu", 1, {}, {}}});
  Actions actions = h.Tick();
  ASSERT_EQ(actions.sends.size(), 1u);
  const Grant& grant = std::get<Grant>(actions.sends[0].message);
  ASSERT_FALSE(actions.rows.empty());
  const auto& attempt = std::get<storage::AttemptRow>(actions.rows[0]);
  EXPECT_EQ(attempt.epoch, grant.lease.epoch);
  EXPECT_EQ(attempt.outcome, "running");
  auto assignment = worker::AssignmentFromText(grant.assignment);
  ASSERT_TRUE(assignment.ok()) << assignment.error().message;
  EXPECT_EQ(assignment->key, h.StepNamed("a").key);
}

TEST(SchedulerTest, RunsAChainInOrderAndPassesArtifactsOn) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("job", kChain);
  EXPECT_EQ(h.Granted("w1").lease.step, h.StepNamed("a").key);
  EXPECT_EQ(h.StateOf("b"), "waiting");
  h.Finish("w1");
  auto assignment = worker::AssignmentFromText(h.Granted("w1").assignment);
  ASSERT_TRUE(assignment.ok());
  EXPECT_EQ(assignment->key, h.StepNamed("b").key);
  EXPECT_EQ(assignment->inputs.at("0"), h.StepNamed("a").artifact);
  h.Finish("w1");
  h.Finish("w1");
  EXPECT_EQ(h.JobNamed().state, JobState::kDone);
}

TEST(SchedulerTest, AWorkerThatReportsIsNotSilent) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("job", kOne);
  Lease lease = h.Granted("w1").lease;
  h.Silence("w1");  // no heartbeats any more
  for (int64_t point = 1; point <= 10; ++point) {
    h.Pass(Millis(2'000));
    h.FromWorker("w1", Progress{lease, 0, {{point, {{"epoch", point}}}}});
  }
  EXPECT_EQ(h.core->state().workers.count("w1"), 1u);
  EXPECT_EQ(h.StepNamed("a").attempts().size(), 1u);
}

TEST(SchedulerTest, RequeuesStepWhenLeaseExpiresAndStartsFromItsSnapshot) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("job", kOne);
  Lease old = h.Granted("w1").lease;
  h.FromWorker("w1", SnapshotTaken{old, 1, DigestOf("snap"), {{"epoch", 2}, {"batch", 20}}});
  h.Silence("w1");
  h.Join("w2");
  h.Pass(Millis(4'750));
  EXPECT_FALSE(h.HasGrant("w2"));
  h.Pass(Millis(500));
  ASSERT_TRUE(h.HasGrant("w2"));
  EXPECT_GT(h.Granted("w2").lease.epoch, old.epoch);
  EXPECT_EQ(h.Granted("w2").attempt, 2);
  EXPECT_EQ(worker::AssignmentFromText(h.Granted("w2").assignment)->snapshot, DigestOf("snap"));
  EXPECT_EQ(h.StepNamed("a").attempts()[0].outcome, "lost");
  EXPECT_THAT(h.EventTexts(), Contains(HasSubstr("worker_lost: no word from worker w1")));
  EXPECT_THAT(h.EventTexts(), Contains("a: started on w2, attempt 2, from its snapshot in epoch 3, batch 21"));
}

TEST(SchedulerTest, RefusesAndCountsWhatAZombieReports) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("job", kOne);
  Lease old = h.Granted("w1").lease;
  h.Silence("w1");
  h.Join("w2");
  h.Pass(Millis(6'000));
  Json manifest = ManifestOf(old.step);
  h.sent.clear();
  for (const Message& message : std::vector<Message>{Progress{old, 0, {{1, {{"epoch", 1}}}}}, SnapshotTaken{old, 1, DigestOf("x"), {}},
                                                     StepFinished{old, ArtifactOf(manifest), manifest, 5}, StepAborted{old, "diverged", "", 0}, Released{old, {}, {}, 0}}) {
    Actions actions = h.FromWorker("w1", message);
    EXPECT_TRUE(actions.rows.empty()) << TypeOf(message);
    ASSERT_NE(LastSent<Stale>(actions.sends, "w1"), nullptr) << TypeOf(message);
  }
  EXPECT_EQ(h.core->state().counters.stale_refused, 5);
  EXPECT_EQ(h.StateOf("a"), "running");
  EXPECT_EQ(h.WorkerOf("a"), "w2");
}

TEST(SchedulerTest, AcknowledgesRepetitionsWithoutDoingThemTwice) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("job", {{.name = "a"}, {.name = "b", .inputs = {"a"}, .candidate = true}});
  Grant grant = h.Granted("w1");
  Progress progress{grant.lease, 0, {{1, {{"epoch", 1}}}, {2, {{"epoch", 2}}}}};
  EXPECT_EQ(h.FromWorker("w1", progress).rows.size(), 2u);
  Actions again = h.FromWorker("w1", progress);
  EXPECT_TRUE(again.rows.empty());
  EXPECT_EQ(LastSent<Ack>(again.sends, "w1")->sequence, 2);
  SnapshotTaken snapshot{grant.lease, 1, DigestOf("s"), {{"epoch", 1}}};
  EXPECT_EQ(h.FromWorker("w1", snapshot).rows.size(), 1u);
  EXPECT_TRUE(h.FromWorker("w1", snapshot).rows.empty());
  Json manifest = ManifestOf(grant.lease.step);
  StepFinished finished{grant.lease, ArtifactOf(manifest), manifest, 5};
  h.FromWorker("w1", finished);
  Actions repeated = h.FromWorker("w1", finished);
  EXPECT_TRUE(repeated.rows.empty());
  ASSERT_NE(LastSent<Ack>(repeated.sends, "w1"), nullptr);
  EXPECT_EQ(LastSent<Ack>(repeated.sends, "w1")->of, "step_finished");
  EXPECT_EQ(h.core->state().counters.duplicates, 1);
  EXPECT_EQ(h.core->state().counters.stale_refused, 0);
}

TEST(SchedulerTest, AnOlderSnapshotThatComesLateDoesNotReplaceANewerOne) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("job", kOne);
  Lease lease = h.Granted("w1").lease;
  h.FromWorker("w1", SnapshotTaken{lease, 2, DigestOf("second"), {{"epoch", 2}}});
  h.Restart();  // also not after a restart
  h.Join("w1", {lease});
  Actions late = h.FromWorker("w1", SnapshotTaken{lease, 1, DigestOf("first"), {{"epoch", 1}}});
  EXPECT_TRUE(late.rows.empty());
  EXPECT_EQ(LastSent<Ack>(late.sends, "w1")->sequence, 1);
  EXPECT_EQ(h.StepNamed("a").snapshot->blob, DigestOf("second"));
}

TEST(SchedulerTest, WaitsForMissingMetricPointsBeforeItAcknowledgesLaterOnes) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("job", kOne);
  Lease lease = h.Granted("w1").lease;
  Actions early = h.FromWorker("w1", Progress{lease, 2, {{3, {{"epoch", 3}}}}});
  EXPECT_TRUE(early.rows.empty());
  EXPECT_TRUE(early.sends.empty());
  Actions whole = h.FromWorker("w1", Progress{lease, 0, {{1, {{"epoch", 1}}}, {2, {{"epoch", 2}}}, {3, {{"epoch", 3}}}}});
  EXPECT_EQ(whole.rows.size(), 3u);
  EXPECT_EQ(LastSent<Ack>(whole.sends, "w1")->sequence, 3);
  EXPECT_EQ(h.FromWorker("w1", Progress{lease, 3, {{9, {{"epoch", 9}}}}}).rows.size(), 1u) << "the agent dropped those between";
}

struct RetryCase {
  const char* error_class;
  int attempts;  // before the step fails for good
};
class SchedulerRetryTest : public testing::TestWithParam<RetryCase> {};

TEST_P(SchedulerRetryTest, LimitsAttemptsByErrorClass) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("job", kOne);
  int attempts = 0;
  while (h.StateOf("a") != "failed" && attempts < 20) {
    for (int i = 0; i < 600 && !h.HasGrant("w1"); ++i) h.Pass(Millis(250));
    h.Abort("w1", GetParam().error_class);
    ++attempts;
  }
  EXPECT_EQ(attempts, GetParam().attempts);
  EXPECT_EQ(h.StepNamed("a").problem->error_class, GetParam().error_class);
}

INSTANTIATE_TEST_SUITE_P(Classes, SchedulerRetryTest,
                         testing::Values(RetryCase{"diverged", 1}, RetryCase{"bad_input", 1}, RetryCase{"out_of_memory", 3}, RetryCase{"corrupt", 3},
                                         RetryCase{"internal", 4}, RetryCase{"runner_lost", 6}, RetryCase{"no_space", 20}, RetryCase{"never heard of", 4}),
                         [](const auto& c) {
                           std::string name = c.param.error_class;
                           std::replace(name.begin(), name.end(), ' ', '_');
                           return name;
                         });

TEST(SchedulerTest, WaitsBetweenRetriesAndSaysSo) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("job", kOne);
  h.Abort("w1", "out_of_memory", "42 GB");
  EXPECT_EQ(h.StateOf("a"), "ready");
  EXPECT_FALSE(h.HasGrant("w1"));
  Decision decision = Explain(h.core->state(), h.StepNamed("a"), {h.clock.Monotonic(), h.clock.Wall()});
  EXPECT_THAT(std::get<NotNow>(decision).reason, HasSubstr("tried again in 1000 ms after out_of_memory: 42 GB"));
  ASSERT_TRUE(h.core->NextDeadline().has_value());
  h.Pass(Millis(1'000));
  EXPECT_TRUE(h.HasGrant("w1"));
}

TEST(SchedulerTest, ASnapshotIsProgressAndForgivesEarlierLosses) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("job", kOne);
  for (int i = 0; i < 12; ++i) {
    for (int j = 0; j < 300 && !h.HasGrant("w1"); ++j) h.Pass(Millis(250));
    h.FromWorker("w1", SnapshotTaken{h.Granted("w1").lease, 1, DigestOf("s" + std::to_string(i)), {{"epoch", i}}});
    h.Abort("w1", "runner_lost");
  }
  EXPECT_NE(h.StateOf("a"), "failed");
}

TEST(SchedulerTest, CorruptDropsTheSnapshotThatMayBeDamaged) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("job", kOne);
  h.FromWorker("w1", SnapshotTaken{h.Granted("w1").lease, 1, DigestOf("s"), {{"epoch", 1}}});
  h.Abort("w1", "corrupt");
  h.Pass(Millis(500));
  EXPECT_TRUE(worker::AssignmentFromText(h.Granted("w1").assignment)->snapshot.is_none());
}

TEST(SchedulerTest, RefusesAManifestThatIsNotTheArtifact) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("job", kOne);
  Lease lease = h.Granted("w1").lease;
  Json manifest = ManifestOf(lease.step);
  Actions actions = h.FromWorker("w1", StepFinished{lease, DigestOf("something else"), manifest, 1});
  EXPECT_EQ(LastSent<Ack>(actions.sends, "w1"), nullptr);
  EXPECT_NE(LastSent<Stale>(actions.sends, "w1"), nullptr);
  EXPECT_EQ(h.StepNamed("a").problem->error_class, "corrupt");
}

TEST(SchedulerTest, AFailedStepFailsItsVariantAndTheRestGoesOn) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("job", {{.name = "base", .variant = ""},
                       {.name = "x1", .variant = "x", .inputs = {"base"}},
                       {.name = "x2", .variant = "x", .inputs = {"x1"}, .candidate = true},
                       {.name = "y1", .variant = "y", .inputs = {"base"}, .candidate = true}});
  h.Finish("w1");
  while (h.HasGrant("w1")) {
    if (h.Granted("w1").lease.step == h.StepNamed("x1").key) h.Abort("w1", "diverged", "NaN in epoch 2");
    else h.Finish("w1");
  }
  EXPECT_EQ(h.StateOf("x1"), "failed");
  EXPECT_EQ(h.StateOf("x2"), "cancelled");
  EXPECT_EQ(h.StateOf("y1"), "done");
  EXPECT_EQ(h.JobNamed().state, JobState::kDone);
  EXPECT_THAT(h.JobNamed().message, HasSubstr("1 of 3 steps failed; first x1: diverged: NaN in epoch 2"));
}

TEST(SchedulerTest, AJobFailsWithItsBaselineOrWithoutAnyCandidate) {
  for (const char* failing : {"base", "x1"}) {
    Harness h;
    h.Join("w1");
    h.SubmitPlan("job", {{.name = "base", .variant = ""}, {.name = "x1", .variant = "x", .inputs = {"base"}, .candidate = true}});
    if (std::string(failing) == "x1") h.Finish("w1");
    h.Abort("w1", "bad_input", "no such file");
    EXPECT_EQ(h.JobNamed().state, JobState::kFailed) << failing;
    EXPECT_THAT(h.JobNamed().message, HasSubstr(std::string(failing) + ": bad_input: no such file"));
  }
}

TEST(SchedulerTest, RetryRunsFailedStepsAgainAndReopensTheJob) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("job", kOne);
  h.Abort("w1", "bad_input");
  ASSERT_EQ(h.JobNamed().state, JobState::kFailed);
  EXPECT_TRUE(h.Change(ChangeJob::What::kRetry).ok);
  EXPECT_EQ(h.JobNamed().state, JobState::kRunning);
  h.Finish("w1");
  EXPECT_EQ(h.JobNamed().state, JobState::kDone);
  EXPECT_FALSE(h.Change(ChangeJob::What::kRetry).ok);
}

TEST(SchedulerTest, RetryRefusesWhatWouldDivergeAgainAndSaysSo) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("job", kOne);
  h.Abort("w1", "diverged");
  Reply reply = h.Change(ChangeJob::What::kRetry);
  EXPECT_FALSE(reply.ok);
  EXPECT_THAT(reply.message, HasSubstr("it cannot be retried: a diverged, and the same recipe diverges again"));
  EXPECT_EQ(h.JobNamed().state, JobState::kFailed);
  EXPECT_EQ(h.StateOf("a"), "failed");
}

TEST(SchedulerTest, RetryRunsWhatMayGoWellAndLeavesTheDivergedAlone) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("job", {{.name = "x", .variant = "x", .candidate = true}, {.name = "y", .variant = "y", .candidate = true}});
  std::string first = h.NameGranted("w1");
  h.Abort("w1", "diverged");
  std::string second = h.NameGranted("w1");
  h.Abort("w1", "bad_input");
  Reply reply = h.Change(ChangeJob::What::kRetry);
  ASSERT_TRUE(reply.ok) << reply.message;
  EXPECT_EQ(reply.result["left_alone"], Json::array({first}));
  EXPECT_EQ(h.NameGranted("w1"), second);
  h.Finish("w1");
  EXPECT_FALSE(h.HasGrant("w1"));
  EXPECT_EQ(h.StateOf(first), "failed");
  EXPECT_EQ(h.JobNamed().state, JobState::kDone);
}

TEST(SchedulerTest, PauseTakesTheStepBackWithASnapshotAndResumeGoesOnFromIt) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("job", kOne);
  Grant grant = h.Granted("w1");
  h.sent.clear();
  EXPECT_TRUE(h.Change(ChangeJob::What::kPause).ok);
  ASSERT_NE(LastSent<Revoke>(h.sent, "w1"), nullptr);
  EXPECT_TRUE(LastSent<Revoke>(h.sent, "w1")->keep);
  h.Release("w1", "half way");
  h.Pass(Millis(3'000));
  EXPECT_FALSE(h.HasGrant("w1"));
  EXPECT_EQ(h.StepNamed("a").attempts()[0].outcome, "released");
  EXPECT_THAT(std::get<NotNow>(Explain(h.core->state(), h.StepNamed("a"), {})).reason, HasSubstr("paused"));
  EXPECT_TRUE(h.Change(ChangeJob::What::kResume).ok);
  EXPECT_EQ(worker::AssignmentFromText(h.Granted("w1").assignment)->snapshot, DigestOf("half way"));
  EXPECT_EQ(h.StepNamed("a").failures, 0);
}

TEST(SchedulerTest, RepeatsARevokeThatMayHaveBeenLost) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("job", kOne);
  h.Change(ChangeJob::What::kPause);
  h.sent.clear();
  h.Pass(Millis(1'000));
  EXPECT_NE(LastSent<Revoke>(h.sent, "w1"), nullptr);
}

TEST(SchedulerTest, PausingOneJobLeavesAStepThatAnotherWants) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("one", kOne);
  h.SubmitPlan("two", {{.name = "a"}, {.name = "z", .inputs = {"a"}, .candidate = true}});
  h.sent.clear();
  h.Change(ChangeJob::What::kPause, h.JobNamed().id);
  EXPECT_EQ(LastSent<Revoke>(h.sent, "w1"), nullptr);
  h.Finish("w1");
  EXPECT_FALSE(h.HasGrant("w1"));  // z is of the paused job alone
}

TEST(SchedulerTest, CancelDropsTheStepAndFencesItsWorker) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("job", kOne);
  Grant grant = h.Granted("w1");
  h.Change(ChangeJob::What::kCancel);
  ASSERT_NE(LastSent<Revoke>(h.sent, "w1"), nullptr);
  EXPECT_FALSE(LastSent<Revoke>(h.sent, "w1")->keep);
  Json manifest = ManifestOf(grant.lease.step);
  Actions late = h.FromWorker("w1", StepFinished{grant.lease, ArtifactOf(manifest), manifest, 1});
  EXPECT_NE(LastSent<Stale>(late.sends, "w1"), nullptr);
  EXPECT_EQ(h.StateOf("a"), "cancelled");
  EXPECT_EQ(h.JobNamed().state, JobState::kCancelled);
  // Wanted again, it runs again.
  h.SubmitPlan("job", kOne);
  EXPECT_EQ(h.StateOf("a"), "running");
}

TEST(SchedulerTest, AWorkerWhoseStepIsCancelledIsBusyUntilItSaysOtherwise) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("job", kOne);
  Lease lease = h.Granted("w1").lease;
  h.Change(ChangeJob::What::kCancel);
  h.SubmitPlan("other", {{.name = "z", .candidate = true}});
  EXPECT_EQ(h.StateOf("z"), "ready");
  Actions actions = h.FromWorker("w1", Released{lease, {}, {}, 3});
  EXPECT_EQ(LastSent<Ack>(actions.sends, "w1")->of, "released");
  h.Tick();
  EXPECT_EQ(h.StateOf("z"), "running");
}

TEST(SchedulerTest, ReusesFinishedStepsAndSharesRunningOnesAcrossJobs) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("one", kChain);
  h.Finish("w1");  // a
  Reply reply = h.SubmitPlan("two", {{.name = "a", .variant = ""}, {.name = "b", .inputs = {"a"}}, {.name = "d", .inputs = {"b"}, .candidate = true}});
  EXPECT_EQ(reply.result["cached"], 1);
  EXPECT_EQ(reply.result["steps"], 3);
  int grants = 0;
  while (h.HasGrant("w1")) {
    ++grants;
    h.Finish("w1");
  }
  EXPECT_EQ(grants, 3);  // b once, c, d
  for (const auto& [id, job] : h.core->state().jobs) EXPECT_EQ(job.state, JobState::kDone);
  EXPECT_TRUE(h.JobNamed().Find("a")->reused);
  EXPECT_FALSE(h.JobNamed().Find("b")->reused);
  // All of it again: done in the submit itself.
  h.SubmitPlan("one", kChain);
  EXPECT_EQ(h.JobNamed().state, JobState::kDone);
  EXPECT_EQ(h.core->state().jobs.size(), 3u);
}

TEST(SchedulerTest, AnUnfinishedJobOfTheSameRecipeIsResumedInstead) {
  Harness h;
  Reply first = h.SubmitPlan("job", kOne);
  h.Change(ChangeJob::What::kPause);
  Reply second = h.SubmitPlan("job", kOne);
  EXPECT_EQ(second.result["job"], first.result["job"]);
  EXPECT_EQ(second.result["resumed"], true);
  EXPECT_EQ(h.JobNamed().state, JobState::kRunning);
  EXPECT_NE(h.SubmitPlan("job", kOne, false).result["job"], first.result["job"]);
}

TEST(SchedulerTest, ADivergedStepIsNotRunAgainByAnotherJobButOtherFailuresAre) {
  for (const char* error_class : {"diverged", "bad_input"}) {
    Harness h;
    h.Join("w1");
    h.SubmitPlan("one", kOne);
    h.Abort("w1", error_class);
    h.SubmitPlan("two", {{.name = "a", .candidate = true}});
    EXPECT_EQ(h.HasGrant("w1"), std::string(error_class) == "bad_input") << error_class;
  }
}

TEST(SchedulerTest, ALostArtifactIsMadeAgain) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("job", kChain);
  h.Finish("w1");
  h.Finish("w1");
  Digest before = h.StepNamed("a").artifact;
  h.Do(ArtifactsLost{{h.StepNamed("a").key}});
  h.Tick();
  EXPECT_EQ(h.StateOf("c"), "running");  // it has what it needs
  h.Finish("w1");
  EXPECT_EQ(h.JobNamed().state, JobState::kRunning);
  h.Finish("w1");
  EXPECT_EQ(h.StepNamed("a").artifact, before);
  EXPECT_EQ(h.JobNamed().state, JobState::kDone);
}

TEST(SchedulerTest, DrainingTakesEverythingBackAndPlacesNothing) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("job", kOne);
  h.Do(Drain{});
  EXPECT_TRUE(LastSent<Revoke>(h.sent, "w1")->keep);
  h.Release("w1", "s");
  h.Pass(Millis(2'000));
  EXPECT_FALSE(h.HasGrant("w1"));
}

TEST(SchedulerTest, TheSameEventsGiveTheSameActionsByteForByte) {
  auto run = [] {
    Harness h;
    h.Join("w2");
    h.Join("w1");
    h.SubmitPlan("job", kChain);
    h.SubmitPlan("other", {{.name = "p"}, {.name = "q"}, {.name = "r", .inputs = {"p", "q"}, .candidate = true}});
    h.Finish("w1");
    h.Silence("w2");
    h.Pass(Millis(7'000));
    while (h.HasGrant("w1")) h.Finish("w1");
    return h.history;
  };
  std::string first = run();
  EXPECT_THAT(first, HasSubstr("lost"));
  EXPECT_EQ(first, run());
}

}  // namespace
}  // namespace pare::coordinator
