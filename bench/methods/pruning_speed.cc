// What masks cost while training, and what removed units gain afterwards, on LeNet-300-100 and random samples.
//
//   bench_pruning_speed [ROUNDS, default 15]
//
// 1. Training: batches of 128 with SGD and momentum, unmasked against 90 % masked, in turn; the ratio of the medians.
// 2. Use: the dense network against one of half the width, made by structured pruning and removal, at batch 128 and 1.
// Times are of one thread; every round runs both sides. A gain below kNoticeable is called "no gain". Exits with 1 if a bar of the
// README is missed.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "bench/methods/verdict.h"
#include "methods/remove.h"
#include "methods/pruning.h"
#include "model/architectures.h"
#include "model/initialize.h"
#include "worker/engine/network.h"
#include "worker/engine/optimizer.h"

namespace pare {
namespace {

double Seconds(const std::function<void()>& work) {
  auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

methods::Model Lenet() {
  methods::Model m;
  m.graph = *model::BuildArchitecture("mlp", {{"hidden", {300, 100}}}, {1, 28, 28}, 10);
  m.tensors = model::InitializeWeights(m.graph, *model::Analyze(m.graph), 1);
  return m;
}

std::vector<float> Samples(int64_t n) {
  std::vector<float> samples(static_cast<size_t>(n * 784));
  for (size_t i = 0; i < samples.size(); ++i) samples[i] = static_cast<float>((i * 7919) % 1000) / 500 - 1;
  return samples;
}

Result<bool> Training(int rounds) {
  constexpr int64_t kBatch = 128;
  constexpr int kBatches = 200;
  methods::Model m = Lenet();
  engine::NetworkOptions options;
  options.shards = 2;
  options.max_batch = kBatch;
  std::vector<float> samples = Samples(kBatch);
  std::vector<uint8_t> mask;
  std::vector<int64_t> labels;
  for (int64_t i = 0; i < kBatch; ++i) labels.push_back(i % 10);
  std::vector<double> plain, masked;
  ASSIGN_OR_RETURN(auto network, engine::Network::Create(m.graph, m.tensors, options));
  engine::OptimizerOptions rule;
  rule.momentum = 0.9;
  auto optimizer = engine::Optimizer::Create(rule, static_cast<int64_t>(network->parameters().size()));
  for (size_t i = 0; i < network->parameters().size(); ++i) mask.push_back(i % 10 == 0);
  auto run = [&](bool with) {
    return Seconds([&] {
      for (int b = 0; b < kBatches; ++b) {
        network->TrainBatch(samples, labels, {0, b}, {});
        optimizer->Step(network->parameters(), network->gradients(), with ? std::span<const uint8_t>(mask) : std::span<const uint8_t>(), 1e-4, 1.0,
                        [&](const auto& body) { network->ForRanges(body); });
      }
    });
  };
  run(false);
  for (int r = 0; r < rounds; ++r) {
    plain.push_back(run(false));
    masked.push_back(run(true));
  }
  double overhead = 100 * (Median(masked) / Median(plain) - 1);
  std::printf("training step, batch 128: %.3f ms unmasked, %.3f ms masked: %+.1f %%\n", 1e3 * Median(plain) / kBatches, 1e3 * Median(masked) / kBatches, overhead);
  return bench::Meets(bench::Bar::kAtMost, "percent that masks add to a step", overhead, 5);
}

Result<methods::Model> HalfWidth(methods::Model m) {
  Json params = {{"criterion", "magnitude_l1"}, {"scope", "layer"}, {"tensors", {"fc1.weight", "fc2.weight"}}, {"min_density", 0.0}, {"max_density", 1.0},
                 {"granularity", {{"kind", "structured"}, {"unit", "channel"}, {"round_to", 1}}}};
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(m.graph));
  ASSIGN_OR_RETURN(methods::PruneOptions options, methods::PruneOptionsFromJson(params, m.graph, info));
  ASSIGN_OR_RETURN(auto views, methods::ViewWeights(options, info, m.tensors));
  ASSIGN_OR_RETURN(m.masks, methods::Prune(options, {0.5, {}}, views, {}, {}));
  methods::ApplyMasks(m.masks, m.tensors);
  ASSIGN_OR_RETURN(auto report, methods::RemoveMaskedUnits(m, {"fc1.weight", "fc2.weight"}));
  return m;
}

Result<bool> Use(int rounds, int64_t batch) {
  methods::Model dense = Lenet();
  ASSIGN_OR_RETURN(methods::Model half, HalfWidth(dense));
  engine::NetworkOptions options;
  options.max_batch = batch;
  ASSIGN_OR_RETURN(auto a, engine::Network::Create(dense.graph, dense.tensors, options));
  ASSIGN_OR_RETURN(auto b, engine::Network::Create(half.graph, half.tensors, options));
  std::vector<float> samples = Samples(batch);
  std::vector<int64_t> labels(static_cast<size_t>(batch), 1);
  int batches = batch == 1 ? 4000 : 400;
  auto run = [&](engine::Network& network) {
    return Seconds([&] { for (int i = 0; i < batches; ++i) network.EvaluateBatch(samples, labels, {}); });
  };
  run(*a), run(*b);
  std::vector<double> before, after;
  for (int r = 0; r < rounds; ++r) {
    before.push_back(run(*a) / batches);
    after.push_back(run(*b) / batches);
  }
  std::printf("half width, batch %lld: %s\n", static_cast<long long>(batch), bench::SpeedVerdict(Median(before), Median(after)).c_str());
  return batch == 1 || bench::Meets(bench::Bar::kAtLeast, "times faster with half the width, batch 128", Median(before) / Median(after), 1.6);
}

}  // namespace
}  // namespace pare

int main(int argc, char** argv) {
  int rounds = argc > 1 ? std::atoi(argv[1]) : 15;
  if (argc > 2 || rounds < 1) {
    std::fprintf(stderr, "usage: bench_pruning_speed [ROUNDS]\n");
    return 2;
  }
  bool met = true;
  auto take = [&met](const pare::Result<bool>& part) {
    if (!part.ok()) std::fprintf(stderr, "bench_pruning_speed: %s\n", part.error().message.c_str());
    met = met && part.ok() && *part;
  };
  take(pare::Training(rounds));
  take(pare::Use(rounds, 128));
  take(pare::Use(rounds, 1));
  return met ? 0 : 1;
}
