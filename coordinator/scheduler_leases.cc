// What workers report about their leases, and what the coordinator does with leases.
#include <algorithm>
#include <utility>

#include "common/check.h"
#include "coordinator/measurements.h"
#include "coordinator/scheduler.h"
#include "storage/artifact.h"
#include "worker/step_runner.h"

namespace pare::coordinator {
namespace {

// What decisions and reports read of an evaluation is there.
std::string EvaluationProblem(const Step& step, std::string_view results, const std::string& evaluated) {
  std::string_view accuracy = FieldOf(results, "accuracy"), summary = FieldOf(results, "summary");
  if (accuracy.empty() || TypeNameOf(accuracy) != "number") return "the evaluation has no accuracy";
  if (StringOf(FieldOf(results, "model")).value_or("") != evaluated) return "the evaluation is of another model than the input of step " + step.key.brief();
  for (const char* field : {"parameters_nonzero", "multiply_adds_nonzero", "checkpoint_bytes"}) {
    if (!IntegerOf(FieldOf(summary, field))) return std::string("the evaluation has no summary.") + field;
  }
  return "";
}

// Why the manifest is not the artifact of this step; empty if it is.
std::string ManifestProblem(const State& state, const Step& step, const StepFinished& finished, const Result<storage::Artifact>& artifact) {
  std::string_view results = FieldOf(finished.manifest.text(), "results");
  if (DigestOf(finished.manifest.text()) != finished.artifact) return "the manifest does not have the digest of the artifact";
  if (!artifact.ok()) return artifact.error().message;
  if (results.empty()) return "artifact manifest without results";
  if (artifact->step != finished.lease.step) return "the manifest is of step " + artifact->step.brief();
  if (*step.kind == "evaluate") {
    if (artifact->kind != "evaluation") return "an evaluate step left a " + artifact->kind;
    auto model = step.inputs.find("model");
    const Step* from = model == step.inputs.end() ? nullptr : state.FindStep(model->second);
    return EvaluationProblem(step, results, from == nullptr ? "" : from->artifact.hex());
  }
  if (artifact->kind == "evaluation" || artifact->kind == "decision") return "a " + *step.kind + " step left a " + artifact->kind;
  if ((artifact->kind == "measurement") != (*step.kind == "measure")) return "a " + *step.kind + " step left a " + artifact->kind;
  return "";
}

// " in epoch 3, batch 120": where a snapshot goes on, counted from 1; nothing for a position of other fields.
std::string PositionText(const JsonText& position) {
  auto epoch = IntegerOf(FieldOf(position.text(), "epoch")), batch = IntegerOf(FieldOf(position.text(), "batch"));
  if (!epoch || *epoch < 0) return "";
  return " in epoch " + std::to_string(*epoch + 1) + (batch && *batch >= 0 ? ", batch " + std::to_string(*batch + 1) : "");
}

// Where a snapshot goes on, to be compared; (0, 0) for a position of other fields.
std::pair<int64_t, int64_t> PlaceOf(const JsonText& position) {
  return {IntegerOf(FieldOf(position.text(), "epoch")).value_or(0), IntegerOf(FieldOf(position.text(), "batch")).value_or(0)};
}

constexpr int64_t kLastOfLease = INT64_MAX;  // the snapshot of a Released: nothing of the lease comes after it
// Both in heartbeats, if those are longer, as agents wait for acknowledgements (outbox).
constexpr Millis kRevokeInterval{1'000};
constexpr Millis kRegroup{500};

}  // namespace

Step* Scheduler::Held(const Lease& lease) {
  auto it = state_.steps.find(lease.step);
  if (it == state_.steps.end() || !it->second.hold || it->second.hold->epoch != lease.epoch) return nullptr;
  return &it->second;
}

void Scheduler::Acknowledge(const PeerId& peer, const Lease& lease, const std::string& of, int64_t sequence) {
  Say(peer, Ack{lease, of, sequence});
}

void Scheduler::AnswerOld(const PeerId& peer, const Lease& lease, const std::string& type, const std::string& outcome) {
  // Whoever reports something else is still busy with it.
  if (outcome.empty()) {
    if (WorkerAt(peer) == nullptr) OnUnknownPeer(peer);
  } else {
    FreeWorker(peer, lease);
  }
  const Step* step = state_.FindStep(lease.step);
  const storage::AttemptRow* attempt = nullptr;
  for (size_t i = 0; step != nullptr && i < step->attempts().size(); ++i) {
    if (step->attempts()[i].epoch == lease.epoch) attempt = &step->attempts()[i];
  }
  // A gang's workers are asked back when one of them has ended the attempt, whatever its outcome.
  bool given_back = type == "released" && attempt != nullptr && (attempt->outcome == "released" || attempt->outcome == "cancelled" || WorkersOf(*attempt).size() > 1);
  if (attempt != nullptr && !outcome.empty() && (attempt->outcome == outcome || given_back)) {
    ++state_.counters.duplicates;
    return Acknowledge(peer, lease, type, 0);
  }
  ++state_.counters.stale_refused;
  std::string why = attempt == nullptr ? "there was no such lease" : "this attempt has ended: " + attempt->outcome;
  Say(peer, Stale{lease, why});
}

// The worker at this peer has room again: it has just said that the lease is over, or is told so.
void Scheduler::FreeWorker(const PeerId& peer, const Lease& lease) {
  Worker* worker = WorkerAt(peer);
  if (worker == nullptr) return OnUnknownPeer(peer);
  if (worker->lease == lease) SetLease(*worker, {});
}

void Scheduler::Confirm(Member& member) {
  member.confirmed = now_.monotonic;
  member.seen = true;
}

void Scheduler::ConfirmAt(const PeerId& peer, Hold& hold) {
  const Worker* worker = WorkerAt(peer);
  if (worker == nullptr) OnUnknownPeer(peer);
  Member* member = worker == nullptr ? nullptr : hold.Find(worker->name);
  // After a restart of the coordinator the only worker of a lease may be heard before its Hello.
  if (member == nullptr && !hold.gang()) member = &hold.members.front();
  if (member != nullptr) Confirm(*member);
}

void Scheduler::OnAgent(const PeerId& peer, const Progress& progress) {
  Step* step = Held(progress.lease);
  if (step == nullptr) return AnswerOld(peer, progress.lease, "progress", "");
  Hold& hold = *step->hold;
  ConfirmAt(peer, hold);
  if (progress.after > hold.newest_point) return;  // an acknowledgement covers all earlier points: they will be repeated
  for (const MetricPoint& point : progress.points) {
    if (point.sequence <= hold.newest_point) continue;
    Write(storage::MetricRow{.key = step->key,
                             .lease_epoch = hold.epoch,
                             .sequence = point.sequence,
                             .at_ms = now_.wall.ms,
                             .values = point.values});
    hold.newest_point = point.sequence;
    step->past->progress = point.values;
  }
  Acknowledge(peer, progress.lease, "progress", hold.newest_point);
}

void Scheduler::TakeSnapshot(Step& step, std::pair<int64_t, int64_t> order, const Digest& blob, const JsonText& position) {
  if (blob.is_none() || order <= step.snapshot.OrDefault().order) return;
  step.snapshot = Snapshot{blob, position, order};
  Write(storage::SnapshotRow{.key = step.key, .blob = blob, .at_ms = now_.wall.ms, .position = position, .lease_epoch = order.first, .sequence = order.second});
  if (step.failures == 0) return;
  step.failures = 0;  // it made progress
  WriteStep(step);
}

void Scheduler::OnAgent(const PeerId& peer, const SnapshotTaken& snapshot) {
  Step* step = Held(snapshot.lease);
  if (step == nullptr) return AnswerOld(peer, snapshot.lease, "snapshot_taken", "");
  ConfirmAt(peer, *step->hold);
  // Not in the store any more (Service): nothing to resume from, so nothing is acknowledged. The worker repeats it until its next.
  if (snapshot.blob.is_none()) return;
  TakeSnapshot(*step, {snapshot.lease.epoch, snapshot.sequence}, snapshot.blob, snapshot.position);
  Acknowledge(peer, snapshot.lease, "snapshot_taken", snapshot.sequence);
}

void Scheduler::OnAgent(const PeerId& peer, const StepFinished& finished) { Conclude(peer, finished, ""); }
void Scheduler::On(const BadResult& event) { Conclude(event.peer, event.finished, event.problem); }

void Scheduler::Conclude(const PeerId& peer, const StepFinished& finished, std::string problem) {
  Step* step = Held(finished.lease);
  if (step == nullptr) {
    CompareWithGang(finished);
    return AnswerOld(peer, finished.lease, "step_finished", "done");
  }
  FreeWorker(peer, finished.lease);
  auto artifact = storage::HeadFromText(finished.manifest);
  if (problem.empty()) problem = ManifestProblem(state_, *step, finished, artifact);
  if (!problem.empty()) {
    EndAttempt(*step, "failed", "corrupt", problem, finished.busy_ms);
    FailOrRetry(*step, "corrupt", problem);
    return Say(peer, Stale{finished.lease, problem});
  }
  EndAttempt(*step, "done", "", "", finished.busy_ms);
  Finish(*step, finished.artifact, finished.manifest, *std::move(artifact));
  if (Worker* worker = WorkerAt(peer)) {
    // Known before the next heartbeat says so: the step that follows is placed in this very turn.
    AddCached(*worker, finished.artifact);
  }
  Acknowledge(peer, finished.lease, "step_finished", 0);
}

// Two workers of a gang that finish must have the same bits.
void Scheduler::CompareWithGang(const StepFinished& finished) {
  const Step* step = state_.FindStep(finished.lease.step);
  if (step == nullptr || step->state != StepState::kDone || step->attempts().empty() || step->artifact == finished.artifact) return;
  const storage::AttemptRow& attempt = step->attempts().back();
  if (attempt.epoch != finished.lease.epoch || attempt.outcome != "done" || WorkersOf(attempt).size() == 1) return;
  std::string text = "two workers of its gang left different results, " + step->artifact.brief() + " and " + finished.artifact.brief() + ": please report this";
  for (auto& [id, job] : state_.jobs) {
    if (job.Find(step->key) != nullptr) Note(job, "error", NameIn(job, step->key), text);  // also of one that has ended
  }
}

void Scheduler::OnAgent(const PeerId& peer, const StepAborted& aborted) {
  Step* step = Held(aborted.lease);
  if (step == nullptr) return AnswerOld(peer, aborted.lease, "step_aborted", "failed");
  FreeWorker(peer, aborted.lease);
  EndAttempt(*step, "failed", aborted.error_class, aborted.message, aborted.busy_ms);
  FailOrRetry(*step, aborted.error_class, aborted.message);
  Acknowledge(peer, aborted.lease, "step_aborted", 0);
}

// The second phase begins with the last of the gang. Who repeats itself afterwards has not got the Commit.
void Scheduler::OnAgent(const PeerId& peer, const Prepared& prepared) {
  Step* step = Held(prepared.lease);
  if (step == nullptr) return AnswerOld(peer, prepared.lease, "prepared", "");
  Hold& hold = *step->hold;
  ConfirmAt(peer, hold);
  const Worker* worker = WorkerAt(peer);
  Member* member = worker == nullptr ? nullptr : hold.Find(worker->name);
  if (member == nullptr) return;
  bool again = hold.prepared();
  member->prepared = true;
  member->endpoint = prepared.endpoint;
  if (!hold.prepared()) return;
  pare::Commit commit{prepared.lease, {}};
  for (const Member& one : hold.members) commit.endpoints.push_back(one.endpoint);
  if (again) return Say(peer, std::move(commit));
  for (const Member& one : hold.members) {
    auto known = state_.workers.find(one.worker);
    if (known != state_.workers.end()) Say(known->second.peer, commit);
  }
}

void Scheduler::OnAgent(const PeerId& peer, const Released& released) {
  Step* step = Held(released.lease);
  if (step == nullptr) {
    TakeSurvivors(released);
    return AnswerOld(peer, released.lease, "released", "released");
  }
  FreeWorker(peer, released.lease);
  bool asked = step->hold->revoked.has_value();
  Worker* worker = WorkerAt(peer);
  if (worker != nullptr && !asked) Rest(*worker, now_.monotonic + 2 * config_.heartbeat);  // unasked: it is about to end
  // Of a gang the first one's newest snapshot may be ahead, by a batch, of what another is left with.
  bool behind = step->hold->gang() && step->snapshot.OrDefault().order.first == released.lease.epoch &&
                PlaceOf(released.position) < PlaceOf(step->snapshot.OrDefault().position);
  if (!behind) TakeSnapshot(*step, {released.lease.epoch, kLastOfLease}, released.snapshot, released.position);
  std::string why = "given back by the worker";
  if (step->hold->gang()) why = "given back by " + (worker == nullptr ? "a worker" : "worker " + worker->name) + ": it ends, or its gang did not meet or broke; its log says which";
  EndAttempt(*step, "released", "", asked ? "" : why, released.busy_ms);
  NoteForAll(*step, "info", step->snapshot ? "given back with a snapshot" : "given back");
  GiveBack(*step);
  Acknowledge(peer, released.lease, "released", 0);
}

void Scheduler::TakeSurvivors(const Released& released) {
  auto found = state_.steps.find(released.lease.step);
  if (found == state_.steps.end() || released.snapshot.is_none()) return;
  Step& step = found->second;
  if (step.hold || (step.state != StepState::kReady && step.state != StepState::kWaiting) || step.attempts().empty()) return;
  const storage::AttemptRow& attempt = step.attempts().back();
  if (attempt.epoch != released.lease.epoch || WorkersOf(attempt).size() == 1 || attempt.error_class == "corrupt") return;
  const Snapshot& newest = step.snapshot.OrDefault();
  if (newest.order.first == attempt.epoch && PlaceOf(released.position) <= PlaceOf(newest.position)) return;
  TakeSnapshot(step, {attempt.epoch, kLastOfLease}, released.snapshot, released.position);
}

JsonText Scheduler::AssignmentOf(const Step& step, int rank) const {
  worker::Assignment assignment{.key = step.key, .lease_epoch = step.hold->epoch, .attempt = static_cast<int>(step.attempts().size()), .snapshot = step.snapshot.OrDefault().blob};
  assignment.gang = {rank, static_cast<int>(step.hold->members.size())};
  for (const auto& [role, input] : step.inputs) assignment.inputs[role] = state_.steps.at(input).artifact;
  JsonText spec = step.spec.With(step.inputs), data;
  for (const std::string& id : step.wanted_by) {
    const Job& job = state_.jobs.at(id);
    if (!job.planned) continue;  // its recipe has not been read
    if (ReadsData(spec)) data = job.data;
    assignment.weights = job.weights;
    break;
  }
  return worker::ToText(assignment, spec, data, step.hints);
}

void Scheduler::Grant(Step& step, const Placed& placed) {
  Lease lease{step.key, ++state_.last_epoch};
  step.hold = Hold{.epoch = lease.epoch, .members = {}, .reason = placed.reason, .granted = now_.monotonic, .share = step.queued->share};
  for (const std::string& name : placed.workers) step.hold->members.push_back({.worker = name, .confirmed = now_.monotonic});
  state_.shares[step.queued->share].held += static_cast<int64_t>(placed.workers.size());
  if (!step.past) step.past = Past{};
  step.past->progress = JsonText();
  step.past->attempts.push_back({.key = step.key,
                                 .epoch = lease.epoch,
                                 .attempt = static_cast<int>(step.attempts().size()) + 1,
                                 .worker = LinesOf(placed.workers),
                                 .started_ms = now_.wall.ms,
                                 .outcome = "running"});
  Write(step.attempts().back());
  Move(step, StepState::kRunning);
  state_.running.insert(step.key);
  NoteShared(step);
  std::string text = "started on " + NamesOf(placed.workers);
  if (step.attempts().size() > 1) text += ", attempt " + std::to_string(step.attempts().size());
  if (step.snapshot) text += ", from its snapshot" + PositionText(step.snapshot->position);
  NoteForAll(step, "info", text);
  for (size_t rank = 0; rank < placed.workers.size(); ++rank) {
    Worker& worker = state_.workers.at(placed.workers[rank]);
    SetLease(worker, lease);
    Say(worker.peer, pare::Grant{lease, static_cast<int>(step.attempts().size()), AssignmentOf(step, static_cast<int>(rank))});
  }
}

void Scheduler::RevokeLease(Step& step, bool keep, const std::string& reason) {
  Hold& hold = *step.hold;
  if (hold.revoked && (keep || !*hold.revoked)) return;  // asked already, at least as urgently
  hold.revoked = keep;
  revoked_.insert(step.key);
  hold.revoked_at = now_.monotonic;
  SayRevoke(step, reason);
}

// One snapshot is enough: to keep it, the first of a gang is asked, and its word ends the attempt for all.
void Scheduler::SayRevoke(const Step& step, const std::string& reason) {
  const Hold& hold = *step.hold;
  size_t asked = *hold.revoked ? 1 : hold.members.size();
  for (size_t rank = 0; rank < asked; ++rank) {
    auto worker = state_.workers.find(hold.members[rank].worker);
    if (worker != state_.workers.end()) Say(worker->second.peer, Revoke{{step.key, hold.epoch}, *hold.revoked, reason});
  }
}

void Scheduler::RepeatRevokes() {
  for (const StepKey& key : revoked_) {
    Step& step = state_.steps.at(key);
    if (now_.monotonic - step.hold->revoked_at < std::max(kRevokeInterval, config_.heartbeat)) continue;
    step.hold->revoked_at = now_.monotonic;
    SayRevoke(step, "asked again");
  }
}

void Scheduler::DismissGang(Step& step, const storage::AttemptRow& ended) {
  step.not_before = now_.monotonic + kRegroup;  // time for them to stop, and to bring a snapshot
  if (step.hold->revoked == false) return;      // all of them were told to drop it
  bool survived = ended.outcome == "lost" || ended.error_class == "runner_lost" || ended.error_class == "out_of_memory";
  bool unsaved = ended.outcome == "released" && step.snapshot.OrDefault().order != std::pair(ended.epoch, kLastOfLease);
  Lease lease{step.key, ended.epoch};
  for (const Member& member : step.hold->members) {
    auto worker = state_.workers.find(member.worker);
    bool busy = worker != state_.workers.end() && worker->second.lease == lease;
    if (busy) Say(worker->second.peer, Revoke{lease, survived || unsaved, "the attempt of its gang has ended: " + ended.outcome});
  }
}

void Scheduler::EndAttempt(Step& step, const std::string& outcome, const std::string& error_class, const std::string& message,
                           int64_t busy_ms) {
  CHECK(step.hold && !step.attempts().empty() && step.attempts().back().epoch == step.hold->epoch);
  storage::AttemptRow& attempt = step.past->attempts.back();
  attempt.outcome = outcome;
  attempt.error_class = error_class;
  attempt.message = ClipText(message);
  attempt.ended_ms = now_.wall.ms;
  attempt.busy_ms = busy_ms;
  Write(attempt);
  if (step.hold->gang()) DismissGang(step, attempt);
  state_.running.erase(step.key);
  revoked_.erase(step.key);
  shared_.erase(step.key);
  Share& share = state_.shares[step.hold->share];
  auto workers = static_cast<int64_t>(step.hold->members.size());
  share.held -= workers;
  share.used += workers * (now_.monotonic - step.hold->granted);
  step.hold.reset();
}

void Scheduler::LoseLease(Step& step, const std::string& gone, const std::string& message, bool arrived) {
  auto worker = state_.workers.find(gone);
  if (worker != state_.workers.end() && worker->second.lease == Lease{step.key, step.hold->epoch}) SetLease(worker->second, {});
  ++state_.counters.leases_lost;
  EndAttempt(step, "lost", "worker_lost", message, 0);
  if (arrived) return FailOrRetry(step, "worker_lost", message);
  // Nothing ran, so it is no failure of the step.
  NoteForAll(step, "warning", message + ": it is given to another");
  GiveBack(step);
}

}  // namespace pare::coordinator
