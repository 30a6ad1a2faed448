#include "tests/simulation/scenario.h"

#include <algorithm>

namespace pare::simulation {
namespace {

class Draw {
 public:
  explicit Draw(uint64_t seed) : random_(seed, RandomPurpose::kTest, 1) {}

  int Upto(int most) { return static_cast<int>(random_.Below(static_cast<uint64_t>(most) + 1)); }
  // 0 in half of the seeds, else 1 … most.
  int Sometimes(int most) { return random_.Below(2) == 0 ? 0 : 1 + Upto(most - 1); }
  double SometimesUpto(double most) { return random_.Below(2) == 0 ? 0 : most * random_.Uniform(); }
  bool Coin() { return random_.Below(2) == 0; }
  Millis Between(Millis least, Millis most) { return least + Millis(static_cast<int64_t>(random_.Uniform() * static_cast<double>((most - least).count()))); }

 private:
  RandomStream random_;
};

// Small jobs whose variants and baselines are partly the same, so that jobs share steps.
std::string RecipeOf(Draw& draw, int number) {
  std::string yaml = "version: 1\nname: job" + std::to_string(number) + "\nseed: " + std::to_string(1 + draw.Upto(1)) +
                     "\nmodel: {architecture: mlp, hidden: [8]}\ndata: {dataset: fashion-mnist, validation: 5000}\ntrain: {epochs: " +
                     std::to_string(3 + draw.Upto(3)) + ", batch_size: 256}\ngoal: {max_accuracy_drop: 1.0, minimize: bytes}\nvariants:\n";
  int variants = 1 + draw.Upto(1);
  for (int v = 0; v < variants; ++v) {
    yaml += "  v" + std::to_string(v) + ":\n";
    switch (draw.Upto(2)) {
      case 0:
        yaml += "    - prune: {sparsity: 0." + std::to_string(5 + draw.Upto(2)) + "}\n    - retrain: {epochs: 2}\n";
        break;
      case 1:
        yaml += "    - repeat: {times: 2}\n      steps:\n        - prune: {fraction_of_remaining: 0." + std::to_string(2 + v) + "}\n        - retrain: {epochs: 1}\n";
        break;
      default:
        yaml += "    - prune: {schedule: cubic, final_sparsity: 0.9, epochs: 3, end_epoch: 2}\n";
    }
  }
  if (draw.Upto(3) != 0) yaml += "promote: {as: model" + std::to_string(draw.Upto(1)) + "}\n";
  return yaml;
}

}  // namespace

Scenario ScenarioOf(uint64_t seed) {
  Draw draw(seed);
  Scenario s;
  s.seed = seed;
  int pace = draw.Upto(9);
  s.heartbeat = pace < 7 ? Millis(600'000) : pace < 9 ? Millis(15'000) : Millis(500);
  s.scale = static_cast<double>(s.heartbeat.count()) / 60'000;
  auto scaled = [&](int64_t minutes) { return Millis(static_cast<int64_t>(static_cast<double>(minutes) * 60'000 * s.scale)); };
  s.lease_timeout = s.heartbeat * (4 + draw.Upto(6));
  s.workers = 1 + draw.Upto(3);
  s.sees_processes = draw.Coin();
  s.faults_until = draw.Between(scaled(20), scaled(240));
  int jobs = 1 + draw.Upto(2);
  for (int i = 0; i < jobs; ++i) {
    s.jobs.push_back({.recipe = RecipeOf(draw, i), .user = draw.Coin() ? "ann" : "bob", .priority = draw.Upto(1), .submitted = draw.Between(Millis(0), s.faults_until / 2)});
  }
  s.latency = draw.Coin() ? Millis(5) : Millis(200);
  s.longest_delay = draw.Between(Millis(1'000), scaled(30));
  s.loss = draw.SometimesUpto(0.15);
  s.duplicates = draw.SometimesUpto(0.15);
  s.reorder = draw.SometimesUpto(0.2);
  s.long_delays = draw.SometimesUpto(0.002);
  s.partitions = draw.Sometimes(3);
  s.worker_kills = draw.Sometimes(4);
  s.runner_kills = draw.Sometimes(4);
  s.coordinator_kills = draw.Sometimes(4);
  s.torn_commits = draw.Sometimes(4);
  s.full_disks = draw.Sometimes(2);
  s.stalls = draw.Sometimes(3);
  s.wall_jumps = draw.Sometimes(3);
  s.worker_stops = draw.Sometimes(3);
  s.requests = draw.Sometimes(8);
  s.hangs = draw.SometimesUpto(0.5);
  s.collections = draw.Sometimes(5);
  s.gang_breaks = draw.SometimesUpto(0.3);
  bool gangs = draw.Coin();
  for (PlannedJob& job : s.jobs) {
    if (gangs) job.recipe += "gang: " + std::to_string(2 + draw.Upto(2)) + "\n";
    static const char* const kKeep[] = {"all", "promoted", "best", "last"};
    int policy = draw.Upto(3);
    if (policy != 0) job.recipe += std::string("keep: {policy: ") + kKeep[policy] + (policy > 1 ? ", count: 1}\n" : "}\n");
  }
  return s;
}

}  // namespace pare::simulation
