#include "model/mask.h"

#include <bit>

namespace pare::model {
namespace {
size_t WordCount(const Shape& shape) { return static_cast<size_t>((ElementCount(shape) + 63) / 64); }
}  // namespace

Mask::Mask(Shape shape) : shape_(std::move(shape)), words_(WordCount(shape_), ~uint64_t{0}) {
  if (int64_t rest = size() & 63; rest != 0) words_.back() = (uint64_t{1} << rest) - 1;
}

Mask::Mask(Shape shape, std::span<const uint8_t> keep) : shape_(std::move(shape)), words_(WordCount(shape_), 0) {
  CHECK(static_cast<int64_t>(keep.size()) == size());
  for (size_t i = 0; i < keep.size(); ++i) words_[i >> 6] |= uint64_t{keep[i] != 0} << (i & 63);
}

Result<Mask> Mask::FromPacked(Shape shape, std::span<const uint64_t> words) {
  Mask mask;
  mask.shape_ = std::move(shape);
  if (words.size() != WordCount(mask.shape_)) return Error{ErrorCode::kInvalid, "mask: wrong number of words"};
  if (int64_t rest = mask.size() & 63; rest != 0 && words.back() >> rest != 0) {
    return Error{ErrorCode::kInvalid, "mask: bits beyond the end are set"};
  }
  mask.words_.assign(words.begin(), words.end());
  return mask;
}

int64_t Mask::kept() const {
  int64_t kept = 0;
  for (uint64_t word : words_) kept += std::popcount(word);
  return kept;
}

double Mask::sparsity() const {
  return size() == 0 ? 0.0 : 1.0 - static_cast<double>(kept()) / static_cast<double>(size());
}

void Mask::set(int64_t i, bool keep) {
  uint64_t bit = uint64_t{1} << (i & 63);
  uint64_t& word = words_[static_cast<size_t>(i >> 6)];
  word = keep ? word | bit : word & ~bit;
}

std::vector<float> Mask::ToFloats() const {
  std::vector<float> out(static_cast<size_t>(size()));
  for (size_t i = 0; i < out.size(); ++i) out[i] = keeps(static_cast<int64_t>(i)) ? 1.0f : 0.0f;
  return out;
}

Digest Mask::digest() const {
  Sha256 hash;
  hash.Update(ToString(shape_));
  hash.Update(std::as_bytes(std::span(words_)));
  return Digest(hash.Finish());
}

}  // namespace pare::model
