// Streamed selection: which items of several tensors have the lowest scores, exactly, with memory that does not grow with
// the model. An item is a weight, a tile of weights (blocks), or a unit with a key of its own. Keys are 32 bits made on
// the fly, so a radix histogram of 2¹⁶ bins read twice finds the k-th smallest; nothing is copied or sorted. Memory: 512 KiB
// of bins and one bit per weight for the result, whatever the criterion (a unit's key: 4 bytes).
//
// Order: by key, then tensor (order of the span), then item. A selection is therefore unique.
// Pure functions on plain values, no thread rule.
#pragma once

#include <bit>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "common/random.h"
#include "model/mask.h"

namespace pare::methods {

// The score of a weight w from its value and, for some, a second number c that belongs to it.
enum class ScoreKind {
  kMagnitude,      // |w|
  kSquare,         // w² (for single weights |w|: the same order, and it does not underflow)
  kProduct,        // |w·c|
  kSquareProduct,  // w²·c
  kGiven,          // c
  kRandom,         // the word at the item's index of a stream
};

struct ScoreSource {
  ScoreKind kind = ScoreKind::kMagnitude;
  std::span<const float> values;
  std::span<const float> companion;  // c; as long as values, or empty where the kind needs none
  std::optional<RandomStream> stream;  // kRandom
  // Score of weight i. REQUIRES: not kRandom.
  double At(size_t i) const;
};

// Tiles of `rows` x `columns` of a matrix [matrix_rows, matrix_columns]; smaller ones at the lower and right edge. Tile t is
// the t-th in row-major order of tiles.
struct Tiling {
  int64_t matrix_rows = 0, matrix_columns = 0;
  int64_t rows = 1, columns = 1;
  int64_t across() const { return (matrix_columns + columns - 1) / columns; }
  int64_t count() const { return across() * ((matrix_rows + rows - 1) / rows); }
  // visit(first, count): the runs of consecutive weights that make up tile t.
  template <typename Visit>
  void ForRuns(int64_t t, Visit&& visit) const;
};

// Ordered as the scores: −∞ < … < −0 = +0 < … < ∞. REQUIRES: not NaN.
inline uint32_t KeyOfScore(float score) {
  uint32_t bits = std::bit_cast<uint32_t>(score + 0.0f);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

// One tensor, or one set of units, as a source of keys. Only live items take part.
class KeySource {
 public:
  // Items are the weights that the mask keeps. REQUIRES: both outlive this; no NaN among the scores.
  KeySource(ScoreSource scores, const model::Mask& mask);
  // Items are tiles; one is live while the mask keeps any weight of it. Its score is the sum of its kept weights' scores.
  KeySource(ScoreSource scores, const model::Mask& mask, const Tiling& tiling);
  // Items are units with keys of their own; live[i] != 0.
  KeySource(std::vector<uint32_t> keys, std::vector<uint8_t> live);

  int64_t items() const { return items_; }
  int64_t live() const { return live_count_; }
  // Calls visit(item, key) for every live item, in order.
  template <typename Visit>
  void ForEach(Visit&& visit) const;
  // Clears the weights of `item` in `mask`. REQUIRES: not a source of units.
  void Remove(int64_t item, model::Mask& mask) const;

 private:
  bool TileIsLive(int64_t t) const;
  uint32_t TileKey(int64_t t) const;

  ScoreSource scores_;
  const model::Mask* mask_ = nullptr;
  std::optional<Tiling> tiling_;
  std::vector<uint32_t> keys_;
  std::vector<uint8_t> alive_;
  int64_t items_ = 0, live_count_ = 0;
};

// The first items in order: every key below `key`, and the first `ties` that equal it.
struct Cut {
  uint64_t key = 0;
  int64_t ties = 0;
};
inline constexpr Cut kCutNothing{0, 0};
inline constexpr Cut kCutEverything{uint64_t{1} << 32, 0};

// What may be removed of one source: all within `must`, nothing beyond `may`. REQUIRES: must ≤ may.
struct Bounds {
  Cut must = kCutNothing;
  Cut may = kCutEverything;
};

// The cut that takes exactly the first `count` live items of one source. REQUIRES: 0 ≤ count ≤ live items.
Cut SelectLowest(const KeySource& source, int64_t count);

// The cut that takes exactly the first `count` of the items between `must` and `may`, over all sources.
// REQUIRES: one Bounds per source; 0 ≤ count ≤ number of such items.
Cut SelectLowest(std::span<const KeySource> sources, std::span<const Bounds> bounds, int64_t count);

// take(source, item) for what is within bounds[i].must, and the items between that `cut` takes, in order.
void ForEachTaken(std::span<const KeySource> sources, std::span<const Bounds> bounds, Cut cut,
                  const std::function<void(size_t source, int64_t item)>& take);

// Clears these items in masks[i]. REQUIRES: sources of weights or tiles; masks[i] equals the mask of sources[i].
void RemoveCut(std::span<const KeySource> sources, std::span<const Bounds> bounds, Cut cut, std::span<model::Mask> masks);

}  // namespace pare::methods
