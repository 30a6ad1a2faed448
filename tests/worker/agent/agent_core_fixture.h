// An AgentCore with hand-cranked time, played with by the test.
#pragma once

#include <gtest/gtest.h>

#include <vector>

#include "common/version.h"
#include "worker/agent/agent_core.h"

namespace pare::worker {

inline const StepKey kStep(std::array<uint8_t, 32>{1}), kOtherStep(std::array<uint8_t, 32>{2});
inline const Lease kLease{kStep, 7}, kOther{kOtherStep, 8};
inline const Digest kInput = DigestOf("input"), kArtifact = DigestOf("artifact");

class AgentCoreTest : public testing::Test {
 protected:
  using Actions = std::vector<AgentAction>;

  Actions Do(const AgentEvent& event) { return core_.Apply(event, now_); }
  Actions Get(Message message) { return Do(Received{std::move(message)}); }
  Actions Report(RunnerEvent event) { return Do(RunnerReported{std::move(event)}); }
  Actions After(Millis time) {
    now_ += time;
    return Do(Tick{});
  }
  // Time goes on in ticks, the coordinator acknowledging heartbeats.
  Actions Live(Millis time) {
    Actions all;
    for (Millis end = now_ + time; now_ < end;) {
      for (AgentAction& action : After(Millis(100))) all.push_back(std::move(action));
      for (AgentAction& action : Get(Ack{{}, "heartbeat", 0})) all.push_back(std::move(action));
    }
    return all;
  }

  Message WelcomeMessage(std::vector<Lease> drop = {}) { return Welcome{500, 5000, "/store", "here", "tcp://b", std::move(drop)}; }
  static Grant GrantOf(const Lease& lease) {
    Assignment assignment;
    assignment.key = lease.step;
    assignment.inputs = {{"model", kInput}};
    return {lease, 2, ToJson(assignment)};
  }
  // Welcomed, with a ready runner.
  void Ready() {
    Do(Tick{});
    Get(WelcomeMessage());
    Report(RunnerReady{"cpu"});
  }
  void Run(const Lease& lease = kLease) {
    Ready();
    Get(GrantOf(lease));
  }

  template <typename T>
  static std::vector<T> All(const Actions& actions) {
    std::vector<T> found;
    for (const AgentAction& action : actions) {
      if (auto* value = std::get_if<T>(&action)) found.push_back(*value);
    }
    return found;
  }
  template <typename M>
  static std::vector<M> Sent(const Actions& actions) {
    std::vector<M> found;
    for (const SendMessage& send : All<SendMessage>(actions)) {
      if (auto* message = std::get_if<M>(&send.message)) found.push_back(*message);
    }
    return found;
  }

  Millis now_{1'000'000};
  AgentCore core_{AgentConfig{"worker-1", "here", "cpu", 2}};
};

}  // namespace pare::worker
