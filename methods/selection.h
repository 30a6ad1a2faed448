// Streamed selection: which weights of several tensors have the lowest scores, exactly, with memory that does not grow
// with the model. Scores are 32-bit keys made on the fly (bits of |w|, or random words), so a radix histogram of 2¹⁶ bins
// read twice finds the k-th smallest; nothing is copied or sorted.
//
// Order: by key, then tensor (order of the span), then row-major index. A selection is therefore unique.
// Pure functions on plain values, no thread rule.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "common/random.h"
#include "model/mask.h"

namespace pare::methods {

// One tensor as a source of keys. Only weights that the mask keeps take part.
class KeySource {
 public:
  // key = bits of |w|: ordered as |w|, and so as w² too. REQUIRES: no NaN in `values`.
  KeySource(std::span<const float> values, const model::Mask& mask) : values_(values), mask_(&mask) {}
  // key i = word i of the stream.
  KeySource(const RandomStream& stream, const model::Mask& mask) : stream_(stream), mask_(&mask) {}

  // Calls visit(index, key) for every kept weight, in index order.
  template <typename Visit>
  void ForEach(Visit&& visit) const;
  const model::Mask& mask() const { return *mask_; }

 private:
  std::span<const float> values_;
  std::optional<RandomStream> stream_;
  const model::Mask* mask_;
};

// The first weights in order: every key below `key`, and the first `ties` that equal it.
struct Cut {
  uint64_t key = 0;
  int64_t ties = 0;
};
inline constexpr Cut kCutNothing{0, 0};
inline constexpr Cut kCutEverything{uint64_t{1} << 32, 0};

// What may be removed of one tensor: all within `must`, nothing beyond `may`. REQUIRES: must ≤ may.
struct Bounds {
  Cut must = kCutNothing;
  Cut may = kCutEverything;
};

// The cut that takes exactly the first `count` kept weights of one tensor. REQUIRES: 0 ≤ count ≤ kept weights.
Cut SelectLowest(const KeySource& source, int64_t count);

// The cut that takes exactly the first `count` of the weights between `must` and `may`, over all tensors.
// REQUIRES: one Bounds per source; 0 ≤ count ≤ number of such weights.
Cut SelectLowest(std::span<const KeySource> sources, std::span<const Bounds> bounds, int64_t count);

// Clears in masks[i] what is within bounds[i].must, and the weights between that `cut` takes.
// REQUIRES: masks[i] is the mask of sources[i].
void RemoveCut(std::span<const KeySource> sources, std::span<const Bounds> bounds, Cut cut, std::span<model::Mask> masks);

}  // namespace pare::methods
