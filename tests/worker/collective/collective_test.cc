// Conformance of the Collective edge: one suite for every implementation.
#include "worker/collective/collective.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <thread>

namespace pare::collective {
namespace {

std::vector<std::vector<float>> Buffers(int shards, size_t length) {
  std::vector<std::vector<float>> buffers(static_cast<size_t>(shards), std::vector<float>(length));
  for (size_t s = 0; s < buffers.size(); ++s) {
    for (size_t i = 0; i < length; ++i) buffers[s][i] = static_cast<float>(std::sin(1.7 * static_cast<double>(i + 31 * s)) * std::pow(10.0, static_cast<double>(s % 5) - 2));
  }
  return buffers;
}

// The tree of collective.h written as a recursion over one element.
float TreeOf(const std::vector<std::vector<float>>& buffers, size_t element, size_t first, size_t width) {
  if (first >= buffers.size()) return 0;
  if (width == 1) return buffers[first][element];
  size_t half = width / 2;
  float left = TreeOf(buffers, element, first, half);
  return first + half < buffers.size() ? left + TreeOf(buffers, element, first + half, half) : left;
}

std::vector<float> Expected(int shards, size_t length) {
  auto buffers = Buffers(shards, length);
  size_t width = 1;
  while (width < buffers.size()) width *= 2;
  std::vector<float> total(length);
  for (size_t i = 0; i < length; ++i) total[i] = TreeOf(buffers, i, 0, width);
  return total;
}

std::vector<std::vector<float>> SumWith(std::vector<std::unique_ptr<Collective>>& ranks, int shards, size_t length) {
  auto buffers = Buffers(shards, length);
  std::vector<std::vector<float>> totals(ranks.size(), std::vector<float>(length));
  std::vector<std::thread> threads;
  for (size_t r = 0; r < ranks.size(); ++r) {
    threads.emplace_back([&, r] {
      auto [first, last] = ranks[r]->Owned(shards);
      std::vector<std::span<float>> own(buffers.begin() + first, buffers.begin() + last);
      EXPECT_TRUE(ranks[r]->SumShards(own, shards, totals[r]).ok());
    });
  }
  for (std::thread& t : threads) t.join();
  return totals;
}

// 0 ranks: the local implementation.
class CollectiveTest : public testing::TestWithParam<int> {
 protected:
  std::vector<std::unique_ptr<Collective>> Make() {
    if (GetParam() > 0) return NewMemoryCollectives(GetParam());
    std::vector<std::unique_ptr<Collective>> one;
    one.push_back(NewLocalCollective());
    return one;
  }
};

TEST_P(CollectiveTest, SumsInTreeOrderToTheBitOnEveryRank) {
  auto ranks = Make();
  for (int shards : {1, 2, 3, 4, 5, 7, 8, 13}) {
    std::vector<float> expected = Expected(shards, 1037);
    for (const auto& total : SumWith(ranks, shards, 1037)) {
      EXPECT_EQ(std::memcmp(total.data(), expected.data(), total.size() * sizeof(float)), 0) << shards << " shards";
    }
  }
}

TEST_P(CollectiveTest, RanksOwnConsecutiveRangesThatCoverAllShards) {
  auto ranks = Make();
  for (int shards : {1, 3, 8}) {
    int next = 0;
    for (auto& rank : ranks) {
      auto [first, last] = rank->Owned(shards);
      EXPECT_EQ(first, next);
      next = last;
    }
    EXPECT_EQ(next, shards);
  }
}

INSTANTIATE_TEST_SUITE_P(Implementations, CollectiveTest, testing::Values(0, 1, 2, 3),
                         [](const auto& p) { return p.param == 0 ? std::string("Local") : "Memory" + std::to_string(p.param); });

TEST(MemoryCollectiveTest, ReportsARankThatIsGone) {
  auto ranks = NewMemoryCollectives(2);
  ranks.pop_back();
  std::vector<float> buffer(4, 1.0f), total(4);
  std::vector<std::span<float>> own = {buffer};
  Status status = ranks[0]->SumShards(own, 2, total);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kUnreachable);
}

}  // namespace
}  // namespace pare::collective
