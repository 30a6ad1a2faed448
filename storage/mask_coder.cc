#include "storage/mask_coder.h"

#include <algorithm>
#include <bit>
#include <memory>
#include <numeric>

#include "common/check.h"

namespace pare::storage {
namespace {

constexpr size_t kClasses = 8;
constexpr uint8_t kRowClasses = 1, kColumnClasses = 2;

uint64_t BitsAt(std::span<const uint64_t> words, int64_t at, int64_t count) {
  if (count == 0) return 0;
  auto word = static_cast<size_t>(at >> 6);
  int shift = static_cast<int>(at & 63);
  uint64_t bits = words[word] >> shift;
  if (shift + count > 64) bits |= words[word + 1] << (64 - shift);
  return count == 64 ? bits : bits & ((uint64_t{1} << count) - 1);
}

int64_t CountOnes(std::span<const uint64_t> words, int64_t first, int64_t count) {
  int64_t ones = 0;
  for (int64_t i = 0; i < count; i += 64) ones += std::popcount(BitsAt(words, first + i, std::min<int64_t>(64, count - i)));
  return ones;
}

struct Density {
  uint64_t ones = 0, all = 0;
};

// Probability of a 1 in 1/65536, never certain.
uint32_t ProbabilityOf(const Density& d) { return static_cast<uint32_t>(std::clamp<uint64_t>(d.all == 0 ? 0 : d.ones * 65536 / d.all, 1, 65535)); }

// By how the odds of a line (a row or a column) compare with those of the whole tensor.
uint8_t ClassOf(const Density& line, const Density& whole) {
  struct Ratio {
    uint64_t numerator, denominator;
  };
  static constexpr Ratio kBounds[kClasses - 1] = {{1, 16}, {1, 4}, {1, 2}, {3, 4}, {4, 3}, {2, 1}, {4, 1}};
  uint64_t p = ProbabilityOf(whole), q = 65536 - p, zeros = line.all - line.ones;
  uint8_t result = 0;
  for (const Ratio& bound : kBounds) result += line.ones * q * bound.denominator >= zeros * p * bound.numerator;
  return result;
}

// What the lines of each class hold together.
struct ClassSums {
  std::array<Density, kClasses> sums{};
  std::array<uint64_t, kClasses> lines{};

  void Add(uint8_t line_class, const Density& line) {
    sums[line_class].ones += line.ones;
    sums[line_class].all += line.all;
    ++lines[line_class];
  }
  // Whether classes save more than it costs to tell them.
  bool Pay(uint64_t all_lines, const Density& whole) const {
    uint64_t without = BinaryEntropyBits(whole.ones, whole.all), with = 0;
    for (size_t c = 0; c < kClasses; ++c) {
      if (lines[c] == 0) continue;
      // The class of every line, the plane's table, a probability in every block.
      with += BinaryEntropyBits(sums[c].ones, sums[c].all) + (lines[c] * (Log2Fixed(all_lines) - Log2Fixed(lines[c])) >> 16) + 24;
      with += 16 * (whole.all / kBlockElements + 1);
    }
    constexpr uint64_t kFixedBits = 200;
    return with + kFixedBits < without;
  }
};

Density RowAt(std::span<const uint64_t> words, int64_t row, int64_t columns) {
  return {static_cast<uint64_t>(CountOnes(words, row * columns, columns)), static_cast<uint64_t>(columns)};
}

// The classes of columns, or none if they do not pay.
std::vector<uint8_t> ColumnClasses(std::span<const int64_t> ones, int64_t rows, const Density& whole) {
  std::vector<uint8_t> classes(ones.size());
  ClassSums sums;
  for (size_t i = 0; i < ones.size(); ++i) {
    Density column{static_cast<uint64_t>(ones[i]), static_cast<uint64_t>(rows)};
    classes[i] = ClassOf(column, whole);
    sums.Add(classes[i], column);
  }
  return sums.Pay(ones.size(), whole) ? classes : std::vector<uint8_t>();
}

std::array<AnsInterval, 16> IntervalsOf(uint32_t p) {
  std::array<uint64_t, 5> by_ones{};
  uint64_t q = 65536 - p;
  by_ones[0] = q * q * q * q;
  by_ones[1] = p * (q * q * q);
  by_ones[2] = (p * q) * (p * q);
  by_ones[3] = uint64_t{p} * p * p * q;
  by_ones[4] = uint64_t{p} * p * p * p;
  std::array<AnsInterval, 16> intervals;
  int sum = 0;
  for (unsigned s = 0; s < 16; ++s) {
    intervals[s].frequency = static_cast<uint16_t>(std::max<uint64_t>(1, by_ones[static_cast<size_t>(std::popcount(s))] >> 52));
    sum += intervals[s].frequency;
  }
  AnsInterval& largest = intervals[p < 32768 ? 0 : 15];
  largest.frequency = static_cast<uint16_t>(largest.frequency + static_cast<int>(kAnsTotal) - sum);
  uint16_t start = 0;
  for (AnsInterval& interval : intervals) {
    interval.start = start;
    start = static_cast<uint16_t>(start + interval.frequency);
  }
  return intervals;
}

std::unique_ptr<AnsTable> TableOf(uint32_t p) {
  auto table = std::make_unique<AnsTable>();
  uint32_t slot = 0;
  uint32_t symbol = 0;
  for (const AnsInterval& interval : IntervalsOf(p)) {
    for (uint32_t k = 0; k < interval.frequency; ++k) (*table)[slot++] = symbol | uint32_t{interval.frequency} << 8 | k << 20;
    ++symbol;
  }
  return table;
}

}  // namespace

std::vector<uint64_t> TakeBits(std::span<const uint64_t> words, int64_t first, int64_t count) {
  std::vector<uint64_t> bits(static_cast<size_t>((count + 63) / 64));
  for (size_t i = 0; i < bits.size(); ++i) {
    auto at = static_cast<int64_t>(64 * i);
    bits[i] = BitsAt(words, first + at, std::min<int64_t>(64, count - at));
  }
  return bits;
}

MaskCoder::MaskCoder(const model::Shape& shape) {
  int64_t count = model::ElementCount(shape);
  if (shape.size() >= 2 && count > 0) rows_ = shape[0];
  columns_ = count / rows_;
}

int64_t MaskCoder::BlockElements(const model::Shape& shape) {
  int64_t columns = MaskCoder(shape).columns_;
  return columns > 0 && columns <= kBlockElements ? kBlockElements / columns * columns : kBlockElements;
}

MaskCoder MaskCoder::For(const model::Shape& shape, std::span<const uint64_t> words) {
  MaskCoder coder(shape);
  int64_t rows = coder.rows_, columns = coder.columns_;
  if (rows < 2 || columns < 2) return coder;
  Density whole{static_cast<uint64_t>(CountOnes(words, 0, rows * columns)), static_cast<uint64_t>(rows * columns)};
  if (whole.ones == 0 || whole.ones == whole.all) return coder;
  coder.ChooseRowClasses(words, whole.ones);
  if (columns > kBlockElements) return coder;
  std::vector<int64_t> by_column(static_cast<size_t>(columns));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; c += 64) {
      uint64_t bits = BitsAt(words, r * columns + c, std::min<int64_t>(64, columns - c));
      for (; bits != 0; bits &= bits - 1) ++by_column[static_cast<size_t>(c + std::countr_zero(bits))];
    }
  }
  coder.column_class_ = ColumnClasses(by_column, rows, whole);
  coder.SortColumns();
  return coder;
}

void MaskCoder::ChooseRowClasses(std::span<const uint64_t> words, uint64_t ones) {
  Density whole{ones, static_cast<uint64_t>(rows_ * columns_)};
  bool kept = rows_ <= kBlockElements;
  if (rows_ > UINT32_MAX) return;  // no plane is so long
  if (kept) row_class_.resize(static_cast<size_t>(rows_));
  ClassSums sums;
  for (int64_t r = 0; r < rows_; ++r) {
    Density row = RowAt(words, r, columns_);
    uint8_t row_class = ClassOf(row, whole);
    sums.Add(row_class, row);
    if (kept) row_class_[static_cast<size_t>(r)] = row_class;
  }
  if (!sums.Pay(static_cast<uint64_t>(rows_), whole)) {
    row_class_.clear();
  } else if (!kept) {
    row_counts_.emplace();
    for (size_t c = 0; c < kClasses; ++c) (*row_counts_)[c] = static_cast<uint32_t>(sums.lines[c]);
    words_ = words;
    ones_ = ones;
  }
}

void MaskCoder::MakeRowClasses(size_t first, std::span<uint8_t> classes) const {
  Density whole{ones_, static_cast<uint64_t>(rows_ * columns_)};
  for (size_t i = 0; i < classes.size(); ++i) classes[i] = ClassOf(RowAt(words_, static_cast<int64_t>(first + i), columns_), whole);
}

void MaskCoder::SortColumns() {
  if (column_class_.empty()) return;
  order_.resize(column_class_.size());
  std::iota(order_.begin(), order_.end(), 0u);
  std::stable_sort(order_.begin(), order_.end(), [this](uint32_t a, uint32_t b) { return column_class_[a] < column_class_[b]; });
}

void MaskCoder::AppendPrelude(std::string& out) const {
  out.push_back(static_cast<char>((has_row_classes() ? kRowClasses : 0) | (column_class_.empty() ? 0 : kColumnClasses)));
  if (row_counts_) {
    EncodeLongPlane(out, static_cast<size_t>(rows_), *row_counts_, [this](size_t first, std::span<uint8_t> bytes) { MakeRowClasses(first, bytes); });
  } else if (!row_class_.empty()) {
    EncodePlane(out, row_class_);
  }
  if (!column_class_.empty()) EncodePlane(out, column_class_);
}

Result<MaskCoder> MaskCoder::FromPrelude(const model::Shape& shape, ByteReader& in) {
  MaskCoder coder(shape);
  uint8_t flags = in.U8();
  if (in.bad() || flags > (kRowClasses | kColumnClasses) || (flags & kColumnClasses && coder.columns_ > kBlockElements)) {
    return Error{ErrorCode::kCorrupt, "a mask starts wrong"};
  }
  if (flags & kRowClasses) coder.row_class_.resize(static_cast<size_t>(coder.rows_));
  if (flags & kColumnClasses) coder.column_class_.resize(static_cast<size_t>(coder.columns_));
  for (std::vector<uint8_t>* classes : {&coder.row_class_, &coder.column_class_}) {
    if (classes->empty()) continue;
    TRY(DecodePlane(in, *classes));
    if (*std::max_element(classes->begin(), classes->end()) >= kClasses) return Error{ErrorCode::kCorrupt, "a mask has a class that does not exist"};
  }
  coder.SortColumns();
  return coder;
}

// Each row's bits in order of their columns' classes, or back. A block is whole rows then.
std::vector<uint64_t> MaskCoder::Permuted(std::span<const uint64_t> bits, int64_t count, bool back) const {
  std::vector<uint64_t> out(bits.size());
  for (int64_t row = 0; row < count; row += columns_) {
    for (size_t j = 0; j < order_.size(); ++j) {
      int64_t sorted = row + static_cast<int64_t>(j), plain = row + order_[j];
      int64_t from = back ? sorted : plain, to = back ? plain : sorted;
      out[static_cast<size_t>(to >> 6)] |= (bits[static_cast<size_t>(from >> 6)] >> (from & 63) & 1) << (to & 63);
    }
  }
  return out;
}

std::vector<uint8_t> MaskCoder::ModelsOf(int64_t first, int64_t count) const {
  std::vector<uint8_t> models(static_cast<size_t>((count + 3) / 4));
  if (!has_row_classes() && column_class_.empty()) return models;
  auto row = static_cast<size_t>(first / columns_);
  int64_t column = first % columns_;
  std::vector<uint8_t> made;
  std::span<const uint8_t> row_classes = row_class_;
  if (row_counts_) {
    made.resize(static_cast<size_t>((first + count - 1) / columns_) - row + 1);
    MakeRowClasses(row, made);
    row_classes = made;
    row = 0;
  }
  for (uint8_t& model : models) {
    size_t row_class = row_classes.empty() ? 0 : row_classes[row];
    size_t column_class = column_class_.empty() ? 0 : column_class_[order_[static_cast<size_t>(column)]];
    model = static_cast<uint8_t>(kClasses * row_class + column_class);
    for (column += 4; column >= columns_; column -= columns_) ++row;
  }
  return models;
}

void MaskCoder::EncodeBlock(std::string& out, std::span<const uint64_t> bits, int64_t first, int64_t count) const {
  std::vector<uint64_t> permuted;
  if (!order_.empty()) {
    permuted = Permuted(bits, count, false);
    bits = permuted;
  }
  std::vector<uint8_t> models = ModelsOf(first, count);
  std::array<Density, kClasses * kClasses> densities{};
  auto symbol_at = [&](size_t i) { return bits[i >> 4] >> (4 * (i & 15)) & 15; };
  for (size_t i = 0; i < models.size(); ++i) {
    densities[models[i]].ones += static_cast<uint64_t>(std::popcount(symbol_at(i)));
    densities[models[i]].all += 4;
  }
  std::array<std::array<AnsInterval, 16>, kClasses * kClasses> intervals;
  for (size_t m = 0; m < densities.size(); ++m) {
    if (densities[m].all == 0) continue;
    uint32_t p = ProbabilityOf(densities[m]);
    AppendLittleEndian(out, p, 2);
    intervals[m] = IntervalsOf(p);
  }
  std::vector<AnsInterval> sequence(models.size());
  for (size_t i = 0; i < models.size(); ++i) sequence[i] = intervals[models[i]][symbol_at(i)];
  std::string coded = AnsEncode(sequence);
  AppendLittleEndian(out, coded.size(), 4);
  out += coded;
}

Result<std::vector<uint64_t>> MaskCoder::DecodeBlock(ByteReader& in, int64_t first, int64_t count) const {
  std::vector<uint8_t> models = ModelsOf(first, count);
  std::array<bool, kClasses * kClasses> occurs{};
  for (uint8_t model : models) occurs[model] = true;
  std::array<std::unique_ptr<AnsTable>, kClasses * kClasses> tables;
  for (size_t m = 0; m < tables.size(); ++m) {
    if (!occurs[m]) continue;
    uint16_t p = in.U16();
    if (p == 0) return Error{ErrorCode::kCorrupt, "a mask's probability is wrong"};
    tables[m] = TableOf(p);
  }
  AnsDecoder decoder(in.Take(in.U32()));
  std::vector<uint64_t> bits(static_cast<size_t>((count + 63) / 64));
  for (size_t i = 0; i < models.size(); ++i) bits[i >> 4] |= uint64_t{decoder.Next(*tables[models[i]], i & 3)} << (4 * (i & 15));
  uint64_t beyond = count % 64 == 0 ? 0 : bits.back() >> (count % 64);
  if (in.bad() || !decoder.Finished() || beyond != 0) return Error{ErrorCode::kCorrupt, "a mask is damaged"};
  return order_.empty() ? std::move(bits) : Permuted(bits, count, true);
}

}  // namespace pare::storage
