// Load on a real coordinator process over real sockets, everything durable. Every figure is a subcommand of its own; README.md
// has the last ones and says what they are compared with.
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "bench/coordinator/blobs.h"
#include "bench/coordinator/cluster.h"
#include "bench/coordinator/load.h"
#include "common/messages.h"
#include "common/version.h"
#include "storage/index.h"
#include "storage/store.h"

namespace pare::bench {
namespace {

constexpr int kVariants = 166;  // a job of 999 steps
constexpr int kStepsPerJob = 3 + 6 * kVariants;
constexpr int64_t kBarSteps = 100'000, kBarMetrics = 1'000'000;
constexpr int64_t kFirstFanOut = 3;  // steps of a job before its variants: they run one after the other

struct Options {
  std::string program, directory;
  int64_t pairs = 20'000, points = 200'000, queued = 100'000, requests = 500, metrics = 1'000'000, blobs = 100'000;
  size_t workers = 128;
  int points_per_message = 16;
};

void PrintDisk(const std::string& directory) {
  Percentiles fsync = FsyncTimes(directory);
  std::printf("  fsync here and now: p50 %.3f ms, p99 %.3f ms\n", fsync.p50, fsync.p99);
}

const char* Verdict(bool met) { return met ? "met" : "NOT MET"; }
// Of a figure whose bar is about a certain size: a smaller one proves nothing, unless it misses the bar already.
const char* VerdictAt(bool met, bool large_enough) { return met && !large_enough ? "smaller than the bar's size" : Verdict(met); }

// ---- durable dispatch-and-complete pairs ----

struct PairsResult {
  double per_second = 0, cpu_microseconds = 0;
  Percentiles fsync;
};

bool AllDone(Cluster& cluster) {
  Json jobs = cluster.Call("list", Json::object());
  return std::all_of(jobs.begin(), jobs.end(), [](const Json& job) { return job.value("state", "") == "done"; });
}

// `jobs` jobs of 999 steps wait; `pairs` steps are granted and finished, or as many as there are: jobs end in either case, which
// costs the coordinator more than a step does. The clock runs from the first fan-out on.
PairsResult MeasurePairs(const Options& options, int64_t jobs) {
  Cluster cluster(options.program, options.directory);
  cluster.Start();
  Answers answers(cluster.store());
  std::vector<std::string> recipes;
  for (int64_t job = 0; job < jobs; ++job) {
    recipes.push_back(LoadRecipe(job + 1, kVariants));
    // All jobs begin with their first steps; then the oldest have workers enough.
    answers.Add(recipes.back());
  }
  for (const std::string& recipe : recipes) cluster.Submit(recipe);
  Percentiles fsync = FsyncTimes(options.directory);
  Workers workers(cluster.Fleet(options.workers), options.workers);
  int64_t granted = 0, finished = 0, skipped = jobs * kFirstFanOut;
  double begun = 0, cpu = 0, ended = 0;
  do {
    for (const auto& [worker, message] : workers.Receive()) {
      std::string_view type = TypeOfBytes(message);
      if (type == "grant") {
        workers.Send(worker, answers.To(message));
        ++granted;
      }
      if (type != "ack" || message.find("step_finished") == std::string::npos) continue;
      if (++finished != skipped) continue;
      begun = Now();
      cpu = cluster.CpuSeconds();
    }
    ended = Now();
  } while (finished < skipped + options.pairs && (finished < granted || finished < skipped || !AllDone(cluster)));
  double counted = static_cast<double>(finished - skipped);
  return {counted / (ended - begun), (cluster.CpuSeconds() - cpu) / counted * 1e6, fsync};
}

void Pairs(const Options& options) {
  // A short queue is used up at once: several of them.
  constexpr int kShortRounds = 5;
  std::vector<PairsResult> rounds;
  for (int i = 0; i < kShortRounds; ++i) rounds.push_back(MeasurePairs(options, 2));
  std::sort(rounds.begin(), rounds.end(), [](const auto& a, const auto& b) { return a.per_second < b.per_second; });
  PairsResult few = rounds[kShortRounds / 2], many = MeasurePairs(options, std::max<int64_t>(2, options.queued / kStepsPerJob));
  auto print = [&](const char* name, const PairsResult& r) {
    std::printf("  %s: %.0f pairs/s, %.0f µs of the coordinator's processor time each; fsync p50 %.3f ms, p99 %.3f ms; %.1f pairs in the time of one fsync\n",
                name, r.per_second, r.cpu_microseconds, r.fsync.p50, r.fsync.p99, r.per_second * r.fsync.p50 / 1000);
  };
  std::printf("durable dispatch-and-complete pairs, %zu workers\n", options.workers);
  print("2,000 steps queued (median of 5)", few);
  print((std::to_string(options.queued) + " steps queued").c_str(), many);
  double slower = 1 - many.per_second / few.per_second;
  std::printf("  bar 10,000 pairs/s: %s; bar at most 10 %% slower with the long queue: %s\n", Verdict(std::min(few.per_second, many.per_second) >= 10'000),
              VerdictAt(slower <= 0.1, options.queued >= kBarSteps));
  std::printf("  %+.1f %% with the long queue; against Ray core, in memory (1,600 to 1,950 tasks/s): %.1fx; Optuna's durable journal (743/s): %.1fx\n",
              -100 * slower, many.per_second / 1950, many.per_second / 743);
}

// ---- durable metric points ----

std::string ProgressText(const LeaseText& lease, int64_t from, int count) {
  std::string points;
  for (int64_t i = from; i < from + count; ++i) {
    points += (points.empty() ? "" : ",") + ("{\"sequence\":" + std::to_string(i)) +
              ",\"values\":{\"accuracy\":88.5,\"epoch\":" + std::to_string(i) + ",\"epochs\":20,\"learning_rate\":0.001,\"loss\":0.3125,\"sparsity\":0.8}}";
  }
  return "{\"after\":" + std::to_string(from - 1) + ",\"lease\":{\"epoch\":" + lease.epoch + ",\"step\":\"" + lease.step + "\"},\"points\":[" +
         points + "],\"type\":\"progress\",\"v\":" + std::to_string(kProtocolVersion) + "}";
}

void MeasurePoints(const Options& options, int per_message) {
  Cluster cluster(options.program, options.directory);
  cluster.Start();
  for (size_t i = 0; i < options.workers; ++i) cluster.Submit(TinyRecipe(static_cast<int64_t>(i) + 1));
  Percentiles fsync = FsyncTimes(options.directory);
  Workers workers(cluster.Fleet(options.workers), options.workers);
  std::vector<LeaseText> leases(options.workers);
  std::vector<int64_t> sent(options.workers, 0);
  int64_t acknowledged = 0;
  double begun = 0, cpu = 0;
  auto next = [&](size_t worker) {
    workers.Send(worker, ProgressText(leases[worker], sent[worker] + 1, per_message));
    sent[worker] += per_message;
  };
  size_t granted = 0;
  while (acknowledged < options.points) {
    for (const auto& [worker, message] : workers.Receive()) {
      std::string_view type = TypeOfBytes(message);
      if (type == "ack" && message.find("\"of\":\"progress\"") != std::string::npos) {
        acknowledged += per_message;
        next(worker);
      } else if (type == "grant") {
        leases[worker] = LeaseOf(message);
        if (++granted < options.workers) continue;
        begun = Now();
        cpu = cluster.CpuSeconds();
        for (size_t i = 0; i < options.workers; ++i) next(i);
      }
    }
  }
  double seconds = Now() - begun;
  std::printf("  %d to a message: %.0f points/s, %.1f µs of the coordinator's processor time each; fsync p50 %.3f ms, p99 %.3f ms; %.0f points in the time of one fsync; bar 20,000 points/s: %s\n",
              per_message, static_cast<double>(acknowledged) / seconds, (cluster.CpuSeconds() - cpu) / static_cast<double>(acknowledged) * 1e6, fsync.p50, fsync.p99,
              static_cast<double>(acknowledged) / seconds * fsync.p50 / 1000, Verdict(static_cast<double>(acknowledged) / seconds >= 20'000));
}

void Points(const Options& options) {
  std::printf("durable metric points, %zu workers, one unacknowledged message each\n", options.workers);
  MeasurePoints(options, options.points_per_message);
  MeasurePoints(options, 1);
}

// ---- one thing at a time ----

void Lone(const Options& options) {
  Cluster cluster(options.program, options.directory);
  cluster.Start();
  std::string job = cluster.Submit(TinyRecipe(1));
  Percentiles before = FsyncTimes(options.directory);
  std::vector<double> times;
  for (int64_t i = 0; i < options.requests; ++i) {
    double begun = Now();
    cluster.Call(i % 2 == 0 ? "pause" : "resume", {{"job", job}});
    times.push_back((Now() - begun) * 1000);
  }
  Percentiles after = FsyncTimes(options.directory), lone = PercentilesOf(times);
  double p99 = std::max(before.p99, after.p99);
  std::printf("a lone durable request (pause, resume), %lld times\n  p50 %.2f ms, p99 %.2f ms; fsync p99 %.3f ms before, %.3f ms after; bar 2 x fsync p99 + 2 ms = %.2f ms: %s\n",
              static_cast<long long>(options.requests), lone.p50, lone.p99, before.p99, after.p99, 2 * p99 + 2, Verdict(lone.p99 <= 2 * p99 + 2));
}

void Step(const Options& options) {
  Cluster cluster(options.program, options.directory);
  cluster.Start();
  Answers answers(cluster.store());
  std::vector<std::string> recipes;
  for (int64_t i = 0; i < options.requests; ++i) {
    recipes.push_back(TinyRecipe(i + 1));
    answers.Add(recipes.back());
  }
  size_t steps = PlanOf(recipes.front()).size();
  Workers workers(cluster.Fleet(1), 1);
  Percentiles fsync = FsyncTimes(options.directory);
  // One job after the other. Submitted without waiting for the reply, as a client that watches does.
  std::vector<double> times;
  auto client = cluster.Fleet(1);
  Json data = data::ToJson(LoadData());
  for (const std::string& recipe : recipes) {
    Request request;
    request.method = "submit";
    request.args = {{"recipe", recipe}, {"recipe_name", "load.yaml"}, {"data", data}};
    std::string bytes = Encode(request);
    double begun = Now();
    client->Send(0, bytes);
    for (size_t finished = 0; finished < steps;) {
      for (const auto& [worker, message] : workers.Receive()) {
        std::string_view type = TypeOfBytes(message);
        if (type == "grant") workers.Send(worker, answers.To(message));
        if (type != "ack" || message.find("step_finished") == std::string::npos) continue;
        if (++finished == 1) times.push_back((Now() - begun) * 1000);
      }
    }
    client->Receive(Millis(1000));
  }
  Percentiles took = PercentilesOf(times);
  std::printf("a lone no-op step, from submit to its durable result, %zu times\n  p50 %.2f ms, p99 %.2f ms; fsync p50 %.3f ms, p99 %.3f ms; against Ray core, not durable (3.6 and 5.8 ms): %.2fx and %.2fx\n  bar p50 3 ms, p99 6 ms where fsync takes 0.3 ms: %s%s\n",
              times.size(), took.p50, took.p99, fsync.p50, fsync.p99, took.p50 / 3.6, took.p99 / 5.8, Verdict(took.p50 <= 3 && took.p99 <= 6),
              fsync.p50 > 0.3 ? " (fsync is slower here)" : "");
}

// ---- size and restart ----

void Memory(const Options& options) {
  constexpr size_t kWorkers = 1'000;
  Cluster cluster(options.program, options.directory);
  cluster.Start();
  double empty = cluster.ResidentMegabytes();
  for (int64_t steps = 0, job = 1; steps < options.queued; steps += kStepsPerJob, ++job) cluster.Submit(LoadRecipe(job, kVariants));
  double queued = cluster.ResidentMegabytes();
  Workers workers(cluster.Fleet(kWorkers), kWorkers);
  size_t welcomed = 0;
  while (welcomed < kWorkers) {
    for (const auto& [worker, message] : workers.Receive()) welcomed += TypeOfBytes(message) == "welcome";
  }
  cluster.Call("ping", Json::object());
  double all = cluster.ResidentMegabytes();
  std::printf("resident memory\n  empty %.1f MB; %lld steps queued %.1f MB; and %zu workers connected %.1f MB; bar 150 MB: %s (Dask with 100,000 tasks queued: 348)\n", empty,
              static_cast<long long>(options.queued), queued, kWorkers, all, VerdictAt(all <= 150, options.queued >= kBarSteps));
}

// Rows as workers leave them, spread over the steps.
void WriteMetrics(const std::string& store, const std::vector<StepKey>& keys, int64_t count) {
  auto index = storage::Index::Open(storage::StorePaths(store).index());
  if (!index.ok()) Die(index.error().message);
  std::vector<storage::Row> rows;
  for (int64_t i = 0; i < count; ++i) {
    Json values = {{"epoch", i % 20}, {"epochs", 20}, {"loss", 0.3125}, {"accuracy", 88.5}, {"sparsity", 0.8}, {"learning_rate", 0.001}};
    rows.push_back(storage::MetricRow{.key = keys[static_cast<size_t>(i) % keys.size()], .lease_epoch = 1, .sequence = 1 + i / static_cast<int64_t>(keys.size()), .at_ms = i, .values = values});
    if (rows.size() < 50'000 && i + 1 < count) continue;
    if (Status status = (*index)->Commit(rows); !status.ok()) Die(status.error().message);
    rows.clear();
  }
}

void Restart(const Options& options) {
  Cluster cluster(options.program, options.directory);
  cluster.Start();
  std::vector<StepKey> keys;
  for (int64_t steps = 0, job = 1; steps < options.queued; steps += kStepsPerJob, ++job) {
    cluster.Submit(LoadRecipe(job, kVariants));
    if (job != 1) continue;
    for (const recipes::PlannedStep& step : PlanOf(LoadRecipe(job, kVariants))) {
      if (step.name.find("/test") == std::string::npos) keys.push_back(step.key);
    }
  }
  cluster.Stop();
  WriteMetrics(cluster.store(), keys, options.metrics);
  double first = cluster.Start();
  cluster.Stop();
  double second = cluster.Start();
  std::printf("restart with %lld steps and %lld metric rows\n  serving after %.2f s, and again %.2f s; bar 2 s: %s\n", static_cast<long long>(options.queued),
              static_cast<long long>(options.metrics), first, second,
              VerdictAt(std::max(first, second) <= 2, options.queued >= kBarSteps && options.metrics >= kBarMetrics));
  PrintDisk(options.directory);
}

void Blobs(const Options& options) {
  MeasureBlobs(options.directory, options.blobs);
  PrintDisk(options.directory);
}

// Thousands of sockets need as many descriptors.
void AllowManyFiles() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

int Main(int argc, char** argv) {
  Options options;
  options.program = std::string(PARE_BIN_DIR) + "/pare-coordinator";
  options.directory = std::filesystem::temp_directory_path().string();
  CLI::App app("Load on a real coordinator over real sockets, everything durable.", "bench_coordinator");
  app.footer("Example:\n  bench_coordinator all --directory /mnt/disk");
  app.fallthrough();
  app.require_subcommand(1);
  app.add_option("--program", options.program, "the pare-coordinator executable")->capture_default_str();
  app.add_option("--directory", options.directory, "where the store is made, and removed afterwards")->capture_default_str();
  app.add_option("--workers", options.workers, "simulated workers")->check(CLI::Range(1, 4000))->capture_default_str();
  app.add_option("--pairs", options.pairs, "pairs counted")->capture_default_str();
  app.add_option("--points", options.points, "metric points counted")->capture_default_str();
  app.add_option("--points-per-message", options.points_per_message, "metric points that a worker gathers")->check(CLI::Range(1, 256))->capture_default_str();
  app.add_option("--queued", options.queued, "steps of the long queue")->check(CLI::Range(2'000, 400'000))->capture_default_str();
  app.add_option("--requests", options.requests, "lone requests, lone steps")->check(CLI::Range(10, 100'000))->capture_default_str();
  app.add_option("--metrics", options.metrics, "metric rows at the restart")->capture_default_str();
  app.add_option("--blobs", options.blobs, "blobs of the store whose collection is planned")->check(CLI::Range(2, 10'000'000))->capture_default_str();
  using Measure = void (*)(const Options&);
  const std::vector<std::tuple<const char*, const char*, Measure>> kFigures = {
      {"pairs", "durable dispatch-and-complete pairs a second, short and long queue", Pairs},
      {"points", "durable metric points a second", Points},
      {"lone", "latency of a lone durable request", Lone},
      {"step", "latency of a lone no-op step, submit to result", Step},
      {"memory", "resident memory with 1,000 workers and the long queue", Memory},
      {"restart", "time until a restarted coordinator serves", Restart},
      {"blobs", "time to plan a collection and to examine a store of many blobs", Blobs}};
  std::vector<Measure> chosen;
  for (const auto& [name, what, measure] : kFigures) {
    app.add_subcommand(name, what)->callback([&chosen, m = measure] { chosen.push_back(m); });
  }
  app.add_subcommand("all", "all of them")->callback([&] {
    for (const auto& figure : kFigures) chosen.push_back(std::get<2>(figure));
  });
  CLI11_PARSE(app, argc, argv);
  AllowManyFiles();
  options.directory += "/pare-bench-" + std::to_string(::getpid());
  std::filesystem::create_directories(options.directory);
  std::printf("%s\n", Machine(options.directory).c_str());
  for (Measure measure : chosen) {
    measure(options);
    std::fflush(stdout);
  }
  std::filesystem::remove_all(options.directory);
  return 0;
}

}  // namespace
}  // namespace pare::bench

int main(int argc, char** argv) { return pare::bench::Main(argc, argv); }
