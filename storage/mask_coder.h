// Entropy coding of masks (and of where a tensor's values are not zero), block by block, close to H(s) bits per weight and
// below where rows or columns differ in density: neurons die, pixels at the border of an image never matter.
//
// The mask is seen as a matrix: rows = the first dimension, columns = all others together (one row for less than two
// dimensions). A block is a run of elements in row-major order:
//
//   block size = (262144 / columns) · columns if columns <= 262144, else 262144; the last block is what is left
//
// Prelude, once per tensor: u8 flags (1: rows have classes, 2: columns have classes), then per flag one byte plane
// (storage/byte_coder.h) of `rows` or `columns` bytes: the class 0 … 7 of each.
//
// A block's bits (1: kept) in row-major order; if columns have classes, those of each row in order of (class, column). Four
// bits are a symbol (the first is its lowest bit; the last symbol is filled with zeros). Its model is 8 · class of the row +
// class of the column of its first bit (0 where there are no classes). The block is
//
//   u16 p for each model that occurs, in rising order: the probability of a 1 is p / 65536, p > 0
//   u32 length, ANS string (storage/byte_coder.h)
//
// Frequency of the symbol with k ones: max(1, p^k · (65536 − p)^(4 − k) >> 52); what lacks to 4096 is added to (or, if
// negative, taken from) symbol 0 if p < 32768, else symbol 15. Symbols occupy slots in rising order.
//
// The encoder keeps the classes of at most a block of rows; of more rows it makes them from the bits whenever it needs them:
// a tall, narrow mask takes no more memory than a square one.
//
// Rejected: gaps between survivors in Golomb codes (no gain from columns); a model of previous bits (masks of pruning by
// magnitude show no such correlation).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/tensor.h"
#include "storage/byte_coder.h"

namespace pare::storage {

inline constexpr int64_t kBlockElements = 1 << 18;

// Bits [first, first + count) of `words`, moved to the front. Bit i of word i/64 is element i.
std::vector<uint64_t> TakeBits(std::span<const uint64_t> words, int64_t first, int64_t count);

class MaskCoder {
 public:
  // Decides about classes. `words`: a bit per element of the shape; they outlive the coder.
  static MaskCoder For(const model::Shape& shape, std::span<const uint64_t> words);
  void AppendPrelude(std::string& out) const;
  static Result<MaskCoder> FromPrelude(const model::Shape& shape, ByteReader& in);

  // `bits`: the block's, from bit 0 on; `first`: index of its first element.
  void EncodeBlock(std::string& out, std::span<const uint64_t> bits, int64_t first, int64_t count) const;
  Result<std::vector<uint64_t>> DecodeBlock(ByteReader& in, int64_t first, int64_t count) const;

  static int64_t BlockElements(const model::Shape& shape);

 private:
  explicit MaskCoder(const model::Shape& shape);
  void ChooseRowClasses(std::span<const uint64_t> words, uint64_t ones);
  void MakeRowClasses(size_t first, std::span<uint8_t> classes) const;
  bool has_row_classes() const { return !row_class_.empty() || row_counts_.has_value(); }
  void SortColumns();
  std::vector<uint64_t> Permuted(std::span<const uint64_t> bits, int64_t count, bool back) const;
  // The model of every symbol of a block.
  std::vector<uint8_t> ModelsOf(int64_t first, int64_t count) const;

  int64_t rows_ = 1, columns_ = 0;
  std::vector<uint8_t> row_class_, column_class_;  // empty: no classes
  // For classes of rows that are not kept: how many rows each has, and what they are made from.
  std::optional<ByteCounts> row_counts_;
  std::span<const uint64_t> words_;
  uint64_t ones_ = 0;
  std::vector<uint32_t> order_;                     // columns by class; empty without classes
};

}  // namespace pare::storage
