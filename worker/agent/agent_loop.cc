#include "worker/agent/agent_loop.h"

#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/log.h"

namespace pare::worker {
namespace {

constexpr Millis kLongestWait{1'000};
constexpr int kMessagesPerTurn = 100;

template <typename... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <typename... F>
Overloaded(F...) -> Overloaded<F...>;

}  // namespace

std::string HostName() {
  char name[256] = "";
  if (gethostname(name, sizeof name - 1) != 0) return "localhost";
  return name;
}

bool StoreUsableHere(const std::string& store, const std::string& host) {
  return !store.empty() && host == HostName() && access(store.c_str(), R_OK | W_OK | X_OK) == 0;
}

AgentLoop::AgentLoop(AgentConfig config, AgentParts parts)
    : parts_(std::move(parts)), core_(std::move(config)), wake_(epoll_create1(EPOLL_CLOEXEC)) {
  for (int fd : {parts_.runner->fd(), parts_.signal_fd}) {
    epoll_event event{EPOLLIN, {}};
    // Without the epoll the loop still works, up to kLongestWait later.
    if (fd >= 0 && epoll_ctl(wake_.get(), EPOLL_CTL_ADD, fd, &event) != 0) LogWarning("the agent notices its runner and signals late");
  }
}

int AgentLoop::Run() {
  Apply(Tick{});
  while (!exit_code_) Turn(std::clamp(NextDeadline() - parts_.clock->Monotonic(), Millis(0), kLongestWait));
  return *exit_code_;
}

std::optional<int> AgentLoop::Turn(Millis timeout) {
  std::optional<std::string> message = parts_.transport->Receive(timeout, wake_.get());
  for (int i = 0; message && i < kMessagesPerTurn; ++i) {
    ReceiveMessage(*message);
    message = parts_.transport->Receive(Millis(0));
  }
  if (message) ReceiveMessage(*message);
  for (RunnerEvent& event : parts_.runner->Poll()) Apply(RunnerReported{std::move(event)});
  ReadSignals();
  Apply(Tick{});
  return exit_code_;
}

void AgentLoop::ReceiveMessage(const std::string& bytes) {
  Result<Message> message = Decode(bytes);
  if (!message.ok()) {
    if (message.error().code == ErrorCode::kVersion) return Apply(WrongVersion{message.error().message});
    return LogWarning("from the coordinator: " + message.error().message);
  }
  if (auto* welcome = std::get_if<Welcome>(&*message)) {
    if (!parts_.store_usable(welcome->store, welcome->host)) welcome->store.clear();
  }
  Apply(Received{std::move(*message)});
}

void AgentLoop::ReadSignals() {
  signalfd_siginfo info{};
  while (parts_.signal_fd >= 0 && read(parts_.signal_fd, &info, sizeof info) == sizeof info) {
    Apply(StopRequested{std::string("signal ") + strsignal(static_cast<int>(info.ssi_signo))});
  }
}

void AgentLoop::Apply(const AgentEvent& event) {
  if (exit_code_) return;
  for (const AgentAction& action : core_.Apply(event, parts_.clock->Monotonic())) Perform(action);
}

void AgentLoop::Perform(const AgentAction& action) {
  std::visit(Overloaded{
                 [&](const SendMessage& send) { parts_.transport->Send(Encode(send.message)); },
                 [&](const LaunchRunner& launch) { parts_.runner->Launch(launch.source); },
                 [&](const BeginStep& begin) { parts_.runner->Start(begin.assignment); },
                 [&](const EndStep& end) { parts_.runner->Stop(end.keep); },
                 [&](const EndAgent& end) {
                   Log(end.failed ? LogLevel::kError : LogLevel::kInfo, end.message);
                   exit_code_ = end.failed ? 1 : 0;
                 },
                 [&](const Note& note) { Log(note.warning ? LogLevel::kWarning : LogLevel::kInfo, note.text); },
             },
             action);
}

}  // namespace pare::worker
