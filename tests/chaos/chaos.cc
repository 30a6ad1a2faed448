// Runs a short real recipe again and again, kills or stops processes of it at seeded moments, and compares the digest of
// every run with that of the uninterrupted one. Exit 0: all equal. 77: cannot run here (says why).
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "common/clock.h"
#include "common/files.h"
#include "common/process.h"
#include "common/random.h"
#include "tests/integration/process_tree.h"
#include "tests/integration/short_recipe.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

constexpr int kSkipped = 77, kMaxReruns = 8;
constexpr uint64_t kMaxDraws = 10;
constexpr Millis kLongestRun{180'000};

struct Options {
  int runs = 6;
  uint64_t seed = 1;
  int only = -1;
  std::string bin = PARE_BIN_DIR;
  std::string directory;
};

// Who is hit, and which of its programs.
struct Victim {
  const char* name;
  std::vector<const char*> programs;
};
const Victim kVictims[] = {{"runner", {"pare-runner"}},       {"agent", {"pare-worker"}},
                           {"coordinator", {"pare-coordinator"}}, {"coordinator and agent", {"pare-coordinator", "pare-worker"}},
                           {"agent and runner", {"pare-worker", "pare-runner"}}, {"pare and all below", {}}};

// What a process was doing when it was hit: its system call, from /proc.
std::string MomentOf(int pid) {
  static const std::map<int, const char*> kNames = {
      {0, "read"}, {1, "write"}, {7, "poll"}, {9, "mmap"}, {10, "mprotect"}, {11, "munmap"}, {12, "brk"}, {17, "pread64"}, {18, "pwrite64"},
      {20, "writev"}, {23, "select"}, {28, "madvise"}, {41, "socket"}, {44, "sendto"}, {45, "recvfrom"}, {46, "sendmsg"}, {47, "recvmsg"},
      {56, "clone"}, {59, "execve"}, {61, "wait4"}, {74, "fsync"}, {75, "fdatasync"}, {76, "truncate"}, {77, "ftruncate"}, {82, "rename"},
      {87, "unlink"}, {202, "futex"}, {230, "clock_nanosleep"}, {232, "epoll_wait"}, {257, "openat"}, {262, "newfstatat"}, {270, "pselect6"},
      {271, "ppoll"}, {281, "epoll_pwait"}, {435, "clone3"}};
  auto text = ReadFile("/proc/" + std::to_string(pid) + "/syscall");
  if (!text.ok() || text->empty()) return "starting or ending";
  if (text->rfind("running", 0) == 0) return "computing";
  int number = std::atoi(text->c_str());
  auto it = kNames.find(number);
  return it == kNames.end() ? "system call " + std::to_string(number) : it->second;
}

struct Tally {
  int kills = 0, stops = 0, reruns = 0;
  Millis lost{0};
  std::map<std::string, int> moments;
};

class Chaos {
 public:
  explicit Chaos(const Options& options) : options_(options) {
    std::ofstream(Path("chaos.yaml")) << kShortRecipe;
  }

  int Run() {
    Millis start = clock_.Monotonic();
    for (const char* store : {"first", "second"}) {
      Millis begun = clock_.Monotonic();
      auto reference = StartRun(store);
      if (!Finish(*reference) || reference->code() != 0) return Fail("the uninterrupted run failed", store);
      Millis took = clock_.Monotonic() - begun;
      usual_ = expected_.empty() ? took : std::min(usual_, took);
      std::string digest = DigestOf(store);
      if (!expected_.empty() && digest != expected_) return Fail("two uninterrupted runs differ", store);
      expected_ = digest;
    }
    std::printf("uninterrupted run: %.2f s, %s", Seconds(usual_), expected_.substr(expected_.rfind("total ")).c_str());
    int good = 0, first = options_.only >= 0 ? options_.only : 0, last = options_.only >= 0 ? first + 1 : options_.runs;
    for (int i = first; i < last; ++i) {
      // A run that ended before it was hit proves nothing: another moment is drawn.
      int hits = tally_.kills + tally_.stops;
      for (uint64_t draw = 0; hits == tally_.kills + tally_.stops && draw < kMaxDraws; ++draw) {
        if (int code = RunOne(i, draw); code != 0) return code;
      }
      ++good;
      Millis elapsed = clock_.Monotonic() - start;
      if (good % 50 == 0) std::printf("%d of %d runs, %.0f s, about %.0f s left\n", good, last - first, Seconds(elapsed), Seconds(elapsed) / good * (last - first - good));
      std::fflush(stdout);
    }
    std::printf("%d of %d runs ended with that digest; %d kills, %d stops, %d times the command was given again\n", good, last - first, tally_.kills,
                tally_.stops, tally_.reruns);
    std::printf("time lost per kill or stop: %.2f s\nmoments:\n", Seconds(tally_.lost) / std::max(1, tally_.kills + tally_.stops));
    for (const auto& [moment, count] : tally_.moments) std::printf("  %5d  %s\n", count, moment.c_str());
    return 0;
  }

 private:
  static double Seconds(Millis t) { return static_cast<double>(t.count()) / 1000.0; }
  std::string Path(const std::string& name) const { return options_.directory + "/" + name; }

  std::unique_ptr<Process> Start(std::vector<std::string> arguments, const std::string& log) {
    arguments[0] = options_.bin + "/pare";
    SpawnOptions spawn;
    spawn.arguments = std::move(arguments);
    spawn.output_path = log;
    spawn.environment["XDG_CACHE_HOME"] = Path("cache");
    return Process::Spawn(spawn).value();
  }
  std::unique_ptr<Process> StartRun(const std::string& store) {
    return Start({"pare", "run", Path("chaos.yaml"), "--store", Path(store), "--workers", "2"}, Path(store + ".log"));
  }
  bool Finish(Process& process) {
    if (process.Wait(kLongestRun)) return true;
    process.Terminate(Millis(1000));
    return false;
  }
  std::string DigestOf(const std::string& store) {
    fs::remove(Path("digest"));
    auto digest = Start({"pare", "digest", "--store", Path(store)}, Path("digest"));
    return Finish(*digest) && digest->code() == 0 ? ReadFile(Path("digest")).value() : "";
  }

  int RunOne(int number, uint64_t draw) {
    RandomStream random(options_.seed, RandomPurpose::kTest, static_cast<uint64_t>(number), draw);
    std::string store = "run-" + std::to_string(number);
    Millis start = clock_.Monotonic();
    auto run = StartRun(store);
    std::string history;
    for (uint64_t hits = 1 + random.Below(3); hits > 0; --hits) {
      if (run->Wait(Millis(random.Below(static_cast<uint64_t>(usual_.count()))))) break;
      Hit(*run, random, history);
    }
    // The tree is dead, or heals itself; a dead one is started again by the same command.
    for (int again = 0;; ++again) {
      if (!Finish(*run)) return Fail("the run hangs" + history, store, number);
      if (run->code() == 0) break;
      if (again == kMaxReruns) return Fail("the command fails again and again" + history, store, number);
      ++tally_.reruns;
      run = StartRun(store);
    }
    std::string digest = DigestOf(store);
    if (digest != expected_) return Fail("another digest" + history + "\n" + digest + "instead of\n" + expected_, store, number);
    tally_.lost += std::max(Millis(0), clock_.Monotonic() - start - usual_);
    fs::remove_all(Path(store));
    fs::remove(Path(store + ".log"));
    return 0;
  }

  void Hit(Process& run, RandomStream& random, std::string& history) {
    const Victim& victim = kVictims[random.Below(std::size(kVictims))];
    std::vector<int> pids;
    for (const char* program : victim.programs) {
      std::vector<int> found = Descendants(run.pid(), program);
      if (!found.empty()) pids.push_back(found[random.Below(found.size())]);
    }
    bool whole = victim.programs.empty(), stop = !whole && random.Below(4) == 0;
    if (whole) pids = {run.pid()};
    Millis pause(random.Below(5'000));
    if (pids.empty()) return;
    for (int pid : pids) {
      std::string moment = MomentOf(pid);
      ++tally_.moments[std::string(victim.name) + (stop ? " stopped" : " killed") + " in " + moment];
      ::kill(pid, stop ? SIGSTOP : SIGKILL);
    }
    history += "\n  " + std::string(victim.name) + (stop ? " stopped for " + std::to_string(pause.count()) + " ms" : " killed");
    ++(stop ? tally_.stops : tally_.kills);
    if (!stop) return;
    run.Wait(pause);
    for (int pid : pids) ::kill(pid, SIGCONT);
  }

  int Fail(const std::string& what, const std::string& store, int number = -1) {
    std::printf("FAILED: %s\nstore: %s\nlog: %s\n", what.c_str(), Path(store).c_str(), Path(store + ".log").c_str());
    if (number >= 0) std::printf("again: chaos --seed %llu --only %d\n", static_cast<unsigned long long>(options_.seed), number);
    failed_ = true;
    return 1;
  }

  Options options_;
  SystemClock clock_;
  Millis usual_{0};
  std::string expected_;
  Tally tally_;

 public:
  bool failed_ = false;
};

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("Kills and stops processes of short real runs; every run must end with the digest of the uninterrupted one.", "chaos");
  app.footer("Example:\n  bench/chaos --kills 1000");
  app.add_option("--kills", options.runs, "runs, each with one to three kills or stops")->check(CLI::Range(1, 1'000'000));
  app.add_option("--seed", options.seed, "seeds victims and moments");
  app.add_option("--only", options.only, "only this run");
  app.add_option("--bin", options.bin, "directory of the executables");
  CLI11_PARSE(app, argc, argv);
  if (!fs::exists("/usr/share/datasets/fashion-mnist")) {
    std::printf("skipped: needs the Debian package dataset-fashion-mnist\n");
    return kSkipped;
  }
  options.directory = (fs::temp_directory_path() / ("pare-chaos-" + std::to_string(::getpid()))).string();
  fs::create_directories(options.directory);
  Chaos chaos(options);
  int code = chaos.Run();
  if (!chaos.failed_) fs::remove_all(options.directory);
  return code;
}

}  // namespace
}  // namespace pare

int main(int argc, char** argv) { return pare::Main(argc, argv); }
