// Ways to run a finished network: each gives the network's values, and the choice is one that was measured.
#include "worker/engine/execution.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "model/architectures.h"
#include "model/encoding.h"
#include "model/initialize.h"
#include "worker/engine/network.h"

namespace pare::engine {
namespace {

using model::Graph;

Graph Mlp() { return *model::BuildArchitecture("mlp", Json{{"hidden", {40, 33, 20}}, {"activation", "gelu"}}, {48}, 5); }

// Weights of which `density` are left.
model::TensorMap SparseWeights(const Graph& graph, size_t every) {
  model::TensorMap weights = model::InitializeWeights(graph, *model::Analyze(graph), 3);
  for (auto& [name, tensor] : weights) {
    if (!name.ends_with(".weight")) continue;
    auto values = tensor.mutable_values<float>();
    for (size_t i = 0; i < values.size(); ++i) {
      if (i * 7 % every != 0) values[i] = 0.0f;
    }
  }
  return weights;
}

std::vector<float> Scores(const Graph& graph, const model::TensorMap& weights, const ExecutionPlan& plan, size_t n, int shards = 1) {
  NetworkOptions options;
  options.execution = plan;
  options.shards = shards;
  auto network = Network::Create(graph, weights, options);
  EXPECT_TRUE(network.ok()) << (network.ok() ? "" : network.error().message);
  std::vector<float> x(n * 48), logits(n * 5);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(std::sin(0.37 * static_cast<double>(i)));
  std::vector<int64_t> labels(n, 1);
  (*network)->EvaluateBatch(x, labels, logits);
  return logits;
}

TEST(ExecutionTest, EveryWayGivesTheNetworksValues) {
  Graph graph = Mlp();
  model::TensorMap weights = SparseWeights(graph, 10);
  std::vector<float> expected = Scores(graph, weights, {}, 37);
  for (const std::string way : {"encoded", "float32", "sparse", "bfloat16"}) {
    for (int shards : {1, 3}) {
      std::vector<float> found = Scores(graph, weights, {{"fc1", way}, {"fc2", way}, {"fc3", way}, {"fc4", way}}, 37, shards);
      double tolerance = way == "bfloat16" ? 0.02 : 2e-6;
      for (size_t i = 0; i < found.size(); ++i) ASSERT_NEAR(found[i], expected[i], tolerance) << way << " " << i;
    }
  }
  // Sparse and dense layers in turn: the layout is turned where it must be.
  std::vector<float> mixed = Scores(graph, weights, {{"fc1", "sparse"}, {"fc3", "sparse"}}, 37);
  for (size_t i = 0; i < mixed.size(); ++i) EXPECT_NEAR(mixed[i], expected[i], 2e-6);
}

TEST(ExecutionTest, SequencesRunSparseToo) {
  Graph graph{{{"input", model::OpType::kInput, {}, {.shape = {6, 8}}},
               {"up", model::OpType::kLinear, {"input"}, {.in_features = 8, .out_features = 12}},
               {"norm", model::OpType::kLayerNorm, {"up"}, {.features = 12}},
               {"flatten", model::OpType::kFlatten, {"norm"}, {}},
               {"head", model::OpType::kLinear, {"flatten"}, {.in_features = 72, .out_features = 5}}},
              "head"};
  model::TensorMap weights = SparseWeights(graph, 3);
  for (float& v : weights.at("norm.weight").mutable_values<float>()) v = 1.5f;
  std::vector<float> expected = Scores(graph, weights, {}, 9), found = Scores(graph, weights, {{"up", "sparse"}, {"head", "sparse"}}, 9);
  for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-5);
}

TEST(ExecutionTest, AnEncodedLayerRunsDecodedAndSparse) {
  Graph graph = Mlp();
  model::TensorMap weights = SparseWeights(graph, 10);
  graph.nodes[static_cast<size_t>(graph.IndexOf("fc1"))].attributes.encoding = model::Encoding::kInt8;
  weights["fc1.weight"] = model::Tensor(model::DType::kI8, {40, 48});
  for (size_t i = 0; i < 40 * 48; i += 9) weights["fc1.weight"].mutable_values<int8_t>()[i] = static_cast<int8_t>(static_cast<int>(i % 200) - 100);
  weights["fc1.weight_scale"] = model::Tensor(model::DType::kF32, {40});
  for (float& v : weights["fc1.weight_scale"].mutable_values<float>()) v = 0.01f;
  std::vector<float> expected = Scores(graph, weights, {}, 8);
  for (const char* way : {"float32", "sparse"}) {
    std::vector<float> found = Scores(graph, weights, {{"fc1", way}}, 8);
    for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-5) << way;
  }
}

TEST(ExecutionTest, WhatCannotRunIsRefusedWithItsName) {
  Graph graph = Mlp();
  model::TensorMap weights = SparseWeights(graph, 2);
  NetworkOptions options;
  options.execution = {{"fc9", "sparse"}};
  EXPECT_NE(Network::Create(graph, weights, options).error().message.find("fc9"), std::string::npos);
  options.execution = {{"fc1", "int4"}};
  EXPECT_NE(Network::Create(graph, weights, options).error().message.find("'int4'"), std::string::npos);
}

TEST(MeasureExecutionTest, ChoosesTheFastestOfWhatItMeasured) {
  Graph graph = Mlp();
  auto layers = MeasureExecution(graph, SparseWeights(graph, 10), {.batch = 16, .repeats = 5});
  ASSERT_TRUE(layers.ok()) << layers.error().message;
  ASSERT_EQ(layers->size(), 4u);
  for (const LayerExecution& layer : *layers) {
    EXPECT_NEAR(layer.density, 0.1, 0.02);
    ASSERT_TRUE(layer.milliseconds.contains("encoded") && layer.milliseconds.contains("sparse")) << layer.node;
    for (const auto& [way, ms] : layer.milliseconds) {
      double chosen = layer.milliseconds.at(layer.way);
      EXPECT_GE(layer.way == "encoded" ? ms * kMinGain : ms, chosen * (1 - 1e-12)) << way;
    }
    EXPECT_NE(layer.reason.find("at batch 16"), std::string::npos) << layer.reason;
  }
  EXPECT_EQ(PlanOf(*layers).size(), 4u);
  // Dense layers are not tried sparse.
  auto dense = MeasureExecution(graph, SparseWeights(graph, 1), {.batch = 16, .repeats = 3});
  ASSERT_TRUE(dense.ok());
  for (const LayerExecution& layer : *dense) EXPECT_FALSE(layer.milliseconds.contains("sparse"));
}

}  // namespace
}  // namespace pare::engine
