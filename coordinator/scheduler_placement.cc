#include <algorithm>
#include <iterator>
#include <utility>

#include "coordinator/scheduler.h"

namespace pare::coordinator {
namespace {

template <typename... F>
struct Overloaded : F... {
  using F::operator()...;
};

// How many of the step's input artifacts the worker has in memory.
int64_t InputsHeld(const State& state, const Step& step, const Worker& worker) {
  return std::count_if(step.inputs.begin(), step.inputs.end(), [&](const auto& input) {
    const Step* from = state.FindStep(input.second);
    return from != nullptr && std::find(worker.cached.begin(), worker.cached.end(), from->artifact) != worker.cached.end();
  });
}

std::string Plural(size_t n, const std::string& noun) { return std::to_string(n) + " " + noun + (n == 1 ? "" : "s"); }

// The name of a step in any job that wants it, for people.
std::string NameOf(const State& state, const Step& step) {
  for (const auto& [id, job] : state.jobs) {
    if (const JobStep* in_job = job.Find(step.key)) return in_job->name;
  }
  return step.key.brief();
}

Decision ExplainReady(const State& state, const Step& step, Now now) {
  if (!step.queued) return NotNow{"its job is paused: `pare resume` lets it go on", {}};
  if (step.not_before > now.monotonic) {
    return NotNow{"it is tried again in " + std::to_string((step.not_before - now.monotonic).count()) + " ms after " + step.error_class + ": " +
                      step.message,
                  {}};
  }
  if (state.draining) return NotNow{"the coordinator is draining: it places nothing more", {}};
  Decision decision = Decide(state, step, now);
  if (auto* wait = std::get_if<NotNow>(&decision)) {
    auto ahead = std::distance(state.ready.begin(), state.ready.lower_bound(*step.queued));
    if (ahead > 0) wait->reason += "; " + Plural(static_cast<size_t>(ahead), "ready step") + " before it";
  }
  return decision;
}

}  // namespace

std::string DeviceClassOf(const std::string& device) { return device.substr(0, device.find(':')); }

bool IsIdle(const Worker& worker, Millis now) { return !worker.lease && worker.not_before <= now; }

Decision Decide(const State& state, const Step& step, Now now) {
  if (state.workers.empty()) return NotNow{"no worker is connected: start one with `pare worker`", {}};
  const Worker* best = nullptr;
  int64_t most = -1;
  size_t fitting = 0;
  for (const auto& [name, worker] : state.workers) {
    if (DeviceClassOf(worker.device) != DeviceClassOf(step.device)) continue;
    ++fitting;
    if (!IsIdle(worker, now.monotonic)) continue;
    int64_t held = InputsHeld(state, step, worker);
    if (held <= most) continue;
    most = held;
    best = &worker;
  }
  if (fitting == 0) {
    return Infeasible{"it needs a worker with device " + step.device + "; none of the " + Plural(state.workers.size(), "connected worker") + " has one"};
  }
  if (best == nullptr) return NotNow{"all " + Plural(fitting, "worker") + " with device " + step.device + " are busy", {}};
  if (step.inputs.empty()) return Placed{best->name, "first idle worker"};
  return Placed{best->name, most == 0 ? "first idle worker; none holds its inputs"
                                      : "holds " + std::to_string(most) + " of its " + Plural(step.inputs.size(), "input") + " in memory"};
}

Decision Explain(const State& state, const Step& step, Now now) {
  switch (step.state) {
    case StepState::kReady:
      return ExplainReady(state, step, now);
    case StepState::kRunning:
      return Placed{step.hold->worker, "running on " + step.hold->worker + ", attempt " + std::to_string(step.attempts.size()) + ": " +
                                           (step.hold->reason.empty() ? "it came back with the step after a restart" : step.hold->reason) +
                                           (step.hold->revoked ? "; asked to give it back" : "")};
    case StepState::kWaiting: {
      NotNow wait;
      for (const auto& [role, input] : step.inputs) {
        const Step* from = state.FindStep(input);
        if (from != nullptr && from->state != StepState::kDone) wait.waiting_for.push_back(NameOf(state, *from));
      }
      wait.reason = "it waits for " + Plural(wait.waiting_for.size(), "step");
      for (size_t i = 0; i < wait.waiting_for.size() && i < 5; ++i) wait.reason += (i == 0 ? ": " : ", ") + wait.waiting_for[i];
      return wait;
    }
    case StepState::kDone:
      return NotNow{"it is done", {}};
    case StepState::kFailed:
      return Infeasible{"it failed for good: " + step.error_class + ": " + step.message + "; `pare retry` tries again"};
    case StepState::kCancelled:
      return Infeasible{"it is cancelled: " + step.message};
  }
  return NotNow{};
}

void Scheduler::Place() {
  if (state_.draining) return;
  auto idle = std::count_if(state_.workers.begin(), state_.workers.end(), [this](const auto& w) { return IsIdle(w.second, now_.monotonic); });
  for (auto it = state_.ready.begin(); it != state_.ready.end() && idle > 0;) {
    Step& step = state_.steps.at(it->key);
    ++it;  // a grant takes the step out of the queue
    Decision decision = Decide(state_, step, now_);
    if (auto* placed = std::get_if<Placed>(&decision)) {
      Grant(step, state_.workers.at(placed->worker), placed->reason);
      --idle;
    }
  }
}

}  // namespace pare::coordinator
