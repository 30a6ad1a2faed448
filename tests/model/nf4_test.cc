#include "model/nf4.h"

#include <gtest/gtest.h>

#include <cmath>

#include "common/random.h"

namespace pare::model {
namespace {

std::vector<float> Normal(size_t n, double deviation) {
  RandomStream stream(3, RandomPurpose::kTest);
  std::vector<float> values(n);
  for (float& v : values) v = static_cast<float>(deviation * stream.Normal());
  return values;
}

std::vector<float> RoundTrip(const std::vector<float>& values, bool double_quantization) {
  Nf4 parts = EncodeNf4(values, 64, double_quantization);
  std::vector<float> out(values.size());
  DecodeNf4(parts, 64, 0, out);
  return out;
}

TEST(Nf4Test, EveryValueGoesToTheNearestLevelOfItsBlock) {
  std::vector<float> values = Normal(1000, 0.02), out = RoundTrip(values, false);
  for (size_t i = 0; i < values.size(); ++i) {
    float scale = 0;
    for (size_t k = i / 64 * 64; k < std::min(values.size(), i / 64 * 64 + 64); ++k) scale = std::max(scale, std::abs(values[k]));
    float best = 1e9f;
    for (float level : kNf4Levels) best = std::min(best, std::abs(values[i] - scale * level));
    EXPECT_NEAR(std::abs(values[i] - out[i]), best, 1e-7f) << i;
  }
}

TEST(Nf4Test, LevelsOfAFullBlockComeBackExactly) {
  std::vector<float> values;
  for (int repeat = 0; repeat < 4; ++repeat) values.insert(values.end(), kNf4Levels.begin(), kNf4Levels.end());
  EXPECT_EQ(RoundTrip(values, false), values);
}

TEST(Nf4Test, DoubleQuantizationCostsLittleAccuracy) {
  std::vector<float> values = Normal(64 * 300, 0.05), single = RoundTrip(values, false), twice = RoundTrip(values, true);
  double error1 = 0, error2 = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    error1 += std::pow(values[i] - single[i], 2);
    error2 += std::pow(values[i] - twice[i], 2);
  }
  EXPECT_LT(error2, 1.02 * error1);
  EXPECT_GT(error2, 0.98 * error1);
}

TEST(Nf4Test, ZerosStayPositiveZeros) {
  std::vector<float> values = Normal(64 * 300, 0.05);
  for (size_t i = 0; i < values.size(); i += 3) values[i] = 0.0f;
  std::fill(values.begin(), values.begin() + 200, 0.0f);  // whole blocks
  for (bool twice : {false, true}) {
    std::vector<float> out = RoundTrip(values, twice);
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_TRUE(values[i] != 0.0f || (out[i] == 0.0f && !std::signbit(out[i]))) << i << " " << out[i];
    }
  }
}

TEST(Nf4Test, SizesAreFourBitsAndAnEighthPerWeight) {
  Nf4Sizes sizes = Nf4SizesOf(64 * 256 * 10, 64);
  EXPECT_EQ(sizes.codes, 64 * 256 * 5);
  EXPECT_EQ(sizes.blocks, 2560);
  EXPECT_EQ(sizes.steps, 10);
  EXPECT_EQ(Nf4SizesOf(65, 64).codes, 33);
  EXPECT_EQ(Nf4SizesOf(65, 64).blocks, 2);
  Nf4 parts = EncodeNf4(Normal(64 * 256 * 10, 0.05), 64, true);
  double bits = 8.0 * static_cast<double>(parts.codes.bytes().size() + parts.scales.bytes().size() + parts.steps.bytes().size()) / (64 * 256 * 10);
  EXPECT_NEAR(bits, 4.127, 0.001);
}

TEST(Nf4Test, DecodesAnyRange) {
  std::vector<float> values = Normal(1001, 1.0), all = RoundTrip(values, true);
  Nf4 parts = EncodeNf4(values, 64, true);
  for (auto [first, count] : {std::pair{0, 1}, {63, 3}, {127, 200}, {999, 2}, {1000, 1}}) {
    std::vector<float> some(static_cast<size_t>(count));
    DecodeNf4(parts, 64, first, some);
    EXPECT_EQ(some, std::vector<float>(all.begin() + first, all.begin() + first + count)) << first;
  }
}

}  // namespace
}  // namespace pare::model
