// Exchange: what the ranks of a gang tell each other of a training batch: the sum of all shards' gradients, and per shard a
// record of what else the batch needs of it (loss, counts, batch-norm statistics). One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "common/result.h"
#include "worker/collective/collective.h"

namespace pare::engine {

// What a shard counted. Laid out without gaps: ranks exchange its bytes.
struct ShardResult {
  double loss = 0;
  int64_t correct = 0, labelled = 0;
};

class Exchange {
 public:
  // `statistics`: floats in a shard's record beside its ShardResult.
  Exchange(std::shared_ptr<collective::Collective> collective, int shards, size_t statistics);

  // The shards that run here.
  std::pair<int, int> owned() const { return collective_->Owned(shards_); }
  // Positions of the gradients that are exchanged; the others become zero in the total. Empty: all.
  void SetMask(std::span<const uint8_t> mask);

  // A shard's record. REQUIRES: writes go to owned shards, reads of others follow a Sum that succeeded.
  ShardResult result(int shard) const;
  void set_result(int shard, const ShardResult& result);
  std::span<float> statistics(int shard);

  // `gradients`: of the owned shards; may be overwritten. As Collective::SumShards.
  Status Sum(std::span<const std::span<float>> gradients, std::span<float> total);

 private:
  std::shared_ptr<collective::Collective> collective_;
  int shards_;
  size_t record_;  // bytes
  std::vector<std::byte> records_;
  bool masked_ = false;
  std::vector<uint32_t> kept_;               // positions, ascending
  std::vector<std::vector<float>> compact_;  // gradients there, by owned shard
  std::vector<float> compact_total_;
};

}  // namespace pare::engine
