// Encoded weights run: every row of the table, the integer kernel against arithmetic of our own, training with rounding.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "methods/quantize.h"
#include "model/encoding.h"
#include "model/initialize.h"
#include "tests/worker/engine/reference_values.h"
#include "worker/engine/network.h"

namespace pare::engine {
namespace {

using model::Activations;
using model::Attributes;
using model::Encoding;
using model::Graph;
using model::OpType;

float Wave(size_t i) { return static_cast<float>(2.0 * std::sin(1.7 * static_cast<double>(i)) + 0.3 * std::cos(0.11 * static_cast<double>(i))); }

// input → x (encoded) → flatten → head, so that the output is a vector of scores.
Graph GraphOf(OpType op, Encoding encoding, Activations activations, bool bias = true) {
  Attributes a{.bias = bias};
  model::Shape input = {20};
  int64_t features = 0;
  if (op == OpType::kLinear) a.in_features = 20, a.out_features = 9, features = 9;
  if (op == OpType::kConv2d) a.in_channels = 2, a.out_channels = 4, a.kernel_h = a.kernel_w = 3, input = {2, 5, 5}, features = 36;
  if (op == OpType::kEmbedding) a.vocabulary = 7, a.dimension = 6, input = {5}, features = 30;
  a.encoding = encoding;
  a.activations = activations;
  Graph g{{{"input", OpType::kInput, {}, {.shape = input}}, {"x", op, {"input"}, a}}, "head"};
  if (op == OpType::kEmbedding) g.nodes[0].attributes.dtype = model::DType::kI64;
  if (op != OpType::kLinear) g.nodes.push_back({"flatten", OpType::kFlatten, {"x"}, {}});
  g.nodes.push_back({"head", OpType::kLinear, {g.nodes.back().name}, {.in_features = features, .out_features = 3}});
  return g;
}

model::TensorMap WeightsOf(const Graph& graph) {
  auto info = *model::Analyze(graph);
  model::TensorMap weights = model::InitializeWeights(graph, info, 3);
  for (auto& [name, tensor] : weights) {
    if (tensor.dtype() == model::DType::kI8) {
      tensor = model::Tensor(model::DType::kI8, tensor.shape());
      auto codes = tensor.mutable_values<int8_t>();
      for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<int8_t>(static_cast<int>(i * 37 % 256) - 128);
    } else if (tensor.dtype() == model::DType::kU8) {
      tensor = model::Tensor(model::DType::kU8, tensor.shape());
      auto codes = tensor.mutable_values<uint8_t>();
      for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i * 37 % 256);
    } else if (name == "x.weight_values") {
      for (size_t i = 0; i < static_cast<size_t>(tensor.size()); ++i) tensor.mutable_values<float>()[i] = 0.002f * static_cast<float>(i % 2 ? i : 0 - static_cast<double>(i));
    } else if (name == "x.weight_scale") {
      for (size_t i = 0; i < static_cast<size_t>(tensor.size()); ++i) tensor.mutable_values<float>()[i] = 0.001f * static_cast<float>(i + 1);
    } else if (name == "x.input_scale") {
      tensor = model::Tensor::Of<float>(model::DType::kF32, {1}, std::vector<float>{0.04f});
    } else if (name == "x.input_zero_point") {
      tensor = model::Tensor::Of<int32_t>(model::DType::kI32, {1}, std::vector<int32_t>{60});
    }
  }
  return weights;
}

std::vector<float> Samples(const Graph& graph, size_t n) {
  bool ids = graph.nodes[0].attributes.dtype == model::DType::kI64;
  std::vector<float> x(n * static_cast<size_t>(model::ElementCount(graph.nodes[0].attributes.shape)));
  for (size_t i = 0; i < x.size(); ++i) x[i] = ids ? static_cast<float>(i * 5 % 7) : Wave(i);
  return x;
}

std::unique_ptr<Network> Make(const Graph& graph, const model::TensorMap& weights, int shards = 1, int threads = 1) {
  NetworkOptions options;
  options.shards = shards;
  options.threads = threads;
  auto network = Network::Create(graph, weights, options);
  EXPECT_TRUE(network.ok()) << (network.ok() ? "" : network.error().message);
  return std::move(*network);
}

std::vector<float> Scores(Network& network, const std::vector<float>& x, size_t n) {
  std::vector<float> logits(n * static_cast<size_t>(network.classes()));
  std::vector<int64_t> labels(n, 0);
  network.EvaluateBatch(x, labels, logits);
  return logits;
}

void ForEveryUse(const std::function<void(const model::EncodingRow&, const Graph&)>& body) {
  for (const model::EncodingRow& row : model::EncodingTable()) {
    for (OpType op : row.operators) {
      for (Activations activations : row.activations) {
        Graph graph = GraphOf(op, row.encoding, activations);
        if (model::CheckEncoding(graph.nodes[1]).ok()) body(row, graph);
      }
    }
  }
}

TEST(EngineEncodingTest, RunsEveryRowOfTheTableCloseToItsDecodedWeights) {
  ForEveryUse([](const model::EncodingRow& row, const Graph& graph) {
    SCOPED_TRACE(std::string(row.name) + " " + std::string(model::ToString(graph.nodes[1].op)) + " " +
                 std::string(model::ToString(graph.nodes[1].attributes.activations)));
    model::TensorMap weights = WeightsOf(graph);
    auto network = Make(graph, weights);
    ASSERT_NE(network, nullptr);
    auto dense = *model::DecodeModel(graph, weights);
    auto reference = Make(dense.graph, dense.tensors);
    std::vector<float> x = Samples(graph, 4), found = Scores(*network, x, 4), expected = Scores(*reference, x, 4);
    // Float activations differ by rounding only where the weight is rounded too.
    bool exact = graph.nodes[1].attributes.activations == Activations::kFloat && row.encoding != Encoding::kInt8Fake;
    for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], exact ? 1e-5 : 0.06) << i;
    // Weights come back to the bit.
    model::TensorMap back = network->Weights();
    for (const auto& [name, tensor] : weights) EXPECT_EQ(back.at(name).digest(), tensor.digest()) << name;
    if (row.trains) {
      std::vector<int64_t> labels = {0, 1, 2, 0};
      network->TrainBatch(x, labels, {}, {});
      double sum = 0;
      for (float g : network->gradients()) sum += std::abs(g);
      EXPECT_GT(sum, 0.01);
    }
  });
}

// The definition in integers: what the kernels must give, written without them.
std::vector<float> IntegerLinear(const Graph& graph, const model::TensorMap& w, const std::vector<float>& x, const model::InputCodes& codes) {
  const Attributes& a = graph.nodes[1].attributes;
  auto weight = w.at("x.weight").values<int8_t>();
  auto scale = w.at("x.weight_scale").values<float>(), bias = w.at("x.bias").values<float>();
  auto in = static_cast<size_t>(a.in_features), out = static_cast<size_t>(a.out_features);
  std::vector<float> y;
  for (size_t r = 0; r < x.size() / in; ++r) {
    for (size_t o = 0; o < out; ++o) {
      int64_t sum = 0;
      for (size_t i = 0; i < in; ++i) {
        float code = std::nearbyint(x[r * in + i] * (1.0f / codes.scale) + static_cast<float>(codes.zero_point));
        sum += (static_cast<int64_t>(std::clamp(code, 0.0f, 127.0f)) - codes.zero_point) * weight[o * in + i];
      }
      y.push_back(static_cast<float>(sum) * (codes.scale * scale[o]) + bias[o]);
    }
  }
  return y;
}

// The layer alone: its output is the result.
Graph Alone(Activations activations) {
  Graph graph = GraphOf(OpType::kLinear, Encoding::kInt8, activations);
  graph.nodes.pop_back();
  graph.output = "x";
  return graph;
}

TEST(Int8LinearTest, DynamicEqualsIntegerArithmetic) {
  Graph graph = Alone(Activations::kDynamic);
  model::TensorMap weights = WeightsOf(graph);
  std::vector<float> x = Samples(graph, 7);
  auto [low, high] = std::minmax_element(x.begin(), x.end());
  std::vector<float> expected = IntegerLinear(graph, weights, x, model::ChooseCodes(*low, *high));
  std::vector<float> found = Scores(*Make(graph, weights), x, 7);
  for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-6 + 1e-6 * std::abs(expected[i])) << i;
}

TEST(Int8LinearTest, ExtremeCodesDoNotSaturate) {
  // All codes at their ends: sums of two products that would overflow 16 bits with inputs of 8 bits.
  Graph graph = Alone(Activations::kDynamic);
  model::TensorMap weights = WeightsOf(graph);
  auto& codes = weights.at("x.weight");
  codes = model::Tensor(model::DType::kI8, codes.shape());
  for (auto& v : codes.mutable_values<int8_t>()) v = -128;
  std::vector<float> x(20, 5.0f);
  std::vector<float> found = Scores(*Make(graph, weights), x, 1);
  std::vector<float> expected = IntegerLinear(graph, weights, x, model::ChooseCodes(0.0f, 5.0f));
  for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-5 * std::abs(expected[i]));
}

TEST(Int8LinearTest, StaticEqualsIntegerArithmeticAndClips) {
  Graph graph = Alone(Activations::kStatic);
  model::TensorMap weights = WeightsOf(graph);
  std::vector<float> x = Samples(graph, 7);
  x[3] = 900.0f;
  x[4] = -900.0f;
  std::vector<float> expected = IntegerLinear(graph, weights, x, {0.04f, 60});
  std::vector<float> found = Scores(*Make(graph, weights), x, 7);
  for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-6 + 1e-6 * std::abs(expected[i])) << i;
}

TEST(Int8LinearTest, GivesTheSameBitsForAnyNumberOfThreads) {
  Graph graph = GraphOf(OpType::kLinear, Encoding::kInt8, Activations::kDynamic);
  model::TensorMap weights = WeightsOf(graph);
  std::vector<float> x = Samples(graph, 33);
  std::vector<float> one = Scores(*Make(graph, weights, 4, 1), x, 33);
  EXPECT_EQ(one, Scores(*Make(graph, weights, 4, 1), x, 33)) << "repeated";
  EXPECT_EQ(one, Scores(*Make(graph, weights, 4, 4), x, 33));
}

TEST(CodebookTest, AValuesGradientIsTheSumOverItsWeightsAndZeroStays) {
  for (OpType op : {OpType::kLinear, OpType::kConv2d, OpType::kEmbedding}) {
    Graph graph = GraphOf(op, Encoding::kCodebook, Activations::kFloat);
    graph.nodes[1].attributes.bits = 3;
    model::TensorMap weights = WeightsOf(graph);
    auto& codes = weights.at("x.weight");
    codes = model::Tensor(model::DType::kU8, codes.shape());
    for (size_t i = 0; i < static_cast<size_t>(codes.size()); ++i) codes.mutable_values<uint8_t>()[i] = static_cast<uint8_t>(i * 5 % 8);
    auto dense = *model::DecodeModel(graph, weights);
    auto network = Make(graph, weights), reference = Make(dense.graph, dense.tensors);
    std::vector<float> x = Samples(graph, 5);
    std::vector<int64_t> labels = {0, 1, 2, 0, 1};
    EXPECT_NEAR(network->TrainBatch(x, labels, {}, {}).loss, reference->TrainBatch(x, labels, {}, {}).loss, 1e-6);
    std::vector<double> expected(8, 0.0);
    for (const ParameterSlice& slice : reference->layout()) {
      if (slice.name != "x.weight") continue;
      for (size_t i = 0; i < static_cast<size_t>(slice.size); ++i) expected[i * 5 % 8] += reference->gradients()[static_cast<size_t>(slice.offset) + i];
    }
    expected[0] = 0.0;
    for (const ParameterSlice& slice : network->layout()) {
      if (slice.name != "x.weight_values") continue;
      for (size_t i = 0; i < 8; ++i) EXPECT_NEAR(network->gradients()[static_cast<size_t>(slice.offset) + i], expected[i], 1e-5) << i;
    }
  }
}

// torch.ao.quantization on random layers (reference/make_quantization.py): the same codes, and outputs that differ by rounding.
TEST(Int8ParityTest, WeightsAndOutputsEqualTorchAo) {
  Json reference = ReadReference("quantization.json");
  ASSERT_EQ(reference.value("cases", Json::array()).size(), 3u);
  auto flat = [](const Json& rows) {
    std::vector<float> values;
    for (const Json& row : rows) {
      for (const Json& v : row) values.push_back(v.get<float>());
    }
    return values;
  };
  for (const Json& c : reference["cases"]) {
    SCOPED_TRACE(c["name"].get<std::string>());
    auto out = static_cast<int64_t>(c["weight"].size()), in = static_cast<int64_t>(c["weight"][0].size());
    std::vector<float> weight = flat(c["weight"]), x = flat(c["input"]), expected = flat(c["output"]);
    auto codes = methods::QuantizeRows(model::Tensor::Of<float>(model::DType::kF32, {out, in}, weight));
    ASSERT_TRUE(codes.ok());
    for (int64_t r = 0; r < out; ++r) {
      EXPECT_EQ(codes->scales.values<float>()[static_cast<size_t>(r)], static_cast<float>(c["scales"][static_cast<size_t>(r)].get<double>()));
      for (int64_t i = 0; i < in; ++i) {
        ASSERT_EQ(codes->codes.values<int8_t>()[static_cast<size_t>(r * in + i)], c["codes"][static_cast<size_t>(r)][static_cast<size_t>(i)].get<int>()) << r << " " << i;
      }
    }
    Graph graph{{{"input", OpType::kInput, {}, {.shape = {in}}},
                 {"x", OpType::kLinear, {"input"}, {.in_features = in, .out_features = out, .encoding = Encoding::kInt8, .activations = Activations::kDynamic}}},
                "x"};
    model::TensorMap tensors = {{"x.weight", codes->codes}, {"x.weight_scale", codes->scales},
                                {"x.bias", model::Tensor::Of<float>(model::DType::kF32, {out}, c["bias"].get<std::vector<float>>())}};
    std::vector<float> found = Scores(*Make(graph, tensors), x, c["input"].size());
    for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-5 * (1 + std::abs(expected[i]))) << i;
  }
}

TEST(Int8FakeTest, TrainingSeesWhatInt8WillCompute) {
  // The weight rounded as methods::Quantize rounds it, run as int8, equals the fake forward.
  Graph fake = Alone(Activations::kDynamic);
  fake.nodes[1].attributes.encoding = Encoding::kInt8Fake;
  model::TensorMap weights = WeightsOf(fake);
  Graph graph = Alone(Activations::kDynamic);
  model::TensorMap int8 = WeightsOf(graph);
  auto w = weights.at("x.weight").values<float>();
  model::Tensor codes(model::DType::kI8, {9, 20}), scales(model::DType::kF32, {9});
  for (size_t r = 0; r < 9; ++r) {
    float largest = 0;
    for (size_t i = 0; i < 20; ++i) largest = std::max(largest, std::abs(w[r * 20 + i]));
    float scale = largest / 127.5f;
    scales.mutable_values<float>()[r] = scale;
    for (size_t i = 0; i < 20; ++i) codes.mutable_values<int8_t>()[r * 20 + i] = static_cast<int8_t>(std::clamp(std::nearbyint(w[r * 20 + i] * (1.0f / scale)), -128.0f, 127.0f));
  }
  int8["x.weight"] = codes;
  int8["x.weight_scale"] = scales;
  int8["x.bias"] = weights.at("x.bias");
  std::vector<float> x = Samples(graph, 7), found = Scores(*Make(fake, weights), x, 7), expected = Scores(*Make(graph, int8), x, 7);
  for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], 2e-5) << i;
}

TEST(Int8FakeTest, GradientsPassStraightThrough) {
  // y = x̂ ŵᵀ: with all values on the grid of codes, fake and dense gradients are the same.
  for (OpType op : {OpType::kLinear, OpType::kConv2d, OpType::kEmbedding}) {
    Graph fake = GraphOf(op, Encoding::kInt8Fake, Activations::kFloat), dense = GraphOf(op, Encoding::kDense, Activations::kFloat);
    model::TensorMap weights = WeightsOf(dense);
    model::Tensor on_grid(model::DType::kF32, weights.at("x.weight").shape());
    auto values = on_grid.mutable_values<float>();
    size_t row = values.size() / static_cast<size_t>(on_grid.shape()[0]);
    // Each row's largest is 127.5/128 of a power of two, the others whole steps.
    for (size_t i = 0; i < values.size(); ++i) values[i] = i % row == 0 ? -127.5f / 256 : static_cast<float>(static_cast<int>(i * 11 % 200) - 100) / 256;
    weights["x.weight"] = on_grid;
    auto a = Make(fake, weights), b = Make(dense, weights);
    std::vector<float> x = Samples(fake, 6);
    std::vector<int64_t> labels = {0, 1, 2, 0, 1, 2};
    a->TrainBatch(x, labels, {}, {});
    b->TrainBatch(x, labels, {}, {});
    for (size_t i = 0; i < a->gradients().size(); ++i) EXPECT_NEAR(a->gradients()[i], b->gradients()[i], 4e-3) << model::ToString(op) << " " << i;
  }
}

TEST(Int8FakeTest, NoGradientWhereStaticCodesClipTheInput) {
  // A first layer whose outputs lie far outside of the codes of the second.
  Graph graph{{{"input", OpType::kInput, {}, {.shape = {4}}},
               {"a", OpType::kLinear, {"input"}, {.in_features = 4, .out_features = 20}},
               {"x", OpType::kLinear, {"a"}, {.in_features = 20, .out_features = 9, .encoding = Encoding::kInt8Fake, .activations = Activations::kStatic}},
               {"head", OpType::kLinear, {"x"}, {.in_features = 9, .out_features = 3}}},
              "head"};
  model::TensorMap weights = WeightsOf(graph);
  auto bias = weights.at("a.bias").mutable_values<float>();
  for (size_t i = 0; i < 20; ++i) bias[i] = i < 10 ? 500.0f : 0.0f;
  auto network = Make(graph, weights);
  std::vector<float> x = {0.1f, -0.2f, 0.3f, 0.4f};
  std::vector<int64_t> label = {1};
  network->TrainBatch(x, label, {}, {});
  for (const ParameterSlice& slice : network->layout()) {
    if (slice.name != "a.bias") continue;
    for (size_t i = 0; i < 20; ++i) EXPECT_EQ(network->gradients()[static_cast<size_t>(slice.offset) + i] == 0.0f, i < 10) << i;
  }
}

}  // namespace
}  // namespace pare::engine
