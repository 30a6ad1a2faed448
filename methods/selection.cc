#include "methods/selection.h"

#include <bit>
#include <vector>

namespace pare::methods {

template <typename Visit>
void KeySource::ForEach(Visit&& visit) const {
  std::span<const uint64_t> words = mask_->packed();
  std::array<uint32_t, 4> block{};
  uint64_t block_index = UINT64_MAX;
  for (size_t w = 0; w < words.size(); ++w) {
    for (uint64_t rest = words[w]; rest != 0; rest &= rest - 1) {
      uint64_t i = w * 64 + static_cast<uint64_t>(std::countr_zero(rest));
      if (stream_) {
        if (i / 4 != block_index) block = stream_->Block(block_index = i / 4);
        visit(static_cast<int64_t>(i), block[i % 4]);
      } else {
        visit(static_cast<int64_t>(i), std::bit_cast<uint32_t>(values_[i]) & 0x7fffffffu);
      }
    }
  }
}

namespace {

// Tells, for the weights of one tensor visited in index order, whether each is within a cut.
class Within {
 public:
  explicit Within(Cut cut) : cut_(cut) {}
  bool operator()(uint32_t key) {
    if (key != cut_.key) return key < cut_.key;
    return cut_.ties > 0 && cut_.ties-- > 0;
  }

 private:
  Cut cut_;
};

// visit(tensor, index, key) for the weights between must and may.
template <typename Visit>
void ForEachOptional(std::span<const KeySource> sources, std::span<const Bounds> bounds, Visit&& visit) {
  for (size_t t = 0; t < sources.size(); ++t) {
    Within must(bounds[t].must), may(bounds[t].may);
    sources[t].ForEach([&](int64_t i, uint32_t key) {
      bool in_must = must(key), in_may = may(key);
      if (in_may && !in_must) visit(t, i, key);
    });
  }
}

// The bin that holds the `count`-th value (from 1); `count` becomes the rank within it.
uint32_t FindBin(const std::vector<int64_t>& bins, int64_t& count) {
  uint32_t bin = 0;
  while (bins[bin] < count) count -= bins[bin++];
  return bin;
}

}  // namespace

Cut SelectLowest(std::span<const KeySource> sources, std::span<const Bounds> bounds, int64_t count) {
  CHECK(sources.size() == bounds.size() && count >= 0);
  if (count == 0) return kCutNothing;
  std::vector<int64_t> bins(1 << 16, 0);
  int64_t total = 0;
  ForEachOptional(sources, bounds, [&](size_t, int64_t, uint32_t key) {
    ++bins[key >> 16];
    ++total;
  });
  CHECK(count <= total);
  uint32_t high = FindBin(bins, count);
  bins.assign(bins.size(), 0);
  ForEachOptional(sources, bounds, [&](size_t, int64_t, uint32_t key) {
    if (key >> 16 == high) ++bins[key & 0xffff];
  });
  uint32_t low = FindBin(bins, count);
  return Cut{high << 16 | low, count};
}

Cut SelectLowest(const KeySource& source, int64_t count) {
  Bounds all;
  return SelectLowest(std::span(&source, 1), std::span(&all, 1), count);
}

void RemoveCut(std::span<const KeySource> sources, std::span<const Bounds> bounds, Cut cut, std::span<model::Mask> masks) {
  CHECK(sources.size() == bounds.size() && masks.size() == sources.size());
  int64_t ties = cut.ties;  // over all tensors, in order
  for (size_t t = 0; t < sources.size(); ++t) {
    model::Mask result = masks[t];  // the source still reads the old one
    Within must(bounds[t].must), may(bounds[t].may);
    sources[t].ForEach([&](int64_t i, uint32_t key) {
      bool in_must = must(key), in_may = may(key);
      bool taken = in_must;
      if (in_may && !in_must) taken = key < cut.key || (key == cut.key && ties > 0 && ties-- > 0);
      if (taken) result.set(i, false);
    });
    masks[t] = std::move(result);
  }
}

}  // namespace pare::methods
