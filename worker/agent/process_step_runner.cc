#include "worker/agent/process_step_runner.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <utility>

#include "worker/runner_pipe.h"

namespace pare::worker {
namespace {

// Between the end of the pipe and the end of the process a crash handler may run.
constexpr Millis kExitWait{500};
// An idle runner that is replaced or closed down ends by itself within this time, else it is killed.
constexpr Millis kExitGrace{300};

}  // namespace

Result<std::unique_ptr<ProcessStepRunner>> ProcessStepRunner::Create(RunnerOptions options) {
  std::unique_ptr<ProcessStepRunner> runner(new ProcessStepRunner(std::move(options)));
  runner->epoll_ = UniqueFd(epoll_create1(EPOLL_CLOEXEC));
  if (!runner->epoll_.valid()) return SystemError("epoll_create1", errno);
  runner->wake_ = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!runner->wake_.valid()) return SystemError("eventfd", errno);
  epoll_event event{EPOLLIN, {}};
  if (epoll_ctl(runner->epoll_.get(), EPOLL_CTL_ADD, runner->wake_.get(), &event) != 0) return SystemError("epoll_ctl", errno);
  return runner;
}

ProcessStepRunner::~ProcessStepRunner() {
  if (!channel_) return;
  Send(ToJson(RunnerCommand(ExitRunner{})));
  if (process_) process_->Wait(kExitGrace);
}

void ProcessStepRunner::Launch(const RunnerSource& source) {
  channel_.reset();
  process_.reset();
  events_.clear();
  if (Status status = Spawn(source); !status.ok()) Lose(status.error().message);
}

Status ProcessStepRunner::Spawn(const RunnerSource& source) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return SystemError("socketpair", errno);
  UniqueFd ours(ends[0]), theirs(ends[1]);
  SpawnOptions spawn;
  spawn.arguments = {options_.executable,  "--fd",     std::to_string(theirs.get()), "--threads",
                     std::to_string(options_.threads), "--device", options_.device,  "--log-level", options_.log_level};
  if (source.store.empty()) {
    spawn.arguments.insert(spawn.arguments.end(), {"--blob-endpoint", source.blob_endpoint});
  } else {
    spawn.arguments.insert(spawn.arguments.end(), {"--store", source.store});
  }
  // One thread per logical shard; libtorch must not start more inside a shard (determinism, and speed on small models).
  spawn.environment = {{"OMP_NUM_THREADS", "1"}, {"MKL_NUM_THREADS", "1"}, {"MKL_DYNAMIC", "FALSE"}};
  spawn.inherited_fd = theirs.get();
  spawn.own_group = true;  // Ctrl-C stops the agent, which stops the runner with a snapshot
  memory_kills_ = MemoryKills();
  ASSIGN_OR_RETURN(process_, Process::Spawn(spawn));
  channel_ = std::make_unique<LineChannel>(std::move(ours));
  epoll_event event{EPOLLIN, {}};
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, channel_->fd(), &event) != 0) return SystemError("epoll_ctl", errno);
  return Ok();
}

void ProcessStepRunner::Start(const Assignment& assignment) { Send(ToJson(RunnerCommand(StartStep{assignment}))); }

void ProcessStepRunner::Join(const std::vector<std::string>& endpoints) { Send(ToJson(RunnerCommand(JoinGang{endpoints}))); }

void ProcessStepRunner::Stop(bool keep) { Send(ToJson(RunnerCommand(StopStep{keep}))); }

void ProcessStepRunner::Send(const Json& command) {
  if (!channel_) return;  // lost already: the event is on its way
  Status status = channel_->Send(Canonical(command));
  // A failed write is not reported here: what the runner said before its end is read first, then comes RunnerLost.
  if (status.ok() && channel_->has_unsent()) Watch(true);
}

void ProcessStepRunner::Watch(bool writable) {
  epoll_event event{EPOLLIN | (writable ? EPOLLOUT : 0u), {}};
  epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, channel_->fd(), &event);
}

std::vector<RunnerEvent> ProcessStepRunner::Poll() {
  uint64_t count = 0;
  (void)!read(wake_.get(), &count, sizeof count);
  if (channel_ && channel_->has_unsent()) {
    Status status = channel_->Flush(Millis(0));
    if (!status.ok() || !channel_->has_unsent()) Watch(false);
  }
  while (channel_) {
    Result<std::optional<std::string>> line = channel_->Receive(Millis(0));
    if (!line.ok()) {
      Lose(line.error().code == ErrorCode::kUnreachable ? "" : line.error().message);
      break;
    }
    if (!line->has_value()) break;
    Result<Json> json = ParseJson(**line, "event from the runner");
    if (!json.ok()) {
      Lose(json.error().message);
      break;
    }
    Result<RunnerEvent> event = RunnerEventFromJson(*json);
    if (!event.ok() || std::holds_alternative<RunnerLost>(*event)) {
      Lose(event.ok() ? "sent an event that only the agent makes" : event.error().message);
      break;
    }
    events_.push_back(std::move(event).value());
  }
  return std::exchange(events_, {});
}

// `reason` empty: the pipe ended; how the process ended says why.
void ProcessStepRunner::Lose(const std::string& reason) {
  RunnerLost lost{reason};
  if (reason.empty() && process_) {
    std::optional<std::string> ended = process_->Wait(kExitWait);
    lost.message = ended ? *ended : "closed its pipe and went on running: killed";
    lost.out_of_memory = ended && process_->code() == 128 + SIGKILL && MemoryKills() > memory_kills_;
    if (lost.out_of_memory) lost.message += ", out of memory";
  }
  channel_.reset();
  process_.reset();
  events_.push_back(std::move(lost));
  uint64_t one = 1;
  (void)!write(wake_.get(), &one, sizeof one);
}

// How many processes of our control group the kernel has killed for memory (cgroup v2; 0 where it cannot be read). A kill
// by hand does not count here, and is retried as runner_lost.
int64_t ProcessStepRunner::MemoryKills() const {
  Result<std::string> self = ReadFile("/proc/self/cgroup", 65536);
  if (!self.ok()) return 0;
  size_t start = self->find("0::");
  if (start == std::string::npos) return 0;
  std::string group = self->substr(start + 3, self->find('\n', start) - start - 3);
  Result<std::string> events = ReadFile("/sys/fs/cgroup" + group + "/memory.events", 65536);
  if (!events.ok()) return 0;
  size_t line = events->find("oom_kill ");
  if (line == std::string::npos) return 0;
  int64_t kills = 0;
  std::from_chars(events->data() + line + 9, events->data() + events->size(), kills);
  return kills;
}

}  // namespace pare::worker
