// Speed of int8 and sparse execution against float32 of the same engine; see README.md. Prints the machine, the baseline and
// the ratio of every line; exits with 1 if a bar of the README is missed.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <string>

#include "common/random.h"
#include "common/version.h"
#include "methods/pruning.h"
#include "methods/quantize.h"
#include "model/architectures.h"
#include "model/initialize.h"
#include "worker/engine/execution.h"
#include "worker/engine/network.h"

namespace pare {
namespace {

std::string Processor() {
  std::ifstream in("/proc/cpuinfo");
  std::string name, flags;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("model name") && name.empty()) name = line.substr(line.find(':') + 2);
    if (line.starts_with("flags") && flags.empty()) flags = line + " ";
  }
  for (const char* flag : {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8"}) {
    if (flags.find(" " + std::string(flag) + " ") != std::string::npos) name += std::string(" ") + flag;
  }
  return name;
}

methods::Model MlpOf(const Json& hidden, int64_t in, int64_t out, double sparsity) {
  methods::Model m;
  m.graph = *model::BuildArchitecture("mlp", {{"hidden", hidden}}, {in}, out);
  model::GraphInfo info = *model::Analyze(m.graph);
  m.tensors = model::InitializeWeights(m.graph, info, 1);
  methods::PruneOptions options{methods::Criterion::kMagnitudeL1, methods::Scope::kGlobal, {}, 0.0, 1.0};
  for (const model::TensorSpec& spec : info.tensors) {
    if (spec.prunable) options.tensors.push_back(spec.name);
  }
  auto views = methods::ViewWeights(options, info, m.tensors);
  m.masks = *methods::Prune(options, {sparsity, {}}, *views, {}, {1, 0});
  methods::ApplyMasks(m.masks, m.tensors);
  return m;
}

bool Line(const char* what, const char* way, double baseline, double ms, double bar) {
  std::printf("%-52s float32 %8.3f ms   %-8s %8.3f ms   %5.2fx   bar %.1fx %s\n", what, baseline, way, ms, baseline / ms, bar, baseline / ms >= bar ? "met" : "MISSED");
  return baseline / ms >= bar;
}

// The first linear of a network alone.
engine::LayerExecution Layer(const methods::Model& m, int64_t batch) {
  return (*engine::MeasureExecution(m.graph, m.tensors, {.batch = batch, .repeats = 41}))[0];
}

// Medians of one evaluation batch under several plans, in turn.
std::vector<double> Whole(const methods::Model& m, const std::vector<engine::ExecutionPlan>& plans, int64_t in, int64_t batch) {
  std::vector<std::unique_ptr<engine::Network>> networks;
  for (const engine::ExecutionPlan& plan : plans) {
    engine::NetworkOptions options;
    options.execution = plan;
    networks.push_back(*engine::Network::Create(m.graph, m.tensors, options));
  }
  std::vector<float> x(static_cast<size_t>(batch * in));
  RandomStream stream(1, RandomPurpose::kTest);
  for (float& v : x) v = static_cast<float>(stream.Normal());
  std::vector<int64_t> labels(static_cast<size_t>(batch), 0);
  std::vector<std::vector<double>> times(plans.size());
  for (int r = 0; r < 34; ++r) {
    for (size_t p = 0; p < plans.size(); ++p) {
      auto begin = std::chrono::steady_clock::now();
      networks[p]->EvaluateBatch(x, labels, {});
      if (r >= 3) times[p].push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
    }
  }
  std::vector<double> medians;
  for (auto& t : times) {
    std::nth_element(t.begin(), t.begin() + 15, t.end());
    medians.push_back(t[15]);
  }
  return medians;
}

int Main() {
  std::printf("%s, pare engine %s, libtorch 2.11, one thread\n", Processor().c_str(), std::string(kEngineVersion).c_str());
  bool good = true;
  methods::Model layer = MlpOf(Json::array({3072}), 768, 10, 0.9);
  methods::QuantizeOptions options{{"fc1.weight"}, model::Activations::kDynamic, {}};
  methods::Model int8 = *methods::QuantizeInt8(layer, options);
  engine::LayerExecution i = Layer(int8, 128), s = Layer(layer, 128);
  good = Line("int8 linear 3072x768, batch 128", "int8", i.milliseconds.at("float32"), i.milliseconds.at("encoded"), 2.5) && good;
  good = Line("linear 3072x768, 90 % removed, batch 128", "sparse", s.milliseconds.at("encoded"), s.milliseconds.at("sparse"), 3.0) && good;
  auto before = layer.tensors.at("fc1.weight").bytes().size(), after = int8.tensors.at("fc1.weight").bytes().size(), scales = int8.tensors.at("fc1.weight_scale").bytes().size();
  std::printf("%-52s float32 %zu bytes, int8 %zu bytes (%.2fx) and %zu of scales\n", "weights 3072x768", before, after, static_cast<double>(before) / static_cast<double>(after), scales);
  methods::Model mlp = MlpOf(Json::array({4096, 4096}), 1024, 1000, 0.9);
  engine::ExecutionPlan sparse = {{"fc1", "sparse"}, {"fc2", "sparse"}, {"fc3", "sparse"}};
  auto measured = *engine::MeasureExecution(mlp.graph, mlp.tensors, {.batch = 32, .repeats = 9});
  std::vector<double> whole = Whole(mlp, {{}, sparse, engine::PlanOf(measured)}, 1024, 32);
  good = Line("MLP 1024-4096-4096-1000, 90 % removed, batch 32", "sparse", whole[0], whole[1], 2.5) && good;
  Line("the same, each layer as measured alone", "chosen", whole[0], whole[2], 2.5);
  for (const engine::LayerExecution& l : measured) std::printf("  %s runs %s\n", l.node.c_str(), l.reason.c_str());
  return good ? 0 : 1;
}

}  // namespace
}  // namespace pare

int main() { return pare::Main(); }
