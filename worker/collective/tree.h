// The order of additions that collective.h promises, for its implementations. Pure.
#pragma once

#include <span>
#include <utility>
#include <vector>

namespace pare::collective {

// Buffer `to` takes that of `from`; afterwards it holds the sum of shards [to, end).
struct Addition {
  int to, from, end;
};
// All additions over the shards 0 … shards−1, in order; the sum ends in buffer 0.
std::vector<Addition> TreeOf(int shards);

// The shards of a rank: a contiguous range, sizes differ by at most one.
using ShardRange = std::pair<int, int>;
ShardRange OwnedBy(int rank, int ranks, int shards);
// The owner of the range can do it alone.
inline bool Within(const Addition& a, ShardRange range) { return a.to >= range.first && a.end <= range.second; }
// The buffers that are left of a range when its owner has done what it can alone, ascending.
std::vector<int> PartialsOf(std::span<const Addition> tree, ShardRange range);

// to += from. One rounding per element: bits do not depend on vector width.
void Add(std::span<float> to, std::span<const float> from);

}  // namespace pare::collective
