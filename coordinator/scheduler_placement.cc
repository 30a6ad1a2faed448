#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/plural.h"
#include "coordinator/scheduler.h"
#include "worker/step_runner.h"

namespace pare::coordinator {
namespace {

constexpr size_t kMostCounted = 1'000;  // of the steps before a step

// Idle workers that hold inputs of the step in memory: name → how many.
std::map<std::string, size_t> HoldersOf(const State& state, const Step& step, const std::set<std::string>& idle) {
  std::map<std::string, size_t> held;
  for (const auto& [role, input] : step.inputs) {
    const Step* from = state.FindStep(input);
    auto holders = from == nullptr ? state.holders.end() : state.holders.find(from->artifact);
    if (holders == state.holders.end()) continue;
    for (const std::string& name : holders->second) {
      if (idle.count(name) != 0) ++held[name];
    }
  }
  return held;
}

// How many workers may run the step together. Alone after a gang that broke: whatever breaks gangs here, such as hosts that do not
// reach each other, does not hold the step up for ever.
int64_t LargestGang(const Step& step) {
  if (!step.attempts().empty()) {
    const storage::AttemptRow& last = step.attempts().back();
    bool asked = last.outcome == "released" && last.message.empty();
    if (!asked && WorkersOf(last).size() > 1) return 1;
  }
  return std::clamp<int64_t>(IntegerOf(FieldOf(step.hints.text(), "gang")).value_or(1), 1, worker::kMaxGangSize);
}

Placed WithGang(const State& state, const Step& step, Placed placed) {
  int64_t largest = LargestGang(step);
  if (largest == 1) return placed;
  std::string device = DeviceClassOf(*step.device);
  const std::set<std::string>& idle = state.idle.at(device);
  auto queue = state.ready.find(device);
  size_t ready = queue == state.ready.end() ? 1 : std::max<size_t>(queue->second.size, 1);
  size_t size = std::min(static_cast<size_t>(largest), std::max<size_t>(idle.size() / ready, 1));
  for (auto name = idle.begin(); placed.workers.size() < size; ++name) {
    if (*name != placed.workers.front()) placed.workers.push_back(*name);
  }
  if (size > 1) placed.reason += "; in a gang of " + std::to_string(size) + ", as other workers would idle";
  return placed;
}

// Any job that has the step, for its name.
const Job* JobOf(const State& state, const Step& step) {
  for (const auto& [id, job] : state.jobs) {
    if (job.Find(step.key) != nullptr) return &job;
  }
  return nullptr;
}

std::string NameOf(const State& state, const Step& step) {
  const Job* job = JobOf(state, step);
  return job == nullptr ? step.key.brief() : job->Find(step.key)->name;
}

// What is served before a ready step that has to wait.
std::string Ahead(const State& state, const Step& step) {
  auto queue = state.ready.find(DeviceClassOf(*step.device));
  if (queue == state.ready.end() || !step.queued) return "";
  const auto& levels = queue->second.levels;
  auto level = levels.find(step.queued->rank.minus_priority);
  if (level == levels.end() || level->second.count(step.queued->share) == 0) return "";
  size_t ahead = 0;
  for (const QueueRank& rank : level->second.at(step.queued->share)) {
    if (!(rank < step.queued->rank) || ++ahead == kMostCounted) break;
  }
  std::string text;
  if (ahead > 0) text = "; " + Plural(ahead, "ready step") + (ahead == kMostCounted ? " or more" : "") + " before it";
  if (level != levels.begin()) text += "; steps of a higher priority come first";
  if (level->second.size() > 1) text += "; " + Plural(level->second.size(), "user") + " take turns";
  return text;
}

Decision ExplainReady(const State& state, const Step& step, Now now) {
  if (!step.queued && state.AwaitsPlan(step)) return NotNow{"the coordinator has started again and has not come to its job yet", {}};
  if (!step.queued) return NotNow{"its job is paused: `pare resume` lets it go on", {}};
  if (step.not_before > now.monotonic) {
    return NotNow{"it is tried again in " + std::to_string((step.not_before - now.monotonic).count()) + " ms after " + step.problem->error_class + ": " +
                      step.problem->message,
                  {}};
  }
  if (state.draining) return NotNow{"the coordinator is draining: it places nothing more", {}};
  Decision decision = Decide(state, step);
  if (auto* wait = std::get_if<NotNow>(&decision)) wait->reason += Ahead(state, step);
  return decision;
}

std::vector<std::string> MembersOf(const Hold& hold) {
  std::vector<std::string> names;
  for (const Member& member : hold.members) names.push_back(member.worker);
  return names;
}

// What helps a step that failed for good.
std::string AdviceOn(const std::string& error_class) {
  if (FailsAgain(error_class)) {
    return "the same recipe ends the same, bit for bit, so a retry cannot help: change the recipe (a lower learning_rate, more warmup_epochs, or clip_norm, "
           "in `train` or in the step that trains) and run it";
  }
  if (error_class == "bad_input") return "the same input fails again: mend what it names, then `pare retry`";
  return "`pare retry` tries again";
}

}  // namespace

std::string BlockedBy(const Step& failed, const Job& job, const std::string& name) {
  const Problem& problem = failed.problem.OrDefault();
  std::string what = problem.message.substr(0, problem.message.find_first_of(";\n"));  // what follows is advice
  return "what it builds on failed for good: " + name + ": " + problem.error_class + (what.empty() ? "" : ": " + what) + " (`pare why " + name + " --job " + job.id +
         "` tells more)";
}

std::string DeviceClassOf(const std::string& device) { return device.substr(0, device.find(':')); }

Decision Decide(const State& state, const Step& step) {
  if (state.workers.empty()) return NotNow{"no worker is connected: start one with `pare worker`", {}};
  std::string device = DeviceClassOf(*step.device);
  auto idle = state.idle.find(device);
  if (idle == state.idle.end() || idle->second.empty()) {
    auto fitting = std::count_if(state.workers.begin(), state.workers.end(), [&](const auto& w) { return DeviceClassOf(w.second.device) == device; });
    if (fitting == 0) {
      return Infeasible{"it needs a worker with device " + *step.device + "; none of the " + Plural(state.workers.size(), "connected worker") + " has one"};
    }
    return NotNow{"all " + Plural(static_cast<size_t>(fitting), "worker") + " with device " + *step.device + " are busy", {}};
  }
  const std::string& first = *idle->second.begin();
  if (step.inputs.empty()) return WithGang(state, step, {{first}, "first idle worker"});
  auto held = HoldersOf(state, step, idle->second);
  auto best = std::max_element(held.begin(), held.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  if (best == held.end()) return WithGang(state, step, {{first}, "first idle worker; none holds its inputs"});
  return WithGang(state, step, {{best->first}, "holds " + std::to_string(best->second) + " of its " + Plural(step.inputs.size(), "input") + " in memory"});
}

Decision Explain(const State& state, const Step& step, Now now) {
  switch (step.state) {
    case StepState::kReady:
      return ExplainReady(state, step, now);
    case StepState::kRunning:
      return Placed{MembersOf(*step.hold), "running on " + NamesOf(MembersOf(*step.hold)) + ", attempt " + std::to_string(step.attempts().size()) + ": " +
                                           (step.hold->reason.empty() ? "it came back with the step after a restart" : step.hold->reason) +
                                           (step.hold->revoked ? "; asked to give it back" : "")};
    case StepState::kWaiting: {
      NotNow wait;
      for (const auto& [role, input] : step.inputs) {
        const Step* from = state.FindStep(input);
        const Job* job = from != nullptr && from->state == StepState::kFailed ? JobOf(state, *from) : nullptr;
        if (job != nullptr) return Infeasible{"it cannot run: " + BlockedBy(*from, *job, job->Find(input)->name)};
        if (from != nullptr && from->state != StepState::kDone) wait.waiting_for.push_back(NameOf(state, *from));
      }
      wait.reason = "it waits for " + Plural(wait.waiting_for.size(), "step");
      for (size_t i = 0; i < wait.waiting_for.size() && i < 5; ++i) wait.reason += (i == 0 ? ": " : ", ") + wait.waiting_for[i];
      return wait;
    }
    case StepState::kDone:
      return NotNow{"it is done", {}};
    case StepState::kFailed:
      return Infeasible{"it failed for good: " + step.problem.OrDefault().error_class + ": " + step.problem.OrDefault().message + "; " +
                        AdviceOn(step.problem.OrDefault().error_class)};
    case StepState::kCancelled:
      return Infeasible{"it is cancelled: " + step.problem.OrDefault().message};
  }
  return NotNow{};
}

void Scheduler::Place() {
  if (state_.draining) return;
  for (auto& [device, queue] : state_.ready) {
    auto idle = state_.idle.find(device);
    while (idle != state_.idle.end() && !idle->second.empty() && !queue.empty()) {
      // A grant takes the step out of the queue and the worker out of the idle ones.
      Step& step = state_.steps.at(queue.Next(state_.shares).key);
      Decision decision = Decide(state_, step);
      const auto* placed = std::get_if<Placed>(&decision);
      CHECK(placed != nullptr);
      Grant(step, *placed);
    }
  }
}

}  // namespace pare::coordinator
