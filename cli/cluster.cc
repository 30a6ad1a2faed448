#include "cli/cluster.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "cli/connection.h"
#include "common/files.h"
#include "common/json.h"
#include "storage/store.h"

namespace pare::cli {
namespace {

constexpr Millis kReadyTimeout{10'000};
constexpr Millis kFirstAlone{1000};
constexpr Millis kTakeOverAfter{3'000};  // a coordinator that is restarted is back by then
constexpr int64_t kMaxLogBytes = 8 << 20;
constexpr uint64_t kFullBytes = 64 << 10;  // a disk with less free is full: nothing of a store fits there

// The line `ready {…}` that a coordinator prints, or nothing when it ends or the time is over.
std::string ReadLine(int fd, Millis timeout, const Clock& clock) {
  std::string line;
  Millis deadline = clock.Monotonic() + timeout;
  while (clock.Monotonic() < deadline) {
    pollfd item{fd, POLLIN, 0};
    if (::poll(&item, 1, static_cast<int>((deadline - clock.Monotonic()).count())) <= 0) continue;
    char c = 0;
    if (::read(fd, &c, 1) != 1) return "";
    if (c == '\n') return line;
    line.push_back(c);
  }
  return "";
}

int64_t SizeOf(const std::string& path) {
  struct stat info{};
  return ::stat(path.c_str(), &info) == 0 ? info.st_size : 0;
}

// What a program that ended has to say: the message of its last log line ("time level component[pid] message") behind `begin`
// bytes, which are of earlier runs.
std::string LastMessage(const std::string& path, int64_t begin) {
  auto text = ReadFile(path);
  if (text.ok()) text->erase(0, static_cast<size_t>(begin));
  if (!text.ok() || text->empty()) return "it left no message";
  while (!text->empty() && text->back() == '\n') text->pop_back();
  std::string line = text->substr(text->rfind('\n') + 1);
  size_t bracket = line.find("] ");
  return bracket == std::string::npos ? line : line.substr(bracket + 2);
}

// Logs are appended to from run to run; one that has grown makes room, and the last one before it is kept.
void RotateLog(const std::string& path) {
  if (SizeOf(path) > kMaxLogBytes) std::rename(path.c_str(), (path + ".old").c_str());
}

// What cannot be logged is not started.
Status CheckLogs(const std::string& directory) {
  if (Status made = MakeDirectories(directory); !made.ok()) return Error{ErrorCode::kIo, made.error().message};
  if (::faccessat(AT_FDCWD, directory.c_str(), W_OK | X_OK, AT_EACCESS) != 0) return SystemError("cannot write in " + directory, errno);
  return Ok();
}

Status Ask(const std::string& endpoint) {
  ASSIGN_OR_RETURN(auto connection, ConnectTo(endpoint, kAnswerPatience));
  TRY(connection->Call("ping", Json::object()));
  return Ok();
}

bool IsFull(const std::string& directory) {
  struct statvfs info{};
  return ::statvfs(directory.c_str(), &info) == 0 && uint64_t{info.f_bavail} * info.f_frsize < kFullBytes;
}

}  // namespace

Result<std::unique_ptr<LocalCluster>> LocalCluster::Start(const ClusterOptions& options) {
  std::unique_ptr<LocalCluster> cluster(new LocalCluster(options));
  if (Status usable = CheckLogs(options.logs); !usable.ok()) {
    bool ours = options.logs == options.store + "/logs";
    return ours ? storage::CannotUse(options.store, usable.error()) : usable.error().With("no place for the workers' logs; make the directory writable, or set XDG_CACHE_HOME to one that is");
  }
  cluster->endpoint_ = options.endpoint;
  if (options.endpoint.empty()) TRY(cluster->FindOrStartCoordinator());
  cluster->started_ = cluster->clock_.Monotonic();
  TRY(cluster->StartWorker(0));
  return cluster;
}

// A store that is held may be held by a coordinator that is ending: then nobody answers any more, and its lock goes with it.
Status LocalCluster::FindOrStartCoordinator() {
  Millis deadline = clock_.Monotonic() + kReadyTimeout;
  for (;;) {
    ASSIGN_OR_RETURN(auto living, storage::FindCoordinator(options_.store));
    Status status = living ? Ask(living->endpoint) : StartCoordinator();
    if (status.ok() && living) endpoint_ = living->endpoint;
    ours_ = !living;
    if (status.ok() || !MayPass(status.error()) || clock_.Monotonic() >= deadline) return status;
    ::poll(nullptr, 0, 100);
  }
}

// The coordinator that was found in the store belongs to somebody else, who may end it while this job runs.
Status LocalCluster::TakeOver() {
  auto living = storage::FindCoordinator(options_.store);
  Millis now = clock_.Monotonic();
  if (!living.ok() || *living) ownerless_since_.reset();
  else if (!ownerless_since_) ownerless_since_ = now;
  if (!ownerless_since_ || now - *ownerless_since_ < kTakeOverAfter) return Ok();
  ownerless_since_.reset();
  Status started = StartCoordinator();
  if (!started.ok()) return MayPass(started.error()) ? Ok() : started;  // or somebody else was quicker
  ours_ = true;
  std::fprintf(stderr, "pare: the coordinator of store %s has ended; this command runs one now\n", options_.store.c_str());
  return Ok();
}

Status LocalCluster::StartCoordinator() {
  SpawnOptions spawn;
  spawn.arguments = {ExecutableDirectory() + "/pare-coordinator", "--store", options_.store, "--lease-timeout-ms", "3000", "--log-level", options_.log_level};
  if (!endpoint_.empty()) {
    spawn.arguments.push_back("--listen");  // the same address again, so that workers find it
    spawn.arguments.push_back(endpoint_);
  }
  RotateLog(LogPath("coordinator"));
  spawn.pipe_stdout = true;
  spawn.output_path = LogPath("coordinator");
  spawn.own_group = true;
  int64_t logged = SizeOf(spawn.output_path);
  ASSIGN_OR_RETURN(coordinator_, Process::Spawn(spawn));
  std::string line = ReadLine(coordinator_->stdout_fd(), kReadyTimeout, clock_);
  if (line.rfind("ready ", 0) != 0) {
    std::optional<std::string> how = coordinator_->Wait(Millis(100));
    bool killed = how && coordinator_->code() > 128;
    coordinator_->Terminate(Millis(1000));
    coordinator_.reset();
    // A full disk has no room for its last words either.
    if (IsFull(options_.logs)) {
      return Error{ErrorCode::kNoSpace, "the coordinator did not start: the disk of " + options_.logs + " is full; free some space, then give the same command again"};
    }
    if (killed) return Error{ErrorCode::kUnreachable, "the coordinator was ended while it started: " + *how};
    std::string last = LastMessage(spawn.output_path, logged);
    bool held = last.find("in use by") != std::string::npos;
    return Error{held ? ErrorCode::kConflict : ErrorCode::kIo, "the coordinator did not start: " + last + " (log: " + spawn.output_path + ")"};
  }
  ASSIGN_OR_RETURN(Json ready, ParseJson(line.substr(6), "coordinator's ready line"));
  ASSIGN_OR_RETURN(endpoint_, StringField(ready, "endpoint"));
  return Ok();
}

Status LocalCluster::StartWorker(size_t index) {
  SpawnOptions spawn;
  spawn.arguments = {ExecutableDirectory() + "/pare-worker", "--coordinator", endpoint_, "--threads", std::to_string(options_.threads), "--log-level",
                     options_.log_level};
  spawn.output_path = LogPath("worker-" + std::to_string(index + 1));
  RotateLog(spawn.output_path);
  spawn.own_group = true;
  if (index == workers_.size()) workers_.emplace_back();
  ASSIGN_OR_RETURN(workers_[index], Process::Spawn(spawn));
  return Ok();
}

Status LocalCluster::Supervise() {
  auto died = [&](const std::string& what, const std::string& how, const std::string& log) -> Status {
    if (++restarts_ <= kMaxRestarts) return Ok();
    return Error{ErrorCode::kInternal, what + " " + how + " again and again; see " + log};
  };
  if (ours_) {
    auto how = coordinator_ ? coordinator_->Ended() : "did not start";
    if (how) {
      TRY(died("the coordinator", *how, LogPath("coordinator")));
      if (Status again = StartCoordinator(); !again.ok() && !MayPass(again.error())) return again;
    }
  } else if (options_.endpoint.empty()) {
    TRY(TakeOver());
  }
  bool first_is_busy = progressed_ || clock_.Monotonic() - started_ > kFirstAlone;
  while (first_is_busy && workers_.size() < static_cast<size_t>(options_.workers)) TRY(StartWorker(workers_.size()));
  for (size_t i = 0; i < workers_.size(); ++i) {
    auto how = workers_[i]->Ended();
    if (!how) continue;
    TRY(died("worker " + std::to_string(i + 1), *how, LogPath("worker-" + std::to_string(i + 1))));
    TRY(StartWorker(i));
  }
  return Ok();
}

LocalCluster::~LocalCluster() {
  // Ask all, then wait: the workers end side by side.
  for (auto& worker : workers_) {
    if (worker) worker->Signal(SIGTERM);
  }
  for (auto& worker : workers_) {
    if (worker) worker->Terminate(Millis(10'000));
  }
  if (coordinator_) coordinator_->Terminate(Millis(5'000));
}

}  // namespace pare::cli
