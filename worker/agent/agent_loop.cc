#include "worker/agent/agent_loop.h"

#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <utility>

#include "common/log.h"

namespace pare::worker {
namespace {

constexpr Millis kLongestWait{1'000};
constexpr int kMessagesPerTurn = 100;
constexpr Millis kFirstTold{5'000}, kLongestTold{300'000};  // silence before a worker says so, again after twice the time

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
    : parts_(std::move(parts)), named_store_(config.store), silent_since_(parts_.clock->Monotonic()), told_after_(kFirstTold), core_(std::move(config)), wake_(epoll_create1(EPOLL_CLOEXEC)) {
  for (int fd : {parts_.runner->fd(), parts_.signal_fd}) {
    epoll_event event{EPOLLIN, {}};
    // Without the epoll the loop still works, up to kLongestWait later.
    if (fd >= 0 && epoll_ctl(wake_.get(), EPOLL_CTL_ADD, fd, &event) != 0) LogWarning("the agent notices its runner and signals late");
  }
}

int AgentLoop::Run() {
  Apply(Tick{});
  while (!exit_code_) {
    Turn(std::clamp(NextDeadline() - parts_.clock->Monotonic(), Millis(0), kLongestWait));
    TellSilence();
  }
  return *exit_code_;
}

void AgentLoop::TellSilence() {
  Millis silent = parts_.clock->Monotonic() - silent_since_;
  if (heard_ || silent < told_after_) return;
  LogWarning("no coordinator has answered for " + std::to_string(silent.count() / 1000) +
             " s: nobody listens at that endpoint, or something else does (a coordinator says `ready` with its endpoint when it serves); trying again");
  told_after_ = std::min(2 * told_after_, silent + kLongestTold);
}

bool AgentLoop::RefuseOtherStore(const Welcome& welcome) {
  if (named_store_.empty() || welcome.store == named_store_ || !parts_.store_usable(welcome.store, welcome.host)) return false;
  std::error_code code;
  if (std::filesystem::equivalent(named_store_, welcome.store, code) || code) return false;
  LogError("--store " + named_store_ + " is not the store of this coordinator, which is " + welcome.store + ": leave --store out");
  exit_code_ = 1;
  return true;
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
  heard_ = true;
  if (auto* welcome = std::get_if<Welcome>(&*message)) {
    if (RefuseOtherStore(*welcome)) return;
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
                 [&](const JoinStep& join) { parts_.runner->Join(join.endpoints); },
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
