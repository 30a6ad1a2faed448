// From recipe to wanted steps: the planner is asked again whenever the end of a step can change what the job wants
// (Planner::waits_for_all).
#include <algorithm>
#include <set>
#include <utility>

#include "common/check.h"
#include "common/plural.h"
#include "coordinator/measurements.h"
#include "coordinator/scheduler.h"
#include "storage/artifact.h"

namespace pare::coordinator {

// In the order of ids; a job that becomes dirty meanwhile waits for the next turn if its place has passed.
void Scheduler::ReplanDirty() {
  for (auto next = dirty_.begin(); next != dirty_.end();) {
    std::string id = *next;
    Replan(state_.jobs.at(id));
    next = dirty_.upper_bound(id);
  }
}

void Scheduler::PlanRestored() {
  for (size_t steps = 0; !unplanned_.empty() && steps < config_.planned_at_once;) {
    Job& job = state_.jobs.at(std::get<2>(*unplanned_.begin()));
    Replan(job);
    steps += job.steps.size();
  }
}

void Scheduler::Replan(Job& job) {
  dirty_.erase(job.id);
  bool first = unplanned_.erase({-job.priority, job.number, job.id}) != 0;
  job.planned = true;
  if (job.finished()) return;
  if (!LoadRecipe(job)) {
    return GiveUp(job, job.message);
  }
  bool runs = job.state == JobState::kRunning;  // a paused job knows what it wants, but decides and ends nothing
  recipes::PlannedSteps plan;
  do {
    plan = planner_.next(*job.recipe, job.outcomes);
    if (plan.size() > kMaxStepsPerJob) {
      return GiveUp(job, "the recipe asks for more than " + std::to_string(kMaxStepsPerJob) + " steps");
    }
    // What is known already (reused steps, decisions) may make the planner want more.
  } while (AdoptPlan(job, plan, first) || MakeAgain(job, plan) || (runs && DecideLocal(job, plan)));
  DropUnwanted(job, plan);
  UpdateChains(job, plan);
  job.open = OpenSteps(job, plan);
  for (size_t i = 0; first && i < job.steps.size(); ++i) Enqueue(state_.steps.at(job.steps[i].key));
  if (runs) CheckFinished(job);
  dirty_.erase(job.id);
}

void Scheduler::GiveUp(Job& job, const std::string& why) {
  Note(job, "error", "", why);
  for (const JobStep& in_job : job.steps) Unwant(job, state_.steps.at(in_job.key), "the job failed");
  SetJobState(job, JobState::kFailed, why);
  DropRecipe(job);
}

size_t Scheduler::OpenSteps(const Job& job, const recipes::PlannedSteps& plan) const {
  std::vector<StepKey> open;
  for (const recipes::PlannedStep& planned : plan) {
    if (job.outcomes.count(planned.key) == 0) open.push_back(planned.key);
  }
  std::sort(open.begin(), open.end());  // two names may mean one step
  return static_cast<size_t>(std::unique(open.begin(), open.end()) - open.begin());
}

bool Scheduler::AdoptPlan(Job& job, const recipes::PlannedSteps& plan, bool first) {
  bool learnt = false;
  job.Reserve(plan.size());
  for (size_t at = 0; at < plan.size(); ++at) {
    const recipes::PlannedStep& planned = plan[at];
    if (!first && Adopted(job, planned, at)) continue;
    Step& step = AdoptStep(job, planned);
    bool terminal = step.state == StepState::kDone || step.state == StepState::kFailed;
    if (!terminal || job.outcomes.count(step.key) != 0) continue;
    recipes::StepOutcome outcome{.done = step.state == StepState::kDone, .artifact = step.artifact};
    if (outcome.done) outcome.results = state_.artifacts.at(step.artifact).results;
    if (outcome.done && planned.local) RegisterDecision(job, planned, outcome.results.Tree());
    job.outcomes[step.key] = std::move(outcome);
    learnt = true;
  }
  return learnt;
}

// A plan is asked for again near the end of a job, when it has thousands of these.
bool Scheduler::Adopted(const Job& job, const recipes::PlannedStep& planned, size_t at) const {
  if (job.outcomes.count(planned.key) == 0) return false;
  // Most plans only grow: the names have the places that they have there.
  const JobStep* in_job = at < job.steps.size() && job.steps[at].name == planned.name ? &job.steps[at] : job.Find(planned.name);
  return in_job != nullptr && in_job->wanted && in_job->key == planned.key && state_.steps.at(planned.key).wanted_by.count(job.id) != 0;
}

Step& Scheduler::AdoptStep(Job& job, const recipes::PlannedStep& planned) {
  auto [it, created] = state_.steps.try_emplace(planned.key);
  Step& step = it->second;
  // A rebuilt index knows keys and results of steps, not what they were made from (storage/fsck.h).
  if (created) step.since = now_.wall;
  if (created || step.spec.none()) TakeSpec(step, planned);
  step.local = planned.local;
  step.hints = JsonText::Of(state_.texts.Keep(planned.hints.text()));
  if (step.hold) NoteShared(step);
  if (step.cost < 0) step.cost = planned.local ? 0 : planner_.cost(planned, *job.recipe);
  JobStep& in_job = AdoptName(job, step, planned);
  in_job.candidate = planned.candidate;
  SetWanted(job, in_job, true);
  Want(job, step);
  return step;
}

bool Scheduler::Collected(const StepKey& key) const {
  const ArtifactRecord* record = state_.ArtifactOf(key);
  return record != nullptr && record->collected;
}

// A result of which only the numbers are left is no input for anything, and no version of a model.
bool Scheduler::MakeAgain(Job& job, const recipes::PlannedSteps& plan) {
  if (std::none_of(plan.begin(), plan.end(), [this](const auto& planned) { return Collected(planned.key); })) return false;
  std::set<StepKey> registered;
  for (const auto& [name, model] : state_.models) {
    for (const storage::VersionRow& version : model.versions) {
      auto record = state_.artifacts.find(version.artifact);
      if (record != state_.artifacts.end()) registered.insert(record->second.key);
    }
  }
  std::set<StepKey> again = recipes::MadeAgain(
      plan, recipes::KeepsAll(*job.recipe), [&job](const StepKey& key) { return job.outcomes.count(key) == 0; },
      [this](const StepKey& key) { return Collected(key); }, std::move(registered));
  RunCollected(job, again);
  return !again.empty();
}

// The step whose checkpoint the decision registers, if the checkpoint was collected.
const StepKey* Scheduler::PromotedWithoutBlobs(const Json& results) const {
  auto artifact = Digest::FromHex(TextAt(results, "artifact"));
  if (TextAt(results, "as").empty() || !artifact.ok()) return nullptr;
  auto record = state_.artifacts.find(*artifact);
  return record != state_.artifacts.end() && record->second.collected ? &record->second.key : nullptr;
}

void Scheduler::RunCollected(Job& job, const std::set<StepKey>& keys) {
  for (JobStep& in_job : job.steps) {
    if (!in_job.reused || keys.count(in_job.key) == 0) continue;
    in_job.reused = false;
    WriteName(job, in_job);
  }
  for (const StepKey& key : keys) {
    Step& step = state_.steps.at(key);
    NoteForAll(step, "info", "its checkpoint " + step.artifact.brief() + " was collected and is needed: the step runs again");
    RunAgain(step);
  }
}

void Scheduler::TakeSpec(Step& step, const recipes::PlannedStep& planned) {
  step.key = planned.key;
  step.kind = state_.texts.Keep(planned.spec.kind);
  step.device = state_.texts.Keep(planned.spec.device);
  step.inputs = Inputs(planned.spec.inputs);
  step.spec = SpecText(planned.spec_text, step.inputs, state_.texts);
  for (const auto& [role, input] : step.inputs) {
    auto from = state_.steps.find(input);
    CHECK(from != state_.steps.end());  // plans are in topological order
    from->second.consumers.insert(step.key);
  }
  WriteStep(step);
}

JobStep& Scheduler::AdoptName(Job& job, Step& step, const recipes::PlannedStep& planned) {
  const JobStep* known = job.Find(planned.name);
  size_t at = known == nullptr ? job.steps.size() : static_cast<size_t>(known - job.steps.data());
  if (known != nullptr && known->key == planned.key) return job.steps[at];
  // The job wants it for the first time. A failure of an earlier job is the answer only if it is a function of the step.
  if (step.state == StepState::kFailed && !FailsAgain(step.problem.OrDefault().error_class)) Reopen(step);
  if (step.state == StepState::kFailed) {
    Note(job, "warning", planned.name, "failed in an earlier job and would fail again: " + step.problem.OrDefault().message);
  }
  bool reused = step.state == StepState::kDone;
  if (reused && !Collected(step.key)) ++state_.counters.steps_reused;  // otherwise it may have to run again (MakeAgain)
  return job.PutStep({.name = planned.name, .variant = state_.texts.Keep(planned.variant), .ordinal = static_cast<int64_t>(at), .key = planned.key, .reused = reused});
}

void Scheduler::SetWanted(Job& job, JobStep& in_job, bool wanted) {
  if (in_job.wanted == wanted) return;
  in_job.wanted = wanted;
  WriteName(job, in_job);
}

void Scheduler::WriteName(const Job& job, const JobStep& in_job) {
  Write(storage::JobStepRow{.job = job.id,
                            .name = in_job.name,
                            .ordinal = in_job.ordinal,
                            .variant = *in_job.variant,
                            .key = in_job.key,
                            .reused = in_job.reused,
                            .wanted = in_job.wanted});
}

void Scheduler::Want(Job& job, Step& step) {
  bool fresh = step.wanted_by.insert(job.id);
  if (step.state == StepState::kCancelled) Reopen(step);
  if (!fresh) return;
  RefreshInputs(step);
  Enqueue(step);
}

void Scheduler::Unwant(Job& job, Step& step, const std::string& reason) {
  if (step.wanted_by.erase(job.id) == 0) return;
  if (step.wanted_by.empty()) {
    CancelStep(step, reason);
  } else {
    Enqueue(step);
  }
}

void Scheduler::DropUnwanted(Job& job, const recipes::PlannedSteps& plan) {
  // Every name of the plan is wanted now, so if there are no more of them, nothing is to be dropped.
  auto wanted = std::count_if(job.steps.begin(), job.steps.end(), [](const JobStep& in_job) { return in_job.wanted; });
  if (static_cast<size_t>(wanted) == plan.size()) return;
  std::set<std::string> names;
  std::set<StepKey> keys;
  for (const recipes::PlannedStep& planned : plan) {
    names.insert(planned.name);
    keys.insert(planned.key);
  }
  std::map<StepKey, StepKey> failed = FailedBefore(job);
  for (JobStep& in_job : job.steps) {
    if (names.count(in_job.name) != 0) continue;
    SetWanted(job, in_job, false);
    if (keys.count(in_job.key) != 0) continue;
    job.outcomes.erase(in_job.key);  // the job hears nothing of it any more, so it must not go on knowing
    auto blocked = failed.find(in_job.key);
    Unwant(job, state_.steps.at(in_job.key),
           blocked == failed.end() ? "not needed any more: its job went another way"
                                   : BlockedBy(state_.steps.at(blocked->second), job, NameIn(job, blocked->second)));
  }
}

// The steps of a job that cannot run because one before them failed for good, and which one. Names come after those they build on.
std::map<StepKey, StepKey> Scheduler::FailedBefore(const Job& job) const {
  std::map<StepKey, StepKey> failed;
  for (const JobStep& in_job : job.steps) {
    for (const auto& [role, input] : state_.steps.at(in_job.key).inputs) {
      const Step* from = state_.FindStep(input);
      auto before = failed.find(input);
      if (before != failed.end()) failed.emplace(in_job.key, before->second);
      else if (from != nullptr && from->state == StepState::kFailed) failed.emplace(in_job.key, input);
    }
  }
  return failed;
}

bool Scheduler::DecideLocal(Job& job, const recipes::PlannedSteps& plan) {
  bool decided = false;
  for (const recipes::PlannedStep& planned : plan) {
    if (!planned.local || job.outcomes.count(planned.key) != 0) continue;
    bool complete = std::all_of(planned.spec.inputs.begin(), planned.spec.inputs.end(),
                                [&](const auto& input) { return job.outcomes.count(input.second) != 0; });
    if (!complete) continue;
    Json results = planner_.decide(planned, *job.recipe, job.outcomes);
    if (const StepKey* key = PromotedWithoutBlobs(results)) {  // a version always has its checkpoint: it is made first
      const Step& chosen = state_.steps.at(*key);
      bool done = chosen.state == StepState::kDone && chosen.artifact.hex() == TextAt(results, "artifact");
      bool ended = chosen.state == StepState::kDone || chosen.state == StepState::kFailed;
      if (done) RunCollected(job, {*key});
      decided = decided || done;
      if (done || !ended) continue;
    }
    storage::Artifact artifact{.kind = "decision", .step = planned.key, .results = results};
    JsonText manifest = storage::ToJson(artifact);
    Digest digest = pare::DigestOf(manifest.text());
    actions_.blobs.push_back(manifest.text());
    Finish(state_.steps.at(planned.key), digest, manifest, std::move(artifact));
    RegisterDecision(job, planned, results);
    decided = true;
  }
  return decided;
}

// The plan is in topological order, so one walk from its end knows the work that hangs on every step. What is done, and hence
// all it was made from, waits for nothing.
void Scheduler::UpdateChains(Job& job, const recipes::PlannedSteps& plan) {
  std::map<StepKey, int64_t> after;
  for (auto planned = plan.rbegin(); planned != plan.rend(); ++planned) {
    auto outcome = job.outcomes.find(planned->key);
    bool known = outcome != job.outcomes.end();
    if (known && outcome->second.done) continue;
    Step& step = state_.steps.at(planned->key);
    int64_t chain = after[step.key] + (known ? 0 : step.cost);
    for (const auto& [role, input] : step.inputs) after[input] = std::max(after[input], chain);
    if (chain == step.chain) continue;
    step.chain = chain;
    Enqueue(step);
  }
}

void Scheduler::CheckFinished(Job& job) {
  size_t failed = 0, wanted = 0, candidates = 0;
  bool shared_failed = false;
  std::string first;
  for (const JobStep& in_job : job.steps) {
    if (!in_job.wanted) continue;
    ++wanted;
    auto outcome = job.outcomes.find(in_job.key);
    if (outcome == job.outcomes.end()) return;
    if (outcome->second.done) {
      candidates += in_job.candidate ? 1 : 0;
      continue;
    }
    ++failed;
    shared_failed = shared_failed || in_job.variant->empty();
    const Step& step = state_.steps.at(in_job.key);
    const Problem& problem = step.problem.OrDefault();
    if (first.empty()) first = in_job.name + ": " + problem.error_class + ": " + problem.message;
  }
  // What all variants share has failed, or nothing came out of any variant: there is nothing to choose from.
  bool lost = failed > 0 && (shared_failed || candidates == 0);
  std::string message = failed == 0 ? "" : std::to_string(failed) + " of " + Plural(wanted, "step") + " failed; first " + first;
  Note(job, lost ? "error" : "info", "", lost ? "failed: " + message : failed == 0 ? "done" : "done; " + message);
  SetJobState(job, lost ? JobState::kFailed : JobState::kDone, message);
  for (const JobStep& in_job : job.steps) state_.steps.at(in_job.key).wanted_by.erase(job.id);
  DropRecipe(job);
  job.outcomes.clear();
}

}  // namespace pare::coordinator
