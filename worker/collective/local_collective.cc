#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>

#include "worker/collective/collective.h"
#include "worker/collective/tree.h"

namespace pare::collective {
namespace {

// The tree over the buffers of all shards, in place; the sum ends in buffers[0].
void SumTree(std::span<const std::span<float>> buffers) {
  for (const Addition& a : TreeOf(static_cast<int>(buffers.size()))) Add(buffers[static_cast<size_t>(a.to)], buffers[static_cast<size_t>(a.from)]);
}

void CopyTo(std::span<float> total, std::span<const float> sum) {
  if (total.data() != sum.data()) std::copy(sum.begin(), sum.end(), total.begin());
}

class LocalCollective : public Collective {
 public:
  int rank() const override { return 0; }
  int ranks() const override { return 1; }
  std::pair<int, int> Owned(int shards) const override { return {0, shards}; }
  Status SumShards(std::span<const std::span<float>> shards, int total_shards, std::span<float> total, std::span<std::byte>) override {
    CHECK(static_cast<int>(shards.size()) == total_shards && total_shards > 0);
    SumTree(shards);
    CopyTo(total, shards[0]);
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
  std::vector<std::byte> records;
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
  std::pair<int, int> Owned(int shards) const override { return OwnedBy(rank_, ranks_, shards); }

  Status SumShards(std::span<const std::span<float>> shards, int total_shards, std::span<float> total, std::span<std::byte> records) override {
    Meeting& m = *meeting_;
    std::unique_lock lock(m.mutex);
    auto [first, last] = Owned(total_shards);
    CHECK(static_cast<int>(shards.size()) == last - first);
    for (int s = first; s < last; ++s) m.shards[s] = shards[static_cast<size_t>(s - first)];
    m.records.resize(records.size());
    size_t record = records.size() / static_cast<size_t>(total_shards);
    std::copy(records.begin() + first * static_cast<ptrdiff_t>(record), records.begin() + last * static_cast<ptrdiff_t>(record),
              m.records.begin() + first * static_cast<ptrdiff_t>(record));
    int64_t round = m.round;
    if (++m.arrived == ranks_) {
      std::vector<std::span<float>> buffers;
      for (auto& [number, buffer] : m.shards) buffers.push_back(buffer);
      SumTree(buffers);
      m.sum.assign(buffers[0].begin(), buffers[0].end());
      m.shards.clear();
      m.arrived = 0;
      ++m.round;
      m.changed.notify_all();
    }
    m.changed.wait(lock, [&] { return m.round != round || m.broken; });
    if (m.round == round) return Error{ErrorCode::kUnreachable, "collective: a rank is gone"};
    CopyTo(total, m.sum);
    std::copy(m.records.begin(), m.records.end(), records.begin());
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
