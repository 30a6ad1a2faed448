#include "worker/collective/tree.h"

#include <algorithm>

#include "common/check.h"
#include "common/simd.h"

namespace pare::collective {
namespace {

PARE_CLONES void AddKernel(float* __restrict a, const float* __restrict b, size_t n) {
  for (size_t i = 0; i < n; ++i) a[i] += b[i];
}

}  // namespace

std::vector<Addition> TreeOf(int shards) {
  std::vector<Addition> tree;
  for (int d = 1; d < shards; d *= 2) {
    for (int i = 0; i + d < shards; i += 2 * d) tree.push_back({i, i + d, std::min(i + 2 * d, shards)});
  }
  return tree;
}

ShardRange OwnedBy(int rank, int ranks, int shards) { return {shards * rank / ranks, shards * (rank + 1) / ranks}; }

std::vector<int> PartialsOf(std::span<const Addition> tree, ShardRange range) {
  std::vector<int> left;
  for (int s = range.first; s < range.second; ++s) {
    bool added = std::any_of(tree.begin(), tree.end(), [&](const Addition& a) { return a.from == s && Within(a, range); });
    if (!added) left.push_back(s);
  }
  return left;
}

void Add(std::span<float> to, std::span<const float> from) {
  CHECK(to.size() == from.size());
  AddKernel(to.data(), from.data(), to.size());
}

}  // namespace pare::collective
