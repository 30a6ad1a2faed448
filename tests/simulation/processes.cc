#include "tests/simulation/processes.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <utility>

#include "common/check.h"

namespace pare::simulation {

AgentProcess::AgentProcess(const Parts& parts, const std::string& name)
    : Process(parts.runner.timeline), parts_(parts), name_(name), clock_(parts.runner.timeline), runner_([this] {
        RunnerParts runner = parts_.runner;
        runner.reports = [this] { Wake(); };
        return runner;
      }()),
      loop_([this] {
        int ends[2];
        CHECK(::pipe2(ends, O_NONBLOCK | O_CLOEXEC) == 0);
        signals_ = UniqueFd(ends[0]);
        raise_ = UniqueFd(ends[1]);
        transport_ = parts_.network.Connect(name_, [this] { Wake(); });
        return worker::AgentLoop({.worker = name_, .host = kHost},
                                 {transport_.get(), &runner_, &clock_, signals_.get(), [](const std::string&, const std::string&) { return true; }});
      }()) {
  Wake();
}

void AgentProcess::Terminate() {
  signalfd_siginfo info{};
  info.ssi_signo = SIGTERM;
  CHECK(::write(raise_.get(), &info, sizeof info) == sizeof info);
  Wake();
}

void AgentProcess::Turn() {
  if (ended_) return;
  if (loop_.Turn(Millis(0))) {
    ended_ = true;
    auto ended = parts_.ended;
    return ended();  // destroys this
  }
  WakeAt(std::max(loop_.NextDeadline(), timeline_.now() + Millis(1)));
}

Result<std::unique_ptr<CoordinatorProcess>> CoordinatorProcess::Start(const Parts& parts) {
  std::unique_ptr<CoordinatorProcess> process(new CoordinatorProcess(parts));
  coordinator::ServiceOptions options{.host = kHost};
  options.config.heartbeat = parts.scenario.heartbeat;
  options.config.lease_timeout = parts.scenario.lease_timeout;
  // With every other seed a restart plans one job a turn, as with very large queues.
  if (parts.scenario.seed % 2 == 0) options.config.planned_at_once = 1;
  ASSIGN_OR_RETURN(process->service_, coordinator::Service::Create({&parts.index, &parts.blobs, &parts.clock, "/store", &parts.blobs}, options));
  parts.loaded(process->state());
  // A turn takes what has come within a few milliseconds.
  process->transport_ = parts.network.Listen([p = process.get()] { p->WakeAt(p->timeline_.now() + Millis(2)); });
  process->loop_.emplace(coordinator::LoopParts{process->service_.get(), process->transport_.get(), &parts.clock, -1, parts.process_alive});
  TRY(process->service_->Flush());
  process->Wake();
  return process;
}

void CoordinatorProcess::Turn() {
  Status status = loop_->Turn(Millis(0));
  if (!status.ok()) {
    auto ended = parts_.ended;
    return ended(status.error().message);  // destroys this
  }
  parts_.after_turn(*this);
  Millis next = timeline_.now() + coordinator::kBlockedRetry;
  if (!service_->blocked()) {
    auto deadline = service_->NextDeadline();
    // With process_alive the loop looks around at short intervals; here once a heartbeat.
    next = deadline.value_or(Millis::max());
    if (parts_.process_alive) next = std::min(next, timeline_.now() + parts_.scenario.heartbeat);
    if (next == Millis::max()) return;
    next = std::max(next, timeline_.now() + Millis(1));
  }
  WakeAt(next);
}

ClientProcess::ClientProcess(Timeline& timeline, Network& network, Millis patience)
    : Process(timeline), patience_(patience), transport_(network.Connect("client", [this] { Wake(); })) {}

void ClientProcess::Ask(const std::string& method, Json args, Answered answered) {
  Request request;
  request.id = next_++;
  request.method = method;
  request.args = std::move(args);
  waiting_[request.id] = {request, std::move(answered), Millis(0)};
  Wake();
}

void ClientProcess::Turn() {
  while (auto bytes = transport_->Receive(Millis(0))) {
    auto message = Decode(*bytes);
    CHECK(message.ok());
    auto* reply = std::get_if<Reply>(&*message);
    if (reply == nullptr) continue;
    auto waiting = waiting_.find(reply->id);
    if (waiting == waiting_.end() || reply->code == "no_space") continue;  // answered before; asked again later
    Answered answered = std::move(waiting->second.answered);
    waiting_.erase(waiting);
    answered(*reply);
  }
  for (auto& [id, waiting] : waiting_) {
    if (waiting.again <= timeline_.now()) {
      transport_->Send(Encode(waiting.request));
      waiting.again = timeline_.now() + patience_;
    }
    WakeAt(waiting.again);
  }
}

}  // namespace pare::simulation
