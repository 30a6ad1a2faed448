// Collective: one of the five edge interfaces. Sums the logical shards' gradients in one fixed order, whoever owns them.
//
// The order is a binary tree over shard numbers: at distance d = 1, 2, 4, … shard i (i mod 2d = 0) takes the sum of shards
// i and i + d (if there is one). Any split of the shards over threads, processes or hosts follows the same tree, so the
// result is the same bits. LocalCollective owns all shards in one process; MemoryCollective connects several ranks in
// one process (tests, and the reference for network implementations).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/result.h"

namespace pare::collective {

class Collective {
 public:
  virtual ~Collective() = default;
  virtual int rank() const = 0;
  virtual int ranks() const = 0;
  // The shards that `rank` owns: a contiguous range of 0 … shards−1.
  virtual std::pair<int, int> Owned(int shards) const = 0;

  // `shards[i]` is the buffer of the i-th owned shard, all of equal length. Afterwards `total` holds the tree sum over all
  // shards of all ranks, the same bits on every rank. Owned buffers may be overwritten. kUnreachable: a rank is gone.
  virtual Status SumShards(std::span<const std::span<float>> shards, int total_shards, std::span<float> total) = 0;
};

std::unique_ptr<Collective> NewLocalCollective();
// `ranks` connected objects; SumShards of one blocks until all have called it.
std::vector<std::unique_ptr<Collective>> NewMemoryCollectives(int ranks);

}  // namespace pare::collective
