// Memory of global ranking, counted at the allocator: this program has its own operator new.
#include <gtest/gtest.h>

#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "methods/pruning.h"

namespace {
std::atomic<int64_t> live{0}, peak{0};

void* Counted(size_t size) {
  void* p = std::malloc(size);
  if (p == nullptr) throw std::bad_alloc();
  int64_t now = live += static_cast<int64_t>(malloc_usable_size(p));
  for (int64_t seen = peak; now > seen && !peak.compare_exchange_weak(seen, now);) {
  }
  return p;
}
void Uncounted(void* p) noexcept {
  if (p != nullptr) live -= static_cast<int64_t>(malloc_usable_size(p));
  std::free(p);
}
}  // namespace

void* operator new(size_t size) { return Counted(size); }
void* operator new[](size_t size) { return Counted(size); }
void operator delete(void* p) noexcept { Uncounted(p); }
void operator delete[](void* p) noexcept { Uncounted(p); }
void operator delete(void* p, size_t) noexcept { Uncounted(p); }
void operator delete[](void* p, size_t) noexcept { Uncounted(p); }

namespace pare::methods {
namespace {

// What methods/pruning.h states: beside the weights (and the gradients that the criterion reads) at most a fifth of the
// weights' bytes; in fact masks, two bits and a bit per weight, and half a megabyte.
TEST(GlobalRankingTest, StaysWithinItsStatedMemoryLimit) {
  constexpr int64_t kLayers = 8, kEach = 1 << 20;
  std::vector<float> weights(kLayers * kEach), gradients(kLayers * kEach);
  for (size_t i = 0; i < weights.size(); ++i) {
    weights[i] = static_cast<float>(static_cast<int64_t>(i * 2654435761u % 2000001) - 1000000);
    gradients[i] = static_cast<float>(i % 1013) / 1013;
  }
  for (auto [criterion, granularity] : {std::pair{Criterion::kMagnitudeL1, Granularity{}}, {Criterion::kRandom, Granularity{}}, {Criterion::kTaylor, Granularity{}},
                                        {Criterion::kFisher, Granularity{}}, {Criterion::kMovement, Granularity{}},
                                        {Criterion::kMagnitudeL2, Granularity{GranularityKind::kBlock, 0, 0, 4, 1}}}) {
    PruneOptions options;
    options.criterion = criterion;
    options.scope = Scope::kGlobal;
    options.granularity = granularity;
    std::vector<WeightView> views;
    for (size_t t = 0; t < kLayers; ++t) {
      options.tensors.push_back("t" + std::to_string(t));
      auto at = t * kEach;
      views.push_back({options.tensors.back(), {1024, 1024}, std::span(weights).subspan(at, kEach), t, std::span(gradients).subspan(at, kEach)});
    }
    int64_t before = live;
    peak = before;
    auto masks = Prune(options, {0.9, {}}, views, {}, {});
    ASSERT_TRUE(masks.ok());
    EXPECT_LE(static_cast<double>(peak - before), 0.2 * 4.0 * static_cast<double>(weights.size())) << ToString(criterion);
    int64_t kept = 0;
    for (const auto& [name, mask] : *masks) kept += mask.kept();
    EXPECT_NEAR(static_cast<double>(kept), 0.1 * static_cast<double>(weights.size()), 8.0);
  }
}

}  // namespace
}  // namespace pare::methods
