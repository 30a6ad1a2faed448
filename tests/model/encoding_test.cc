#include "model/encoding.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "model/counts.h"
#include "model/initialize.h"

namespace pare::model {
namespace {

// input → x → output of the operator, with an encoding.
Graph GraphOf(OpType op, Encoding encoding, Activations activations) {
  Attributes a;
  Shape input = {6};
  if (op == OpType::kConv2d) a.in_channels = 2, a.out_channels = 4, a.kernel_h = a.kernel_w = 3, input = {2, 5, 5};
  if (op == OpType::kLinear) a.in_features = 6, a.out_features = 4;
  if (op == OpType::kEmbedding) a.vocabulary = 4, a.dimension = 6;
  a.encoding = encoding;
  a.activations = activations;
  return {{{"input", OpType::kInput, {}, {.shape = input}}, {"x", op, {"input"}, a}}, "x"};
}

// Calls body for every (row, operator, activations) that the table allows.
void ForEveryUse(const std::function<void(const EncodingRow&, const Graph&)>& body) {
  for (const EncodingRow& row : EncodingTable()) {
    for (OpType op : row.operators) {
      for (Activations activations : row.activations) {
        Graph graph = GraphOf(op, row.encoding, activations);
        if (CheckEncoding(graph.nodes[1]).ok()) body(row, graph);
      }
    }
  }
}

TEST(EncodingTableTest, EveryEncodingHasItsRowInOrder) {
  ASSERT_EQ(EncodingTable().size(), static_cast<size_t>(kEncodingCount));
  for (int i = 0; i < kEncodingCount; ++i) {
    const EncodingRow& row = RowOf(static_cast<Encoding>(i));
    EXPECT_FALSE(row.help.empty());
    EXPECT_FALSE(row.export_note.empty());
    EXPECT_NE(row.tensors, nullptr);
    EXPECT_NE(row.decode, nullptr);
    EXPECT_FALSE(row.operators.empty());
    EXPECT_EQ(*EncodingFromString(row.name), row.encoding);
  }
  EXPECT_NE(EncodingFromString("int7").error().message.find("dense, int8"), std::string::npos);
}

TEST(EncodingTableTest, EveryUseIsAnalyzedWrittenAndReadBack) {
  int uses = 0;
  ForEveryUse([&](const EncodingRow& row, const Graph& graph) {
    auto info = Analyze(graph);
    ASSERT_TRUE(info.ok()) << row.name << ": " << info.error().message;
    EXPECT_EQ(info->tensors[0].name, "x.weight");
    EXPECT_EQ(info->parameters, Analyze(GraphOf(graph.nodes[1].op, Encoding::kDense, Activations::kFloat))->parameters) << row.name;
    auto read = GraphFromJson(ToJson(graph));
    ASSERT_TRUE(read.ok()) << read.error().message;
    EXPECT_EQ(*read, graph);
    ++uses;
  });
  EXPECT_GE(uses, 3 + 5 + 5 + 3);
}

TEST(EncodingTableTest, EveryUseDecodesToTheOperatorsOwnShape) {
  ForEveryUse([&](const EncodingRow& row, const Graph& graph) {
    TensorMap tensors = InitializeWeights(graph, *Analyze(graph), 3);
    auto weight = DecodeWeight(graph.nodes[1], tensors);
    ASSERT_TRUE(weight.ok()) << row.name << ": " << weight.error().message;
    EXPECT_EQ(weight->dtype(), DType::kF32);
    EXPECT_EQ(weight->shape(), WeightShape(graph.nodes[1]));
    auto dense = DecodeModel(graph, tensors);
    ASSERT_TRUE(dense.ok());
    EXPECT_EQ(dense->graph, GraphOf(graph.nodes[1].op, Encoding::kDense, Activations::kFloat));
    EXPECT_TRUE(CheckWeights(*Analyze(dense->graph), dense->tensors).ok());
    tensors.erase("x.weight");
    EXPECT_NE(DecodeWeight(graph.nodes[1], tensors).error().message.find("x.weight"), std::string::npos);
  });
}

TEST(EncodingTest, Int8IsCodesAndAScalePerRow) {
  Graph graph = GraphOf(OpType::kLinear, Encoding::kInt8, Activations::kStatic);
  auto info = *Analyze(graph);
  std::vector<std::string> names;
  for (const TensorSpec& spec : info.tensors) names.push_back(spec.name + " " + std::string(ToString(spec.dtype)) + " " + ToString(spec.shape));
  EXPECT_EQ(names, (std::vector<std::string>{"x.weight I8 [4, 6]", "x.bias F32 [4]", "x.weight_scale F32 [4]", "x.input_scale F32 [1]",
                                             "x.input_zero_point I32 [1]"}));
  EXPECT_EQ(info.parameters, 28);
  EXPECT_EQ(info.bytes, 24 + 16 + 16 + 4 + 4);
  TensorMap tensors = InitializeWeights(graph, info, 1);
  tensors["x.weight"] = Tensor::Of<int8_t>(DType::kI8, {4, 6}, std::vector<int8_t>{0, 1, -128, 127, 0, 5, 2, 2, 2, 2, 2, 2, 0, 0, 0, 0, 0, 0, 1, -1, 1, -1, 1, -1});
  tensors["x.weight_scale"] = Tensor::Of<float>(DType::kF32, {4}, std::vector<float>{0.5f, 2.0f, 1.0f, 0.25f});
  Tensor weight = *DecodeWeight(graph.nodes[1], tensors);
  auto values = weight.values<float>();
  EXPECT_EQ(values[2], -64.0f);
  EXPECT_EQ(values[3], 63.5f);
  EXPECT_EQ(values[6], 4.0f);
  EXPECT_EQ(values[23], -0.25f);
  ModelSummary summary = Summarize(graph, info, tensors, {});
  EXPECT_EQ(summary.parameters, 28);
  EXPECT_EQ(summary.parameters_nonzero, 16 + 4);
  EXPECT_EQ(summary.weight_bytes, 64);
  EXPECT_EQ(ToJson(summary)["layers"][0]["encoding"], "int8");
}

TEST(EncodingTest, CodebookIsCodesOfSharedValues) {
  Graph graph = GraphOf(OpType::kLinear, Encoding::kCodebook, Activations::kFloat);
  graph.nodes[1].attributes.bits = 2;
  auto info = *Analyze(graph);
  EXPECT_EQ(info.tensors.back().name, "x.weight_values");
  EXPECT_EQ(info.tensors.back().shape, Shape{4});
  EXPECT_TRUE(info.tensors.back().trainable);
  EXPECT_EQ(info.parameters, 28);  // the values stand for the weights, they are not more of them
  TensorMap tensors = InitializeWeights(graph, info, 1);
  tensors["x.weight"] = Tensor::Of<uint8_t>(DType::kU8, {4, 6}, std::vector<uint8_t>{0, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 3, 3, 3, 3, 3, 3});
  tensors["x.weight_values"] = Tensor::Of<float>(DType::kF32, {4}, std::vector<float>{0.0f, -0.5f, 0.25f, 2.0f});
  Tensor weight = *DecodeWeight(graph.nodes[1], tensors);
  EXPECT_EQ(weight.values<float>()[1], -0.5f);
  EXPECT_EQ(weight.values<float>()[2], 0.25f);
  EXPECT_EQ(weight.values<float>()[23], 2.0f);
  EXPECT_EQ(Summarize(graph, info, tensors, {}).parameters_nonzero, 15 + 4);
  tensors["x.weight_values"] = Tensor(DType::kF32, {2});
  EXPECT_NE(DecodeWeight(graph.nodes[1], tensors).error().message.find("beyond"), std::string::npos);
}

TEST(EncodingTest, Nf4IsTwoCodesAByteAndScalesInBlocks) {
  Graph graph = GraphOf(OpType::kLinear, Encoding::kNf4, Activations::kFloat);
  graph.nodes[1].attributes.block_size = 8;
  auto names = [&] {
    std::vector<std::string> list;
    GraphInfo present = *Analyze(graph);
    for (const TensorSpec& spec : present.tensors) list.push_back(spec.name + " " + std::string(ToString(spec.dtype)) + " " + ToString(spec.shape));
    return list;
  };
  EXPECT_EQ(names(), (std::vector<std::string>{"x.weight U8 [12]", "x.bias F32 [4]", "x.weight_scale I8 [3]", "x.weight_steps F32 [2]"}));
  graph.nodes[1].attributes.double_quantization = false;
  EXPECT_EQ(names(), (std::vector<std::string>{"x.weight U8 [12]", "x.bias F32 [4]", "x.weight_scale F32 [3]"}));
  auto info = *Analyze(graph);
  TensorMap tensors = InitializeWeights(graph, info, 1);
  tensors["x.weight"] = Tensor::Of<uint8_t>(DType::kU8, {12}, std::vector<uint8_t>{0x7F, 0x77, 0x77, 0x70, 7, 7, 7, 7, 7, 7, 7, 7});
  tensors["x.weight_scale"] = Tensor::Of<float>(DType::kF32, {3}, std::vector<float>{0.5f, 2.0f, 1.0f});
  Tensor decoded = *DecodeWeight(graph.nodes[1], tensors);
  EXPECT_EQ(decoded.values<float>()[1], 0.5f);
  EXPECT_EQ(decoded.values<float>()[7], -0.5f);
  EXPECT_EQ(decoded.values<float>()[8], -2.0f);
  EXPECT_EQ(Summarize(graph, info, tensors, {}).parameters_nonzero, 10 + 4) << "codes of 7 are zeros";
  graph.nodes[1].attributes.block_size = 7;
  EXPECT_NE(Analyze(graph).error().message.find("block_size is 7"), std::string::npos);
}

TEST(EncodingTest, OnlyWhatTheTableAllowsIsAccepted) {
  Graph conv = GraphOf(OpType::kConv2d, Encoding::kInt8, Activations::kDynamic);
  EXPECT_NE(Analyze(conv).error().message.find("node 'x' (conv2d): does not take dynamic activations"), std::string::npos);
  Graph relu{{{"input", OpType::kInput, {}, {.shape = {3}}}, {"x", OpType::kRelu, {"input"}, {.encoding = Encoding::kInt8}}}, "x"};
  EXPECT_NE(Analyze(relu).error().message.find("cannot hold its weight as int8"), std::string::npos);
  Json json = ToJson(GraphOf(OpType::kLinear, Encoding::kInt8, Activations::kDynamic));
  json["nodes"][1]["encoding"] = "int7";
  EXPECT_NE(GraphFromJson(json).error().message.find("'encoding'"), std::string::npos);
}

TEST(EncodingTest, TrainingNamesTheLayerThatCannot) {
  EXPECT_TRUE(CheckTrainable(GraphOf(OpType::kLinear, Encoding::kInt8Fake, Activations::kDynamic)).ok());
  std::string message = CheckTrainable(GraphOf(OpType::kLinear, Encoding::kInt8, Activations::kDynamic)).error().message;
  EXPECT_NE(message.find("layer 'x' is int8"), std::string::npos);
  EXPECT_NE(message.find("qat"), std::string::npos);
}

TEST(ChooseCodesTest, CoverTheRangeAndHaveZeroExactly) {
  // By hand: 127 steps from −1 to 3, zero at 1 / (4 / 127) = 31.75, rounded.
  InputCodes codes = ChooseCodes(-1.0f, 3.0f);
  EXPECT_FLOAT_EQ(codes.scale, 4.0f / 127);
  EXPECT_EQ(codes.zero_point, 32);
  EXPECT_EQ(ChooseCodes(2.0f, 3.0f).zero_point, 0);
  EXPECT_FLOAT_EQ(ChooseCodes(2.0f, 3.0f).scale, 3.0f / 127);
  EXPECT_EQ(ChooseCodes(-3.0f, -2.0f).zero_point, 127);
  EXPECT_GT(ChooseCodes(0.0f, 0.0f).scale, 0.0f);
  for (float high : {1e-30f, 1e-6f, 0.3f, 700.0f, 3e38f}) {
    for (float low : {-1e-30f, 0.0f, -0.1f, -3e38f}) {
      InputCodes c = ChooseCodes(low, high);
      EXPECT_TRUE(std::isfinite(c.scale) && std::isfinite(1 / c.scale)) << low << " " << high;
      EXPECT_GE(c.zero_point, 0);
      EXPECT_LE(c.zero_point, kActivationLevels);
    }
  }
}

}  // namespace
}  // namespace pare::model
