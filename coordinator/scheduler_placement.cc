#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/plural.h"
#include "coordinator/scheduler.h"
#include "worker/step_runner.h"

namespace pare::coordinator {
namespace {

constexpr Millis kFitAge{2'000};
constexpr double kWorthFitting = 5.0;      // seconds to go
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

bool GangBroke(const Step& step) {
  const std::vector<storage::AttemptRow>& attempts = step.attempts();
  auto last = std::find_if(attempts.rbegin(), attempts.rend(), [](const auto& a) { return a.outcome != "running"; });
  if (last == attempts.rend() || WorkersOf(*last).size() == 1) return false;
  return last->outcome == "lost" || last->outcome == "failed" || (last->outcome == "released" && !last->message.empty());
}

// By its recipe.
int64_t AllowedGang(const Step& step) {
  return std::clamp<int64_t>(IntegerOf(FieldOf(step.hints.text(), "gang")).value_or(1), 1, worker::kMaxGangSize);
}

// How many workers may run the step together. Alone after a gang that broke: whatever breaks gangs here does not hold the step
// up for ever.
int64_t LargestGang(const Step& step) {
  int64_t allowed = AllowedGang(step);
  return allowed > 1 && GangBroke(step) ? 1 : allowed;
}

// Of one host: the sockets between runners know no authentication, and do not leave it.
Placed WithGang(const State& state, const Step& step, Placed placed) {
  int64_t largest = LargestGang(step);
  if (largest == 1) {
    if (GangBroke(step)) placed.reason += "; alone, as its last gang broke";
    return placed;
  }
  std::string device = DeviceClassOf(*step.device);
  const std::set<std::string>& idle = state.idle.at(device);
  auto queue = state.ready.find(device);
  size_t ready = queue == state.ready.end() ? 1 : std::max<size_t>(queue->second.size, 1);
  size_t size = std::min(static_cast<size_t>(largest), std::max<size_t>(idle.size() / ready, 1));
  const std::string& host = state.workers.at(placed.workers.front()).host;
  for (const std::string& name : idle) {
    if (placed.workers.size() >= size) break;
    if (name != placed.workers.front() && state.workers.at(name).host == host) placed.workers.push_back(name);
  }
  if (placed.workers.size() > 1) placed.reason += "; in a gang of " + std::to_string(placed.workers.size()) + ", as other workers would idle";
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
  if (step.not_before > now.monotonic && !step.problem) return NotNow{"the workers of its last gang are being freed", {}};
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

void Scheduler::NoteShared(const Step& step) {
  if (step.hold->gang() || AllowedGang(step) > 1) shared_.insert(step.key);
}

// A gang is fitted to what has changed since it was formed. One at a time, and only where it has run for a while and has long to
// go: to stop and begin again takes about half a second.
void Scheduler::FitGangs() {
  if (state_.draining || !revoked_.empty()) return;
  Step* longest = nullptr;
  double left = kWorthFitting;
  for (const StepKey& key : shared_) {
    Step& step = state_.steps.at(key);
    if (now_.monotonic - step.hold->granted < kFitAge || (!Grows(step) && !Shrinks(step))) continue;
    double seconds = NumberOf(FieldOf(step.progress().text(), "eta_s")).value_or(0);
    if (seconds <= left) continue;
    longest = &step;
    left = seconds;
  }
  if (longest == nullptr) return;
  std::string why = Grows(*longest) ? "other workers idle: it goes on with them" : "other steps wait: it goes on with fewer workers";
  NoteForAll(*longest, "info", "asked back: " + why);
  RevokeLease(*longest, true, why);
}

// It began when the others were busy, or not there yet, and nobody needs them now.
bool Scheduler::Grows(const Step& step) const {
  std::string device = DeviceClassOf(*step.device);
  auto ready = state_.ready.find(device);
  auto idle = state_.idle.find(device);
  auto first = state_.workers.find(step.hold->worker());
  if (first == state_.workers.end() || idle == state_.idle.end() || (ready != state_.ready.end() && !ready->second.empty())) return false;
  bool spare = std::any_of(idle->second.begin(), idle->second.end(), [&](const std::string& name) { return state_.workers.at(name).host == first->second.host; });
  return spare && static_cast<int64_t>(step.hold->members.size()) < LargestGang(step);
}

// Nobody is left for steps that became ready since.
bool Scheduler::Shrinks(const Step& step) const {
  std::string device = DeviceClassOf(*step.device);
  auto ready = state_.ready.find(device);
  auto idle = state_.idle.find(device);
  return step.hold->gang() && ready != state_.ready.end() && !ready->second.empty() && (idle == state_.idle.end() || idle->second.empty());
}

}  // namespace pare::coordinator
