#include <condition_variable>
#include <map>
#include <mutex>

#include "common/simd.h"
#include "worker/collective/collective.h"

namespace pare::collective {
namespace {

// a += b. One rounding per element: bits do not depend on vector width.
PARE_CLONES void Add(float* __restrict a, const float* __restrict b, size_t n) {
  for (size_t i = 0; i < n; ++i) a[i] += b[i];
}

// The tree of collective.h over the buffers of all shards, in place; the sum ends in buffers[0].
void TreeSum(std::vector<std::span<float>>& buffers) {
  for (size_t d = 1; d < buffers.size(); d *= 2) {
    for (size_t i = 0; i + d < buffers.size(); i += 2 * d) Add(buffers[i].data(), buffers[i + d].data(), buffers[i].size());
  }
}

void CopyTo(std::span<float> total, std::span<const float> sum) {
  if (total.data() != sum.data()) std::copy(sum.begin(), sum.end(), total.begin());
}

class LocalCollective : public Collective {
 public:
  int rank() const override { return 0; }
  int ranks() const override { return 1; }
  std::pair<int, int> Owned(int shards) const override { return {0, shards}; }
  Status SumShards(std::span<const std::span<float>> shards, int total_shards, std::span<float> total) override {
    CHECK(static_cast<int>(shards.size()) == total_shards && total_shards > 0);
    std::vector<std::span<float>> buffers(shards.begin(), shards.end());
    TreeSum(buffers);
    CopyTo(total, buffers[0]);
    return Ok();
  }
};

// Meeting point of the ranks: the last one to arrive computes the tree, all copy the result.
struct Meeting {
  std::mutex mutex;
  std::condition_variable changed;
  int arrived = 0, copied = 0;
  int64_t round = 0;
  bool broken = false;
  std::map<int, std::span<float>> shards;
  std::vector<float> sum;
};

class MemoryCollective : public Collective {
 public:
  MemoryCollective(std::shared_ptr<Meeting> meeting, int rank, int ranks) : meeting_(std::move(meeting)), rank_(rank), ranks_(ranks) {}
  ~MemoryCollective() override {
    std::lock_guard lock(meeting_->mutex);
    meeting_->broken = true;
    meeting_->changed.notify_all();
  }
  int rank() const override { return rank_; }
  int ranks() const override { return ranks_; }
  std::pair<int, int> Owned(int shards) const override { return {shards * rank_ / ranks_, shards * (rank_ + 1) / ranks_}; }

  Status SumShards(std::span<const std::span<float>> shards, int total_shards, std::span<float> total) override {
    Meeting& m = *meeting_;
    std::unique_lock lock(m.mutex);
    auto [first, last] = Owned(total_shards);
    CHECK(static_cast<int>(shards.size()) == last - first);
    for (int s = first; s < last; ++s) m.shards[s] = shards[static_cast<size_t>(s - first)];
    int64_t round = m.round;
    if (++m.arrived == ranks_) {
      std::vector<std::span<float>> buffers;
      for (auto& [number, buffer] : m.shards) buffers.push_back(buffer);
      TreeSum(buffers);
      m.sum.assign(buffers[0].begin(), buffers[0].end());
      m.shards.clear();
      m.arrived = 0;
      ++m.round;
      m.changed.notify_all();
    }
    m.changed.wait(lock, [&] { return m.round != round || m.broken; });
    if (m.round == round) return Error{ErrorCode::kUnreachable, "collective: a rank is gone"};
    CopyTo(total, m.sum);
    // Nobody starts the next round before all have copied this one.
    if (++m.copied == ranks_) {
      m.copied = 0;
      m.changed.notify_all();
    } else {
      m.changed.wait(lock, [&] { return m.copied == 0 || m.broken; });
    }
    return Ok();
  }

 private:
  std::shared_ptr<Meeting> meeting_;
  int rank_, ranks_;
};

}  // namespace

std::unique_ptr<Collective> NewLocalCollective() { return std::make_unique<LocalCollective>(); }

std::vector<std::unique_ptr<Collective>> NewMemoryCollectives(int ranks) {
  auto meeting = std::make_shared<Meeting>();
  std::vector<std::unique_ptr<Collective>> all;
  for (int rank = 0; rank < ranks; ++rank) all.push_back(std::make_unique<MemoryCollective>(meeting, rank, ranks));
  return all;
}

}  // namespace pare::collective
