#include "methods/selection.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace pare::methods {

double ScoreSource::At(size_t i) const {
  double w = values[i];
  switch (kind) {
    case ScoreKind::kMagnitude: return std::abs(w);
    case ScoreKind::kSquare: return w * w;
    case ScoreKind::kProduct: return std::abs(w * companion[i]);
    case ScoreKind::kSquareProduct: return w * w * companion[i];
    case ScoreKind::kGiven: return companion[i];
    case ScoreKind::kRandom: break;
  }
  CHECK(false);
  return 0.0;
}

template <typename Visit>
void Tiling::ForRuns(int64_t t, Visit&& visit) const {
  int64_t top = t / across() * rows, left = t % across() * columns;
  int64_t width = std::min(columns, matrix_columns - left);
  for (int64_t r = top; r < std::min(top + rows, matrix_rows); ++r) visit(r * matrix_columns + left, width);
}

KeySource::KeySource(ScoreSource scores, const model::Mask& mask)
    : scores_(std::move(scores)), mask_(&mask), items_(mask.size()), live_count_(mask.kept()) {
  if (scores_.kind == ScoreKind::kSquare) scores_.kind = ScoreKind::kMagnitude;
}

KeySource::KeySource(ScoreSource scores, const model::Mask& mask, const Tiling& tiling)
    : scores_(std::move(scores)), mask_(&mask), tiling_(tiling), items_(tiling.count()) {
  CHECK(tiling.matrix_rows * tiling.matrix_columns == mask.size());
  for (int64_t t = 0; t < items_; ++t) live_count_ += TileIsLive(t);
}

KeySource::KeySource(std::vector<uint32_t> keys, std::vector<uint8_t> live)
    : keys_(std::move(keys)), alive_(std::move(live)), items_(static_cast<int64_t>(keys_.size())) {
  CHECK(keys_.size() == alive_.size());
  live_count_ = std::count_if(alive_.begin(), alive_.end(), [](uint8_t l) { return l != 0; });
}

bool KeySource::TileIsLive(int64_t t) const {
  bool live = false;
  tiling_->ForRuns(t, [&](int64_t first, int64_t count) {
    for (int64_t i = first; i < first + count; ++i) live = live || mask_->keeps(i);
  });
  return live;
}

uint32_t KeySource::TileKey(int64_t t) const {
  if (scores_.kind == ScoreKind::kRandom) return scores_.stream->Block(static_cast<uint64_t>(t) / 4)[static_cast<size_t>(t % 4)];
  double sum = 0.0;
  tiling_->ForRuns(t, [&](int64_t first, int64_t count) {
    for (int64_t i = first; i < first + count; ++i) {
      if (mask_->keeps(i)) sum += scores_.At(static_cast<size_t>(i));
    }
  });
  return KeyOfScore(static_cast<float>(sum));
}

namespace {

// visit(i) for every set bit, in order.
template <typename Visit>
void ForEachKept(const model::Mask& mask, Visit&& visit) {
  std::span<const uint64_t> words = mask.packed();
  for (size_t w = 0; w < words.size(); ++w) {
    for (uint64_t rest = words[w]; rest != 0; rest &= rest - 1) visit(w * 64 + static_cast<uint64_t>(std::countr_zero(rest)));
  }
}

}  // namespace

template <typename Visit>
void KeySource::ForEach(Visit&& visit) const {
  if (mask_ == nullptr) {
    for (int64_t i = 0; i < items_; ++i) {
      if (alive_[static_cast<size_t>(i)] != 0) visit(i, keys_[static_cast<size_t>(i)]);
    }
  } else if (tiling_) {
    for (int64_t t = 0; t < items_; ++t) {
      if (TileIsLive(t)) visit(t, TileKey(t));
    }
  } else if (scores_.kind == ScoreKind::kMagnitude) {
    const float* values = scores_.values.data();
    ForEachKept(*mask_, [&](uint64_t i) { visit(static_cast<int64_t>(i), std::bit_cast<uint32_t>(values[i]) & 0x7fffffffu); });
  } else if (scores_.kind == ScoreKind::kRandom) {
    std::array<uint32_t, 4> block{};
    uint64_t index = UINT64_MAX;
    ForEachKept(*mask_, [&](uint64_t i) {
      if (i / 4 != index) block = scores_.stream->Block(index = i / 4);
      visit(static_cast<int64_t>(i), block[i % 4]);
    });
  } else {
    ForEachKept(*mask_, [&](uint64_t i) { visit(static_cast<int64_t>(i), KeyOfScore(static_cast<float>(scores_.At(i)))); });
  }
}

void KeySource::Remove(int64_t item, model::Mask& mask) const {
  CHECK(mask_ != nullptr);
  if (!tiling_) return mask.set(item, false);
  tiling_->ForRuns(item, [&](int64_t first, int64_t count) {
    for (int64_t i = first; i < first + count; ++i) mask.set(i, false);
  });
}

namespace {

// Tells, for the items of one source visited in order, whether each is within a cut.
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

// visit(source, item, key) for the items between must and may.
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

template <typename Take>
void ForTaken(std::span<const KeySource> sources, std::span<const Bounds> bounds, Cut cut, Take&& take) {
  CHECK(sources.size() == bounds.size());
  int64_t ties = cut.ties;  // over all sources, in order
  for (size_t t = 0; t < sources.size(); ++t) {
    Within must(bounds[t].must), may(bounds[t].may);
    sources[t].ForEach([&](int64_t i, uint32_t key) {
      bool in_must = must(key), in_may = may(key);
      bool taken = in_must;
      if (in_may && !in_must) taken = key < cut.key || (key == cut.key && ties > 0 && ties-- > 0);
      if (taken) take(t, i);
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

void ForEachTaken(std::span<const KeySource> sources, std::span<const Bounds> bounds, Cut cut,
                  const std::function<void(size_t, int64_t)>& take) {
  ForTaken(sources, bounds, cut, take);
}

void RemoveCut(std::span<const KeySource> sources, std::span<const Bounds> bounds, Cut cut, std::span<model::Mask> masks) {
  CHECK(masks.size() == sources.size());
  ForTaken(sources, bounds, cut, [&](size_t t, int64_t item) { sources[t].Remove(item, masks[t]); });
}

}  // namespace pare::methods
