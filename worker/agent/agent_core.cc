#include "worker/agent/agent_core.h"

#include <algorithm>
#include <utility>

#include "common/version.h"

namespace pare::worker {
namespace {

constexpr size_t kMaxRemembered = 64;
constexpr Millis kShortestHeartbeat{20};

std::string NameOf(const Lease& lease) { return "step " + lease.step.brief() + " (lease " + std::to_string(lease.epoch) + ")"; }

std::string Clip(const std::string& text) {
  if (text.size() <= kMaxReportBytes) return text;
  return text.substr(0, kMaxReportBytes) + " … (" + std::to_string(text.size()) + " bytes)";
}

}  // namespace

std::vector<AgentAction> AgentCore::Apply(const AgentEvent& event, Millis now) {
  now_ = now;
  actions_.clear();
  if (!hello_sent_) heard_ = heartbeat_sent_ = now;
  if (!source_ && !config_.store.empty()) UseSource({config_.store, ""});
  std::visit([this](const auto& e) { On(e); }, event);
  Advance();
  return std::exchange(actions_, {});
}

// ---- messages ----

void AgentCore::On(const Received& event) {
  heard_ = now_;
  std::visit([this](const auto& message) { OnMessage(message); }, event.message);
}

void AgentCore::OnMessage(const Welcome& welcome) {
  heartbeat_ = std::max(Millis(welcome.heartbeat_ms), kShortestHeartbeat);
  outbox_.set_resend_interval(std::max(kResendInterval, heartbeat_));
  if (!welcomed_) Info("welcomed by the coordinator on " + welcome.host);
  welcomed_ = known_ = true;
  conflict_since_.reset();
  hello_interval_ = kFirstHelloInterval;
  heartbeat_sent_ = now_;
  for (const Lease& lease : welcome.drop) Drop(lease, "the coordinator gave it up while it did not hear of this worker");
  outbox_.SendAllAgain();
  if (!config_.store.empty()) return;
  if (welcome.store.empty() && welcome.blob_endpoint.empty()) {
    return End(true, "the coordinator's store is not reachable from here and it offers no blob service");
  }
  UseSource({welcome.store, welcome.store.empty() ? welcome.blob_endpoint : ""});
}

void AgentCore::OnMessage(const Refused& refused) {
  ErrorCode code = ErrorCodeFromString(refused.code);
  if (code == ErrorCode::kNotFound) {
    // The coordinator does not know this worker (any more). One answer comes for each message it did not understand.
    if (!welcomed_ && hello_sent_ && now_ - *hello_sent_ < kFirstHelloInterval) return;
    Info("the coordinator does not know this worker: saying hello");
    welcomed_ = false;
    SayHello();
  } else if (code == ErrorCode::kConflict) {
    welcomed_ = false;
    if (!conflict_since_) {
      conflict_since_ = now_;
      Warn("the coordinator refuses this worker for now: " + refused.message);
    }
    if (now_ - *conflict_since_ >= kConflictPatience) End(true, "the coordinator refuses this worker: " + refused.message);
  } else {
    End(true, "the coordinator refuses this worker: " + refused.message);
  }
}

void AgentCore::OnMessage(const Grant& grant) {
  if (step_ && step_->lease == grant.lease) return;
  if (next_ && next_->lease == grant.lease) return;
  if (outbox_.HasEnd(grant.lease)) return outbox_.SendEndAgain(grant.lease);
  if (end_by_) return Release(grant.lease);
  // The coordinator gives a worker one step at a time. A newer lease means that the older one is over for it, or will be
  // with its Released; an older one is late.
  if ((step_ && grant.lease.epoch < step_->lease.epoch) || (next_ && grant.lease.epoch < next_->lease.epoch)) return Release(grant.lease);
  if (step_ && !step_->silent) {
    Warn(NameOf(step_->lease) + " makes way for " + NameOf(grant.lease));
    StopStep(false);
  }
  if (step_) {
    if (next_) Release(next_->lease);
    next_ = grant;
    return;
  }
  Result<Assignment> assignment = AssignmentFromText(grant.assignment);
  if (!assignment.ok()) return Abort(grant.lease, "internal", "assignment: " + assignment.error().message, Millis(0));
  if (assignment->key != grant.lease.step) {
    return Abort(grant.lease, "internal", "the assignment is for step " + assignment->key.brief(), Millis(0));
  }
  assignment->lease_epoch = grant.lease.epoch;
  assignment->attempt = grant.attempt;
  step_ = Step{grant.lease, std::move(assignment).value(), {}, {}, true, false};
  BeginPendingStep();
}

void AgentCore::OnMessage(const Commit& commit) {
  if (step_ && step_->lease == commit.lease && !step_->silent && outbox_.Acknowledge(commit)) Do(JoinStep{commit.endpoints});
}

void AgentCore::OnMessage(const Revoke& revoke) {
  if (next_ && next_->lease == revoke.lease) {
    next_.reset();
    return Release(revoke.lease);
  }
  if (!step_ || step_->lease != revoke.lease) {
    // Never arrived, or over: in the first case nobody else would end the lease.
    return outbox_.HasEnd(revoke.lease) ? outbox_.SendEndAgain(revoke.lease) : Release(revoke.lease);
  }
  Info(NameOf(revoke.lease) + " is revoked: " + revoke.reason);
  StopStep(revoke.keep);
}

void AgentCore::Drop(const Lease& lease, const std::string& reason) {
  outbox_.Forget(lease);
  if (next_ && next_->lease == lease) next_.reset();
  if (!step_ || step_->lease != lease || step_->silent) return;
  Warn(NameOf(lease) + " is dropped: " + reason);
  step_->silent = true;
  StopStep(false);
}

// ---- runner ----

void AgentCore::On(const RunnerReported& event) {
  if (runner_ == RunnerState::kNone) return;  // none was launched
  std::visit([this](const auto& e) { OnRunner(e); }, event.event);
}

void AgentCore::OnRunner(const RunnerReady& ready) {
  Info("runner ready on " + ready.device);
  runner_ = RunnerState::kReady;
  failed_launches_ = 0;
  backoff_ = kFirstBackoff;
  BeginPendingStep();
}

void AgentCore::OnRunner(const StepJoins& joins) {
  if (step_ && !step_->silent) outbox_.AddPrepared({step_->lease, joins.endpoint});
}

void AgentCore::OnRunner(const StepProgress& progress) {
  if (step_ && !step_->silent) outbox_.AddPoint(step_->lease, progress.values);
}

void AgentCore::OnRunner(const StepSnapshot& snapshot) {
  if (step_ && !step_->silent) outbox_.AddSnapshot({.lease = step_->lease, .blob = snapshot.blob, .position = snapshot.position});
}

void AgentCore::OnRunner(const StepDone& done) {
  if (!step_) return;
  Remember(done.artifact);
  FinishStep(StepFinished{step_->lease, done.artifact, done.manifest, done.busy_ms});
}

void AgentCore::OnRunner(const StepFailed& failed) {
  if (!step_) return;
  FinishStep(StepAborted{step_->lease, failed.error_class, Clip(failed.message), failed.busy_ms});
}

void AgentCore::OnRunner(const StepStopped& stopped) {
  if (!step_) return;
  FinishStep(Released{step_->lease, stopped.snapshot, stopped.position, stopped.busy_ms});
}

void AgentCore::OnRunner(const RunnerLost& lost) {
  bool was_ready = runner_ == RunnerState::kReady;
  Warn("runner lost: " + lost.message);
  cached_.clear();
  runner_ = RunnerState::kWaiting;
  // A runner that worked is replaced at once; one that does not even start is given time.
  launch_at_ = now_ + (was_ready ? Millis(0) : backoff_);
  if (!was_ready) {
    backoff_ = std::min(2 * backoff_, kLongestBackoff);
    ++failed_launches_;
  }
  if (step_ && step_->began) {
    FinishStep(StepAborted{step_->lease, lost.out_of_memory ? "out_of_memory" : "runner_lost", Clip("runner " + lost.message),
                           (now_ - *step_->began).count()});
  }
  if (failed_launches_ >= kMaxFailedLaunches) {
    if (step_) FinishStep(Released{step_->lease, Digest(), JsonText(), 0});
    for (Message& message : outbox_.Due(now_)) Send(std::move(message));
    Send(Goodbye{config_.worker});
    End(true, "the runner does not start (" + std::to_string(failed_launches_) + " attempts): " + lost.message);
  }
}

void AgentCore::UseSource(RunnerSource source) {
  source_ = std::move(source);
  if (runner_ == RunnerState::kNone) Launch();  // a changed source is used as soon as the runner is idle: AdvanceRunner
}

void AgentCore::Launch() {
  runner_ = RunnerState::kLoading;
  launched_ = *source_;
  cached_.clear();
  Do(LaunchRunner{launched_});
}

// ---- steps ----

void AgentCore::BeginPendingStep() {
  if (!step_ || step_->began || runner_ != RunnerState::kReady) return;
  if (*source_ != launched_) return;  // AdvanceRunner launches the runner anew first
  step_->began = now_;
  for (const auto& [role, artifact] : step_->assignment.inputs) Remember(artifact);
  Do(BeginStep{step_->assignment});
}

void AgentCore::StopStep(bool keep) {
  if (!step_->began) {
    return FinishStep(Released{step_->lease, Digest(), JsonText(), 0});
  }
  if (step_->stopped && (keep || !step_->keep)) return;  // asked already, at least as urgently
  if (!step_->stopped || !keep) step_->stopped = now_;
  step_->keep = keep;
  Do(EndStep{keep});
}

void AgentCore::FinishStep(Message end) {
  Step step = std::move(*step_);
  step_.reset();
  if (!step.silent) outbox_.AddEnd(step.lease, std::move(end));
  if (next_) {
    Grant grant = std::move(*next_);
    next_.reset();
    OnMessage(grant);
  }
}

void AgentCore::Abort(const Lease& lease, const std::string& error_class, const std::string& message, Millis busy) {
  Warn(NameOf(lease) + " is aborted: " + message);
  outbox_.AddEnd(lease, StepAborted{lease, error_class, Clip(message), busy.count()});
}

void AgentCore::Release(const Lease& lease) { outbox_.AddEnd(lease, Released{lease, Digest(), JsonText(), 0}); }

// ---- time ----

void AgentCore::Advance() {
  if (ended_) return;
  AdvanceRunner();
  AdvanceConnection();
  if (welcomed_) {
    for (Message& message : outbox_.Due(now_)) Send(std::move(message));
  }
  AdvanceStopping();
}

void AgentCore::SayHello() {
  hello_sent_ = now_;
  Send(Hello{config_.worker, std::string(kPareVersion), config_.host, config_.device, config_.threads, Running(), cached_});
}

void AgentCore::AdvanceConnection() {
  if (welcomed_ && now_ - heard_ > 2 * heartbeat_) {
    Warn("no word from the coordinator for " + std::to_string((now_ - heard_).count()) + " ms");
    welcomed_ = false;
    hello_interval_ = std::max(heartbeat_, kFirstHelloInterval);
    return SayHello();
  }
  if (!welcomed_) {
    // The transport keeps a Hello until the coordinator is back, so that repeating it rarely loses no time.
    if (hello_sent_ && now_ - *hello_sent_ < hello_interval_) return;
    if (hello_sent_) hello_interval_ = std::min(2 * hello_interval_, std::max(kLongestHelloInterval, heartbeat_));
    return SayHello();
  }
  if (now_ - heartbeat_sent_ >= heartbeat_) {
    heartbeat_sent_ = now_;
    Send(Heartbeat{config_.worker, Running(), cached_});
  }
}

void AgentCore::AdvanceRunner() {
  bool dropped_too_long = step_ && step_->stopped && !step_->keep && now_ - *step_->stopped >= kDropPatience;
  if (dropped_too_long) {
    Warn(NameOf(step_->lease) + " does not end: the runner is restarted");
    Launch();
    return FinishStep(Released{step_->lease, Digest(), JsonText(), (now_ - *step_->began).count()});
  }
  bool idle = !step_ || !step_->began;
  bool outdated = source_ && *source_ != launched_ && idle &&
                  (runner_ == RunnerState::kReady || runner_ == RunnerState::kLoading);
  bool waited = runner_ == RunnerState::kWaiting && now_ >= launch_at_;
  if ((outdated || waited) && !end_by_) Launch();
}

void AgentCore::BeginStopping(const std::string& reason) {
  if (end_by_) return End(false, "stopped without waiting: " + reason);
  Info("stopping: " + reason);
  end_by_ = now_ + config_.grace;
  if (next_) Release(std::exchange(next_, std::nullopt)->lease);
  if (step_) StopStep(true);
}

void AgentCore::AdvanceStopping() {
  if (!end_by_ || ended_) return;
  if (!step_ && outbox_.empty()) {
    if (known_) Send(Goodbye{config_.worker});
    return End(false, "stopped");
  }
  if (now_ >= *end_by_) End(false, "stopped; the coordinator did not confirm in time that the lease is given back");
}

void AgentCore::End(bool failed, std::string message) {
  if (ended_) return;
  ended_ = true;
  Do(EndAgent{failed, std::move(message)});
}

Millis AgentCore::NextDeadline() const {
  if (!hello_sent_) return Millis(0);
  Millis next = welcomed_ ? std::min(heartbeat_sent_ + heartbeat_, heard_ + 2 * heartbeat_ + Millis(1)) : *hello_sent_ + hello_interval_;
  if (welcomed_) next = std::min(next, outbox_.NextDue().value_or(next));
  if (end_by_) next = std::min(next, *end_by_);
  if (step_ && step_->stopped && !step_->keep) next = std::min(next, *step_->stopped + kDropPatience);
  if (runner_ == RunnerState::kWaiting && !end_by_) next = std::min(next, launch_at_);
  return next;
}

std::vector<Lease> AgentCore::Running() const {
  std::vector<Lease> leases;
  if (step_ && !step_->silent) leases.push_back(step_->lease);
  if (next_) leases.push_back(next_->lease);
  return leases;
}

void AgentCore::Remember(const Digest& artifact) {
  std::erase(cached_, artifact);
  cached_.insert(cached_.begin(), artifact);
  if (cached_.size() > kMaxRemembered) cached_.resize(kMaxRemembered);
}

}  // namespace pare::worker
