// doctor, version.
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <optional>

#include "cli/commands.h"
#include "cli/text.h"
#include "common/files.h"
#include "common/plural.h"
#include "common/process.h"
#include "common/version.h"
#include "storage/index_log.h"
#include "storage/index_repair.h"
#include "storage/store.h"

namespace pare::cli {
namespace {

namespace fs = std::filesystem;

constexpr Millis kCoordinatorPatience{3'000};

struct Check {
  std::string name, level, text;  // level: ok, warn, fail
};

Check CheckRunner() {
  SpawnOptions spawn;
  spawn.arguments = {ExecutableDirectory() + "/pare-runner", "--version"};
  spawn.pipe_stdout = true;
  spawn.output_path = "/dev/null";
  auto process = Process::Spawn(spawn);
  if (!process.ok()) return {"libtorch", "fail", process.error().message + "; build it with ./scripts/build"};
  auto ended = (*process)->Wait(Millis(20'000));
  if (!ended) return {"libtorch", "fail", "pare-runner --version did not answer within 20 s"};
  if ((*process)->code() != 0) return {"libtorch", "fail", "pare-runner " + *ended + "; run ./scripts/setup, or set PARE_TORCH_DIR and build again"};
  char version[256];
  ssize_t size = ::read((*process)->stdout_fd(), version, sizeof version);
  std::string line(version, static_cast<size_t>(std::max<ssize_t>(size, 0)));
  return {"libtorch", "ok", "pare-runner starts: " + line.substr(0, line.find('\n'))};
}

// The store's directory, or the nearest one above it that exists: looking must not make a store.
std::string ExistingPart(const std::string& store) {
  std::error_code ignored;
  fs::path path = fs::absolute(store, ignored).lexically_normal();
  while (path.has_relative_path() && !fs::exists(path, ignored)) path = path.parent_path();
  return path.string();
}

Check CheckStore(const std::string& store) {
  std::string directory = ExistingPart(store), path = directory + "/.doctor." + std::to_string(::getpid());
  SystemClock clock;
  Millis begin = clock.Monotonic();
  constexpr int kWrites = 10;
  for (int i = 0; i < kWrites; ++i) {
    if (Status written = WriteFileDurably(path, "x"); !written.ok()) return {"store", "fail", written.error().message + "; choose a --store that can be written"};
  }
  ::unlink(path.c_str());
  double ms = static_cast<double>((clock.Monotonic() - begin).count()) / kWrites;
  std::error_code ignored;
  std::string text = store + (fs::exists(store, ignored) ? " is writable" : " can be made in " + directory) + "; a durable small write takes " + Format("%.1f ms", ms);
  return {"store", ms > 100 ? "warn" : "ok", text + (ms > 100 ? ": a slow disk makes every step slow" : "")};
}

// Whether the store's index can be read, without leaving a trace in the store.
Check CheckIndex(const std::string& store) {
  const storage::StorePaths paths(store);
  auto fail = [](const std::string& text) { return Check{"index", "fail", text}; };
  std::string advice = "; `pare fsck --store " + store + "` says more, with --repair it saves what can be read";
  std::error_code code;
  for (const auto& [path, mode] : {std::pair(paths.root, R_OK | X_OK), std::pair(paths.index(), R_OK), std::pair(paths.index() + "-wal", R_OK)}) {
    if (::access(path.c_str(), mode) == 0 || errno != EACCES) continue;
    return fail("user " + std::to_string(::geteuid()) + " may not read " + path + ": change its owner or mode, or use another --store");
  }
  auto living = storage::FindCoordinator(store);
  if (!living.ok()) return fail(living.error().message);
  if (*living) return {"index", "ok", "in use by the coordinator with pid " + std::to_string((*living)->pid)};
  bool blobs = fs::exists(paths.blobs(), code) && !fs::is_empty(paths.blobs(), code);
  if (!fs::exists(paths.index(), code)) return blobs ? fail(paths.index() + " is gone, but its blobs are there" + advice) : Check{"index", "ok", "none yet: nothing was run in this store"};
  if (std::string problem = storage::ProblemOfLog(paths.index()); !problem.empty()) return fail(paths.index() + ": " + problem + advice);
  auto state = storage::LoadWithoutTrace(paths.index());
  if (state.ok()) return {"index", "ok", std::to_string(state->jobs.size()) + (state->jobs.size() == 1 ? " job" : " jobs") + ", every row is sound; `pare fsck` examines the blobs too"};
  const Error& error = state.error();
  if (error.code == ErrorCode::kNotFound && !blobs) return {"index", "ok", "empty: nothing was run in this store"};
  bool foreign = error.code == ErrorCode::kVersion || error.code == ErrorCode::kInvalid;  // these say what to do
  return fail(error.message + (foreign ? "" : advice));
}

Check CheckSpace(const std::string& store) {
  struct statvfs info{};
  std::string directory = ExistingPart(store);
  if (::statvfs(directory.c_str(), &info) != 0) return {"space", "warn", "free space of " + directory + " cannot be read"};
  double gigabytes = static_cast<double>(info.f_bavail) * static_cast<double>(info.f_frsize) / 1e9;
  return {"space", gigabytes < 0.2 ? "fail" : gigabytes < 2 ? "warn" : "ok", Format("%.1f GB free", gigabytes) + (gigabytes < 2 ? "; free some or use another --store" : "")};
}

// Only where there is one to ask: --coordinator, or a living one of the store.
std::optional<Check> CheckCoordinator(const Target& target) {
  std::string endpoint = target.coordinator;
  if (endpoint.empty()) {
    auto living = storage::FindCoordinator(target.store);
    if (!living.ok() || !*living) return std::nullopt;
    endpoint = (*living)->endpoint;
  }
  auto connection = ConnectTo(endpoint, kCoordinatorPatience);
  if (!connection.ok()) return Check{"coordinator", "fail", connection.error().message};
  auto ping = (*connection)->Call("ping", Json::object());
  if (!ping.ok()) return Check{"coordinator", "fail", ping.error().message};
  std::string version = ping->value("version", "");
  std::string text = endpoint + " answers: version " + version + ", " + Plural(ping->value("workers", 0), "connected worker");
  if (version == kPareVersion) return Check{"coordinator", "ok", text};
  return Check{"coordinator", "warn", text + "; this is version " + std::string(kPareVersion) + ": use the same on all hosts"};
}

Check CheckClock() {
  SystemClock clock;
  bool sane = clock.Wall().ms > 1'700'000'000'000;
  return {"clock", sane ? "ok" : "warn", Iso8601(clock.Wall()) + (sane ? "" : ": the clock is wrong; creation times will be, too")};
}

Check CheckDevice() {
  bool gpu = ::access("/dev/nvidia0", F_OK) == 0;
  return {"device", "ok", gpu ? "cpu; an NVIDIA device is present, but this version runs steps on the CPU" : "cpu (no NVIDIA device)"};
}

Check CheckData() {
  bool there = ::access("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz", R_OK) == 0;
  return {"fashion-mnist", there ? "ok" : "warn", there ? "present" : "missing: install the Debian package dataset-fashion-mnist"};
}

int Doctor(const Target& target) {
  std::vector<Check> checks = {CheckRunner(), CheckStore(target.store), CheckIndex(target.store), CheckSpace(target.store), CheckClock(), CheckDevice(), CheckData()};
  if (auto coordinator = CheckCoordinator(target)) checks.push_back(*coordinator);
  Json list = Json::array();
  bool failed = false;
  for (const Check& c : checks) {
    failed = failed || c.level == "fail";
    list.push_back({{"check", c.name}, {"level", c.level}, {"text", c.text}});
    if (!target.json) std::printf("%-5s %-14s %s\n", c.level == "ok" ? "OK" : c.level == "warn" ? "WARN" : "FAIL", c.name.c_str(), c.text.c_str());
  }
  if (target.json) std::printf("%s\n", Canonical(list).c_str());
  return failed ? 1 : 0;
}

}  // namespace

void AddSystemCommands(CLI::App& app, Context& context) {
  CLI::App* command = AddCommand(app, context, "doctor", "Checks what Pare needs on this machine: libraries, disk, clock, device, data.", "pare doctor");
  command->group("System");
  command->callback([&context] { context.action = [&context] { return Doctor(context.target); }; });
  command = AddCommand(app, context, "version", "Prints the versions.", "pare version --json");
  command->group("System");
  command->callback([&context] {
    context.action = [&context] {
      Json v = {{"pare", kPareVersion}, {"protocol", kProtocolVersion}, {"engine", kEngineVersion}};
      if (context.target.json) std::printf("%s\n", Canonical(v).c_str());
      else std::printf("pare %s (protocol %d, engine %s)\n", std::string(kPareVersion).c_str(), kProtocolVersion, std::string(kEngineVersion).c_str());
      return 0;
    };
  });
}

}  // namespace pare::cli
