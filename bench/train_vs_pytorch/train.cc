// One side of bench/train_vs_pytorch: the engine's training loop on Fashion-MNIST, as worker/runner drives it: gather, batch,
// optimizer step. Prints one JSON line with the seconds of every epoch, the last loss and the test accuracy.
//
//   bench_train MODEL OPTIMIZER BATCH THREADS SHARDS EPOCHS SAMPLES
#include <chrono>
#include <cstdio>
#include <string>

#include "common/random.h"
#include "data/dataset.h"
#include "model/architectures.h"
#include "model/initialize.h"
#include "worker/engine/network.h"
#include "worker/engine/optimizer.h"

namespace pare {
namespace {

struct Setting {
  std::string model, optimizer;
  int64_t batch = 60;
  int threads = 1, shards = 1;
  int64_t epochs = 3, samples = 60000;
};

double Accuracy(engine::Network& network, const data::Dataset& dataset, const data::DataSpec& spec, int64_t batch, int64_t sample) {
  int64_t n = dataset.test.labels.size(), correct = 0;
  std::vector<float> x;
  std::vector<int64_t> labels;
  for (int64_t first = 0; first < n; first += batch) {
    std::vector<uint32_t> rows;
    for (int64_t i = first; i < std::min(n, first + batch); ++i) rows.push_back(static_cast<uint32_t>(i));
    x.resize(rows.size() * static_cast<size_t>(sample));
    labels.resize(rows.size());
    data::Gather(dataset.test, spec, rows, x);
    data::GatherLabels(dataset.test, rows, labels);
    correct += network.EvaluateBatch(x, labels, {}).correct;
  }
  return static_cast<double>(correct) / static_cast<double>(n);
}

Status Train(const Setting& s) {
  ASSIGN_OR_RETURN(data::Dataset dataset, data::Load({.dataset = "fashion-mnist"}));
  data::DataSpec spec;
  spec.offset = {0.2860};
  spec.scale = {1 / 0.3530};
  model::Shape shape = {1, 28, 28};
  ASSIGN_OR_RETURN(model::Graph graph, model::BuildArchitecture(s.model, Json::object(), shape, 10));
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(graph));
  engine::NetworkOptions options;
  options.threads = s.threads;
  options.shards = s.shards;
  options.max_batch = s.batch;
  ASSIGN_OR_RETURN(auto network, engine::Network::Create(graph, model::InitializeWeights(graph, info, 1), options));
  engine::OptimizerOptions rule;
  rule.kind = s.optimizer;
  rule.momentum = s.optimizer == "sgd" ? 0.9 : 0;
  double rate = s.optimizer == "sgd" ? 0.05 : 0.0012;
  auto optimizer = engine::Optimizer::Create(rule, static_cast<int64_t>(network->parameters().size()));
  int64_t sample = model::ElementCount(shape);
  std::vector<int64_t> labels(static_cast<size_t>(s.batch));
  std::string seconds;
  double loss = 0, parts[2] = {};  // gather, forward and backward; optimizer
  auto now = [] { return std::chrono::steady_clock::now(); };
  auto add = [&](double& part, auto since) { part += std::chrono::duration<double>(now() - since).count(); };
  for (int64_t epoch = 0; epoch < s.epochs; ++epoch) {
    auto start = now();
    RandomStream stream(1, RandomPurpose::kShuffle, static_cast<uint64_t>(epoch));
    std::vector<uint32_t> order = Permutation(stream, static_cast<uint32_t>(s.samples));
    for (int64_t first = 0, batch = 0; first < s.samples; first += s.batch, ++batch) {
      auto n = static_cast<size_t>(std::min(s.batch, s.samples - first));
      auto rows = std::span<const uint32_t>(order).subspan(static_cast<size_t>(first), n);
      engine::SampleSource samples = [&](int64_t from, int64_t count, std::span<float> out) {
        data::Gather(dataset.train, spec, rows.subspan(static_cast<size_t>(from), static_cast<size_t>(count)), out);
      };
      data::GatherLabels(dataset.train, rows, std::span(labels).first(n));
      auto running = now();
      loss = network->TrainBatch(samples, std::span(labels).first(n), {epoch, batch}, {}).loss;
      add(parts[0], running);
      auto stepping = now();
      optimizer->Step(network->parameters(), network->gradients(), {}, rate, 1.0, [&](const auto& body) { network->ForRanges(body); });
      add(parts[1], stepping);
    }
    std::chrono::duration<double> took = now() - start;
    seconds += (epoch > 0 ? ", " : "") + std::to_string(took.count());
  }
  double accuracy = Accuracy(*network, dataset, spec, s.batch, sample);
  std::printf("{\"seconds\": [%s], \"network_optimizer\": [%.3f, %.3f], \"loss\": %.6f, \"accuracy\": %.4f}\n", seconds.c_str(),
              parts[0], parts[1], loss, accuracy);
  return Ok();
}

}  // namespace
}  // namespace pare

int main(int argc, char** argv) {
  if (argc != 8) {
    std::fprintf(stderr, "usage: bench_train mlp|lenet5|resnet20 sgd|adam BATCH THREADS SHARDS EPOCHS SAMPLES\n");
    return 2;
  }
  pare::Setting s{argv[1], argv[2], std::stoll(argv[3]), std::stoi(argv[4]), std::stoi(argv[5]), std::stoll(argv[6]), std::stoll(argv[7])};
  pare::Status status = pare::Train(s);
  if (!status.ok()) std::fprintf(stderr, "bench_train: %s\n", status.error().message.c_str());
  return status.ok() ? 0 : 1;
}
