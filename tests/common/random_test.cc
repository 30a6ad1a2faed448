#include "common/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

namespace pare {
namespace {

using Words = std::array<uint32_t, 4>;

// Random123 1.14, examples/kat_vectors, lines "philox4x32 10".
TEST(PhiloxTest, GivesTheKnownAnswers) {
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RandomStreamTest, DrawsAreTheBlocksInOrder) {
  RandomStream stream(7, RandomPurpose::kTest, 1, 2, 3);
  for (uint64_t block = 0; block < 3; ++block) {
    for (uint32_t word : stream.Block(block)) EXPECT_EQ(stream.Bits(), word);
  }
}

TEST(RandomStreamTest, EveryPartOfTheAddressMatters) {
  std::set<Words> blocks;
  for (uint64_t seed : {1, 2}) {
    for (auto purpose : {RandomPurpose::kShuffle, RandomPurpose::kTest}) {
      for (uint64_t a : {0, 1}) {
        for (uint64_t b : {0, 1}) {
          for (uint64_t c : {0, 1}) blocks.insert(RandomStream(seed, purpose, a, b, c).Block(0));
        }
      }
    }
  }
  EXPECT_EQ(blocks.size(), 32u);
}

TEST(RandomStreamTest, UniformHasTheMomentsOfTheUnitInterval) {
  RandomStream stream(1, RandomPurpose::kTest);
  double sum = 0, squares = 0;
  constexpr int kDraws = 100'000;
  for (int i = 0; i < kDraws; ++i) {
    double u = stream.Uniform();
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
    squares += u * u;
  }
  EXPECT_NEAR(sum / kDraws, 0.5, 0.005);
  EXPECT_NEAR(squares / kDraws, 1.0 / 3.0, 0.005);
}

TEST(RandomStreamTest, NormalHasMeanZeroAndDeviationOne) {
  RandomStream stream(2, RandomPurpose::kTest);
  double sum = 0, squares = 0, fourth = 0;
  constexpr int kDraws = 100'000;
  for (int i = 0; i < kDraws; ++i) {
    double x = stream.Normal();
    ASSERT_TRUE(std::isfinite(x));
    sum += x;
    squares += x * x;
    fourth += x * x * x * x;
  }
  EXPECT_NEAR(sum / kDraws, 0.0, 0.02);
  EXPECT_NEAR(squares / kDraws, 1.0, 0.03);
  EXPECT_NEAR(fourth / kDraws, 3.0, 0.2);
}

TEST(RandomStreamTest, BelowReachesEveryValueEquallyOften) {
  RandomStream stream(3, RandomPurpose::kTest);
  std::array<int, 7> counts{};
  for (int i = 0; i < 70'000; ++i) {
    uint64_t value = stream.Below(7);
    ASSERT_LT(value, 7u);
    ++counts[value];
  }
  for (int count : counts) EXPECT_NEAR(count, 10'000, 500);
  EXPECT_EQ(RandomStream(3, RandomPurpose::kTest).Below(1), 0u);
}

TEST(PermutationTest, HoldsEveryIndexOnceAndDependsOnTheStreamOnly) {
  auto first = Permutation(RandomStream(4, RandomPurpose::kShuffle, 1), 1000);
  EXPECT_EQ(first, Permutation(RandomStream(4, RandomPurpose::kShuffle, 1), 1000));
  EXPECT_NE(first, Permutation(RandomStream(4, RandomPurpose::kShuffle, 2), 1000));
  EXPECT_FALSE(std::is_sorted(first.begin(), first.end()));
  std::sort(first.begin(), first.end());
  for (uint32_t i = 0; i < 1000; ++i) ASSERT_EQ(first[i], i);
  EXPECT_TRUE(Permutation(RandomStream(4, RandomPurpose::kShuffle), 0).empty());
}

}  // namespace
}  // namespace pare
