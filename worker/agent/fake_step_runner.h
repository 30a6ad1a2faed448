// FakeStepRunner: the in-memory StepRunner, for tests and the simulator. What a step does is a function from its assignment
// to events: the step ends with the StepDone, StepFailed or RunnerLost among them, or runs until Stop if there is none.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "common/check.h"
#include "worker/step_runner.h"

namespace pare::worker {

class FakeStepRunner : public StepRunner {
 public:
  using Behaviour = std::function<std::vector<RunnerEvent>(const Assignment&)>;
  // The snapshot of a step stopped with keep.
  using Snapshot = std::function<StepStopped(const Assignment&)>;

  explicit FakeStepRunner(Behaviour behaviour, Snapshot snapshot = [](const Assignment&) { return StepStopped{}; })
      : behaviour_(std::move(behaviour)), snapshot_(std::move(snapshot)) {}

  void Launch(const RunnerSource& source) override {
    source_ = source;
    ++launches_;
    alive_ = true;
    running_.reset();
    events_ = {RunnerReady{"cpu"}};
  }
  void Start(const Assignment& assignment) override {
    CHECK(!running_);
    if (!alive_) return;
    running_ = assignment;
    for (RunnerEvent& event : behaviour_(assignment)) Emit(std::move(event));
  }
  void Join(const std::vector<std::string>& endpoints) override { joined_ = endpoints; }
  void Stop(bool keep) override {
    if (running_) Emit(keep ? snapshot_(*running_) : StepStopped{});
  }
  std::vector<RunnerEvent> Poll() override { return std::exchange(events_, {}); }
  int fd() const override { return -1; }

  // An event by hand: later progress, the end of a step, the loss of the runner.
  void Emit(RunnerEvent event) {
    if (!alive_) return;
    if (std::holds_alternative<StepDone>(event) || std::holds_alternative<StepFailed>(event) ||
        std::holds_alternative<StepStopped>(event)) {
      running_.reset();
    } else if (std::holds_alternative<RunnerLost>(event)) {
      running_.reset();
      alive_ = false;
    }
    events_.push_back(std::move(event));
  }
  const std::optional<Assignment>& running() const { return running_; }
  const std::vector<std::string>& joined() const { return joined_; }
  const RunnerSource& source() const { return source_; }
  int launches() const { return launches_; }

 private:
  Behaviour behaviour_;
  Snapshot snapshot_;
  RunnerSource source_;
  int launches_ = 0;
  bool alive_ = false;
  std::optional<Assignment> running_;
  std::vector<std::string> joined_;  // by the last Join
  std::vector<RunnerEvent> events_;
};

}  // namespace pare::worker
