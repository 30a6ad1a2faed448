#include "common/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

extern char** environ;

namespace pare {
namespace {

// All that the child needs, prepared before fork: between fork and exec only async-signal-safe calls are allowed.
struct Prepared {
  std::vector<std::string> environment, arguments;
  std::vector<char*> argv, envp;
};

Prepared Prepare(const SpawnOptions& options) {
  Prepared p;
  for (char** e = environ; *e != nullptr; ++e) {
    std::string entry = *e;
    if (!options.environment.count(entry.substr(0, entry.find('=')))) p.environment.push_back(std::move(entry));
  }
  for (const auto& [name, value] : options.environment) p.environment.push_back(name + "=" + value);
  p.arguments = options.arguments;
  for (std::string& entry : p.environment) p.envp.push_back(entry.data());
  for (std::string& argument : p.arguments) p.argv.push_back(argument.data());
  p.envp.push_back(nullptr);
  p.argv.push_back(nullptr);
  return p;
}

struct ChildFds {
  int out = -1, err = -1;  // become 1 and 2; −1: ours
  int report = -1;         // errno of a failed exec; closed by a successful one
};

[[noreturn]] void RunChild(const SpawnOptions& options, Prepared& prepared, int parent, const ChildFds& fds) {
  if (options.death_signal != 0) {
    prctl(PR_SET_PDEATHSIG, options.death_signal);
    if (getppid() != parent) _exit(127);  // the parent died before the line above
  }
  if (options.own_group) setpgid(0, 0);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  if (fds.out >= 0) dup2(fds.out, STDOUT_FILENO);
  if (fds.err >= 0) dup2(fds.err, STDERR_FILENO);
  if (options.inherited_fd >= 0) fcntl(options.inherited_fd, F_SETFD, 0);
  execve(prepared.argv[0], prepared.argv.data(), prepared.envp.data());
  int code = errno;
  (void)!write(fds.report, &code, sizeof code);
  _exit(127);
}

Status Pipe(UniqueFd& read_end, UniqueFd& write_end) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return SystemError("pipe", errno);
  read_end = UniqueFd(ends[0]);
  write_end = UniqueFd(ends[1]);
  return Ok();
}

}  // namespace

Result<std::unique_ptr<Process>> Process::Spawn(const SpawnOptions& options) {
  CHECK(!options.arguments.empty());
  Prepared prepared = Prepare(options);
  UniqueFd log, out_read, out_write, report_read, report_write;
  if (!options.output_path.empty()) {
    log = UniqueFd(open(options.output_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
    if (!log.valid()) return SystemError("cannot open " + options.output_path, errno);
  }
  if (options.pipe_stdout) TRY(Pipe(out_read, out_write));
  TRY(Pipe(report_read, report_write));

  std::unique_ptr<Process> process(new Process());
  int parent = getpid();
  int pid = fork();
  if (pid < 0) return SystemError("cannot start " + options.arguments[0], errno);
  if (pid == 0) {
    int out = options.pipe_stdout ? out_write.get() : log.get();
    RunChild(options, prepared, parent, {out, log.get(), report_write.get()});
  }
  process->pid_ = pid;
  process->watch_ = UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  process->stdout_ = std::move(out_read);

  report_write.reset();
  int code = 0;
  ssize_t n = 0;
  do {
    n = read(report_read.get(), &code, sizeof code);
  } while (n < 0 && errno == EINTR);
  if (n == sizeof code) {
    process->Reap(true);
    return SystemError("cannot start " + options.arguments[0], code);
  }
  if (!process->watch_.valid()) return SystemError("pidfd_open", errno);  // the destructor ends the child
  return process;
}

Process::~Process() {
  if (pid_ < 0 || Ended()) return;
  kill(pid_, SIGKILL);
  Reap(true);
}

void Process::Reap(bool block) {
  if (ended_) return;
  int status = 0, pid = 0;
  do {
    pid = waitpid(pid_, &status, block ? 0 : WNOHANG);
  } while (pid < 0 && errno == EINTR);
  if (pid == 0) return;
  if (pid < 0) {
    ended_ = "ended, nobody knows how";  // somebody else has waited for it
  } else if (WIFEXITED(status)) {
    code_ = WEXITSTATUS(status);
    ended_ = "exited with code " + std::to_string(code_);
  } else {
    int signal = WTERMSIG(status);
    code_ = 128 + signal;
    ended_ = "killed by signal " + std::to_string(signal) + " (" + strsignal(signal) + ")";
  }
}

std::optional<std::string> Process::Wait(Millis timeout) {
  Reap(false);
  if (ended_ || timeout <= Millis(0)) return ended_;
  pollfd item{watch_.get(), POLLIN, 0};
  poll(&item, 1, static_cast<int>(std::min<int64_t>(timeout.count(), INT32_MAX)));  // a signal may end it early: fine
  Reap(false);
  return ended_;
}

void Process::Signal(int signal) {
  if (!Ended()) kill(pid_, signal);
}

void Process::Terminate(Millis grace) {
  Signal(SIGTERM);
  if (Wait(grace)) return;
  kill(pid_, SIGKILL);
  Reap(true);
}

}  // namespace pare
