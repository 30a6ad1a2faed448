// Gangs: several workers under one lease, placed in two phases, whole or not at all (scheduler.h).
#include <gmock/gmock.h>

#include "coordinator/scheduler.h"
#include "tests/coordinator/harness.h"

namespace pare::coordinator {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;

class GangTest : public testing::Test {
 protected:
  // A gang of `workers`, granted and not prepared.
  void Start(const std::vector<std::string>& workers) {
    for (const std::string& worker : workers) h_.Join(worker);
    h_.SubmitPlan("job", {{.name = "a", .candidate = true, .gang = static_cast<int64_t>(workers.size())}});
    lease_ = h_.Granted(workers[0]).lease;
  }
  Actions Prepare(const std::string& worker) { return h_.FromWorker(worker, Prepared{lease_, "tcp://" + worker}); }
  worker::GangPlace PlaceOf(const std::string& worker) { return worker::AssignmentFromText(h_.Granted(worker).assignment)->gang; }
  std::vector<std::string> Members() {
    std::vector<std::string> names;
    if (!h_.StepNamed("a").hold) return names;
    for (const Member& member : h_.StepNamed("a").hold->members) names.push_back(member.worker);
    return names;
  }
  std::optional<Lease> LeaseOf(const std::string& worker) { return h_.core->state().workers.at(worker).lease; }

  Harness h_;
  Lease lease_;
};

TEST_F(GangTest, WorkersThatWouldIdleShareOneLease) {
  Start({"w1", "w2", "w3"});
  EXPECT_THAT(Members(), ElementsAre("w1", "w2", "w3"));
  for (int rank = 0; rank < 3; ++rank) {
    std::string worker = "w" + std::to_string(rank + 1);
    EXPECT_EQ(h_.Granted(worker).lease, lease_);
    EXPECT_EQ(PlaceOf(worker), (worker::GangPlace{rank, 3}));
  }
  EXPECT_EQ(h_.StepNamed("a").attempts().size(), 1u);
  EXPECT_EQ(h_.StepNamed("a").attempts()[0].worker, "w1\nw2\nw3");
  EXPECT_THAT(h_.EventTexts(), Contains("a: started on w1 and 2 others"));
}

TEST_F(GangTest, TakesNoWorkerThatAnotherReadyStepCouldHave) {
  for (const char* worker : {"w1", "w2", "w3", "w4", "w5"}) h_.Join(worker);
  h_.SubmitPlan("job", {{.name = "a", .candidate = true, .gang = 4}, {.name = "b", .candidate = true}, {.name = "c", .candidate = true}});
  for (const char* name : {"a", "b", "c"}) EXPECT_EQ(h_.StateOf(name), "running");
  EXPECT_EQ(Members().size(), 1u);
}

TEST_F(GangTest, ASingleWorkerIsEnough) {
  h_.Join("w1");
  h_.SubmitPlan("job", {{.name = "a", .candidate = true, .gang = 4}});
  EXPECT_EQ(PlaceOf("w1"), (worker::GangPlace{0, 1}));
}

TEST_F(GangTest, BeginsWhenTheLastIsPreparedAndRepeatsItselfToWhoAsks) {
  Start({"w1", "w2"});
  EXPECT_TRUE(Prepare("w2").sends.empty());
  EXPECT_TRUE(Prepare("w2").sends.empty());
  Actions both = Prepare("w1");
  for (const char* worker : {"w1", "w2"}) {
    const auto* commit = LastSent<pare::Commit>(both.sends, worker);
    ASSERT_NE(commit, nullptr) << worker;
    EXPECT_THAT(commit->endpoints, ElementsAre("tcp://w1", "tcp://w2"));
  }
  Actions again = Prepare("w2");
  ASSERT_EQ(again.sends.size(), 1u);
  EXPECT_EQ(again.sends[0].peer, "w2");
  EXPECT_TRUE(std::holds_alternative<pare::Commit>(again.sends[0].message));
}

TEST_F(GangTest, OneRefusalFreesAll) {
  Start({"w1", "w2", "w3"});
  Prepare("w1");
  h_.sent.clear();
  h_.Release("w3");
  for (const char* worker : {"w1", "w2"}) {
    ASSERT_NE(LastSent<Revoke>(h_.sent, worker), nullptr) << worker;
    EXPECT_EQ(LastSent<pare::Commit>(h_.sent, worker), nullptr);
  }
  // Each has room again when it has stopped, and is answered as somebody who was asked.
  EXPECT_EQ(LeaseOf("w1"), lease_);
  Actions stopped = h_.FromWorker("w1", Released{lease_, {}, {}, 0});
  ASSERT_NE(LastSent<Ack>(stopped.sends, "w1"), nullptr);
  EXPECT_EQ(h_.core->state().counters.stale_refused, 0);
  EXPECT_EQ(LeaseOf("w1"), std::nullopt);
}

TEST_F(GangTest, AnyOfThemMayFinishAndTheOthersAreFreed) {
  Start({"w1", "w2"});
  Prepare("w1");
  Prepare("w2");
  h_.sent.clear();
  h_.Finish("w2");
  EXPECT_EQ(h_.StateOf("a"), "done");
  ASSERT_NE(LastSent<Revoke>(h_.sent, "w1"), nullptr);
  Json manifest = ManifestOf(lease_.step);
  Actions late = h_.FromWorker("w1", StepFinished{lease_, ArtifactOf(manifest), manifest, 5});
  EXPECT_TRUE(late.rows.empty());
  ASSERT_NE(LastSent<Ack>(late.sends, "w1"), nullptr);
  EXPECT_EQ(LeaseOf("w1"), std::nullopt);
  EXPECT_EQ(h_.core->state().counters.steps_done, 1);
}

TEST_F(GangTest, TheLossOfOneEndsTheAttemptForAllAndTheNextRunsAlone) {
  Start({"w1", "w2", "w3"});
  for (const char* worker : {"w1", "w2", "w3"}) Prepare(worker);
  h_.Silence("w2");
  h_.sent.clear();
  h_.Pass(Millis(5'250));
  const Step& step = h_.StepNamed("a");
  EXPECT_EQ(step.attempts()[0].outcome, "lost");
  EXPECT_THAT(step.attempts()[0].message, HasSubstr("no word from worker w2"));
  for (const char* worker : {"w1", "w3"}) EXPECT_NE(LastSent<Revoke>(h_.sent, worker), nullptr) << worker;
  h_.FromWorker("w3", Released{lease_, {}, {}, 0});
  h_.Pass(Millis(3'000));
  ASSERT_EQ(h_.StepNamed("a").attempts().size(), 2u);
  EXPECT_EQ(Members().size(), 1u);
}

TEST_F(GangTest, AGrantThatOneDidNotGetIsNoFailureOfTheStep) {
  Start({"w1", "w2"});
  Prepare("w1");
  h_.Join("w2");  // it says hello, and that it has nothing
  h_.Pass(Millis(5'250));
  EXPECT_EQ(h_.StepNamed("a").attempts()[0].outcome, "lost");
  EXPECT_THAT(h_.StepNamed("a").attempts()[0].message, HasSubstr("worker w2 did not get the step"));
  EXPECT_EQ(h_.StepNamed("a").failures, 0);
}

TEST_F(GangTest, ASnapshotIsAskedOfTheFirstAndAPausedJobGoesOnInAGang) {
  Start({"w1", "w2"});
  Prepare("w1");
  Prepare("w2");
  h_.sent.clear();
  h_.Change(ChangeJob::What::kPause);
  ASSERT_NE(LastSent<Revoke>(h_.sent, "w1"), nullptr);
  EXPECT_TRUE(LastSent<Revoke>(h_.sent, "w1")->keep);
  EXPECT_EQ(LastSent<Revoke>(h_.sent, "w2"), nullptr);
  h_.Release("w1", "snap");
  EXPECT_FALSE(LastSent<Revoke>(h_.sent, "w2")->keep);
  h_.Release("w2");
  h_.Change(ChangeJob::What::kResume);
  h_.Pass(Millis(750));
  EXPECT_THAT(Members(), ElementsAre("w1", "w2"));
  EXPECT_EQ(worker::AssignmentFromText(h_.Granted("w2").assignment)->snapshot, DigestOf("snap"));
}

// Who is left behind by a batch when the gang breaks has an older state than the first one's snapshot.
TEST_F(GangTest, AnOlderSnapshotOfAnotherReplacesNoNewerOne) {
  Start({"w1", "w2"});
  Prepare("w1");
  Prepare("w2");
  h_.FromWorker("w1", SnapshotTaken{lease_, 1, DigestOf("newer"), {{"epoch", 3}, {"batch", 7}}});
  h_.FromWorker("w2", Released{lease_, DigestOf("older"), {{"epoch", 3}, {"batch", 6}}, 1});
  EXPECT_EQ(h_.StepNamed("a").snapshot->blob, DigestOf("newer"));
}

TEST_F(GangTest, AnotherSnapshotThatIsAheadIsTaken) {
  Start({"w1", "w2"});
  h_.FromWorker("w1", SnapshotTaken{lease_, 1, DigestOf("older"), {{"epoch", 3}, {"batch", 7}}});
  h_.FromWorker("w2", Released{lease_, DigestOf("newer"), {{"epoch", 4}, {"batch", 0}}, 1});
  EXPECT_EQ(h_.StepNamed("a").snapshot->blob, DigestOf("newer"));
}

TEST_F(GangTest, ACancelledOneIsTakenFromAll) {
  Start({"w1", "w2"});
  h_.sent.clear();
  h_.Change(ChangeJob::What::kCancel);
  for (const char* worker : {"w1", "w2"}) {
    EXPECT_EQ(std::count_if(h_.sent.begin(), h_.sent.end(), [&](const Send& s) { return s.peer == worker && std::holds_alternative<Revoke>(s.message); }), 1) << worker;
    EXPECT_FALSE(LastSent<Revoke>(h_.sent, worker)->keep);
  }
}

TEST_F(GangTest, ARestartKnowsTheWholeGang) {
  Start({"w1", "w2"});
  Prepare("w1");
  h_.Restart();
  EXPECT_THAT(Members(), ElementsAre("w1", "w2"));
  h_.Join("w1", {lease_});
  h_.Join("w2", {lease_});
  EXPECT_EQ(LeaseOf("w2"), lease_);
  Prepare("w1");  // who waits says so again
  Actions both = Prepare("w2");
  EXPECT_NE(LastSent<pare::Commit>(both.sends, "w1"), nullptr);
  EXPECT_NE(LastSent<pare::Commit>(both.sends, "w2"), nullptr);
  h_.Finish("w1");
  EXPECT_EQ(h_.StateOf("a"), "done");
}

TEST_F(GangTest, AWorkerThatDoesNotComeBackAfterARestartEndsItForAll) {
  Start({"w1", "w2"});
  h_.Restart();
  h_.Silence("w2");
  h_.Join("w1", {lease_});
  h_.Pass(Millis(5'250));
  EXPECT_EQ(h_.StepNamed("a").attempts()[0].outcome, "lost");
}

// What runners say to each other does not leave the host.
TEST_F(GangTest, IsOfOneHost) {
  h_.Do(FromAgent{"far", Hello{"far", std::string(kPareVersion), "there", "cpu", 1, {}, {}}});
  h_.Join("w1");
  h_.Join("w2");
  h_.SubmitPlan("job", {{.name = "a", .candidate = true, .gang = 3}});
  std::vector<std::string> members = Members();
  if (members.size() == 1) EXPECT_THAT(members, ElementsAre("far"));
  else EXPECT_THAT(members, ElementsAre("w1", "w2"));
}

TEST_F(GangTest, IsGivenUpWhenOneIsNotPreparedInTime) {
  Start({"w1", "w2"});
  Prepare("w1");
  h_.Pass(Millis(59'000));
  EXPECT_EQ(Members().size(), 2u);
  h_.Pass(Millis(2'000));
  const storage::AttemptRow& first = h_.StepNamed("a").attempts()[0];
  EXPECT_EQ(first.outcome, "released");
  EXPECT_EQ(first.message, "worker w2 was not prepared in time");
  EXPECT_EQ(h_.StepNamed("a").failures, 0);
  h_.Release("w1");
  h_.Pass(Millis(2'000));
  EXPECT_EQ(Members().size(), 1u);
  EXPECT_THAT(h_.StepNamed("a").hold->reason, HasSubstr("alone, as its last gang broke"));
}

TEST_F(GangTest, APreparedOneMayTakeAllTheTimeInTheWorld) {
  Start({"w1", "w2"});
  Prepare("w1");
  Prepare("w2");
  h_.Pass(Millis(120'000));
  EXPECT_EQ(h_.StepNamed("a").attempts().size(), 1u);
}

TEST_F(GangTest, WhatASurvivorIsLeftWithIsNotLost) {
  Start({"w1", "w2"});
  Prepare("w1");
  Prepare("w2");
  h_.FromWorker("w1", SnapshotTaken{lease_, 1, DigestOf("periodic"), {{"epoch", 3}, {"batch", 0}}});
  h_.sent.clear();
  h_.Abort("w2", "runner_lost");
  ASSERT_NE(LastSent<Revoke>(h_.sent, "w1"), nullptr);
  EXPECT_TRUE(LastSent<Revoke>(h_.sent, "w1")->keep);
  h_.FromWorker("w1", Released{lease_, DigestOf("left"), {{"epoch", 3}, {"batch", 40}}, 1});
  EXPECT_EQ(h_.StepNamed("a").snapshot->blob, DigestOf("left"));
  h_.FromWorker("w1", Released{lease_, DigestOf("older"), {{"epoch", 3}, {"batch", 39}}, 1});
  EXPECT_EQ(h_.StepNamed("a").snapshot->blob, DigestOf("left"));
  // Once the step has begun again, it is too late.
  h_.Pass(Millis(5'000));
  ASSERT_EQ(h_.StateOf("a"), "running");
  h_.FromWorker("w1", Released{lease_, DigestOf("late"), {{"epoch", 9}, {"batch", 0}}, 1});
  EXPECT_EQ(h_.StepNamed("a").snapshot->blob, DigestOf("left"));
}

TEST_F(GangTest, TwoResultsThatDifferAreToldOf) {
  Start({"w1", "w2"});
  h_.Finish("w1");
  Json other = ManifestOf(StepKey(DigestOf("another").bytes()));
  h_.FromWorker("w2", StepFinished{lease_, ArtifactOf(other), other, 5});
  EXPECT_THAT(h_.EventTexts(), Contains(HasSubstr("two workers of its gang left different results")));
}

TEST_F(GangTest, WhoStillReportsIsBusy) {
  Start({"w1", "w2"});
  h_.Release("w2");
  h_.FromWorker("w1", Progress{lease_, 0, {{1, {{"epoch", 1}}}}});
  EXPECT_EQ(LeaseOf("w1"), lease_);
  h_.FromWorker("w1", Heartbeat{"w1", {lease_}, {}});
  EXPECT_EQ(LeaseOf("w1"), lease_);
  h_.FromWorker("w1", Heartbeat{"w1", {}, {}});
  EXPECT_EQ(LeaseOf("w1"), std::nullopt);
}

// A step that has long to go, by its own word.
class FittedGangTest : public GangTest {
 protected:
  void Report(const std::string& worker, double seconds) { h_.FromWorker(worker, Progress{h_.Granted(worker).lease, point_, {{point_ + 1, {{"epoch", 1}, {"eta_s", seconds}}}}}), ++point_; }
  bool Asked(const std::string& worker) {
    const auto* revoke = LastSent<Revoke>(h_.sent, worker);
    return revoke != nullptr && revoke->keep;
  }
  int64_t point_ = 0;
};

TEST_F(FittedGangTest, GrowsWhenOthersIdle) {
  h_.Join("w1");
  h_.SubmitPlan("job", {{.name = "a", .candidate = true, .gang = 3}});
  Report("w1", 100.0);
  h_.Join("w2");
  h_.Pass(Millis(1'000));
  EXPECT_FALSE(Asked("w1")) << "it has only begun";
  h_.Pass(Millis(1'500));
  ASSERT_TRUE(Asked("w1"));
  h_.Release("w1", "so far");
  h_.Pass(Millis(750));
  EXPECT_THAT(Members(), ElementsAre("w1", "w2"));
  EXPECT_EQ(worker::AssignmentFromText(h_.Granted("w2").assignment)->snapshot, DigestOf("so far"));
  EXPECT_EQ(h_.StepNamed("a").attempts()[0].outcome, "released");
}

TEST_F(FittedGangTest, DoesNotGrowForAFewSecondsOrBeyondItsLimit) {
  h_.Join("w1");
  h_.SubmitPlan("job", {{.name = "a", .candidate = true, .gang = 2}});
  h_.Join("w2");
  Report("w1", 3.0);
  h_.Pass(Millis(5'000));
  EXPECT_FALSE(Asked("w1"));
  Report("w1", 30.0);
  h_.Tick();
  ASSERT_TRUE(Asked("w1"));
  h_.Release("w1");
  h_.Pass(Millis(750));
  ASSERT_EQ(Members().size(), 2u);
  h_.Join("w3");
  point_ = 0;
  Report("w1", 30.0);
  h_.sent.clear();
  h_.Pass(Millis(5'000));
  EXPECT_FALSE(Asked("w1"));
}

TEST_F(FittedGangTest, ShrinksWhenAnotherStepWaits) {
  Start({"w1", "w2"});
  Prepare("w1");
  Prepare("w2");
  Report("w1", 100.0);
  h_.Pass(Millis(3'000));
  EXPECT_FALSE(Asked("w1"));
  std::string job = h_.JobNamed().id;
  h_.SubmitPlan("another", {{.name = "b", .candidate = true}});
  h_.Tick();
  ASSERT_TRUE(Asked("w1"));
  h_.Release("w1", "so far");
  EXPECT_EQ(h_.StateOf("b"), "running");
  h_.Release("w2");
  h_.Pass(Millis(750));
  EXPECT_EQ(h_.StepNamed("a", job).state, StepState::kRunning);
  EXPECT_EQ(h_.StepNamed("a", job).hold->members.size(), 1u);
}

TEST_F(GangTest, AWorkerOfAnotherGangHasNothingToSay) {
  Start({"w1", "w2"});
  h_.Join("w3");
  h_.sent.clear();
  h_.FromWorker("w3", Heartbeat{"w3", {lease_}, {}});
  EXPECT_NE(LastSent<Stale>(h_.sent, "w3"), nullptr);
  EXPECT_TRUE(h_.FromWorker("w3", Prepared{lease_, "tcp://w3"}).sends.empty());
  EXPECT_THAT(Members(), ElementsAre("w1", "w2"));
}

TEST_F(GangTest, ANameWithALineBreakIsRefused) {
  Actions actions = h_.Do(FromAgent{"x", Hello{"w1\nw2", std::string(kPareVersion), "here", "cpu", 1, {}, {}}});
  ASSERT_NE(LastSent<Refused>(actions.sends, "x"), nullptr);
  EXPECT_EQ(h_.core->state().workers.count("w1\nw2"), 0u);
}

}  // namespace
}  // namespace pare::coordinator
