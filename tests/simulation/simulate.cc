// simulate: runs seeds and says which fail and how to run one again.
//
//   simulate --seeds 1-1000        each twice, on all cores; stops at the first that fails
//   simulate --seeds 1-100000 --once
//   simulate --seed 17 --trace     one, with all that happens
//   simulate_planted --plant epochs_begin_anew --find --seeds 1-1000    the first seed that notices a planted bug
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <thread>

#include "common/clock.h"
#include "common/log.h"
#include "common/synchronized.h"
#include "tests/simulation/planted.h"
#include "tests/simulation/simulator.h"

namespace pare::simulation {
namespace {

thread_local uint64_t seed_now = 0;
char command[512] = "simulate";
bool find = false;  // a failure is what is asked for

// A failed CHECK ends the process: the seed must be known then too.
void OnAbort(int) {
  char text[640];
  int length = std::snprintf(text, sizeof text, "seed %llu FAILED: aborted\nAgain with: %s --seed %llu --trace\n", static_cast<unsigned long long>(seed_now),
                             command, static_cast<unsigned long long>(seed_now));
  if (length > 0 && ::write(STDOUT_FILENO, text, static_cast<size_t>(length)) < 0) _exit(3);
  _exit(find ? 0 : 1);
}

struct Total {
  int64_t seeds = 0, steps = 0, jobs = 0, given_up = 0, turns = 0, messages = 0, lost = 0, coordinator_starts = 0, worker_starts = 0, attempts_lost = 0, collected = 0, gangs = 0, broken_gangs = 0;
  double job_hours = 0;
  void Add(const Outcome& o) {
    ++seeds;
    steps += o.steps;
    jobs += o.jobs;
    given_up += o.given_up;
    turns += o.turns;
    messages += o.network.delivered;
    lost += o.network.lost;
    coordinator_starts += o.coordinator_starts;
    worker_starts += o.worker_starts;
    attempts_lost += o.lost;
    collected += o.collected;
    gangs += o.gangs;
    broken_gangs += o.broken_gangs;
    job_hours += o.job_hours;
  }
  void Add(const Total& o) {
    seeds += o.seeds, steps += o.steps, jobs += o.jobs, given_up += o.given_up, turns += o.turns, messages += o.messages, lost += o.lost;
    coordinator_starts += o.coordinator_starts, worker_starts += o.worker_starts, attempts_lost += o.attempts_lost, collected += o.collected, gangs += o.gangs, broken_gangs += o.broken_gangs, job_hours += o.job_hours;
  }
};

// Empty: it held, twice alike.
std::string RunSeed(uint64_t seed, bool once, bool trace, Total& total) {
  seed_now = seed;
  Outcome first = Simulate(seed, trace);
  total.Add(first);
  if (once || !first.failure.empty()) return first.failure;
  Outcome second = Simulate(seed);
  total.Add(second);
  if (second.history != first.history) return "two runs of the seed differ";
  return second.failure;
}

int RunAll(uint64_t from, uint64_t to, int threads, bool once, bool trace) {
  constexpr uint64_t kReported = 5'000;
  std::atomic<uint64_t> next = from, passed = 0;
  std::atomic<bool> failed = false;
  Synchronized<Total> total;
  SystemClock clock;
  Millis begun = clock.Monotonic();
  auto work = [&] {
    Total mine;
    for (uint64_t seed = next++; seed <= to && !failed; seed = next++) {
      std::string failure = RunSeed(seed, once || find, trace, mine);
      if (failure.empty()) {
        uint64_t done = ++passed, all = to - from + 1;
        double seconds = static_cast<double>((clock.Monotonic() - begun).count()) / 1000;
        if (done % kReported == 0 && done < all) {
          std::printf("%llu of %llu seeds, %.0f s, about %.0f s left\n", static_cast<unsigned long long>(done), static_cast<unsigned long long>(all), seconds,
                      seconds / static_cast<double>(done) * static_cast<double>(all - done));
          std::fflush(stdout);
        }
        continue;
      }
      if (failed.exchange(true)) break;  // another thread was first
      std::printf("seed %llu FAILED: %s\nAgain with: %s --seed %llu --trace\n", static_cast<unsigned long long>(seed), failure.c_str(), command, static_cast<unsigned long long>(seed));
    }
    total.With([&](Total& t) { t.Add(mine); });
  };
  std::vector<std::thread> pool;
  for (int i = 0; i < threads; ++i) pool.emplace_back(work);
  for (std::thread& thread : pool) thread.join();
  double seconds = std::max(0.001, static_cast<double>((clock.Monotonic() - begun).count()) / 1000);
  total.With([seconds](const Total& t) {
    std::printf("%.1f s, %.0f job-hours a minute\n", seconds, t.job_hours / seconds * 60);
    std::printf("%lld runs: %.0f job-hours, %lld jobs (%lld with a step given up), %lld steps, %lld coordinator turns, %lld messages and %lld lost, %lld attempts lost, %lld coordinator and %lld worker starts, %lld blobs collected, %lld gangs begun and %lld broken\n",
                static_cast<long long>(t.seeds), t.job_hours, static_cast<long long>(t.jobs), static_cast<long long>(t.given_up), static_cast<long long>(t.steps), static_cast<long long>(t.turns),
                static_cast<long long>(t.messages), static_cast<long long>(t.lost), static_cast<long long>(t.attempts_lost),
                static_cast<long long>(t.coordinator_starts), static_cast<long long>(t.worker_starts), static_cast<long long>(t.collected),
                static_cast<long long>(t.gangs), static_cast<long long>(t.broken_gangs));
  });
  if (find && !failed) std::printf("no seed noticed it\n");
  return failed == find ? 0 : 1;
}

int Main(int argc, char** argv) {
  CLI::App app("Simulates clusters with faults, a seed each.");
  std::string seeds = "1-1000", plant;
  uint64_t seed = 0;
  int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  bool once = false, trace = false;
  app.add_option("--seeds", seeds, "a range FROM-TO")->capture_default_str();
  app.add_option("--seed", seed, "one seed");
  app.add_option("--threads", threads, "seeds at a time")->capture_default_str();
  app.add_flag("--once", once, "run each seed once: twice as many seeds, not compared with themselves");
  app.add_flag("--trace", trace, "print what happens");
  app.add_option("--plant", plant, "break one rule (simulate_planted alone has any):" + PlantNames());
  app.add_flag("--find", find, "succeed if a seed fails");
  CLI11_PARSE(app, argc, argv);
  if (!plant.empty() && !Plant(plant)) return std::fprintf(stderr, "simulate: there is no plant '%s' here; there are:%s\n", plant.c_str(), PlantNames().c_str()), 2;
  std::snprintf(command, sizeof command, "%s%s%s", argv[0], plant.empty() ? "" : " --plant ", plant.c_str());
  (void)InitLog("simulate", LogLevel::kError, "/dev/null");
  ::signal(SIGABRT, OnAbort);
  ::signal(SIGSEGV, OnAbort);
  if (seed != 0) return RunAll(seed, seed, 1, once, trace);
  unsigned long long from = 0, to = 0;
  if (std::sscanf(seeds.c_str(), "%llu-%llu", &from, &to) != 2 || from == 0 || to < from) return std::fprintf(stderr, "simulate: --seeds FROM-TO\n"), 2;
  return RunAll(from, to, threads, once, trace);
}

}  // namespace
}  // namespace pare::simulation

int main(int argc, char** argv) { return pare::simulation::Main(argc, argv); }
