#include "tests/simulation/oracle.h"

#include <algorithm>
#include <utility>

#include "tests/coordinator/durable_text.h"

namespace pare::simulation {

using coordinator::Job;
using coordinator::State;
using coordinator::Step;
using coordinator::StepState;

namespace {

int64_t CountLost(const State& state) {
  int64_t lost = 0;
  for (const auto& [key, step] : state.steps) {
    lost += std::count_if(step.attempts().begin(), step.attempts().end(), [](const auto& a) { return a.outcome == "lost"; });
  }
  return lost;
}

// The first lines that differ.
std::string FirstDifference(const std::string& a, const std::string& b) {
  size_t at = static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
  size_t line = at == 0 ? 0 : a.rfind('\n', at - 1) + 1;
  return "- " + a.substr(line, a.find('\n', at) - line) + "\n+ " + b.substr(line, b.find('\n', at) - line);
}

// The message's type without decoding it: canonical JSON has it near the end.
std::string_view TypeIn(std::string_view bytes) {
  constexpr std::string_view kField = "\"type\":\"";
  size_t at = bytes.rfind(kField);
  if (at == std::string_view::npos) return "";
  bytes.remove_prefix(at + kField.size());
  return bytes.substr(0, bytes.find('"'));
}

bool IsHeartbeatAck(std::string_view bytes) { return bytes.size() < 100; }  // it has no lease

}  // namespace

void Oracle::Expect(const recipes::ResolvedRecipe& recipe) {
  Undisturbed run = RunUndisturbed(recipe, scenario_.scale);
  expected_.insert(run.artifacts.begin(), run.artifacts.end());
  totals_[recipe.name] = run.total;
}

// ---- messages ----

void Oracle::Arrives(const PeerId& peer, bool to_server, std::string_view bytes, const State* state) {
  std::string_view type = TypeIn(bytes);
  bool report = type == "prepared" || type == "step_finished" || type == "step_aborted" || type == "released" || type == "snapshot_taken";
  bool answer = (type == "ack" && !IsHeartbeatAck(bytes)) || type == "stale" || type == "welcome";
  if (!(to_server ? report : answer)) return;
  auto message = Decode(bytes);
  if (!message.ok()) return Fail("a message does not decode: " + message.error().message);
  if (auto* m = std::get_if<Prepared>(&*message)) prepared_[m->lease].insert(peer);
  if (auto* m = std::get_if<StepFinished>(&*message)) Reported(m->lease, peer);
  if (auto* m = std::get_if<StepAborted>(&*message)) Reported(m->lease, peer);
  if (auto* m = std::get_if<Released>(&*message)) Reported(m->lease, peer);
  if (auto* m = std::get_if<SnapshotTaken>(&*message)) SnapshotArrives(*m, state);
  if (auto* m = std::get_if<Stale>(&*message)) Answered(m->lease);
  if (auto* m = std::get_if<Welcome>(&*message)) {
    for (const Lease& lease : m->drop) Answered(lease);
  }
  if (auto* m = std::get_if<Ack>(&*message); m != nullptr && m->of != "progress" && m->of != "snapshot_taken") Answered(m->lease);
}

void Oracle::SnapshotArrives(const SnapshotTaken& snapshot, const State* state) {
  if (*blobs_.Contains(snapshot.blob)) {
    arrived_snapshots_.emplace(std::pair(snapshot.lease, snapshot.sequence), SnapshotEpoch(snapshot.lease.step, snapshot.blob));
    return;
  }
  // Collected: no harm if the lease is over. Where the clock of the store's files jumps, or a worker whose lease is over has put the
  // snapshot before it once more, a collection cannot know better.
  const Step* step = state == nullptr ? nullptr : state->FindStep(snapshot.lease.step);
  bool held = step != nullptr && step->hold && step->hold->epoch == snapshot.lease.epoch;
  bool known_time = scenario_.wall_jumps == 0 && (step == nullptr || !blobs_.PutAgain(step->snapshot.OrDefault().blob));
  if (held && known_time && std::pair(snapshot.lease.epoch, snapshot.sequence) > step->snapshot.OrDefault().order) {
    Fail("step " + snapshot.lease.step.brief() + ": its snapshot was collected before the report of it arrived");
  }
}

void Oracle::Reported(const Lease& lease, const PeerId& peer) {
  if (answered_.count(lease) == 0 && dead_.count(peer) == 0) unanswered_[lease] = peer;
}

void Oracle::AgentDied(const PeerId& peer) {
  dead_.insert(peer);
  std::erase_if(unanswered_, [&](const auto& end) { return end.second == peer; });
}

void Oracle::Answered(const Lease& lease) {
  answered_.insert(lease);
  unanswered_.erase(lease);
}

void Oracle::CoordinatorSends(const PeerId& peer, std::string_view bytes, const State& state) {
  std::string_view type = TypeIn(bytes);
  if (type == "stale") ++stale_sent_;
  if (type != "grant" && type != "commit" && (type != "ack" || IsHeartbeatAck(bytes))) return;
  auto message = Decode(bytes);
  if (!message.ok()) return Fail("the coordinator sends what does not decode: " + message.error().message);
  if (auto* m = std::get_if<Ack>(&*message)) OnAck(peer, *m, state);
  if (auto* m = std::get_if<Grant>(&*message)) OnGrant(peer, *m, state);
  if (auto* m = std::get_if<Commit>(&*message)) OnCommit(*m, state);
}

void Oracle::OnAck(const PeerId& peer, const Ack& ack, const State& state) {
  const Step* step = state.FindStep(ack.lease.step);
  if (step == nullptr) return Fail("an acknowledgement of a step that does not exist");
  std::string name = "step " + ack.lease.step.brief() + " (lease " + std::to_string(ack.lease.epoch) + ")";
  auto granted = granted_.find(ack.lease);
  if (granted != granted_.end() && granted->second.count(peer) == 0) return Fail(name + " of " + *granted->second.begin() + " is acknowledged to " + peer);
  auto attempt = std::find_if(step->attempts().begin(), step->attempts().end(), [&](const auto& a) { return a.epoch == ack.lease.epoch; });
  if (ack.of == "step_finished") {
    if (attempt == step->attempts().end() || attempt->outcome != "done") {
      return Fail(name + " is acknowledged as finished, but its attempt is " + (attempt == step->attempts().end() ? "unknown" : attempt->outcome));
    }
    finished_[ack.lease.step] = ack.lease;
  } else if (ack.of == "snapshot_taken") {
    int64_t epoch = step->state == StepState::kDone ? INT64_MAX : SnapshotEpoch(step->key, step->snapshot.OrDefault().blob);
    auto arrived = arrived_snapshots_.find(std::pair(ack.lease, ack.sequence));
    if (arrived == arrived_snapshots_.end()) return Fail(name + ": a snapshot is acknowledged that nobody took");
    // In one turn the step may have finished since, its result been collected, and the step been wanted anew.
    if (attempt != step->attempts().end() && attempt->outcome == "done" && WasCollected(step->key)) return;
    if (epoch < arrived->second) Fail(name + ": a snapshot is acknowledged and not kept");
    // Not `epoch`: a newer one may have come in the same turn, behind the commit of a collection, and not be durable.
    if (epoch != INT64_MAX) snapshots_[step->key] = std::max(snapshots_[step->key], arrived->second);
  } else if (ack.of == "progress") {
    points_[ack.lease] = std::max(points_[ack.lease], ack.sequence);
  }
}

void Oracle::OnGrant(const PeerId& peer, const Grant& grant, const State& state) {
  std::string name = "grant of step " + grant.lease.step.brief() + " (lease " + std::to_string(grant.lease.epoch) + ") to " + peer;
  bool of_gang = grant.lease.epoch == newest_epoch_ && granted_.count(grant.lease) != 0;
  if (grant.lease.epoch <= newest_epoch_ && !of_gang) Fail(name + ": its epoch is not newer than " + std::to_string(newest_epoch_));
  newest_epoch_ = grant.lease.epoch;
  if (!granted_[grant.lease].insert(peer).second) Fail(name + ": it is given to the same worker twice");
  const Step* step = state.FindStep(grant.lease.step);
  if (step == nullptr || !step->hold || step->hold->epoch != grant.lease.epoch) return Fail(name + ": the step is not held under it");
  bool wanted = std::any_of(step->wanted_by.begin(), step->wanted_by.end(), [&](const std::string& id) { return state.jobs.at(id).state == coordinator::JobState::kRunning; });
  if (!wanted) Fail(name + ": no running job wants it");
  auto assignment = worker::AssignmentFromText(grant.assignment);
  if (!assignment.ok()) return Fail(name + ": " + assignment.error().message);
  if (assignment->gang.size != static_cast<int>(step->hold->members.size())) Fail(name + ": its gang is of another size");
  if (assignment->inputs.size() != step->inputs.size()) Fail(name + ": inputs are missing");
  for (const auto& [role, input] : step->inputs) {
    auto expected = expected_.find(input);
    auto given = assignment->inputs.find(role);
    if (expected == expected_.end() || given == assignment->inputs.end() || given->second != expected->second) {
      Fail(name + ": input " + role + " is not what the step before it leaves");
    }
  }
}

void Oracle::OnCommit(const Commit& commit, const State& state) {
  std::string name = "commit of step " + commit.lease.step.brief() + " (lease " + std::to_string(commit.lease.epoch) + ")";
  const Step* step = state.FindStep(commit.lease.step);
  bool held = step != nullptr && step->hold && step->hold->epoch == commit.lease.epoch;
  // It may have been taken back in the same turn.
  if (held && commit.endpoints.size() != step->hold->members.size()) Fail(name + ": it has not the endpoints of its gang");
  if (prepared_[commit.lease].size() < commit.endpoints.size()) Fail(name + ": not all of its gang are prepared");
}

// ---- after every turn ----

void Oracle::AfterTurn(const coordinator::Service& service) {
  const State& state = service.scheduler().state();
  NoteCollected(state);
  if (service.blocked()) return;  // nothing of this is durable or told
  CheckSteps(state);
  CheckFacts(state);
  CheckCounters(state);
  CheckPlacement(state);
  CheckModels(state);
}

void Oracle::Collecting(const storage::GcPlan& plan, const State& state) {
  for (const Digest& artifact : plan.artifacts) NoteCollected(artifact, state.artifacts.at(artifact).key);
}

void Oracle::NoteCollected(const Digest& artifact, const StepKey& key) {
  if (!collected_.insert(artifact).second) return;
  ++times_collected_[key];
  snapshots_.erase(key);
}

void Oracle::NoteCollected(const State& state) {
  for (const auto& [digest, artifact] : state.artifacts) {
    if (artifact.collected) NoteCollected(digest, artifact.key);
    else collected_.erase(digest);
  }
}

void Oracle::CheckInStore(const State& state, const StepKey& key, const std::string& whose) {
  const Step* step = state.FindStep(key);
  const coordinator::ArtifactRecord* record = state.ArtifactOf(key);
  if (record == nullptr || record->collected || !*blobs_.Contains(step->artifact)) return Fail(whose + " is not in the store");
  for (const auto& [role, blob] : record->blobs) {
    if (!*blobs_.Holds(blob.digest, blob.bytes)) Fail(whose + " without its blob " + role);
  }
}

void Oracle::CheckSteps(const State& state) {
  std::map<std::string, int> granted_now;
  std::map<size_t, int64_t> held;
  for (const auto& [key, step] : state.steps) {
    CheckStep(state, step);
    if (!step.hold) continue;
    held[step.hold->share] += static_cast<int64_t>(step.hold->members.size());
    // A hold from before a restart has no reason: its worker may be known to have ended it.
    if (step.hold->reason.empty()) continue;
    CheckGang(state, step);
    for (const coordinator::Member& member : step.hold->members) {
      if (++granted_now[member.worker] > 1) Fail("worker " + member.worker + " was given two steps at once");
    }
  }
  for (size_t i = 0; i < state.shares.size(); ++i) {
    if (state.shares[i].held != held[i]) Fail("the share of " + state.shares[i].user + " miscounts its leases");
  }
}

// Whole or not at all: while one of its workers holds the lease, all do.
void Oracle::CheckGang(const State& state, const Step& step) {
  for (const coordinator::Member& member : step.hold->members) {
    auto worker = state.workers.find(member.worker);
    if (worker == state.workers.end() || worker->second.lease != Lease{step.key, step.hold->epoch}) {
      Fail("step " + step.key.brief() + " goes on without " + member.worker + ", which was given it");
    }
  }
}

void Oracle::CheckStep(const State& state, const Step& step) {
  std::string name = "step " + step.key.brief();
  if ((step.state == StepState::kRunning) != step.hold.has_value()) Fail(name + ": running and held differ");
  auto running = std::count_if(step.attempts().begin(), step.attempts().end(), [](const auto& a) { return a.outcome == "running"; });
  if (running != (step.hold ? 1 : 0)) Fail(name + " has " + std::to_string(running) + " running attempts and " + (step.hold ? "a" : "no") + " lease");
  auto done = std::count_if(step.attempts().begin(), step.attempts().end(), [](const auto& a) { return a.outcome == "done"; });
  auto collected = times_collected_.find(step.key);
  if (done > 1 + (collected == times_collected_.end() ? 0 : collected->second)) Fail(name + ": two attempts committed it");
  if (step.hold && step.hold->revoked) revoked_.insert({step.key, step.hold->epoch});
  if (step.state == StepState::kReady || step.state == StepState::kRunning || step.state == StepState::kDone) {
    for (const auto& [role, input] : step.inputs) {
      const Step* from = state.FindStep(input);
      bool was_done = step.state == StepState::kDone && WasCollected(input);
      if (from == nullptr || (from->state != StepState::kDone && !was_done)) Fail(name + " is " + std::string(ToString(step.state)) + " before its input " + role + " is done");
      else if (step.state != StepState::kDone && !(step.hold && step.hold->revoked)) CheckInStore(state, input, name + ": its input " + role);
    }
  }
  for (const auto& attempt : step.attempts()) {
    if (attempt.error_class == "corrupt" && revoked_.count({step.key, attempt.epoch}) == 0) Fail(name + " failed: " + attempt.message);
  }
  if (step.state != StepState::kDone) return;
  auto expected = expected_.find(step.key);
  // A decision may be over fewer candidates, if a step was given up.
  bool fewer = expected == expected_.end() && *step.kind == "promote";
  if (!fewer && (expected == expected_.end() || expected->second != step.artifact)) return Fail(name + " left another artifact than an undisturbed run");
  const coordinator::ArtifactRecord* record = state.ArtifactOf(step.key);
  if (record == nullptr || !record->collected) return CheckInStore(state, step.key, name + ": its artifact");
  if (!*blobs_.Contains(step.artifact)) Fail(name + ": its manifest is not in the store");
}

void Oracle::CheckFacts(const State& state) {
  for (const auto& [job, recipe] : jobs_) {
    if (state.jobs.count(job) == 0) Fail("job " + job + " was acknowledged and is gone");
  }
  for (const auto& [key, lease] : finished_) {
    const Step* step = state.FindStep(key);
    bool given_up = WasCollected(key) && state.artifacts.count(expected_.at(key)) != 0;  // its results stay, whether or not it is made again
    if (step == nullptr || (step->state != StepState::kDone && !given_up)) Fail("step " + key.brief() + " was acknowledged as finished and is not done");
  }
  for (const auto& [key, epoch] : snapshots_) {
    const Step* step = state.FindStep(key);
    bool over = step != nullptr && (step->state == StepState::kDone || step->state == StepState::kFailed);
    if (step == nullptr || (!over && SnapshotEpoch(key, step->snapshot.OrDefault().blob) < epoch)) {
      Fail("step " + key.brief() + ": the acknowledged snapshot of epoch " + std::to_string(epoch) + " is gone");
    }
  }
  for (const auto& [model, version] : promoted_) {
    auto found = state.models.find(model);
    if (found == state.models.end() || found->second.Find(version) == nullptr) Fail("version " + std::to_string(version) + " of " + model + " was acknowledged and is gone");
  }
}

void Oracle::CheckCounters(const State& state) {
  int64_t attempts = 0;
  std::set<int64_t> epochs;
  for (const auto& [key, step] : state.steps) {
    for (const storage::AttemptRow& attempt : step.attempts()) {
      ++attempts;
      epochs.insert(attempt.epoch);
    }
  }
  if (attempts != state.last_epoch || epochs.size() != static_cast<size_t>(attempts)) {
    Fail(std::to_string(attempts) + " attempts with " + std::to_string(epochs.size()) + " epochs, the newest " + std::to_string(state.last_epoch));
  }
  if (state.counters.stale_refused != stale_sent_) {
    Fail("counted " + std::to_string(state.counters.stale_refused) + " stale messages, refused " + std::to_string(stale_sent_));
  }
  int64_t lost = CountLost(state) - lost_before_;
  if (state.counters.leases_lost != lost) Fail("counted " + std::to_string(state.counters.leases_lost) + " lost leases, attempts say " + std::to_string(lost));
}

// No step starves while a worker idles.
void Oracle::CheckPlacement(const State& state) {
  if (state.draining) return;
  for (const auto& [device, queue] : state.ready) {
    auto idle = state.idle.find(device);
    if (!queue.empty() && idle != state.idle.end() && !idle->second.empty()) Fail("worker " + *idle->second.begin() + " idles beside ready steps");
  }
}

void Oracle::CheckModels(const State& state) {
  for (const auto& [name, model] : state.models) {
    if (model.versions.empty()) continue;
    if (model.Alias("champion") == nullptr) Fail("model " + name + " has no champion");
    std::set<std::string> decisions;
    for (size_t i = 0; i < model.versions.size(); ++i) {
      if (model.versions[i].version != static_cast<int64_t>(i) + 1) Fail("versions of " + name + " are not counted one by one");
      auto record = state.artifacts.find(model.versions[i].artifact);
      if (record == state.artifacts.end()) Fail("version of " + name + " of an unknown artifact");
      else CheckVersion(record->second, model.versions[i].artifact, name);
      std::string decision = model.versions[i].evidence.value("decision", "");
      if (!decision.empty() && !decisions.insert(model.versions[i].job + decision).second) Fail("one decision made two versions of " + name);
    }
  }
}

// Its step may be under way once more; the blobs are there all the same.
void Oracle::CheckVersion(const coordinator::ArtifactRecord& record, const Digest& artifact, const std::string& model) {
  if (record.collected) Fail("a version of " + model + " was collected");
  if (!*blobs_.Contains(artifact)) Fail("version of " + model + " without its artifact");
  for (const auto& [role, blob] : record.blobs) {
    if (!*blobs_.Holds(blob.digest, blob.bytes)) Fail("version of " + model + " without its blob " + role);
  }
}

int64_t Oracle::SnapshotEpoch(const StepKey& key, const Digest& snapshot) {
  if (snapshot.is_none()) return 0;
  auto bytes = blobs_.Get(snapshot);
  auto read = bytes.ok() ? ReadSnapshot(key, bytes->text()) : std::nullopt;
  if (!read) {
    Fail("step " + key.brief() + " has a snapshot that is not its own");
    return 0;
  }
  return read->epoch;
}

// ---- ends and beginnings ----

void Oracle::CoordinatorDied(const State& state, bool whole) {
  durable_.reset();
  if (whole) durable_ = coordinator::DurableTextOf(state);
}

void Oracle::CoordinatorStarted(const State& state) {
  std::string now = coordinator::DurableTextOf(state);
  if (durable_ && *durable_ != now) Fail("a restart gives back another state:\n" + FirstDifference(*durable_, now));
  durable_.reset();
  stale_sent_ = 0;
  lost_before_ = CountLost(state) - state.counters.leases_lost;
  NoteCollected(state);  // the marks of a process that died at their commit are durable, and nobody has seen them
  CheckFacts(state);
  CheckMetrics(state);
}

void Oracle::CheckMetrics(const State& state) {
  for (const auto& [key, step] : state.steps) {
    auto first = points_.lower_bound(Lease{key, 0});
    if (first == points_.end() || first->first.step != key) continue;
    auto rows = index_.Metrics(key, coordinator::kMaxRowsPerReply);
    if (!rows.ok()) return Fail(rows.error().message);
    std::set<std::pair<int64_t, int64_t>> stored;
    for (const storage::MetricRow& row : *rows) stored.emplace(row.lease_epoch, row.sequence);
    for (auto acked = first; acked != points_.end() && acked->first.step == key; ++acked) {
      for (int64_t sequence = 1; sequence <= acked->second; ++sequence) {
        if (stored.count({acked->first.epoch, sequence}) == 0) {
          Fail("step " + key.brief() + " (lease " + std::to_string(acked->first.epoch) + "): metric point " + std::to_string(sequence) + " was acknowledged and is gone");
        }
      }
    }
  }
}

bool Oracle::GivenUp(const State& state, const Job& job) const {
  return std::any_of(job.steps.begin(), job.steps.end(), [&](const coordinator::JobStep& in_job) {
    const Step* step = state.FindStep(in_job.key);
    for (const char* error_class : {"worker_lost", "runner_lost", "out_of_memory"}) {
      auto failed = std::count_if(step->attempts().begin(), step->attempts().end(), [&](const auto& a) { return a.error_class == error_class; });
      if (failed > coordinator::RetryPolicyOf(error_class).retries) return true;
    }
    return false;
  });
}

void Oracle::Finally(const State& state) {
  CheckMetrics(state);
  if (!state.running.empty()) Fail("a step is held although every job has ended");
  for (const auto& [name, worker] : state.workers) {
    if (worker.lease) Fail("worker " + name + " is taken for busy although every job has ended");
  }
  for (const auto& [lease, peer] : unanswered_) {
    Fail(peer + " never got an answer for the end of lease " + std::to_string(lease.epoch));
  }
  for (const auto& [id, job] : state.jobs) {
    if (!job.finished()) Fail("job " + id + " is " + std::string(ToString(job.state)));
    if (jobs_.count(id) == 0 && job.state != coordinator::JobState::kCancelled) jobs_[id] = job.name;  // its acknowledgement was lost
  }
}

}  // namespace pare::simulation
