#include "common/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

extern char** environ;

namespace pare {
namespace {

// Everything the child needs, prepared before fork: between fork and exec only async-signal-safe calls are allowed.
struct Prepared {
  std::vector<std::string> environment;
  std::vector<char*> argv, envp;
};

Prepared Prepare(const SpawnOptions& options) {
  Prepared p;
  for (char** e = environ; *e != nullptr; ++e) {
    std::string entry = *e;
    if (!options.environment.count(entry.substr(0, entry.find('=')))) p.environment.push_back(std::move(entry));
  }
  for (const auto& [name, value] : options.environment) p.environment.push_back(name + "=" + value);
  for (std::string& entry : p.environment) p.envp.push_back(entry.data());
  p.envp.push_back(nullptr);
  for (const std::string& argument : options.arguments) p.argv.push_back(const_cast<char*>(argument.c_str()));
  p.argv.push_back(nullptr);
  return p;
}

[[noreturn]] void RunChild(const SpawnOptions& options, Prepared& prepared, int parent, int out_fd, int err_fd, int error_pipe) {
  ::prctl(PR_SET_PDEATHSIG, options.death_signal);
  if (::getppid() != parent) ::_exit(127);  // the parent died before the line above
  if (options.own_group) ::setpgid(0, 0);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  if (out_fd >= 0) ::dup2(out_fd, 1);
  if (err_fd >= 0) ::dup2(err_fd, 2);
  if (options.inherited_fd >= 0) ::fcntl(options.inherited_fd, F_SETFD, 0);
  ::execve(prepared.argv[0], prepared.argv.data(), prepared.envp.data());
  int code = errno;
  (void)!::write(error_pipe, &code, sizeof code);
  ::_exit(127);
}

}  // namespace

Result<std::unique_ptr<Process>> Process::Spawn(const SpawnOptions& options) {
  Prepared prepared = Prepare(options);
  int out[2] = {-1, -1}, error[2] = {-1, -1};
  UniqueFd log;
  if (!options.output_path.empty()) {
    log = UniqueFd(::open(options.output_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
    if (!log.valid()) return SystemError("cannot open " + options.output_path, errno);
  }
  if (options.pipe_stdout && ::pipe2(out, O_CLOEXEC) != 0) return SystemError("pipe", errno);
  UniqueFd out_read(out[0]), out_write(out[1]);
  if (::pipe2(error, O_CLOEXEC) != 0) return SystemError("pipe", errno);
  UniqueFd error_read(error[0]), error_write(error[1]);
  int parent = ::getpid();
  int pid = ::fork();
  if (pid < 0) return SystemError("cannot start " + options.arguments[0], errno);
  if (pid == 0) RunChild(options, prepared, parent, options.pipe_stdout ? out[1] : log.get(), log.get(), error[1]);
  error_write.reset();
  int code = 0;
  ssize_t n;
  do { n = ::read(error_read.get(), &code, sizeof code); } while (n < 0 && errno == EINTR);
  if (n == sizeof code) {
    ::waitpid(pid, nullptr, 0);
    return SystemError("cannot start " + options.arguments[0], code);
  }
  std::unique_ptr<Process> process(new Process());
  process->pid_ = pid;
  process->stdout_ = std::move(out_read);
  return process;
}

Process::~Process() {
  if (!Ended()) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
}

std::optional<std::string> Process::Ended() {
  if (ended_) return ended_;
  int status = 0;
  int pid = ::waitpid(pid_, &status, WNOHANG);
  if (pid == 0 || (pid < 0 && errno == EINTR)) return std::nullopt;
  if (pid < 0) {
    ended_ = "vanished";
  } else if (WIFEXITED(status)) {
    code_ = WEXITSTATUS(status);
    ended_ = "exited with code " + std::to_string(code_);
  } else {
    code_ = 128 + WTERMSIG(status);
    ended_ = "killed by signal " + std::to_string(WTERMSIG(status)) + " (" + ::strsignal(WTERMSIG(status)) + ")";
  }
  return ended_;
}

void Process::Signal(int signal) { if (!Ended()) ::kill(pid_, signal); }

void Process::Terminate(Millis grace) {
  if (Ended()) return;
  Signal(SIGTERM);
  // A pidfd becomes readable when the process ends: no polling, no sleep.
  UniqueFd watch(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
  pollfd item{watch.get(), POLLIN, 0};
  if (watch.valid()) ::poll(&item, 1, static_cast<int>(grace.count()));
  if (Ended()) return;
  ::kill(pid_, SIGKILL);
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {}
  code_ = 137;
  ended_ = "killed by signal 9 (it did not end in time)";
}

}  // namespace pare
