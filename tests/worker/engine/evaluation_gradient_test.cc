// Gradients in evaluation mode against finite differences of the loss in evaluation mode; nothing else may change.
#include <gtest/gtest.h>

#include <cmath>

#include "model/initialize.h"
#include "worker/engine/network.h"

namespace pare::engine {
namespace {

using model::OpType;

model::Graph NormAndDropout() {
  model::Graph g;
  auto add = [&](const std::string& name, OpType op, model::Attributes a) {
    std::vector<std::string> inputs;
    if (!g.nodes.empty()) inputs.push_back(g.nodes.back().name);
    g.nodes.push_back({name, op, inputs, std::move(a)});
    g.output = name;
  };
  add("input", OpType::kInput, {.shape = {2, 5, 5}});
  add("conv", OpType::kConv2d, {.in_channels = 2, .out_channels = 3, .kernel_h = 3, .kernel_w = 3});
  add("bn", OpType::kBatchNorm2d, {.features = 3});
  add("relu", OpType::kTanh, {});
  add("dropout", OpType::kDropout, {.probability = 0.5});
  add("flatten", OpType::kFlatten, {});
  add("fc", OpType::kLinear, {.in_features = 27, .out_features = 3});
  return g;
}

TEST(EvaluationGradientTest, EqualsFiniteDifferencesAndChangesNothing) {
  model::Graph graph = NormAndDropout();
  model::GraphInfo info = *model::Analyze(graph);
  model::TensorMap weights = model::InitializeWeights(graph, info, 5);
  for (float& v : weights.at("bn.running_mean").mutable_values<float>()) v = 0.3f;
  for (float& v : weights.at("bn.running_var").mutable_values<float>()) v = 1.7f;
  NetworkOptions options;
  options.shards = 2;
  auto network = *Network::Create(graph, weights, options);
  constexpr int64_t kBatch = 5;
  std::vector<float> x(kBatch * 50);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(2 * std::sin(1.7 * static_cast<double>(i)));
  std::vector<int64_t> labels = {0, 1, 2, 0, 1};
  LossOptions loss;
  loss.evaluation_mode = true;
  BatchResult result = network->TrainBatch(x, labels, {3, 4}, loss);
  EXPECT_EQ(result.loss, network->EvaluateBatch(x, labels, {}).loss);
  for (const auto& [name, tensor] : network->Weights()) EXPECT_EQ(tensor.digest(), weights.at(name).digest()) << name;
  std::vector<float> gradients(network->gradients().begin(), network->gradients().end());
  for (const ParameterSlice& slice : network->layout()) {
    for (int64_t i = 0; i < slice.size; ++i) {
      auto at = static_cast<size_t>(slice.offset + i);
      float kept = network->parameters()[at];
      auto moved = [&](float step) {
        network->parameters()[at] = kept + step;
        return network->EvaluateBatch(x, labels, {}).loss;
      };
      double difference = (moved(1.0f / 256) - moved(-1.0f / 256)) * 128;
      network->parameters()[at] = kept;
      EXPECT_NEAR(difference, gradients[at], 2e-4 + 0.01 * std::abs(difference)) << slice.name << " " << i;
    }
  }
}

}  // namespace
}  // namespace pare::engine
