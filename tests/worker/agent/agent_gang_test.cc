// An agent's part in a gang.
#include "tests/worker/agent/agent_core_fixture.h"

namespace pare::worker {
namespace {

TEST_F(AgentCoreTest, SaysThatItIsPreparedUntilTheGangBegins) {
  Run();
  auto prepared = Sent<Prepared>(Report(StepJoins{"tcp://a"}));
  ASSERT_EQ(prepared.size(), 1u);
  EXPECT_EQ(prepared[0], (Prepared{kLease, "tcp://a"}));
  EXPECT_EQ(Sent<Prepared>(Live(Millis(2'500))).size(), 2u);
  auto joins = All<JoinStep>(Get(Commit{kLease, {"tcp://a", "tcp://b"}}));
  ASSERT_EQ(joins.size(), 1u);
  EXPECT_EQ(joins[0].endpoints, (std::vector<std::string>{"tcp://a", "tcp://b"}));
  EXPECT_TRUE(All<JoinStep>(Get(Commit{kLease, {"tcp://a", "tcp://b"}})).empty()) << "a repetition";
  EXPECT_TRUE(Sent<Prepared>(Live(Millis(5'000))).empty());
}

// A coordinator that starts again does not know who was prepared, and a gang that has begun does not begin twice.
TEST_F(AgentCoreTest, SaysAgainAfterAWelcomeThatItIsPrepared) {
  Run();
  Report(StepJoins{"tcp://a"});
  Get(Commit{kLease, {"tcp://a", "tcp://b"}});
  EXPECT_EQ(Sent<Prepared>(Get(WelcomeMessage())), (std::vector<Prepared>{{kLease, "tcp://a"}}));
  EXPECT_TRUE(All<JoinStep>(Get(Commit{kLease, {"tcp://a", "tcp://b"}})).empty());
  EXPECT_TRUE(Sent<Prepared>(Live(Millis(5'000))).empty());
}

TEST_F(AgentCoreTest, ACommitOfAnotherLeaseOrBeforeItIsPreparedBeginsNothing) {
  Run();
  EXPECT_TRUE(All<JoinStep>(Get(Commit{kLease, {"tcp://a", "tcp://b"}})).empty());
  Report(StepJoins{"tcp://a"});
  EXPECT_TRUE(All<JoinStep>(Get(Commit{kOther, {"tcp://a", "tcp://b"}})).empty());
}

TEST_F(AgentCoreTest, AGangThatIsOverBeforeItBeganIsNotPreparedForAnyMore) {
  Run();
  Report(StepJoins{"tcp://a"});
  EXPECT_EQ(All<EndStep>(Get(Revoke{kLease, false, "the attempt of its gang has ended"})).size(), 1u);
  EXPECT_EQ(Sent<Released>(Report(StepStopped{})).size(), 1u);
  Actions later = Live(Millis(3'000));
  EXPECT_TRUE(Sent<Prepared>(later).empty());
  EXPECT_TRUE(All<JoinStep>(Get(Commit{kLease, {"tcp://a", "tcp://b"}})).empty());
}

}  // namespace
}  // namespace pare::worker
