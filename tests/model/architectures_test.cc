#include "model/architectures.h"

#include <gtest/gtest.h>

#include <cmath>

#include "model/initialize.h"

namespace pare::model {
namespace {

GraphInfo InfoOf(std::string_view name, const Json& parameters, const Shape& shape, int64_t classes) {
  auto graph = BuildArchitecture(name, parameters, shape, classes);
  EXPECT_TRUE(graph.ok()) << (graph.ok() ? "" : graph.error().message);
  auto info = Analyze(*graph);
  EXPECT_TRUE(info.ok()) << (info.ok() ? "" : info.error().message);
  EXPECT_EQ(info->shapes[static_cast<size_t>(graph->IndexOf(graph->output))], Shape{classes});
  return *info;
}

std::string MessageOf(std::string_view name, const Json& parameters, const Shape& shape, int64_t classes = 10) {
  auto graph = BuildArchitecture(name, parameters, shape, classes);
  return graph.ok() ? "accepted" : graph.error().message;
}

TEST(ArchitectureTest, MlpHasTheCountsOfLeNet300100) {
  GraphInfo info = InfoOf("mlp", Json::object(), {1, 28, 28}, 10);
  EXPECT_EQ(info.parameters, 266'610);  // 784·300 + 300 + 300·100 + 100 + 100·10 + 10
  EXPECT_EQ(info.multiply_adds, 266'200);
  ASSERT_EQ(info.tensors.size(), 6u);
  EXPECT_EQ(info.tensors[0].name, "fc1.weight");
  EXPECT_EQ(info.tensors[0].shape, (Shape{300, 784}));
}

TEST(ArchitectureTest, MlpFollowsItsFields) {
  auto graph = BuildArchitecture("mlp", {{"hidden", {5}}, {"activation", "gelu"}, {"dropout", 0.25}}, {4}, 3);
  ASSERT_TRUE(graph.ok());
  std::vector<OpType> ops;
  for (const Node& node : graph->nodes) ops.push_back(node.op);
  EXPECT_EQ(ops, (std::vector{OpType::kInput, OpType::kLinear, OpType::kGelu, OpType::kDropout, OpType::kLinear}));
  EXPECT_EQ(graph->nodes[3].attributes.probability, 0.25);
  EXPECT_EQ(InfoOf("mlp", {{"hidden", Json::array()}}, {4}, 3).parameters, 4 * 3 + 3);
}

TEST(ArchitectureTest, Lenet5HasLeCunsCounts) {
  GraphInfo info = InfoOf("lenet5", Json::object(), {1, 28, 28}, 10);
  EXPECT_EQ(info.parameters, 61'706);  // 156 + 2416 + 48120 + 10164 + 850
  EXPECT_EQ(info.multiply_adds, 28 * 28 * 6 * 25 + 10 * 10 * 16 * 150 + 400 * 120 + 120 * 84 + 84 * 10);
  InfoOf("lenet5", Json::object(), {3, 33, 17}, 2);  // odd sizes fit as well
}

// The closed form of He 2015, section 4.2, with projection shortcuts and batch norm.
int64_t ResnetParameters(int64_t depth, int64_t width, int64_t channels, int64_t classes) {
  int64_t n = (depth - 2) / 6, w = width;
  auto conv = [](int64_t in, int64_t out, int64_t k) { return in * out * k * k + 2 * out; };
  int64_t total = conv(channels, w, 3) + n * 2 * conv(w, w, 3);
  for (int64_t out : {2 * w, 4 * w}) total += conv(out / 2, out, 3) + (2 * n - 1) * conv(out, out, 3) + conv(out / 2, out, 1);
  return total + 4 * w * classes + classes;
}

TEST(ArchitectureTest, ResnetHasTheClosedFormsCounts) {
  EXPECT_EQ(ResnetParameters(20, 16, 3, 10), 272'474);
  EXPECT_EQ(InfoOf("resnet20", Json::object(), {3, 32, 32}, 10).parameters, 272'474);
  EXPECT_EQ(InfoOf("resnet", {{"depth", 8}, {"width", 4}}, {1, 28, 28}, 7).parameters, ResnetParameters(8, 4, 1, 7));
  EXPECT_EQ(InfoOf("resnet56", {{"width", 8}}, {3, 32, 32}, 100).parameters, ResnetParameters(56, 8, 3, 100));
}

// Of https://huggingface.co/bert-base-uncased as BertForSequenceClassification with two labels: 109,483,778.
TEST(ArchitectureTest, EncoderHasTheCountsOfBertBase) {
  const Json base = {{"layers", 12}, {"hidden", 768}, {"heads", 12}, {"intermediate", 3072}};
  EXPECT_EQ(InfoOf("encoder", base, {128}, 2).parameters, 109'483'778);
  Json mean = base;
  mean["pooling"] = "mean";
  EXPECT_EQ(InfoOf("encoder", mean, {128}, 2).parameters, 109'483'778 - (768 * 768 + 768));
}

TEST(ArchitectureTest, EncoderNamesItsLayersAsBertDoes) {
  GraphInfo info = InfoOf("encoder", {{"layers", 1}}, {16}, 3);
  std::vector<std::string> weights;
  for (const TensorSpec& spec : info.tensors) {
    if (spec.role == "weight") weights.push_back(spec.node);
  }
  const std::string layer = "encoder.layer.0.";
  EXPECT_EQ(weights, (std::vector<std::string>{
                         "embeddings.word_embeddings", "embeddings.position_embeddings", "embeddings.token_type_embeddings", "embeddings.LayerNorm",
                         layer + "attention.self.query", layer + "attention.self.key", layer + "attention.self.value", layer + "attention.output.dense",
                         layer + "attention.output.LayerNorm", layer + "intermediate.dense", layer + "output.dense", layer + "output.LayerNorm",
                         "pooler.dense", "classifier"}));
}

TEST(ArchitectureTest, EncoderFollowsItsFields) {
  auto graph = BuildArchitecture("encoder", {{"vocabulary", 50}, {"length", 20}, {"types", 3}, {"separator", 4}, {"padding", 7}, {"heads", 4}}, {16}, 3);
  ASSERT_TRUE(graph.ok()) << graph.error().message;
  EXPECT_EQ(graph->nodes[0].attributes.dtype, DType::kI64);
  EXPECT_EQ(VocabularyOf(*graph), 50);
  EXPECT_EQ(graph->Find("embeddings.word_embeddings")->attributes.deviation, 0.02);
  EXPECT_EQ(graph->Find("embeddings.position_embeddings")->attributes.vocabulary, 20);
  EXPECT_EQ(graph->Find("embeddings.key_mask")->attributes.id, 7);
  EXPECT_EQ(graph->Find("embeddings.token_type_ids")->attributes.id, 4);
  EXPECT_EQ(graph->Find("embeddings.token_type_ids")->attributes.segments, 3);
  EXPECT_EQ(graph->Find("encoder.layer.1.attention.self")->inputs.size(), 4u);
  EXPECT_EQ(graph->Find("encoder.layer.1.attention.self")->attributes.heads, 4);
  EXPECT_EQ(graph->Find("encoder.layer.1.output.LayerNorm")->attributes.epsilon, 1e-12);
  auto plain = BuildArchitecture("encoder", {{"types", 0}, {"padding", -1}, {"dropout", 0}, {"pooling", "mean"}}, {16}, 3);
  ASSERT_TRUE(plain.ok()) << plain.error().message;
  EXPECT_EQ(plain->Find("encoder.layer.0.attention.self")->inputs.size(), 3u);
  for (const Node& node : plain->nodes) EXPECT_TRUE(node.op != OpType::kDropout && node.op != OpType::kKeyMask && node.op != OpType::kSegments) << node.name;
}

TEST(ArchitectureTest, EncoderRefusesWhatDoesNotFitTogether) {
  EXPECT_EQ(MessageOf("encoder", {{"hidden", 100}, {"heads", 3}}, {16}), "heads: 3 heads do not divide a hidden width of 100");
  EXPECT_EQ(MessageOf("encoder", {{"hidden", {64}}}, {16}), "hidden: expected an integer from 1 to 16384, found [64]");
  EXPECT_EQ(MessageOf("encoder", {{"vocabulary", 16777217}}, {16}), "vocabulary: expected an integer from 1 to 16777216, found 16777217");
  EXPECT_EQ(MessageOf("encoder", {{"padding", UINT64_MAX}}, {16}), "padding: expected an integer from -1 to 16777215, found 18446744073709551615");
  EXPECT_EQ(MessageOf("encoder", {{"pooling", "max"}}, {16}), "pooling: expected one of first, mean, found \"max\"");
  EXPECT_EQ(MessageOf("encoder", {{"dropout", 1}}, {16}), "dropout: expected a number in [0, 1), found 1");
  EXPECT_EQ(MessageOf("encoder", {{"vocabulary", 50}, {"padding", 50}}, {16}), "padding: id 50 is outside the vocabulary, 0 to 49");
  EXPECT_EQ(MessageOf("encoder", {{"separator", 102}, {"types", 1}}, {16}), "separator: tells segments apart, which takes at least 2 types, found 1");
  EXPECT_EQ(MessageOf("encoder", {{"separator", 0}}, {16}), "separator: 0 is the id of padding");
  EXPECT_EQ(MessageOf("encoder", {{"length", 15}}, {16}), "length: the data has samples of 16 tokens, the table of positions ends at 15");
  EXPECT_EQ(MessageOf("encoder", Json::object(), {1, 28, 28}), "encoder takes samples that are vectors of token ids [length], the data has [1, 28, 28]");
  EXPECT_EQ(MessageOf("encoder", {{"activation", "relu"}}, {16}), "unknown field 'activation' of architecture encoder");
}

TEST(ArchitectureTest, MessagesNameFieldFoundAndAllowed) {
  EXPECT_EQ(MessageOf("vgg", Json::object(), {1, 28, 28}), "unknown architecture 'vgg'; known are mlp, lenet5, resnet, encoder");
  EXPECT_EQ(MessageOf("mlp", {{"depth", 2}}, {4}), "unknown field 'depth' of architecture mlp");
  EXPECT_EQ(MessageOf("mlp", {{"hidden", {0}}}, {4}), "hidden: expected a list of widths from 1 to 1048576, found [0]");
  EXPECT_EQ(MessageOf("mlp", {{"activation", "elu"}}, {4}), "activation: expected one of relu, gelu, tanh, sigmoid, silu, found \"elu\"");
  EXPECT_EQ(MessageOf("mlp", {{"dropout", 1}}, {4}), "dropout: expected a number in [0, 1), found 1");
  EXPECT_EQ(MessageOf("mlp", Json::array({1}), {4}), "architecture mlp: expected fields, found [1]");
  EXPECT_EQ(MessageOf("resnet21", Json::object(), {3, 32, 32}), "resnet depth must be 6n + 2 (8, 14, 20, 26, 32, …), found 21");
  EXPECT_EQ(MessageOf("resnet20", {{"depth", 32}}, {3, 32, 32}), "depth: resnet20 implies 20, found 32");
  EXPECT_EQ(MessageOf("resnet", {{"width", 0}}, {3, 32, 32}), "width: expected an integer from 1 to 4096, found 0");
  EXPECT_NE(MessageOf("lenet5", Json::object(), {784}).find("the data has [784]"), std::string::npos);
  EXPECT_NE(MessageOf("resnet20", Json::object(), {784}).find("the data has [784]"), std::string::npos);
  EXPECT_NE(MessageOf("mlp", Json::object(), {4}, 0), "accepted");
}

TEST(ArchitectureTest, ResolvingWritesEveryDefaultOut) {
  EXPECT_EQ(Canonical(*ResolveArchitecture("mlp", Json::object())), R"({"activation":"relu","dropout":0,"hidden":[300,100]})");
  EXPECT_EQ(Canonical(*ResolveArchitecture("resnet32", {{"width", 8}})), R"({"depth":32,"width":8})");
  for (const ArchitectureInfo& info : Architectures()) {
    auto resolved = ResolveArchitecture(info.name, Json::object());
    ASSERT_TRUE(resolved.ok());
    EXPECT_EQ(resolved->size(), info.fields.size());
    EXPECT_EQ(*ResolveArchitecture(info.name, *resolved), *resolved);
  }
}

TEST(InitializeTest, WeightsAreUniformWithinTheBoundOfTheirFanIn) {
  auto graph = BuildArchitecture("resnet8", {{"width", 16}}, {3, 8, 8}, 10);
  auto info = Analyze(*graph);
  TensorMap weights = InitializeWeights(*graph, *info, 1);
  ASSERT_TRUE(CheckWeights(*info, weights).ok());
  auto values = weights.at("stage3.0.conv2.weight").values<float>();
  double bound = 1.0 / std::sqrt(64.0 * 9.0), low = 0, high = 0, squares = 0;
  for (float v : values) {
    low = std::min<double>(low, v), high = std::max<double>(high, v);
    squares += static_cast<double>(v) * v;
  }
  EXPECT_LE(high, bound);
  EXPECT_GE(low, -bound);
  EXPECT_GT(high, 0.99 * bound);
  EXPECT_LT(low, -0.99 * bound);
  EXPECT_NEAR(squares / static_cast<double>(values.size()), bound * bound / 3.0, 0.03 * bound * bound);
  for (float v : weights.at("stem.bn.weight").values<float>()) EXPECT_EQ(v, 1.0f);
  for (float v : weights.at("stem.bn.running_var").values<float>()) EXPECT_EQ(v, 1.0f);
  for (float v : weights.at("stem.bn.bias").values<float>()) EXPECT_EQ(v, 0.0f);
  for (float v : weights.at("stem.bn.running_mean").values<float>()) EXPECT_EQ(v, 0.0f);
}

TEST(InitializeTest, EmbeddingsAreNormalWithTheDeviationOfTheirNode) {
  auto graph = BuildArchitecture("encoder", {{"vocabulary", 1000}, {"hidden", 64}}, {16}, 3);
  TensorMap weights = InitializeWeights(*graph, *Analyze(*graph), 1);
  double squares = 0, sum = 0;
  auto values = weights.at("embeddings.word_embeddings.weight").values<float>();
  for (float v : values) sum += v, squares += static_cast<double>(v) * v;
  double n = static_cast<double>(values.size());
  EXPECT_NEAR(sum / n, 0, 4 * 0.02 / std::sqrt(n));
  EXPECT_NEAR(std::sqrt(squares / n), 0.02, 0.0004);
}

TEST(InitializeTest, DependsOnTheSeedOnly) {
  auto graph = BuildArchitecture("mlp", {{"hidden", {8, 8}}}, {8}, 8);
  auto info = Analyze(*graph);
  TensorMap a = InitializeWeights(*graph, *info, 5), b = InitializeWeights(*graph, *info, 5), c = InitializeWeights(*graph, *info, 6);
  for (const auto& [name, tensor] : a) {
    EXPECT_EQ(tensor.digest(), b.at(name).digest());
    EXPECT_NE(tensor.digest(), c.at(name).digest());
  }
  EXPECT_NE(a.at("fc1.weight").digest(), a.at("fc2.weight").digest());  // same shape, other stream
}

TEST(InitializeTest, ForeignWeightsAreRefusedByName) {
  auto graph = BuildArchitecture("mlp", {{"hidden", {4}}}, {3}, 2);
  auto info = Analyze(*graph);
  TensorMap good = InitializeWeights(*graph, *info, 1), bad = good;
  bad.erase("fc2.bias");
  EXPECT_EQ(CheckWeights(*info, bad).error().message, "tensor 'fc2.bias' is missing");
  bad = good;
  bad["fc1.weight"] = Tensor(DType::kF32, {3, 4});
  EXPECT_EQ(CheckWeights(*info, bad).error().message, "tensor 'fc1.weight' is F32 [3, 4], the model needs F32 [4, 3]");
  bad = good;
  bad["fc1.weight"] = Tensor(DType::kF64, {4, 3});
  EXPECT_FALSE(CheckWeights(*info, bad).ok());
  bad = good;
  bad["fc9.weight"] = Tensor(DType::kF32, {1});
  EXPECT_EQ(CheckWeights(*info, bad).error().message, "tensor 'fc9.weight' belongs to no operator of the model");
}

}  // namespace
}  // namespace pare::model
