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
    EXPECT_FALSE(LastSent<Revoke>(h_.sent, worker)->keep);
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
  h_.Tick();
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
