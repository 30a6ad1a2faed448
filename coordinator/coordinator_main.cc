#include "coordinator/coordinator_main.h"

#include <malloc.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "common/files.h"
#include "common/log.h"
#include "common/version.h"
#include "coordinator/endpoints.h"
#include "coordinator/event_loop.h"
#include "storage/blob_service.h"
#include "storage/store.h"

namespace pare::coordinator {
namespace {

constexpr Millis kDrainPatience{30'000};

struct Flags {
  std::string store, listen, blob_listen, log_level = "info", log_file;
  int64_t lease_timeout_ms = 5'000, heartbeat_ms = 500;
  int64_t parent_pid = 0;
  bool die_with_parent = false, drain = false;
};

void AddOptions(CLI::App& app, Flags& flags) {
  app.set_help_flag("-h,--help", "print this help");
  app.add_option("--store", flags.store, "directory that holds everything; made if it is not there (default $PARE_STORE, else ~/.local/share/pare)");
  app.add_option("--listen", flags.listen, "endpoint for workers and clients: ipc://PATH, or tcp://127.0.0.1:PORT, port 0 for any (default: a socket in the store)");
  app.add_option("--blob-listen", flags.blob_listen, "endpoint of the blob service, for workers that do not share the store's directory");
  app.add_option("--lease-timeout-ms", flags.lease_timeout_ms, "silence after which a worker's step is given to another")
      ->check(CLI::Range(int64_t{100}, int64_t{3'600'000}))
      ->capture_default_str();
  app.add_option("--heartbeat-ms", flags.heartbeat_ms, "how often workers say that they live")
      ->check(CLI::Range(int64_t{20}, int64_t{600'000}))
      ->capture_default_str();
  app.add_option("--log-level", flags.log_level, "debug, info, warning or error")->check(CLI::IsMember({"debug", "info", "warning", "error"}))->capture_default_str();
  app.add_option("--log-file", flags.log_file, "append the log there instead of standard error");
  app.add_option("--parent-pid", flags.parent_pid, "end when this process, which started the coordinator, ends");
  app.add_flag("--die-with-parent", flags.die_with_parent, "end when the process that started the coordinator ends");
  app.add_flag("--drain", flags.drain, "on SIGTERM take running steps back with a snapshot first; without it workers go on and come back");
  app.footer("Prints one line `ready {\"endpoint\": …}` when it serves. SIGTERM and SIGINT end it; the next start goes on from there.\n"
             "Exit codes: 0 ended on request, 1 cannot start or go on, 2 bad usage.\n"
             "Example:\n  pare coordinator --store /srv/pare --listen tcp://127.0.0.1:7070");
}

int Usage(const std::string& message) {
  std::fprintf(stderr, "pare-coordinator: %s\n", message.c_str());
  return 2;
}

// Readable when SIGTERM or SIGINT came. The signals are blocked in every thread that starts from here.
UniqueFd CatchSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
  return UniqueFd(signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
}

// A connection of each worker is a descriptor; the usual soft limit of 1,024 is less than kMaxWorkers.
void AllowManyConnections() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = std::max(limit.rlim_cur, std::min<rlim_t>(limit.rlim_max, 4 * kMaxWorkers));
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

bool ProcessAlive(int64_t pid) { return ::kill(static_cast<pid_t>(pid), 0) == 0 || errno != ESRCH; }

Status Serve(EventLoop& loop, Service& service, int signal_fd, bool drain) {
  SystemClock clock;
  std::optional<Millis> drained_by;
  Millis wait = kLongestWait;
  while (!loop.stopping()) {
    TRY(loop.Turn(wait));
    wait = kLongestWait;
    signalfd_siginfo info{};
    if (::read(signal_fd, &info, sizeof info) == sizeof info) {
      LogInfo(std::string("ending: ") + strsignal(static_cast<int>(info.ssi_signo)));
      if (!drain || drained_by) return Ok();
      service.Apply(Drain{});
      drained_by = clock.Monotonic() + kDrainPatience;
      wait = Millis(0);  // the workers hear of it now
    }
    if (drained_by && (service.scheduler().state().running.empty() || clock.Monotonic() >= *drained_by)) return Ok();
  }
  return Ok();
}

Status Run(const Flags& flags, int signal_fd) {
  std::error_code ignored;
  std::string root = std::filesystem::absolute(flags.store.empty() ? storage::DefaultStore() : flags.store, ignored).lexically_normal().string();
  while (root.size() > 1 && root.back() == '/') root.pop_back();
  ServiceOptions options;
  options.config = {Millis(flags.heartbeat_ms), Millis(flags.lease_timeout_ms)};
  ASSIGN_OR_RETURN(auto service, Service::Open(root, options));
  std::string listen = flags.listen;
  if (listen.empty()) {
    ASSIGN_OR_RETURN(listen, DefaultEndpoint(root, "coordinator"));
  }
  ASSIGN_OR_RETURN(auto transport, ListenZmq(listen));
  bool local = transport->endpoint().starts_with("ipc://");
  std::string blob_listen = flags.blob_listen;
  if (blob_listen.empty() && local) {
    ASSIGN_OR_RETURN(blob_listen, DefaultEndpoint(root, "blobs"));
  }
  if (blob_listen.empty()) blob_listen = "tcp://127.0.0.1:0";
  ASSIGN_OR_RETURN(auto blob_server, storage::BlobServer::Start(blob_listen, service->store()->blobs()));
  service->set_blob_endpoint(blob_server->endpoint());
  TRY(service->store()->Announce({::getpid(), transport->endpoint(), blob_server->endpoint(), std::string(kPareVersion)}));
  malloc_trim(0);  // reading the store back leaves holes

  SystemClock clock;
  EventLoop loop({service.get(), transport.get(), &clock, signal_fd, local ? ProcessAlive : std::function<bool(int64_t)>()});
  TRY(service->Flush());  // what the restart decided
  std::printf("ready %s\n", Canonical({{"endpoint", transport->endpoint()}, {"blob_endpoint", blob_server->endpoint()}, {"pid", ::getpid()}, {"store", root}}).c_str());
  std::fflush(stdout);
  LogInfo("serving store " + root + " at " + transport->endpoint());
  return Serve(loop, *service, signal_fd, flags.drain);
}

}  // namespace

int CoordinatorMain(int argc, char** argv) {
  CLI::App app("pare-coordinator: schedules compression jobs over workers and keeps everything in a store.");
  Flags flags;
  AddOptions(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);  // --help
    return Usage(std::string(e.what()) + "; see `pare coordinator --help`");
  }
  if (app.count("--store") > 0 && flags.store.empty()) return Usage("--store: its value is empty; leave the option out for the default");
  if (flags.lease_timeout_ms < 2 * flags.heartbeat_ms) {
    return Usage("--lease-timeout-ms " + std::to_string(flags.lease_timeout_ms) + " must be at least twice --heartbeat-ms " + std::to_string(flags.heartbeat_ms));
  }
  if (Status log = InitLog("coordinator", ParseLogLevel(flags.log_level), flags.log_file.c_str()); !log.ok()) return Usage("--log-file: " + log.error().message);
  AllowManyConnections();
  mallopt(M_ARENA_MAX, 2);  // socket threads need little: no heap of its own for each
  UniqueFd signals = CatchSignals();
  if (flags.die_with_parent || flags.parent_pid != 0) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    // It may have ended before the line above.
    if (flags.parent_pid != 0 && ::getppid() != flags.parent_pid) return 0;
  }
  Status status = Run(flags, signals.get());
  if (status.ok()) return 0;
  LogError(status.error().message);
  return status.error().code == ErrorCode::kInvalid ? 2 : 1;
}

}  // namespace pare::coordinator
