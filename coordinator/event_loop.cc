#include "coordinator/event_loop.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "common/log.h"

namespace pare::coordinator {
namespace {

constexpr Millis kLookInterval{200};

LogLevel LevelOf(const std::string& level) {
  return level == "error" ? LogLevel::kError : level == "warning" ? LogLevel::kWarning : LogLevel::kInfo;
}

}  // namespace

std::optional<int64_t> LocalPidOf(const std::string& worker, const std::string& host) {
  if (host.empty() || !worker.starts_with(host + "-")) return std::nullopt;
  const char* begin = worker.data() + host.size() + 1;
  const char* end = worker.data() + worker.size();
  int64_t pid = 0;
  auto [stop, error] = std::from_chars(begin, end, pid);
  if (error != std::errc() || stop == end || *stop != '-' || pid <= 0) return std::nullopt;
  return pid;
}

EventLoop::EventLoop(const LoopParts& parts) : parts_(parts), looked_(parts.clock->Monotonic()) {
  // A disk that is full from the beginning: the first turn accepts nothing either.
  if (storage::Store* store = parts.service->store(); store != nullptr) {
    if (Status kept = store->KeepReserve(); !kept.ok()) Block(kept.error().message);
  }
  if (!parts_.process_alive) return;
  // Attempts that ran when the last coordinator ended: a worker of this host that is gone need not be waited for.
  const State& state = parts_.service->scheduler().state();
  for (const StepKey& key : std::vector<StepKey>(state.running.begin(), state.running.end())) {
    const Step* step = state.FindStep(key);
    if (!step->hold) continue;
    for (const Member& member : std::vector<Member>(step->hold->members)) {
      auto pid = LocalPidOf(member.worker, parts_.service->scheduler().site().host);
      if (pid && !parts_.process_alive(*pid)) parts_.service->Apply(WorkerGone{member.worker, "worker " + member.worker + " has ended"});
    }
  }
}

Status EventLoop::Turn(Millis wait) {
  if (parts_.service->blocked() || blocked_why_) return TurnBlocked();
  for (const Incoming& incoming : parts_.transport->Receive(WaitFor(wait), kMessagesPerTurn, parts_.wake_fd)) Handle(incoming);
  LookForDeadWorkers();
  parts_.service->Tick();
  return Commit();
}

Millis EventLoop::WaitFor(Millis longest) const {
  auto deadline = parts_.service->NextDeadline();
  if (parts_.process_alive && !watched_.empty()) longest = std::min(longest, kLookInterval);
  if (!deadline) return longest;
  return std::clamp(*deadline - parts_.clock->Monotonic(), Millis(0), longest);
}

void EventLoop::Handle(const Incoming& incoming) {
  Result<Message> message = Decode(incoming.message);
  if (message.ok()) return parts_.service->Receive(incoming.peer, *message);
  // Not one of ours, or of another version: it is told, in our version, which it will not be able to read either.
  LogWarning("a message that is not understood: " + message.error().message);
  parts_.transport->Send(incoming.peer, Encode(Refused{std::string(ToString(message.error().code)), message.error().message}));
}

Status EventLoop::Commit() {
  Status status = parts_.service->Flush();
  for (const storage::EventRow& event : parts_.service->TakeEvents()) {
    Log(LevelOf(event.level), event.job + (event.step.empty() ? "" : " " + event.step) + ": " + event.text);
  }
  for (const Send& send : parts_.service->TakeSends()) Post(send);
  // What was applied is recorded, if need be in the reserve's space; without a reserve nothing new is accepted.
  if (storage::Store* store = parts_.service->store(); status.ok() && store != nullptr) status = store->KeepReserve();
  if (status.ok()) {
    if (blocked_why_) LogInfo("the store takes writes again");
    blocked_why_.reset();
    return Ok();
  }
  ErrorCode code = status.error().code;
  if (code != ErrorCode::kNoSpace && code != ErrorCode::kConflict) return status;
  Block(status.error().message);
  return Ok();
}

void EventLoop::Block(const std::string& why) {
  if (!blocked_why_) LogError("nothing is accepted until the store takes writes: " + why);
  blocked_why_ = why;
}

// An answer that is too large for a message is replaced by the reason.
void EventLoop::Post(const Send& send) {
  std::string bytes = Encode(send.message);
  auto* reply = std::get_if<Reply>(&send.message);
  if (reply != nullptr && bytes.size() > static_cast<size_t>(kMaxMessageBytes)) {
    Reply refusal;
    refusal.id = reply->id;
    refusal.ok = false;
    refusal.code = std::string(ToString(ErrorCode::kInvalid));
    refusal.message = "the answer has " + std::to_string(bytes.size()) + " bytes, at most " + std::to_string(kMaxMessageBytes) + " fit into a message";
    bytes = Encode(refusal);
  }
  parts_.transport->Send(send.peer, bytes);
}

Status EventLoop::TurnBlocked() {
  for (const Incoming& incoming : parts_.transport->Receive(kBlockedRetry, kMessagesPerTurn, parts_.wake_fd)) {
    Result<Message> message = Decode(incoming.message);
    auto* request = message.ok() ? std::get_if<Request>(&*message) : nullptr;
    if (request == nullptr) continue;  // agents repeat what is not acknowledged
    // The last transaction is written, so what is known may be told, and garbage may go.
    if (!parts_.service->blocked() && IsAnsweredWhileFull(request->method)) {
      parts_.service->Receive(incoming.peer, *request);
      continue;
    }
    Reply reply;
    reply.id = request->id;
    reply.ok = false;
    reply.code = std::string(ToString(ErrorCode::kNoSpace));
    reply.message = kRefusedWhileFull + std::string(": ") + blocked_why_.value_or("");
    parts_.transport->Send(incoming.peer, Encode(reply));
  }
  return Commit();
}

void EventLoop::LookForDeadWorkers() {
  if (!parts_.process_alive || parts_.clock->Monotonic() - looked_ < kLookInterval) return;
  looked_ = parts_.clock->Monotonic();
  const Scheduler& scheduler = parts_.service->scheduler();
  std::vector<std::string> gone;
  for (const auto& [name, worker] : scheduler.state().workers) {
    auto pid = LocalPidOf(name, scheduler.site().host);
    if (!pid) continue;
    if (parts_.process_alive(*pid)) watched_[name] = *pid;
    else if (watched_.count(name) != 0) gone.push_back(name);
  }
  std::erase_if(watched_, [&](const auto& entry) { return scheduler.state().workers.count(entry.first) == 0; });
  for (const std::string& name : gone) {
    parts_.service->Apply(WorkerGone{name, "worker " + name + " has ended"});
    watched_.erase(name);
  }
}

}  // namespace pare::coordinator
