// Conformance of the Collective edge: one suite for every implementation.
#include "worker/collective/collective.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <thread>

#include "worker/collective/zmq_collective.h"

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

// What a rank knows of a shard beside its gradient.
struct Record {
  int shard = -1;
  double value = 0;
  bool operator==(const Record&) const = default;
};
std::vector<Record> Records(int shards) {
  std::vector<Record> records;
  for (int s = 0; s < shards; ++s) records.push_back({s, 0.1 * s});
  return records;
}

struct Summed {
  std::vector<float> total;
  std::vector<Record> records;
};

std::vector<Summed> SumWith(std::vector<std::unique_ptr<Collective>>& ranks, int shards, size_t length) {
  auto buffers = Buffers(shards, length);
  std::vector<Summed> summed(ranks.size(), {std::vector<float>(length), std::vector<Record>(static_cast<size_t>(shards))});
  std::vector<std::thread> threads;
  for (size_t r = 0; r < ranks.size(); ++r) {
    threads.emplace_back([&, r] {
      auto [first, last] = ranks[r]->Owned(shards);
      std::vector<std::span<float>> own(buffers.begin() + first, buffers.begin() + last);
      std::vector<Record> known = Records(shards);
      std::copy(known.begin() + first, known.begin() + last, summed[r].records.begin() + first);
      Status status = ranks[r]->SumShards(own, shards, summed[r].total, std::as_writable_bytes(std::span(summed[r].records)));
      EXPECT_TRUE(status.ok()) << (status.ok() ? "" : status.error().message);
    });
  }
  for (std::thread& t : threads) t.join();
  return summed;
}

// Joined, over sockets of this host.
std::vector<std::unique_ptr<Collective>> NewGang(int ranks, int without_memory) {
  std::vector<std::unique_ptr<ZmqCollective>> open;
  std::vector<std::string> endpoints;
  for (int rank = 0; rank < ranks; ++rank) {
    open.push_back(*ZmqCollective::Open({.gang = "test", .rank = rank, .ranks = ranks, .share_memory = rank != without_memory}));
    endpoints.push_back(open.back()->endpoint());
  }
  std::vector<std::thread> threads;
  for (auto& rank : open) {
    threads.emplace_back([&] { EXPECT_TRUE(*rank->Join(endpoints, "state")); });
  }
  for (std::thread& t : threads) t.join();
  return {std::make_move_iterator(open.begin()), std::make_move_iterator(open.end())};
}

// In shared memory; and through the sockets, because the last rank has none.
std::vector<std::unique_ptr<Collective>> NewZmqCollectives(int ranks) { return NewGang(ranks, -1); }
std::vector<std::unique_ptr<Collective>> NewSocketCollectives(int ranks) { return NewGang(ranks, ranks - 1); }

std::vector<std::unique_ptr<Collective>> OneLocal(int) {
  std::vector<std::unique_ptr<Collective>> one;
  one.push_back(NewLocalCollective());
  return one;
}

struct Implementation {
  std::string name;
  std::vector<std::unique_ptr<Collective>> (*make)(int ranks);
  int ranks;
};

class CollectiveTest : public testing::TestWithParam<Implementation> {
 protected:
  std::vector<std::unique_ptr<Collective>> Make() { return GetParam().make(GetParam().ranks); }
};

TEST_P(CollectiveTest, SumsInTreeOrderToTheBitOnEveryRank) {
  auto ranks = Make();
  for (int shards = 1; shards <= 13; ++shards) {
    std::vector<float> expected = Expected(shards, 1037);
    for (const Summed& summed : SumWith(ranks, shards, 1037)) {
      EXPECT_EQ(std::memcmp(summed.total.data(), expected.data(), expected.size() * sizeof(float)), 0) << shards << " shards";
    }
  }
}

TEST_P(CollectiveTest, EveryRankLearnsTheRecordsOfAllShards) {
  auto ranks = Make();
  for (int shards : {1, 2, 5, 9}) {
    for (const Summed& summed : SumWith(ranks, shards, 3)) EXPECT_EQ(summed.records, Records(shards)) << shards << " shards";
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

TEST_P(CollectiveTest, ReportsARankThatIsGone) {
  for (size_t gone : {size_t{0}, static_cast<size_t>(GetParam().ranks - 1)}) {
    if (GetParam().ranks == 1) return;  // nobody else is there
    auto ranks = Make();
    SumWith(ranks, 4, 5);
    ranks[gone].reset();
    std::vector<std::thread> threads;
    for (auto& rank : ranks) {
      if (rank == nullptr) continue;
      threads.emplace_back([&] {
        auto [first, last] = rank->Owned(8);
        std::vector<std::vector<float>> buffers(static_cast<size_t>(last - first), std::vector<float>(4, 1.0f));
        std::vector<std::span<float>> own(buffers.begin(), buffers.end());
        std::vector<float> total(4);
        Status status = rank->SumShards(own, 8, total, {});
        // Who sees it leaves, and so the news reaches the others.
        rank.reset();
        ASSERT_FALSE(status.ok());
        EXPECT_EQ(status.error().code, ErrorCode::kUnreachable);
      });
    }
    for (std::thread& t : threads) t.join();
  }
}

INSTANTIATE_TEST_SUITE_P(Implementations, CollectiveTest,
                         testing::Values(Implementation{"Local", OneLocal, 1}, Implementation{"Memory", NewMemoryCollectives, 1},
                                         Implementation{"Memory", NewMemoryCollectives, 2}, Implementation{"Memory", NewMemoryCollectives, 3},
                                         Implementation{"Zmq", NewZmqCollectives, 1}, Implementation{"Zmq", NewZmqCollectives, 2},
                                         Implementation{"Zmq", NewZmqCollectives, 3}, Implementation{"Zmq", NewZmqCollectives, 4},
                                         Implementation{"Socket", NewSocketCollectives, 2}, Implementation{"Socket", NewSocketCollectives, 3}),
                         [](const auto& p) { return p.param.name + std::to_string(p.param.ranks); });

}  // namespace
}  // namespace pare::collective
