// Mask: which weights of a tensor survive pruning. First-class: stored, hashed and enforced, never inferred from zeros
// (a surviving weight may happen to be zero).
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "model/tensor.h"

namespace pare::model {

class Mask {
 public:
  Mask() = default;
  // All weights kept.
  explicit Mask(Shape shape);
  // keep[i] != 0: weight i (row-major) survives. REQUIRES: keep.size() == ElementCount(shape).
  Mask(Shape shape, std::span<const uint8_t> keep);
  // From packed(): kInvalid if the number of words does not fit the shape or bits beyond the end are set.
  static Result<Mask> FromPacked(Shape shape, std::span<const uint64_t> words);

  const Shape& shape() const { return shape_; }
  int64_t size() const { return ElementCount(shape_); }
  int64_t kept() const;
  double sparsity() const;  // fraction removed, in [0, 1]
  bool keeps(int64_t i) const { return words_[static_cast<size_t>(i >> 6)] >> (i & 63) & 1; }
  void set(int64_t i, bool keep);
  // Bit i of word i/64 is weight i; unused high bits are zero.
  std::span<const uint64_t> packed() const { return words_; }
  // One float per weight, 1 or 0: what the optimizer multiplies with.
  std::vector<float> ToFloats() const;
  Digest digest() const;
  bool operator==(const Mask&) const = default;

 private:
  Shape shape_;
  std::vector<uint64_t> words_;
};

// By tensor name ("fc1.weight"). A tensor without an entry is not pruned.
using MaskMap = std::map<std::string, Mask>;

}  // namespace pare::model
