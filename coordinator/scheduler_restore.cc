// Restart: rows → state. Ready and waiting are worked out again; running are the attempts that had not ended.
#include <algorithm>
#include <utility>

#include "common/check.h"
#include "coordinator/scheduler.h"
#include "storage/artifact.h"

namespace pare::coordinator {

Actions Scheduler::Restore(storage::StoredState stored, Now now) {
  now_ = now;
  actions_ = Actions();
  RestoreSteps(stored);
  RestoreJobs(stored);
  for (storage::VersionRow& row : stored.versions) state_.models[row.model].versions.push_back(std::move(row));
  for (const storage::AliasRow& row : stored.aliases) {
    if (row.version != 0) state_.models[row.model].aliases[row.alias] = row.version;
  }
  // By sequence (StoredState): the last one's number says which comes next.
  for (storage::PromotionRow& row : stored.promotions) state_.models[row.model].history.push_back(std::move(row));
  for (auto& [id, job] : state_.jobs) {
    if (job.state == JobState::kDone && job.lacks_steps()) RestoreLostSteps(job);
  }
  PlanRestored();
  return std::exchange(actions_, Actions());
}

void Scheduler::RestoreSteps(storage::StoredState& stored) {
  for (const storage::ArtifactRow& row : stored.artifacts) {
    auto artifact = storage::HeadFromText(row.manifest);
    if (!artifact.ok() || FieldOf(row.manifest.text(), "results").empty()) continue;  // its step runs again
    ArtifactRecord& record = state_.artifacts[row.digest];
    record = {.key = row.key, .kind = artifact->kind, .results = storage::ResultsOf(row.manifest), .bytes = row.bytes, .created_ms = row.created_ms,
              .collected = row.collected_ms != 0};
    for (const auto& [role, blob] : artifact->blobs) record.blobs[role] = blob;
  }
  state_.steps.reserve(stored.steps.size());
  for (const storage::StepRow& row : stored.steps) {
    Step& step = state_.steps[row.key];
    step.key = row.key;
    step.kind = state_.texts.Keep(row.kind);
    SpecHead head = HeadOf(row.spec);
    step.device = state_.texts.Keep(head.device);
    step.inputs = std::move(head.inputs);
    step.spec = SpecText(row.spec, head.inputs_text, step.inputs, state_.texts);
    step.failures = row.attempts;
    if (!row.error_class.empty() || !row.message.empty()) step.problem = Problem{row.error_class, row.message};
    StepState state = StepStateOf(row.state).value_or(StepState::kWaiting);
    bool done = state == StepState::kDone && state_.artifacts.count(row.artifact) != 0;
    if (done) step.artifact = row.artifact;
    bool kept = done || state == StepState::kFailed || state == StepState::kCancelled;
    step.state = kept ? state : StepState::kWaiting;
  }
  for (auto& [key, step] : state_.steps) {
    for (const auto& [role, input] : step.inputs) {
      auto from = state_.steps.find(input);
      if (from != state_.steps.end()) from->second.consumers.insert(key);
    }
  }
  for (const storage::SnapshotRow& row : stored.snapshots) {
    auto step = state_.steps.find(row.key);
    if (step == state_.steps.end() || row.blob.is_none()) continue;
    state_.last_epoch = std::max(state_.last_epoch, row.lease_epoch);  // its attempt may be lost (fsck --repair)
    step->second.snapshot = Snapshot{row.blob, row.position, {row.lease_epoch, row.sequence}};
  }
  for (storage::AttemptRow& row : stored.attempts) {
    state_.last_epoch = std::max(state_.last_epoch, row.epoch);
    auto step = state_.steps.find(row.key);
    if (step == state_.steps.end()) continue;
    if (!step->second.past) step->second.past = Past{};
    step->second.past->attempts.push_back(std::move(row));
  }
}

void Scheduler::RestoreJobs(storage::StoredState& stored) {
  for (const storage::JobRow& row : stored.jobs) {
    Job& job = state_.jobs[row.id];
    job.id = row.id;
    job.name = row.name;
    job.user = row.user;
    job.number = ++state_.last_job_number;
    job.state = JobStateOf(row.state).value_or(JobState::kPaused);
    job.created_ms = row.created_ms;
    job.finished_ms = row.finished_ms;
    job.recipe_text = PackedText(row.recipe_text);
    job.recipe_digest = row.recipe_digest;
    job.resolved = PackedText(row.resolved.text());
    job.message = row.message;
    job.priority = row.priority;
    job.last_event = stored.last_event.count(row.id) != 0 ? stored.last_event.at(row.id) : 0;
    if (job.finished()) continue;
    OpenShare(job);
    job.planned = false;
    unplanned_.insert({-job.priority, job.number, job.id});
  }
  for (const storage::JobStepRow& row : stored.job_steps) {
    auto found = state_.jobs.find(row.job);
    auto step = state_.steps.find(row.key);
    if (found == state_.jobs.end() || step == state_.steps.end()) continue;
    Job& job = found->second;
    job.PutStep({.name = row.name, .variant = state_.texts.Keep(row.variant), .ordinal = row.ordinal, .key = row.key, .reused = row.reused, .wanted = row.wanted});
    if (job.finished() || !row.wanted) continue;
    step->second.wanted_by.insert(job.id);
    if (step->second.state != StepState::kDone && step->second.state != StepState::kFailed) continue;
    recipes::StepOutcome& outcome = job.outcomes[row.key];
    outcome = {.done = step->second.state == StepState::kDone, .artifact = step->second.artifact};
    if (outcome.done) outcome.results = state_.artifacts.at(outcome.artifact).results;
  }
  std::vector<StepKey> held;
  for (auto& [key, step] : state_.steps) {
    if (step.state == StepState::kWaiting) RefreshInputs(step);
    step.since = RecordedSince(step);
    if (!step.attempts().empty() && step.attempts().back().outcome == "running") held.push_back(key);
  }
  std::sort(held.begin(), held.end());
  for (const StepKey& key : held) {
    auto last_point = stored.last_point.find(key);
    RestoreHold(state_.steps.at(key), last_point == stored.last_point.end() ? 0 : last_point->second);
  }
}

// Recipe and results tell which steps a job had that is done: all that it wants has ended. Where that is not so, a result is lost
// as well, and nobody knows.
void Scheduler::RestoreLostSteps(Job& job) {
  std::string message = job.message;
  if (!LoadRecipe(job)) {
    job.message = message;
    return;
  }
  recipes::Outcomes outcomes;
  recipes::PlannedSteps plan;
  for (bool learnt = true; learnt;) {
    learnt = false;
    plan = planner_.next(*job.recipe, outcomes);
    if (plan.size() > kMaxStepsPerJob) return DropRecipe(job);
    for (const recipes::PlannedStep& planned : plan) {
      const Step* step = state_.FindStep(planned.key);
      bool done = step != nullptr && step->state == StepState::kDone;
      if (!done && (step == nullptr || step->state != StepState::kFailed)) return DropRecipe(job);
      auto [outcome, fresh] = outcomes.try_emplace(planned.key, recipes::StepOutcome{.done = done, .artifact = step->artifact});
      if (fresh && done) outcome->second.results = state_.artifacts.at(step->artifact).results;
      learnt = learnt || fresh;
    }
  }
  Job known;  // what rows still tell
  std::swap(known.steps, job.steps);
  std::swap(known.by_name, job.by_name);
  std::swap(known.by_key, job.by_key);
  auto put = [&](JobStep in_job, bool wanted) {
    in_job.ordinal = static_cast<int64_t>(job.steps.size());
    in_job.wanted = !wanted;
    SetWanted(job, job.PutStep(std::move(in_job)), wanted);
  };
  for (const recipes::PlannedStep& planned : plan) {
    Step& step = state_.steps.at(planned.key);
    if (step.spec.none()) TakeSpec(step, planned);
    const JobStep* old = known.Find(planned.name);
    put({.name = planned.name, .variant = state_.texts.Keep(planned.variant), .key = planned.key, .reused = old != nullptr && old->reused, .candidate = planned.candidate}, true);
  }
  for (JobStep& old : known.steps) {
    if (job.Find(old.name) == nullptr) put(std::move(old), false);
  }
  DropRecipe(job);
}

// When a step came into its state, as far as rows tell: results and attempts carry times, inputs that came and cancellations do not.
WallTime Scheduler::RecordedSince(const Step& step) const {
  if (step.state == StepState::kDone) return {state_.artifacts.at(step.artifact).created_ms};
  if (step.state == StepState::kFailed && !step.attempts().empty()) return {step.attempts().back().ended_ms};
  return {};
}

// The worker of an attempt that had not ended may come back with it.
void Scheduler::RestoreHold(Step& step, int64_t newest_point) {
  storage::AttemptRow& attempt = step.past->attempts.back();
  if (step.wanted_by.empty()) {  // its job cannot be read by this release
    attempt.outcome = "cancelled";
    attempt.ended_ms = now_.wall.ms;
    return Write(attempt);
  }
  size_t share = state_.jobs.at(*step.wanted_by.begin()).share;
  step.hold = Hold{.epoch = attempt.epoch, .members = {}, .newest_point = newest_point, .granted = now_.monotonic, .share = share};
  for (const std::string& name : WorkersOf(attempt)) step.hold->members.push_back({.worker = name, .confirmed = now_.monotonic, .seen = true});
  state_.shares[share].held += static_cast<int64_t>(step.hold->members.size());
  state_.running.insert(step.key);
  NoteShared(step);
  step.state = StepState::kRunning;
  step.since = {attempt.started_ms};
  Enqueue(step);
}

}  // namespace pare::coordinator
