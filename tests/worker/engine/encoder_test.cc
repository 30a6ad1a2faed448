// The built-in encoder run by the engine, against a BERT put together from PyTorch's own modules (reference/make_encoder.py).
#include <gtest/gtest.h>

#include "model/architectures.h"
#include "model/initialize.h"
#include "tests/worker/engine/reference_values.h"
#include "worker/engine/network.h"

namespace pare::engine {
namespace {

const Json& Stored() {
  static const Json stored = ReadReference("encoder.json");
  return stored;
}

// fill() of the script.
model::Tensor Fill(const model::Shape& shape, int ordinal) {
  model::Tensor tensor(model::DType::kF32, shape);
  auto values = tensor.mutable_values<float>();
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(0.8 * std::sin(0.731 * static_cast<double>(i * i) + 1.3 * ordinal));
  return tensor;
}

struct Made {
  model::Graph graph;
  model::TensorMap weights;
  std::vector<float> ids;
  std::vector<int64_t> labels;
};

// The network of a stored case, with its weights and samples.
Made MakeCase(const Json& entry) {
  Json fields = Stored()["fields"];
  fields["pooling"] = entry["pooling"];
  int64_t classes = Stored()["classes"], length = static_cast<int64_t>(entry["ids"][0].size());
  Made made;
  auto graph = model::BuildArchitecture("encoder", fields, {length}, classes);
  EXPECT_TRUE(graph.ok()) << graph.error().message;
  made.graph = *std::move(graph);
  made.weights = model::InitializeWeights(made.graph, *model::Analyze(made.graph), 1);
  EXPECT_EQ(made.weights.size(), entry["order"].size());
  int ordinal = 0;
  for (const std::string name : entry["order"]) made.weights.at(name) = Fill(made.weights.at(name).shape(), ordinal++);
  for (const Json& row : entry["ids"]) {
    for (const Json& id : row) made.ids.push_back(id.get<float>());
    made.labels.push_back(static_cast<int64_t>(made.labels.size()) % classes);
  }
  return made;
}

std::unique_ptr<Network> NetworkOf(const Made& made, int shards = 1) {
  NetworkOptions options;
  options.shards = shards;
  auto network = Network::Create(made.graph, made.weights, options);
  EXPECT_TRUE(network.ok()) << network.error().message;
  return *std::move(network);
}

class EncoderTest : public testing::TestWithParam<size_t> {
 protected:
  const Json& entry() const { return Stored()["cases"][GetParam()]; }
};

TEST_P(EncoderTest, LossLogitsAndGradientsEqualPyTorch) {
  Made made = MakeCase(entry());
  auto network = NetworkOf(made, 2);
  std::vector<float> logits(entry()["logits"].size());
  EXPECT_NEAR(network->EvaluateBatch(made.ids, made.labels, logits).loss, entry()["loss"].get<double>(), 2e-6);
  for (size_t i = 0; i < logits.size(); ++i) EXPECT_NEAR(logits[i], entry()["logits"][i].get<double>(), 2e-6) << i;
  // Twice: reused workspaces must not change anything.
  for (int repeat = 0; repeat < 2; ++repeat) {
    EXPECT_NEAR(network->TrainBatch(made.ids, made.labels, {}, {}).loss, entry()["loss"].get<double>(), 2e-6);
    for (const ParameterSlice& slice : network->layout()) {
      std::vector<double> expected = entry()["gradients"][slice.name];
      ASSERT_EQ(expected.size(), static_cast<size_t>(slice.size)) << slice.name;
      for (size_t i = 0; i < expected.size(); ++i) {
        ASSERT_NEAR(network->gradients()[static_cast<size_t>(slice.offset) + i], expected[i], 2e-6 + 2e-4 * std::abs(expected[i])) << slice.name << " element " << i;
      }
    }
  }
}

TEST_P(EncoderTest, WhatStandsInPaddingChangesNothingElse) {
  Made made = MakeCase(entry());
  std::vector<float> before(entry()["logits"].size()), after(before.size());
  NetworkOf(made)->EvaluateBatch(made.ids, made.labels, before);
  // Another word vector for padding.
  for (float& v : made.weights.at("embeddings.word_embeddings.weight").mutable_values<float>().first(8)) v = 0.7f - v;
  NetworkOf(made)->EvaluateBatch(made.ids, made.labels, after);
  EXPECT_EQ(before, after);
}

TEST_P(EncoderTest, ASampleOfPaddingAloneHasFiniteLogits) {
  Made made = MakeCase(entry());
  std::vector<float> ids(made.ids.size(), Stored()["fields"]["padding"].get<float>()), logits(entry()["logits"].size());
  BatchResult result = NetworkOf(made)->TrainBatch(ids, made.labels, {}, {});
  EXPECT_TRUE(std::isfinite(result.loss));
  NetworkOf(made)->EvaluateBatch(ids, made.labels, logits);
  for (float v : logits) EXPECT_TRUE(std::isfinite(v));
}

INSTANTIATE_TEST_SUITE_P(Pooling, EncoderTest, testing::Values(0, 1), [](const auto& p) { return p.param == 0 ? "first" : "mean"; });

}  // namespace
}  // namespace pare::engine
