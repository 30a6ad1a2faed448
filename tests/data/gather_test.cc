// Gathering against a twin that follows the header's formula in double precision.
#include <gtest/gtest.h>

#include <cmath>

#include "common/random.h"
#include "data/dataset.h"

namespace pare::data {
namespace {

using model::DType;
using model::Tensor;

constexpr int64_t kRows = 20, kChannels = 3, kHeight = 5, kWidth = 7, kSample = kChannels * kHeight * kWidth;

Split Bytes() {
  Tensor samples(DType::kU8, {kRows, kChannels, kHeight, kWidth});
  RandomStream stream(1, RandomPurpose::kTest);
  for (uint8_t& v : samples.mutable_values<uint8_t>()) v = static_cast<uint8_t>(1 + stream.Below(255));
  Tensor labels(DType::kI64, {kRows});
  for (int64_t i = 0; i < kRows; ++i) labels.mutable_values<int64_t>()[static_cast<size_t>(i)] = i * i;
  return {samples, labels};
}

Split Floats() {
  Split split = Bytes();
  Tensor samples(DType::kF32, split.samples.shape());
  RandomStream stream(2, RandomPurpose::kTest);
  for (float& v : samples.mutable_values<float>()) v = static_cast<float>(stream.Normal());
  split.samples = samples;
  return split;
}

DataSpec Spec() {
  DataSpec spec;
  spec.offset = {0.1, 0.2, 0.3};
  spec.scale = {2.0, 1.0 / 3.0, 5.0};
  return spec;
}

double Twin(const Split& split, const DataSpec& spec, int64_t row, int64_t c, int64_t y, int64_t x) {
  auto at = static_cast<size_t>(((row * kChannels + c) * kHeight + y) * kWidth + x);
  bool bytes = split.samples.dtype() == DType::kU8;
  double raw = bytes ? split.samples.values<uint8_t>()[at] / 255.0 : split.samples.values<float>()[at];
  auto channel = static_cast<size_t>(c);
  return (raw - (spec.offset.empty() ? 0.0 : spec.offset[channel])) * (spec.scale.empty() ? 1.0 : spec.scale[channel]);
}

std::vector<float> Gathered(const Split& split, const DataSpec& spec, const std::vector<uint32_t>& rows) {
  std::vector<float> out(rows.size() * kSample);
  Gather(split, spec, rows, out);
  return out;
}

TEST(GatherTest, NormalizesEachChannelOfTheWantedRows) {
  const std::vector<uint32_t> rows = {7, 0, 19, 7};
  for (const Split& split : {Bytes(), Floats()}) {
    for (const DataSpec& spec : {Spec(), DataSpec{}}) {
      std::vector<float> out = Gathered(split, spec, rows);
      size_t at = 0;
      for (uint32_t row : rows) {
        for (int64_t c = 0; c < kChannels; ++c) {
          for (int64_t y = 0; y < kHeight; ++y) {
            for (int64_t x = 0; x < kWidth; ++x) ASSERT_NEAR(out[at++], Twin(split, spec, row, c, y, x), 2e-6);
          }
        }
      }
    }
  }
}

// What the planner writes for token ids that are stored as bytes.
TEST(GatherTest, BytesTimes255AreExact) {
  Split split{Tensor(DType::kU8, {2, 128}), Tensor(DType::kI64, {2})};
  for (size_t i = 0; i < 256; ++i) split.samples.mutable_values<uint8_t>()[i] = static_cast<uint8_t>(i);
  DataSpec spec;
  spec.offset = {0.0}, spec.scale = {255.0};
  std::vector<float> out(256);
  Gather(split, spec, std::vector<uint32_t>{0, 1}, out);
  for (size_t i = 0; i < 256; ++i) EXPECT_EQ(out[i], static_cast<float>(i));
}

TEST(GatherTest, BitsDoNotDependOnTheGrouping) {
  std::vector<uint32_t> rows(kRows);
  for (uint32_t i = 0; i < kRows; ++i) rows[i] = (i * 7) % kRows;
  for (const Split& split : {Bytes(), Floats()}) {
    std::vector<float> all = Gathered(split, Spec(), rows);
    for (size_t size : {1, 3, 8}) {
      for (size_t at = 0; at < rows.size(); at += size) {
        size_t end = std::min(rows.size(), at + size);
        std::vector<float> part = Gathered(split, Spec(), {rows.begin() + static_cast<long>(at), rows.begin() + static_cast<long>(end)});
        ASSERT_TRUE(std::equal(part.begin(), part.end(), all.begin() + static_cast<long>(at * kSample)));
      }
    }
  }
}

TEST(GatherTest, LabelsFollowTheRows) {
  Split split = Bytes();
  std::vector<uint32_t> rows = {3, 0, 19};
  std::vector<int64_t> labels(3);
  GatherLabels(split, rows, labels);
  EXPECT_EQ(labels, (std::vector<int64_t>{9, 0, 361}));
}

// Which flip and shift turned the plain image into `image`; −1 if none of those allowed.
int Explain(const Split& split, const DataSpec& spec, uint32_t row, std::span<const float> image) {
  int found = -1, number = 0;
  for (int flip = 0; flip <= (spec.flip ? 1 : 0); ++flip) {
    for (int64_t dy = -spec.shift; dy <= spec.shift; ++dy) {
      for (int64_t dx = -spec.shift; dx <= spec.shift; ++dx, ++number) {
        bool same = true;
        size_t at = 0;
        for (int64_t c = 0; c < kChannels; ++c) {
          for (int64_t y = 0; y < kHeight; ++y) {
            for (int64_t x = 0; x < kWidth; ++x) {
              int64_t sy = y - dy, sx = (flip ? kWidth - 1 - x : x) - dx;
              bool inside = sy >= 0 && sy < kHeight && sx >= 0 && sx < kWidth;
              double expected = inside ? Twin(split, spec, row, c, sy, sx) : 0.0;
              same = same && std::abs(image[at++] - expected) < 2e-6;
            }
          }
        }
        if (same) found = number;
      }
    }
  }
  return found;
}

TEST(GatherAugmentedTest, EveryImageIsAFlipAndShiftAndAllOccur) {
  Split split = Bytes();
  DataSpec spec = Spec();
  spec.flip = true, spec.shift = 1;
  std::vector<int> seen(18);
  for (int64_t epoch = 0; epoch < 20; ++epoch) {
    for (uint32_t row = 0; row < kRows; ++row) {
      std::vector<float> out(kSample);
      GatherAugmented(split, spec, std::vector{row}, 5, epoch, out);
      int which = Explain(split, spec, row, out);
      ASSERT_GE(which, 0) << "row " << row << " epoch " << epoch;
      ++seen[static_cast<size_t>(which)];
    }
  }
  for (size_t i = 0; i < seen.size(); ++i) EXPECT_GT(seen[i], 4) << i;  // 400 draws of 18 kinds
}

TEST(GatherAugmentedTest, DrawsBelongToSeedEpochAndRow) {
  Split split = Bytes();
  DataSpec spec = Spec();
  spec.flip = true, spec.shift = 2;
  auto augmented = [&](const std::vector<uint32_t>& rows, uint64_t seed, int64_t epoch) {
    std::vector<float> out(rows.size() * kSample);
    GatherAugmented(split, spec, rows, seed, epoch, out);
    return out;
  };
  std::vector<uint32_t> rows(kRows), reversed(kRows);
  for (uint32_t i = 0; i < kRows; ++i) rows[i] = i, reversed[kRows - 1 - i] = i;
  std::vector<float> forward = augmented(rows, 1, 1), backward = augmented(reversed, 1, 1);
  for (int64_t i = 0; i < kRows; ++i) {
    auto at = forward.begin() + i * kSample;
    ASSERT_TRUE(std::equal(at, at + kSample, backward.begin() + (kRows - 1 - i) * kSample));
  }
  EXPECT_NE(forward, augmented(rows, 2, 1));
  EXPECT_NE(forward, augmented(rows, 1, 2));
}

TEST(GatherAugmentedTest, WithoutAugmentationItIsGather) {
  Split split = Bytes();
  std::vector<uint32_t> rows = {1, 2, 3};
  std::vector<float> out(rows.size() * kSample);
  GatherAugmented(split, Spec(), rows, 1, 1, out);
  EXPECT_EQ(out, Gathered(split, Spec(), rows));
}

}  // namespace
}  // namespace pare::data
