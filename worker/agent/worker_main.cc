#include "worker/agent/worker_main.h"

#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <string>
#include <thread>

#include "common/log.h"
#include "common/plural.h"
#include "common/version.h"
#include "worker/agent/agent_loop.h"
#include "worker/agent/process_step_runner.h"

namespace pare::worker {
namespace {

constexpr int kExitGivenUp = 1;
constexpr int kExitUsage = 2;

struct Options {
  std::string coordinator, store, name, runner, device = "cpu", log_level = "info", log_file;
  int threads = 0;
  bool die_with_parent = false;
};

constexpr const char* kFooter = R"(Example:
  pare-worker --coordinator tcp://127.0.0.1:7700 --threads 2

The worker keeps trying to reach its coordinator and goes on with its step meanwhile. SIGTERM or Ctrl-C stops the step
with a snapshot, gives it back and ends; a second one ends at once.

Exit codes: 0 stopped on request; 1 the coordinator refuses this worker (another version, name in use), or the runner
does not start; 2 bad usage.)";

void Declare(CLI::App& app, Options& options) {
  app.footer(kFooter);
  app.set_version_flag("--version", std::string(kPareVersion));
  app.add_option("--coordinator", options.coordinator, "endpoint of the coordinator: tcp://HOST:PORT or ipc://PATH")
      ->envname("PARE_COORDINATOR")
      ->required();
  app.add_option("--store", options.store, "the coordinator's store directory, if this host sees it (default: told by it)");
  app.add_option("--threads", options.threads, "threads of a step (default: all cores)")->check(CLI::Range(1, 1024));
  app.add_option("--device", options.device, "device of the steps")->check(CLI::IsMember({"cpu"}))->capture_default_str();
  app.add_option("--name", options.name, "name of the worker, unique in the cluster (default: host-pid-0)");
  app.add_option("--runner", options.runner, "the pare-runner executable (default: beside this one)");
  app.add_flag("--die-with-parent", options.die_with_parent, "stop when the process that started this one ends");
  app.add_option("--log-level", options.log_level, "debug, info, warning or error")
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}))
      ->capture_default_str();
  app.add_option("--log-file", options.log_file, "append the log here (default: standard error)");
}

int Usage(const std::string& message) {
  std::fprintf(stderr, "pare-worker: %s\n", message.c_str());
  return kExitUsage;
}

// What the command line leaves open, and whether the paths in it can be used.
Status Complete(Options& options) {
  if (options.threads == 0) options.threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  if (options.name.empty()) options.name = HostName() + "-" + std::to_string(getpid()) + "-0";
  if (std::any_of(options.name.begin(), options.name.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; })) {
    return Error{ErrorCode::kInvalid, "--name: control characters are not allowed in it"};
  }
  if (options.name.size() > 200) return Error{ErrorCode::kInvalid, "--name: at most 200 bytes"};
  if (options.runner.empty()) options.runner = ExecutableDirectory() + "/pare-runner";
  if (access(options.runner.c_str(), X_OK) != 0) {
    return Error{ErrorCode::kInvalid, "--runner: " + SystemError("cannot execute " + options.runner, errno).message};
  }
  if (options.store.empty()) return Ok();
  if (access(options.store.c_str(), R_OK | W_OK | X_OK) != 0) {
    return Error{ErrorCode::kInvalid, "--store: " + SystemError("cannot use " + options.store, errno).message};
  }
  std::error_code error;
  options.store = std::filesystem::absolute(options.store, error).string();
  return Ok();
}

Result<UniqueFd> CatchSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  UniqueFd fd(signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd.valid()) return SystemError("signalfd", errno);
  return fd;
}

Result<int> Work(const Options& options) {
  // Before anything starts a thread: signals are blocked in all of them and arrive at the loop.
  ASSIGN_OR_RETURN(UniqueFd signals, CatchSignals());
  ASSIGN_OR_RETURN(auto runner, ProcessStepRunner::Create({options.runner, options.threads, options.device, options.log_level}));
  ASSIGN_OR_RETURN(auto transport, ConnectZmq(options.coordinator));
  LogInfo("worker " + options.name + ", " + Plural(options.threads, "thread") + ", coordinator " + options.coordinator);
  SystemClock clock;
  AgentConfig config{options.name, HostName(), options.device, options.threads, options.store};
  AgentLoop loop(config, {transport.get(), runner.get(), &clock, signals.get(), StoreUsableHere});
  return loop.Run();
}

}  // namespace

int WorkerMain(int argc, char** argv) {
  Options options;
  CLI::App app("Runs steps of compression jobs for a coordinator.", "pare-worker");
  Declare(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);  // --help, --version
    return Usage(std::string(e.what()) + "; see `pare worker --help`");
  }
  if (app.count("--store") > 0 && options.store.empty()) return Usage("--store: its value is empty; leave the option out for the default");
  if (options.die_with_parent) {
    pid_t parent = getppid();
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) return kExitGivenUp;  // it ended between the two lines
  }
  if (Status status = Complete(options); !status.ok()) return Usage(status.error().message);
  if (Status log = InitLog("worker", ParseLogLevel(options.log_level), options.log_file.c_str()); !log.ok()) return Usage("--log-file: " + log.error().message);
  Result<int> code = Work(options);
  if (code.ok()) return *code;
  if (code.error().code == ErrorCode::kInvalid) return Usage("--coordinator: " + code.error().message);
  LogError(code.error().message);
  return kExitGivenUp;
}

}  // namespace pare::worker
