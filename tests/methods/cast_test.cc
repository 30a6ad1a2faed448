#include "methods/cast.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "model/architectures.h"
#include "model/initialize.h"
#include "tests/methods/fake_toolbox.h"

namespace pare::methods {
namespace {

// One linear layer without bias.
Model OneLinear(const std::vector<float>& weights) {
  auto in = static_cast<int64_t>(weights.size()) / 2;
  Model model;
  model.graph.nodes.push_back({.name = "x", .op = model::OpType::kInput, .attributes = {.shape = {in}}});
  model.graph.nodes.push_back({"fc", model::OpType::kLinear, {"x"}, {.in_features = in, .out_features = 2, .bias = false}});
  model.graph.output = "fc";
  model.tensors.emplace("fc.weight", model::Tensor::Of<float>(model::DType::kF32, {2, in}, weights));
  return model;
}

Result<std::vector<float>> CastOf(const std::vector<float>& weights, const std::string& format) {
  Model model = OneLinear(weights);
  FakeToolbox toolbox;
  ASSIGN_OR_RETURN(Model cast, FindMethod("cast")->apply(std::move(model), {{"format", format}, {"tensors", {"fc.weight"}}}, toolbox));
  auto values = cast.tensors.at("fc.weight").values<float>();
  return std::vector<float>(values.begin(), values.end());
}

// Every finite number of a format with so many bits of exponent and significand, by its definition (IEEE 754, 3.4).
std::vector<double> NumbersOf(int exponent_bits, int significand_bits) {
  std::vector<double> numbers;
  int bias = (1 << (exponent_bits - 1)) - 1;
  for (int e = 0; e < (1 << exponent_bits) - 1; ++e) {
    for (int s = 0; s < 1 << significand_bits; ++s) {
      double fraction = static_cast<double>(s) / (1 << significand_bits);
      numbers.push_back(e == 0 ? std::ldexp(fraction, 1 - bias) : std::ldexp(1 + fraction, e - bias));
    }
  }
  return numbers;
}

void ExpectNearest(const std::string& format, const std::vector<double>& numbers, double least, double most) {
  // The numbers themselves, the halfway points between neighbours, and both sides of these.
  std::vector<float> inputs;
  std::vector<double> expected;
  auto add = [&](double x, double want) {
    if (x < least || x > most) return;
    inputs.push_back(static_cast<float>(x)), expected.push_back(want);
    inputs.push_back(-static_cast<float>(x)), expected.push_back(-want);
  };
  for (size_t i = 0; i + 1 < numbers.size(); ++i) {
    double middle = (numbers[i] + numbers[i + 1]) / 2, even = i % 2 == 0 ? numbers[i] : numbers[i + 1];
    add(numbers[i], numbers[i]);
    add(middle, even);
    add(std::nextafter(static_cast<float>(middle), 0.0f), numbers[i]);
    add(std::nextafter(static_cast<float>(middle), std::numeric_limits<float>::infinity()), numbers[i + 1]);
  }
  auto cast = CastOf(inputs, format);
  ASSERT_TRUE(cast.ok()) << cast.error().message;
  for (size_t i = 0; i < inputs.size(); ++i) ASSERT_EQ(static_cast<double>((*cast)[i]), expected[i]) << inputs[i];
}

TEST(CastTest, RoundsToTheNearestHalfAndTiesToEven) { ExpectNearest("f16", NumbersOf(5, 10), 0, 65504); }

// Below 2^-100 halfway points leave the range of normal float32 numbers; the rule is the same there.
TEST(CastTest, RoundsToTheNearestBrainFloatAndTiesToEven) { ExpectNearest("bf16", NumbersOf(8, 7), std::ldexp(1.0, -100), 3e38); }

TEST(CastTest, ZerosStayZerosSoThatMasksStayTrue) {
  auto cast = CastOf({0.0f, 1e-30f, 1.00001f, -0.5f}, "f16");
  ASSERT_TRUE(cast.ok());
  EXPECT_EQ(*cast, (std::vector<float>{0.0f, 0.0f, 1.0f, -0.5f}));
}

TEST(CastTest, AWeightBeyondTheRangeIsRefusedNamingLayerAndRemedy) {
  auto cast = CastOf({1.0f, 70000.0f, 0.0f, 0.0f}, "f16");
  ASSERT_FALSE(cast.ok());
  EXPECT_NE(cast.error().message.find("fc.weight"), std::string::npos) << cast.error().message;
  EXPECT_NE(cast.error().message.find("use bf16"), std::string::npos);
  EXPECT_TRUE(CastOf({1.0f, 70000.0f, 0.0f, 0.0f}, "bf16").ok());
  EXPECT_FALSE(CastOf({1.0f, std::nanf(""), 0.0f, 0.0f}, "bf16").ok());
}

TEST(CastTest, ReportsEachLayerAndLeavesOthersAlone) {
  Model model;
  model.graph = *model::BuildArchitecture("mlp", {{"hidden", {8, 6}}}, {1, 4, 4}, 3);
  model.tensors = model::InitializeWeights(model.graph, *model::Analyze(model.graph), 5);
  FakeToolbox toolbox;
  auto cast = FindMethod("cast")->apply(model, {{"format", "bf16"}, {"tensors", {"fc1.weight"}}}, toolbox);
  ASSERT_TRUE(cast.ok());
  ASSERT_EQ(toolbox.reports.size(), 1u);
  EXPECT_EQ(toolbox.reports[0].first, "fc1");
  EXPECT_GT(toolbox.reports[0].second["largest_change"].get<double>(), 0.0);
  EXPECT_EQ(cast->tensors.at("fc2.weight").digest(), model.tensors.at("fc2.weight").digest());
  EXPECT_NE(cast->tensors.at("fc1.weight").digest(), model.tensors.at("fc1.weight").digest());
}

}  // namespace
}  // namespace pare::methods
