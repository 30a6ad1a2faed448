// Collective: one of the five edge interfaces. Sums the logical shards' gradients in one fixed order, whoever owns them.
//
// The order is a binary tree over shard numbers: at distance d = 1, 2, 4, … shard i (i mod 2d = 0) takes the sum of shards
// i and i + d (if there is one). Any split of the shards over threads, processes or hosts follows the same tree, so the
// result is the same bits. LocalCollective owns all shards in one process; MemoryCollective connects several ranks in
// one process (tests, and the reference for network implementations); ZmqCollective several processes (zmq_collective.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
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

  // `shards[i]` is the buffer of the i-th owned shard, all as long as `total`. Afterwards `total` holds the tree sum over all
  // shards of all ranks, the same bits on every rank. Owned buffers may be overwritten.
  // `records` are `total_shards` records of equal size: those of owned shards are filled before, all of them afterwards.
  // All ranks call with the same sizes. kUnreachable: a rank is gone; kStopped: the waiting was interrupted; then `total` and
  // the records of others are undefined, and every later call fails.
  virtual Status SumShards(std::span<const std::span<float>> shards, int total_shards, std::span<float> total,
                           std::span<std::byte> records) = 0;
  // What this rank has sent to others so far; 0 where nothing is copied.
  virtual int64_t bytes_sent() const { return 0; }
};

std::unique_ptr<Collective> NewLocalCollective();
// `ranks` connected objects; SumShards of one blocks until all have called it.
std::vector<std::unique_ptr<Collective>> NewMemoryCollectives(int ranks);

}  // namespace pare::collective
