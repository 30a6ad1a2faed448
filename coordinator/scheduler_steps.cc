// The life of a step: the moves drawn in scheduler.h.
#include <algorithm>
#include <utility>

#include "common/check.h"
#include "coordinator/scheduler.h"
#include "storage/artifact.h"

namespace pare::coordinator {
namespace {

using enum StepState;

struct LegalMove {
  StepState from, to;
};
// Numbers as in the header.
constexpr LegalMove kMoves[] = {
    {kWaiting, kReady},      // 1
    {kReady, kWaiting},      // 2
    {kReady, kRunning},      // 3
    {kRunning, kDone},       // 4
    {kWaiting, kDone},       // decided by the coordinator
    {kReady, kDone},         //
    {kRunning, kReady},      // 5
    {kRunning, kFailed},     // 6
    {kFailed, kWaiting},     // 7
    {kDone, kWaiting},       // 8
    {kCancelled, kWaiting},  // 7
    {kWaiting, kCancelled},  // 9
    {kReady, kCancelled},    // 9
    {kRunning, kCancelled},  // 9
    {kDone, kCancelled},     // 9, with 8
};

bool Legal(StepState from, StepState to) {
  return std::any_of(std::begin(kMoves), std::end(kMoves), [&](const LegalMove& m) { return m.from == from && m.to == to; });
}

std::string Seconds(int64_t ms) {
  std::string tenths = std::to_string((ms + 50) / 100);
  if (tenths.size() < 2) tenths.insert(0, 2 - tenths.size(), '0');
  return tenths.insert(tenths.size() - 1, ".") + " s";
}

}  // namespace

void Scheduler::Move(Step& step, StepState to) {
  CHECK(Legal(step.state, to));
  step.state = to;
  step.since = now_.wall;
  Enqueue(step);
}

void Scheduler::Finish(Step& step, const Digest& artifact, const JsonText& manifest, storage::Artifact content) {
  StoreArtifact(step, artifact, manifest, std::move(content));
  step.artifact = artifact;
  step.problem.reset();
  step.failures = 0;
  if (step.snapshot) DropSnapshot(step);
  Move(step, kDone);
  ++state_.counters.steps_done;
  WriteStep(step);
  std::string text = "done";
  if (!step.local && !step.attempts().empty()) {
    const storage::AttemptRow& attempt = step.attempts().back();
    text += " on " + NamesOf(WorkersOf(attempt)) + " in " + Seconds(attempt.busy_ms);
  }
  NoteForAll(step, "info", text);
  TellJobs(step);
  for (const StepKey& consumer : step.consumers) RefreshInputs(state_.steps.at(consumer));
}

void Scheduler::DropSnapshot(Step& step) {
  step.snapshot.reset();
  Write(storage::SnapshotRow{.key = step.key, .at_ms = now_.wall.ms});
}

void Scheduler::StoreArtifact(Step& step, const Digest& digest, const JsonText& manifest, storage::Artifact content) {
  ArtifactRecord record{.key = step.key, .kind = std::move(content.kind), .results = storage::ResultsOf(manifest), .created_ms = now_.wall.ms};
  for (const auto& [role, blob] : content.blobs) {
    record.blobs[role] = blob;
    record.bytes += blob.bytes;
  }
  Write(storage::ArtifactRow{.digest = digest, .key = step.key, .manifest = manifest, .bytes = record.bytes, .created_ms = now_.wall.ms});
  state_.artifacts[digest] = std::move(record);
}

void Scheduler::FailOrRetry(Step& step, const std::string& error_class, const std::string& message) {
  if (step.wanted_by.empty()) return CancelStep(step, "no job wants it any more");
  ++step.failures;
  if (error_class == "corrupt" && step.snapshot) {
    // The damaged file may be the snapshot itself: the next attempt starts afresh.
    DropSnapshot(step);
  }
  RetryPolicy policy = RetryPolicyOf(error_class);
  int same_class = 0, looked = 0;
  for (auto it = step.attempts().rbegin(); it != step.attempts().rend() && looked < step.failures; ++it) {
    if (it->outcome != "failed" && it->outcome != "lost") continue;
    ++looked;
    if (it->error_class == error_class) ++same_class;
  }
  if (same_class > policy.retries) return FailForGood(step, error_class, message);
  size_t failed = static_cast<size_t>(std::count_if(step.attempts().begin(), step.attempts().end(),
                                                    [](const auto& a) { return a.outcome == "failed" || a.outcome == "lost"; }));
  if (failed >= kMaxFailedAttempts) {
    return FailForGood(step, error_class, "the limit of " + std::to_string(kMaxFailedAttempts) + " failed attempts is reached; the last: " + message);
  }
  Millis wait = BackoffOf(policy, same_class);
  step.not_before = std::max(step.not_before, now_.monotonic + wait);
  step.problem = Problem{error_class, ClipText(message)};
  ++state_.counters.retries;
  std::string limit = policy.retries == kUnlimitedRetries ? "" : " of " + std::to_string(policy.retries);
  NoteForAll(step, "warning",
             error_class + ": " + ClipText(message) + "; retry " + std::to_string(same_class) + limit +
                 (wait == Millis(0) ? std::string(" at once") : " in " + Seconds(wait.count())) +
                 (step.snapshot ? ", from its snapshot" : ""));
  GiveBack(step);
  WriteStep(step);
}

void Scheduler::FailForGood(Step& step, const std::string& error_class, const std::string& message) {
  step.problem = Problem{error_class, ClipText(message)};
  Move(step, kFailed);
  ++state_.counters.steps_failed;
  WriteStep(step);
  NoteForAll(step, "error", "failed for good: " + error_class + ": " + ClipText(message));
  TellJobs(step);
}

void Scheduler::CancelStep(Step& step, const std::string& reason) {
  if (step.hold) {
    RevokeLease(step, false, reason);
    EndAttempt(step, "cancelled", "", reason, 0);
  }
  if (step.state == kCancelled || step.state == kFailed || step.state == kDone) return;
  step.problem = Problem{step.problem.OrDefault().error_class, reason};
  Move(step, kCancelled);
  WriteStep(step);
}

void Scheduler::Reopen(Step& step) {
  step.failures = 0;
  step.problem.reset();
  step.not_before = Millis(0);
  Move(step, kWaiting);
  WriteStep(step);
  ForgetOutcome(step);
  RefreshInputs(step);
}

void Scheduler::GiveBack(Step& step) {
  if (step.wanted_by.empty()) return CancelStep(step, "no job wants it any more");
  if (step.state == kRunning) Move(step, kReady);
  RefreshInputs(step);
}

void Scheduler::RefreshInputs(Step& step) {
  if (step.state != kWaiting && step.state != kReady) return;
  bool complete = std::all_of(step.inputs.begin(), step.inputs.end(), [this](const auto& input) {
    const Step* from = state_.FindStep(input.second);
    return from != nullptr && from->state == kDone;
  });
  if (complete && step.state == kWaiting) Move(step, kReady);
  if (!complete && step.state == kReady) Move(step, kWaiting);
}

void Scheduler::Enqueue(Step& step) {
  if (step.queued) {
    state_.ready[DeviceClassOf(*step.device)].Erase(step.queued->share, step.queued->rank);
    state_.delayed.erase({step.not_before, step.key});
    step.queued.reset();
  }
  if (step.state != kReady || step.local) return;
  for (const std::string& id : step.wanted_by) {
    const Job& job = state_.jobs.at(id);
    if (job.state != JobState::kRunning || !job.planned) continue;
    const JobStep* in_job = job.Find(step.key);
    QueueRank rank{-job.priority, job.number, -step.chain, in_job == nullptr ? 0 : in_job->ordinal, step.key};
    if (step.queued && !(rank < step.queued->rank)) continue;
    step.queued = QueuePlace{rank, job.share};
  }
  if (!step.queued) return;
  if (step.not_before > now_.monotonic) {
    state_.delayed.insert({step.not_before, step.key});
  } else {
    state_.ready[DeviceClassOf(*step.device)].Insert(step.queued->share, step.queued->rank);
  }
}

void Scheduler::WakeDelayed() {
  while (!state_.delayed.empty() && state_.delayed.begin()->first <= now_.monotonic) {
    Step& step = state_.steps.at(state_.delayed.begin()->second);
    state_.delayed.erase(state_.delayed.begin());
    Enqueue(step);
  }
}

void Scheduler::TellJobs(Step& step) {
  for (const std::string& id : step.wanted_by) {
    Job& job = state_.jobs.at(id);
    auto [known, fresh] = job.outcomes.try_emplace(step.key);
    recipes::StepOutcome& outcome = known->second;
    outcome = {.done = step.state == kDone, .artifact = step.artifact};
    if (outcome.done) outcome.results = state_.artifacts.at(step.artifact).results;
    bool same_plan = planner_.waits_for_all && fresh && outcome.done && job.open > 1;
    if (same_plan) --job.open;
    else MarkDirty(job);
  }
}

void Scheduler::ForgetOutcome(Step& step) {
  for (const std::string& id : step.wanted_by) {
    Job& job = state_.jobs.at(id);
    job.outcomes.erase(step.key);
    MarkDirty(job);
  }
}

void Scheduler::On(const ArtifactsLost& event) {
  for (const StepKey& key : event.steps) {
    auto it = state_.steps.find(key);
    if (it == state_.steps.end() || it->second.state != kDone) continue;
    LoseArtifact(it->second);
  }
}

void Scheduler::LoseArtifact(Step& step) {
  NoteForAll(step, "warning", "its artifact " + step.artifact.brief() + " is not in the store any more: the step runs again");
  RunAgain(step);
}

void Scheduler::RunAgain(Step& step) {
  step.artifact = Digest();
  if (step.wanted_by.empty()) {
    Move(step, kCancelled);
    WriteStep(step);
  } else {
    Reopen(step);
  }
  for (const StepKey& consumer : step.consumers) RefreshInputs(state_.steps.at(consumer));
}

// The steps stay done, for reports; a job that needs one of the checkpoints makes its step run again (MakeAgain).
void Scheduler::On(const ArtifactsCollected& event) {
  for (const Digest& digest : event.artifacts) {
    auto record = state_.artifacts.find(digest);
    if (record != state_.artifacts.end()) record->second.collected = true;
  }
}

}  // namespace pare::coordinator
