// NextDeadline under random events: before it Tick does nothing, at it Tick does something. So a shell may sleep until then.
#include <gtest/gtest.h>

#include "common/random.h"
#include "worker/agent/agent_core.h"

namespace pare::worker {
namespace {

constexpr Millis kFarAway{3'600'000};

class AgentDeadlineTest : public testing::TestWithParam<int> {
 protected:
  uint64_t Below(uint64_t n) { return random_.Below(n); }
  Lease RandomLease() { return {StepKey(std::array<uint8_t, 32>{static_cast<uint8_t>(1 + Below(3))}), static_cast<int64_t>(1 + Below(4))}; }
  AgentEvent RandomMessage() {
    Lease lease = last_;
    if (Below(4) == 0) lease = RandomLease();
    switch (Below(10)) {
      case 0: return Received{Welcome{500, 5000, "/store", "here", "", Below(3) == 0 ? std::vector<Lease>{lease} : std::vector<Lease>{}}};
      case 1: return Received{Refused{Below(2) == 0 ? "not_found" : "conflict", "no"}};
      case 2: return Received{Revoke{lease, Below(2) == 0, "why"}};
      case 3: return Received{Stale{lease, "old"}};
      case 4: return Received{Ack{lease, "progress", static_cast<int64_t>(Below(5))}};
      case 5: return Received{Ack{lease, "step_finished", 0}};
      case 6: return Received{Ack{{}, "heartbeat", 0}};
      case 7: return Received{Commit{lease, {"a", "b"}}};
      default: break;
    }
    last_ = RandomLease();
    Assignment assignment;
    assignment.key = last_.step;
    return Received{Grant{last_, 1, ToJson(assignment)}};
  }
  AgentEvent RandomReport() {
    switch (Below(8)) {
      case 0: return RunnerReported{RunnerReady{"cpu"}};
      case 7: return RunnerReported{StepJoins{"tcp://a"}};
      case 1: return RunnerReported{StepProgress{{{"epoch", 1}}}};
      case 2: return RunnerReported{StepSnapshot{DigestOf("s"), {}}};
      case 3: return RunnerReported{StepDone{DigestOf("a"), Json::object(), 1}};
      case 4: return RunnerReported{StepFailed{"internal", "it broke", 1}};
      case 5: return RunnerReported{StepStopped{}};
      default: return RunnerReported{RunnerLost{"gone"}};
    }
  }

  RandomStream random_{static_cast<uint64_t>(GetParam()), RandomPurpose::kTest};
  Lease last_;
};

bool Ends(const std::vector<AgentAction>& actions) {
  for (const AgentAction& action : actions) {
    if (std::holds_alternative<EndAgent>(action)) return true;
  }
  return false;
}

TEST_P(AgentDeadlineTest, TickDoesNothingBeforeItAndSomethingAtIt) {
  AgentCore core(AgentConfig{"w", "here", "cpu", 1});
  Millis now{1'000};
  bool ended = Ends(core.Apply(Tick{}, now));
  for (int i = 0; i < 400 && !ended; ++i) {
    AgentEvent event = Below(3) == 0 ? AgentEvent(Tick{}) : Below(2) == 0 ? RandomMessage() : RandomReport();
    if (Below(300) == 0) event = StopRequested{"test"};
    ended = Ends(core.Apply(event, now));
    if (ended) break;
    Millis deadline = core.NextDeadline();
    ASSERT_LT(deadline, now + kFarAway);
    if (deadline - Millis(1) > now) {
      AgentCore early = core;
      ASSERT_TRUE(early.Apply(Tick{}, deadline - Millis(1)).empty()) << "event " << i;
    }
    AgentCore there = core;
    auto actions = there.Apply(Tick{}, std::max(deadline, now));
    ASSERT_FALSE(actions.empty()) << "event " << i;
    now += Millis(static_cast<int64_t>(Below(4) == 0 ? Below(3'000) : Below(100)));
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, AgentDeadlineTest, testing::Range(1, 21));

}  // namespace
}  // namespace pare::worker
