// Who is there: greetings, heartbeats, silence.
#include <algorithm>
#include <utility>

#include "common/version.h"
#include "coordinator/scheduler.h"

namespace pare::coordinator {

Worker* Scheduler::WorkerAt(const PeerId& peer) {
  auto it = state_.worker_of_peer.find(peer);
  return it == state_.worker_of_peer.end() ? nullptr : &state_.workers.at(it->second);
}

void Scheduler::OnAgent(const PeerId& peer, const Hello& hello) {
  auto refuse = [&](ErrorCode code, std::string why) { Say(peer, Refused{std::string(ToString(code)), std::move(why)}); };
  if (std::any_of(hello.worker.begin(), hello.worker.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; })) {
    return refuse(ErrorCode::kInvalid, "a worker's name has no control characters");
  }
  if (hello.pare_version != kPareVersion) {
    return refuse(ErrorCode::kVersion, "worker " + hello.worker + " is of version " + hello.pare_version + ", the coordinator of version " +
                                           std::string(kPareVersion) + ": both must be the same");
  }
  auto known = state_.workers.find(hello.worker);
  if (known == state_.workers.end() && state_.workers.size() >= kMaxWorkers) {
    return refuse(ErrorCode::kConflict, "the coordinator has its limit of " + std::to_string(kMaxWorkers) + " workers");
  }
  if (known != state_.workers.end() && known->second.peer != peer) {
    if (now_.monotonic - known->second.heard < 2 * config_.heartbeat) {
      return refuse(ErrorCode::kConflict, "the name " + hello.worker + " is in use by a living worker");
    }
    state_.worker_of_peer.erase(known->second.peer);
  }
  if (Worker* before = WorkerAt(peer); before != nullptr && before->name != hello.worker) {
    RemoveWorker(before->name, "its connection is used by worker " + hello.worker + " now");
  }
  Worker& worker = state_.workers[hello.worker];
  state_.idle[DeviceClassOf(worker.device)].erase(hello.worker);  // it may have another device now
  state_.worker_of_peer[peer] = hello.worker;
  worker.name = hello.worker;
  worker.host = hello.host;
  worker.device = hello.device;
  worker.peer = peer;
  worker.threads = hello.threads;
  worker.heard = now_.monotonic;
  Rest(worker, Millis(0));
  SetCached(worker, hello.cached);

  Welcome welcome{config_.heartbeat.count(), config_.lease_timeout.count(), site_.store, site_.host, site_.blob_endpoint, {}};
  Listen(worker, hello.running, &welcome.drop);
  if (!worker.lease) SetLease(worker, HoldOf(worker.name));
  Say(peer, std::move(welcome));
  // What it may have missed while it was away.
  if (!worker.lease) return;
  Step* step = Held(*worker.lease);
  if (step != nullptr && step->hold->revoked) Say(peer, Revoke{*worker.lease, *step->hold->revoked, "revoked while the worker was away"});
}

void Scheduler::OnAgent(const PeerId& peer, const Heartbeat& heartbeat) {
  Worker* worker = WorkerAt(peer);
  if (worker == nullptr || worker->name != heartbeat.worker) {
    // After a restart of the coordinator: the lease lives on while the agent finds out that it has to say Hello.
    for (const Lease& lease : heartbeat.running) {
      Step* step = Held(lease);
      Member* member = step == nullptr ? nullptr : step->hold->Find(heartbeat.worker);
      if (member != nullptr) Confirm(*member);
    }
    return OnUnknownPeer(peer);
  }
  SetCached(*worker, heartbeat.cached);
  std::vector<Lease> stale;
  Listen(*worker, heartbeat.running, &stale);
  for (const Lease& lease : stale) {
    ++state_.counters.stale_refused;
    Say(peer, Stale{lease, "the lease was taken away"});
  }
  Acknowledge(peer, Lease(), "heartbeat", 0);
}

// The worker says which leases it has: the present ones are confirmed, the others go to `stale`.
void Scheduler::Listen(Worker& worker, const std::vector<Lease>& running, std::vector<Lease>* stale) {
  bool lists_its_own = std::any_of(running.begin(), running.end(), [&](const Lease& lease) { return worker.lease == lease; });
  for (const Lease& lease : running) {
    Step* step = Held(lease);
    Member* member = step == nullptr ? nullptr : step->hold->Find(worker.name);
    if (member == nullptr) {
      stale->push_back(lease);
      continue;
    }
    Confirm(*member);
    SetLease(worker, lease);
    lists_its_own = true;
  }
  // A lease that it does not list is either a grant on its way, which stays, or one that ended.
  if (!lists_its_own && worker.lease && Held(*worker.lease) == nullptr) SetLease(worker, {});
}

// The newest lease that rows say the worker has, after a restart. Its Hello may be older than the grant and have been under way for
// long: until it lists the lease, or the lease is over, it is not idle.
std::optional<Lease> Scheduler::HoldOf(const std::string& worker) const {
  std::optional<Lease> newest;
  for (const StepKey& key : state_.running) {
    const Hold& hold = *state_.steps.at(key).hold;
    if (hold.Find(worker) != nullptr && (!newest || hold.epoch > newest->epoch)) newest = Lease{key, hold.epoch};
  }
  return newest;
}

// ---- what placement asks about ----

void Scheduler::SetLease(Worker& worker, std::optional<Lease> lease) {
  worker.lease = lease;
  UpdateIdle(worker);
}

void Scheduler::Rest(Worker& worker, Millis until) {
  state_.resting.erase({worker.not_before, worker.name});
  worker.not_before = until;
  if (until > now_.monotonic) state_.resting.insert({until, worker.name});
  UpdateIdle(worker);
}

void Scheduler::WakeResting() {
  while (!state_.resting.empty() && state_.resting.begin()->first <= now_.monotonic) {
    Rest(state_.workers.at(state_.resting.begin()->second), Millis(0));
  }
}

void Scheduler::UpdateIdle(const Worker& worker) {
  std::set<std::string>& idle = state_.idle[DeviceClassOf(worker.device)];
  if (!worker.lease && worker.not_before <= now_.monotonic) {
    idle.insert(worker.name);
  } else {
    idle.erase(worker.name);
  }
}

void Scheduler::SetCached(Worker& worker, std::vector<Digest> cached) {
  if (worker.cached == cached) return;
  for (const Digest& artifact : worker.cached) DropHolder(artifact, worker.name);
  worker.cached = std::move(cached);
  for (const Digest& artifact : worker.cached) state_.holders[artifact].insert(worker.name);
}

void Scheduler::AddCached(Worker& worker, const Digest& artifact) {
  std::erase(worker.cached, artifact);
  worker.cached.insert(worker.cached.begin(), artifact);
  state_.holders[artifact].insert(worker.name);
  for (; worker.cached.size() > kMaxCachedPerWorker; worker.cached.pop_back()) DropHolder(worker.cached.back(), worker.name);
}

void Scheduler::DropHolder(const Digest& artifact, const std::string& worker) {
  auto holders = state_.holders.find(artifact);
  if (holders == state_.holders.end()) return;
  holders->second.erase(worker);
  if (holders->second.empty()) state_.holders.erase(holders);
}

void Scheduler::OnAgent(const PeerId& peer, const Goodbye& goodbye) {
  Worker* worker = WorkerAt(peer);
  if (worker == nullptr || worker->name != goodbye.worker) return;
  RemoveWorker(goodbye.worker, "the worker said goodbye");
}

void Scheduler::On(const WorkerGone& event) { RemoveWorker(event.worker, event.reason); }

void Scheduler::OnUnknownPeer(const PeerId& peer) {
  Say(peer, Refused{std::string(ToString(ErrorCode::kNotFound)), "the coordinator does not know this worker: say hello"});
}

void Scheduler::RemoveWorker(const std::string& name, const std::string& reason) {
  for (const StepKey& key : std::vector<StepKey>(state_.running.begin(), state_.running.end())) {
    Step& step = state_.steps.at(key);
    if (step.hold->Find(name) != nullptr) LoseLease(step, name, reason);
  }
  auto it = state_.workers.find(name);
  if (it == state_.workers.end()) return;
  state_.worker_of_peer.erase(it->second.peer);
  SetCached(it->second, {});
  state_.resting.erase({it->second.not_before, name});
  state_.idle[DeviceClassOf(it->second.device)].erase(name);
  state_.workers.erase(it);
}

// A runner that never gets its inputs, or an agent that never gets to the step, must not hold the others.
void Scheduler::GiveUpUnprepared(Step& step) {
  const Hold& hold = *step.hold;
  if (!hold.gang() || hold.prepared() || now_.monotonic - hold.granted < std::max(kPreparePatience, 2 * config_.lease_timeout)) return;
  auto late = std::find_if(hold.members.begin(), hold.members.end(), [](const Member& member) { return !member.prepared; });
  std::string text = "worker " + late->worker + " was not prepared in time";
  NoteForAll(step, "warning", text + ": its gang is given up");
  EndAttempt(step, "released", "", text, 0);
  GiveBack(step);
}

// The first silent one of a gang is enough.
void Scheduler::ExpireSilent(Step& step) {
  auto silent = std::find_if(step.hold->members.begin(), step.hold->members.end(),
                             [this](const Member& member) { return now_.monotonic - member.confirmed >= config_.lease_timeout; });
  if (silent == step.hold->members.end()) return;
  Member member = *silent;
  auto worker = state_.workers.find(member.worker);
  bool connected = worker != state_.workers.end() && now_.monotonic - worker->second.heard < config_.lease_timeout;
  std::string who = "worker " + member.worker;
  if (connected) {
    LoseLease(step, member.worker, who + (member.seen ? " does not have the step any more" : " did not get the step"), member.seen);
  } else {
    LoseLease(step, member.worker, "no word from " + who + " for " + std::to_string((now_.monotonic - member.confirmed).count()) + " ms");
  }
}

void Scheduler::ExpireSilent() {
  if (now_.monotonic < calm_until_) return;
  for (const StepKey& key : std::vector<StepKey>(state_.running.begin(), state_.running.end())) ExpireSilent(state_.steps.at(key));
  std::vector<std::string> silent;
  for (const auto& [name, worker] : state_.workers) {
    if (now_.monotonic - worker.heard >= config_.lease_timeout) silent.push_back(name);
  }
  for (const std::string& name : silent) RemoveWorker(name, "no word from it");
  // Whoever is heard from later is silent for too long later still, so nobody need be looked at before this moment.
  calm_until_ = now_.monotonic + config_.lease_timeout;
  for (const StepKey& key : state_.running) {
    for (const Member& member : state_.steps.at(key).hold->members) calm_until_ = std::min(calm_until_, member.confirmed + config_.lease_timeout);
  }
  for (const auto& [name, worker] : state_.workers) calm_until_ = std::min(calm_until_, worker.heard + config_.lease_timeout);
}

// If this process itself was stopped or starved, the silence was its own: nobody loses a lease for that.
void Scheduler::ForgiveOwnAbsence() {
  if (!last_tick_) return;
  Millis away = now_.monotonic - *last_tick_;
  if (away <= config_.lease_timeout / 2) return;
  for (const StepKey& key : state_.running) {
    for (Member& member : state_.steps.at(key).hold->members) member.confirmed = std::min(now_.monotonic, member.confirmed + away);
  }
  for (auto& [name, worker] : state_.workers) worker.heard = std::min(now_.monotonic, worker.heard + away);
}

}  // namespace pare::coordinator
