#include "methods/low_rank.h"

#include <gtest/gtest.h>

#include <cmath>

#include "model/architectures.h"
#include "model/initialize.h"

namespace pare::methods {
namespace {

using model::Tensor;

Model Of(const char* architecture, Json parameters, model::Shape shape) {
  Model m;
  m.graph = *model::BuildArchitecture(architecture, parameters, shape, 3);
  m.tensors = model::InitializeWeights(m.graph, *model::Analyze(m.graph), 5);
  return m;
}

Tensor Filled(model::Shape shape, double phase) {
  Tensor t(model::DType::kF32, std::move(shape));
  double i = 0;
  for (float& v : t.mutable_values<float>()) v = static_cast<float>(std::sin(phase + 0.37 * i++));
  return t;
}

// up · down with the first `rank` columns and rows, in double.
std::vector<double> Product(const Factors& f) {
  int64_t rows = f.up.shape()[0], stored = f.up.shape()[1], columns = f.down.shape()[1];
  std::vector<double> product(static_cast<size_t>(rows * columns), 0.0);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t k = 0; k < f.rank; ++k) {
      for (int64_t c = 0; c < columns; ++c) {
        product[static_cast<size_t>(r * columns + c)] += static_cast<double>(f.up.values<float>()[static_cast<size_t>(r * stored + k)]) *
                                                         f.down.values<float>()[static_cast<size_t>(k * columns + c)];
      }
    }
  }
  return product;
}

TEST(LowRankTest, FormsHaveTheirShapesAndCosts) {
  Model lenet = Of("lenet5", Json::object(), {1, 28, 28});
  auto info = *model::Analyze(lenet.graph);
  auto channel = *FormOf(lenet.graph, info, "conv2.weight", ConvForm::kChannel);
  EXPECT_EQ(channel.rows, 16);
  EXPECT_EQ(channel.columns, 6 * 25);
  EXPECT_EQ(channel.multiply_adds, 10 * 10 * 16 * 150);
  EXPECT_EQ(channel.multiply_adds_per_rank, 10 * 10 * (16 + 150));
  auto spatial = *FormOf(lenet.graph, info, "conv2.weight", ConvForm::kSpatial);
  EXPECT_EQ(spatial.rows, 16 * 5);
  EXPECT_EQ(spatial.columns, 6 * 5);
  EXPECT_EQ(spatial.multiply_adds_per_rank, 10 * 14 * 30 + 10 * 10 * 80) << "down runs on all 14 columns of the input";
  auto linear = *FormOf(lenet.graph, info, "fc1.weight", ConvForm::kChannel);
  EXPECT_EQ(linear.multiply_adds_per_rank, linear.rows + linear.columns);
}

TEST(LowRankTest, TheWeightThatMakesTheOutputs) {
  auto output = [](const Model& m) { return OutputWeight(m.graph, *model::Analyze(m.graph)); };
  Model lenet = Of("lenet5", Json::object(), {1, 28, 28});
  EXPECT_EQ(output(lenet), "fc3.weight");
  lenet.graph.nodes.push_back({"probabilities", model::OpType::kSoftmax, {lenet.graph.output}, {}});
  lenet.graph.output = "probabilities";
  EXPECT_EQ(output(lenet), "fc3.weight");
  auto factored = Factor(lenet, {{"fc3.weight", 2, Filled({3, 2}, 0.1), Filled({2, 84}, 0.2)}}, ConvForm::kChannel);
  ASSERT_TRUE(factored.ok());
  EXPECT_EQ(output(*factored), "fc3.up.weight");
  lenet.graph.nodes.push_back({"sum", model::OpType::kAdd, {"fc3", "fc3"}, {}});
  lenet.graph.output = "sum";
  EXPECT_EQ(output(lenet), "") << "several paths";
}

TEST(LowRankTest, CountsOfTheFactoredModelAreThoseOfTheForms) {
  for (ConvForm form : {ConvForm::kChannel, ConvForm::kSpatial}) {
    Model lenet = Of("lenet5", Json::object(), {1, 28, 28});
    auto before = *model::Analyze(lenet.graph);
    auto m = *FormOf(lenet.graph, before, "conv2.weight", form);
    Factors f{"conv2.weight", 4, Filled({m.rows, 4}, 0.1), Filled({4, m.columns}, 0.2)};
    auto factored = Factor(lenet, {f}, form);
    ASSERT_TRUE(factored.ok());
    auto after = model::Analyze(factored->graph);
    ASSERT_TRUE(after.ok()) << after.error().message;
    EXPECT_EQ(after->parameters, before.parameters - m.rows * m.columns + 4 * (m.rows + m.columns));
    EXPECT_EQ(after->multiply_adds, before.multiply_adds - m.multiply_adds + 4 * m.multiply_adds_per_rank);
    EXPECT_TRUE(model::CheckWeights(*after, factored->tensors).ok());
    EXPECT_EQ(after->shapes.back(), before.shapes.back());
  }
}

// Where weight [out, in, kh, kw] element (o, c, y, x) is Σ_r up · down of the two nodes.
TEST(LowRankTest, FactorsOfAConvolutionComposeToItsWeight) {
  for (ConvForm form : {ConvForm::kChannel, ConvForm::kSpatial}) {
    Model lenet = Of("lenet5", Json::object(), {1, 28, 28});
    auto m = *FormOf(lenet.graph, *model::Analyze(lenet.graph), "conv2.weight", form);
    Factors f{"conv2.weight", 3, Filled({m.rows, 5}, 0.3), Filled({5, m.columns}, 0.4)};
    std::vector<double> matrix = Product(f);
    auto factored = *Factor(lenet, {f}, form);
    auto up = factored.tensors.at("conv2.up.weight").values<float>(), down = factored.tensors.at("conv2.down.weight").values<float>();
    // AsMatrix tells where an element of the weight stands in the matrix: number the elements.
    Tensor numbered(model::DType::kF32, {16, 6, 5, 5});
    for (size_t i = 0; i < 2400; ++i) numbered.mutable_values<float>()[i] = static_cast<float>(i);
    Tensor places = AsMatrix(*lenet.graph.Find("conv2"), numbered, form);
    for (size_t at = 0; at < 2400; ++at) {
      auto i = static_cast<int64_t>(places.values<float>()[at]);
      int64_t o = i / 150, c = i / 25 % 6, y = i / 5 % 5, x = i % 5;
      double composed = 0;
      for (int64_t r = 0; r < 3; ++r) {
        composed += form == ConvForm::kChannel ? static_cast<double>(up[static_cast<size_t>(o * 3 + r)]) * down[static_cast<size_t>(r * 150 + c * 25 + y * 5 + x)]
                                               : static_cast<double>(up[static_cast<size_t>((o * 3 + r) * 5 + x)]) * down[static_cast<size_t>((r * 6 + c) * 5 + y)];
      }
      ASSERT_NEAR(composed, matrix[at], 1e-6) << ToString(form) << " " << o << " " << c << " " << y << " " << x;
    }
  }
}

TEST(LowRankTest, ReplacesTheNodeAndKeepsTheRest) {
  Model mlp = Of("mlp", {{"hidden", {8, 6}}}, {1, 4, 4});
  mlp.masks.emplace("fc1.weight", model::Mask({8, 16}));
  mlp.masks.emplace("fc2.weight", model::Mask({6, 8}));
  Factors f{"fc1.weight", 2, Filled({8, 4}, 0), Filled({4, 16}, 1)};
  auto factored = *Factor(mlp, {f}, ConvForm::kChannel);
  EXPECT_EQ(factored.graph.Find("fc1"), nullptr);
  ASSERT_NE(factored.graph.Find("fc1.up"), nullptr);
  EXPECT_EQ(factored.graph.Find("fc1.up")->inputs, std::vector<std::string>{"fc1.down"});
  EXPECT_FALSE(factored.graph.Find("fc1.down")->attributes.bias);
  EXPECT_EQ(factored.tensors.at("fc1.up.bias").digest(), mlp.tensors.at("fc1.bias").digest());
  EXPECT_EQ(factored.tensors.at("fc2.weight").digest(), mlp.tensors.at("fc2.weight").digest());
  EXPECT_FALSE(factored.masks.contains("fc1.weight")) << "a mask ends with its tensor";
  EXPECT_TRUE(factored.masks.contains("fc2.weight"));
  EXPECT_TRUE(model::CheckWeights(*model::Analyze(factored.graph), factored.tensors).ok());
}

TEST(LowRankTest, TheOutputMayBeFactored) {
  Model mlp = Of("mlp", {{"hidden", {8}}}, {1, 4, 4});
  auto factored = *Factor(mlp, {{"fc2.weight", 1, Filled({3, 1}, 0), Filled({1, 8}, 1)}}, ConvForm::kChannel);
  EXPECT_EQ(factored.graph.output, "fc2.up");
  EXPECT_TRUE(model::Analyze(factored.graph).ok());
}

TEST(LowRankTest, NamesLayersThatHaveNoFactors) {
  model::Graph graph;
  graph.nodes = {{"input", model::OpType::kInput, {}, {.shape = {4, 6, 6}}},
                 {"depthwise", model::OpType::kConv2d, {"input"}, {.in_channels = 4, .out_channels = 4, .kernel_h = 3, .kernel_w = 3, .groups = 4}}};
  graph.output = "depthwise";
  auto grouped = FormOf(graph, *model::Analyze(graph), "depthwise.weight", ConvForm::kChannel);
  ASSERT_FALSE(grouped.ok());
  EXPECT_NE(grouped.error().message.find("depthwise has 4 groups"), std::string::npos) << grouped.error().message;
  EXPECT_NE(FormOf(graph, *model::Analyze(graph), "fc9.weight", ConvForm::kChannel).error().message.find("fc9.weight"), std::string::npos);
  graph.nodes = {{"input", model::OpType::kInput, {}, {.shape = {4}, .dtype = model::DType::kI64}},
                 {"words", model::OpType::kEmbedding, {"input"}, {.vocabulary = 9, .dimension = 4}}};
  graph.output = "words";
  EXPECT_NE(FormOf(graph, *model::Analyze(graph), "words.weight", ConvForm::kChannel).error().message.find("belongs to embedding"), std::string::npos);
}

}  // namespace
}  // namespace pare::methods
