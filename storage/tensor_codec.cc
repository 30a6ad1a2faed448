#include "storage/tensor_codec.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "common/check.h"
#include "common/simd.h"
#include "storage/mask_coder.h"

namespace pare::storage {
namespace {

using model::DType;
using model::Mask;
using model::Shape;
using model::Tensor;

enum Stored : uint8_t { kAll = 0, kKept = 1, kAllAndMask = 2, kNonZero = 3 };
enum Coding : uint8_t { kPlanes = 0, kConstant = 1, kCodebook = 2 };
constexpr int64_t kZerosWorthCoding = 16;           // one in so many elements
constexpr int64_t kMaxZeroMapElements = int64_t{1} << 31;  // the map of a larger tensor would not be small
constexpr size_t kMaxEntries = 256;

Error Corrupt(const char* text) { return Error{ErrorCode::kCorrupt, text}; }

bool IsFloat(DType dtype) { return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16 || dtype == DType::kF64; }

// Byte k of every value to planes[k], rotating first.
template <typename T>
PARE_CLONES void Split(const T* values, size_t n, bool rotate, uint8_t* planes) {
  for (size_t i = 0; i < n; ++i) {
    T v = rotate ? static_cast<T>(values[i] << 1 | values[i] >> (8 * sizeof(T) - 1)) : values[i];
    for (size_t k = 0; k < sizeof(T); ++k) planes[k * n + i] = static_cast<uint8_t>(v >> (8 * k));
  }
}

template <typename T>
PARE_CLONES void Join(const uint8_t* planes, size_t n, bool rotate, T* values) {
  for (size_t i = 0; i < n; ++i) {
    T v = 0;
    for (size_t k = 0; k < sizeof(T); ++k) v = static_cast<T>(v | static_cast<T>(planes[k * n + i]) << (8 * k));
    values[i] = rotate ? static_cast<T>(v >> 1 | v << (8 * sizeof(T) - 1)) : v;
  }
}

template <typename T>
PARE_CLONES int64_t CountZeros(const T* values, size_t n) {
  int64_t zeros = 0;
  for (size_t i = 0; i < n; ++i) zeros += values[i] == 0;
  return zeros;
}

// Distinct values, up to kMaxEntries of them, with their numbers: open addressing.
template <typename T>
class Codebook {
 public:
  // False: there are too many.
  bool Add(std::span<const T> values) {
    for (T v : values) {
      size_t slot = Find(v);
      if (used_[slot]) continue;
      if (entries_.size() == kMaxEntries) return false;
      used_[slot] = true;
      keys_[slot] = v;
      entries_.push_back(v);
    }
    return true;
  }
  // Numbers the entries in rising order.
  void Sort() {
    std::sort(entries_.begin(), entries_.end());
    for (size_t i = 0; i < entries_.size(); ++i) numbers_[Find(entries_[i])] = static_cast<uint8_t>(i);
  }
  uint8_t NumberOf(T v) const { return numbers_[Find(v)]; }
  const std::vector<T>& entries() const { return entries_; }

 private:
  static constexpr size_t kSlots = 1024;
  size_t Find(T v) const {
    size_t slot = (static_cast<uint64_t>(v) * 0x9E3779B97F4A7C15u >> 54) & (kSlots - 1);
    while (used_[slot] && keys_[slot] != v) slot = (slot + 1) & (kSlots - 1);
    return slot;
  }
  std::vector<T> entries_;
  std::array<T, kSlots> keys_{};
  std::array<bool, kSlots> used_{};
  std::array<uint8_t, kSlots> numbers_{};
};

template <typename T>
class Encoder {
 public:
  Encoder(const Tensor& tensor, const Mask* mask, const ByteSink& sink)
      : values_(tensor.values<T>()), shape_(tensor.shape()), block_(MaskCoder::BlockElements(shape_)), rotate_(IsFloat(tensor.dtype())), sink_(sink) {
    if (mask != nullptr) {
      bits_ = mask->packed();
      stored_ = RemovedAreZero() ? kKept : kAllAndMask;
    } else if (int64_t n = tensor.size(); n <= kMaxZeroMapElements) {
      int64_t zeros = CountZeros(values_.data(), values_.size());
      if (zeros == n || zeros * kZerosWorthCoding < n) return;
      stored_ = kNonZero;
      map_.resize(static_cast<size_t>((n + 63) / 64));
      for (size_t w = 0; w < map_.size(); ++w) map_[w] = NonZeros(w);
      bits_ = map_;
    }
  }

  Status Run() {
    ChooseCoding();
    std::string out = {static_cast<char>(stored_), static_cast<char>(coding_)};
    if (coding_ == kConstant) AppendLittleEndian(out, book_.entries().empty() ? 0 : book_.entries()[0], sizeof(T));
    if (coding_ == kCodebook) {
      AppendLittleEndian(out, book_.entries().size() - 1, 1);
      for (T entry : book_.entries()) AppendLittleEndian(out, entry, sizeof(T));
    }
    std::optional<MaskCoder> coder;
    if (stored_ != kAll) {
      coder = MaskCoder::For(shape_, bits_);
      coder->AppendPrelude(out);
    }
    TRY(sink_(out));
    if (stored_ == kAll && coding_ == kConstant) return Ok();
    for (int64_t first = 0, n = static_cast<int64_t>(values_.size()); first < n; first += block_) {
      std::string block(4, '\0');
      int64_t count = std::min(block_, n - first);
      if (coder) coder->EncodeBlock(block, TakeBits(bits_, first, count), first, count);
      AppendValues(block, first, count);
      auto length = static_cast<uint32_t>(block.size() - 4);
      std::memcpy(block.data(), &length, 4);
      TRY(sink_(block));
    }
    return Ok();
  }

 private:
  // A bit for each of 64 values.
  uint64_t NonZeros(size_t word) const {
    std::span<const T> values = values_.subspan(64 * word, std::min<size_t>(64, values_.size() - 64 * word));
    uint64_t bits = 0;
    for (size_t i = 0; i < values.size(); ++i) bits |= uint64_t{values[i] != 0} << i;
    return bits;
  }

  bool RemovedAreZero() const {
    for (size_t w = 0; w < bits_.size(); ++w) {
      if ((NonZeros(w) & ~bits_[w]) != 0) return false;
    }
    return true;
  }

  // The values of a block that are stored.
  std::span<const T> ValuesOf(int64_t first, int64_t count) {
    std::span<const T> all = values_.subspan(static_cast<size_t>(first), static_cast<size_t>(count));
    if (stored_ == kAll || stored_ == kAllAndMask) return all;
    gathered_.resize(all.size());
    size_t n = 0;
    std::vector<uint64_t> bits = TakeBits(bits_, first, count);
    for (size_t w = 0; w < bits.size(); ++w) {
      for (uint64_t word = bits[w]; word != 0; word &= word - 1) gathered_[n++] = all[64 * w + static_cast<size_t>(std::countr_zero(word))];
    }
    return std::span<const T>(gathered_).first(n);
  }

  void ChooseCoding() {
    int64_t stored = 0;
    for (int64_t first = 0, n = static_cast<int64_t>(values_.size()); first < n; first += block_) {
      std::span<const T> values = ValuesOf(first, std::min(block_, n - first));
      stored += static_cast<int64_t>(values.size());
      if (!book_.Add(values)) return;
      if (sizeof(T) == 1 && book_.entries().size() > 1) return;
    }
    book_.Sort();
    if (book_.entries().size() <= 1) coding_ = kConstant;
    else if (stored >= 4 * static_cast<int64_t>(book_.entries().size())) coding_ = kCodebook;
  }

  void AppendValues(std::string& block, int64_t first, int64_t count) {
    if (coding_ == kConstant) return;
    std::span<const T> values = ValuesOf(first, count);
    size_t n = values.size();
    planes_.resize(std::max(planes_.size(), n * sizeof(T)));
    if (coding_ == kCodebook) {
      for (size_t i = 0; i < n; ++i) planes_[i] = book_.NumberOf(values[i]);
      return EncodePlane(block, std::span(planes_).first(n));
    }
    Split<T>(values.data(), n, rotate_, planes_.data());
    for (size_t k = 0; k < sizeof(T); ++k) EncodePlane(block, std::span(planes_).subspan(k * n, n));
  }

  std::span<const T> values_;
  const Shape& shape_;
  int64_t block_;
  bool rotate_;
  const ByteSink& sink_;
  std::span<const uint64_t> bits_;
  std::vector<uint64_t> map_;
  Stored stored_ = kAll;
  Coding coding_ = kPlanes;
  Codebook<T> book_;
  std::vector<T> gathered_;
  std::vector<uint8_t> planes_;
};

template <typename T>
class Decoder {
 public:
  Decoder(std::string_view payload, DType dtype, const Shape& shape)
      : in_(payload), dtype_(dtype), shape_(shape), block_(MaskCoder::BlockElements(shape)) {}

  Result<DecodedTensor> Run() {
    uint8_t stored = in_.U8(), coding = in_.U8();
    if (in_.bad()) return Corrupt("it ends early");
    if (stored > kNonZero || coding > kCodebook) return Error{ErrorCode::kVersion, "it is coded in a way that is not known to this version"};
    stored_ = static_cast<Stored>(stored);
    coding_ = static_cast<Coding>(coding);
    if (coding_ == kConstant) entries_ = {Element()};
    if (coding_ == kCodebook) {
      for (size_t n = size_t{in_.U8()} + 1; n > 0; --n) entries_.push_back(Element());
    }
    std::optional<MaskCoder> coder;
    if (stored_ != kAll) {
      ASSIGN_OR_RETURN(coder, MaskCoder::FromPrelude(shape_, in_));
    }
    if (in_.bad() || !HasAllBlocks()) return Corrupt("it ends early");
    Tensor tensor(dtype_, shape_);
    std::span<T> values = tensor.mutable_values<T>();
    auto n = static_cast<int64_t>(values.size());
    bool keeps_mask = stored_ == kKept || stored_ == kAllAndMask;
    std::vector<uint64_t> mask(keeps_mask ? static_cast<size_t>((n + 63) / 64) : 0);
    if (stored_ == kAll && coding_ == kConstant) {
      std::fill(values.begin(), values.end(), entries_[0]);
      n = 0;
    }
    for (int64_t first = 0; first < n; first += block_) {
      int64_t count = std::min(block_, n - first);
      std::string_view bytes = in_.Take(in_.U32());
      if (in_.bad()) return Corrupt("it ends early");
      ByteReader block(bytes);
      std::vector<uint64_t> bits;
      if (coder) {
        ASSIGN_OR_RETURN(bits, coder->DecodeBlock(block, first, count));
      }
      if (keeps_mask) PutBits(mask, first, bits);
      TRY(ReadValues(block, bits, values.subspan(static_cast<size_t>(first), static_cast<size_t>(count))));
      if (block.left() != 0) return Corrupt("bytes after a block");
    }
    if (in_.left() != 0) return Corrupt("bytes after its end");
    DecodedTensor decoded{std::move(tensor), std::nullopt};
    if (keeps_mask) {
      ASSIGN_OR_RETURN(decoded.mask, Mask::FromPacked(shape_, mask));
    }
    return decoded;
  }

 private:
  // Every block has at least a length: a few bytes must not claim a tensor larger than memory.
  bool HasAllBlocks() const {
    if (stored_ == kAll && coding_ == kConstant) return true;
    return static_cast<int64_t>(in_.left() / 4) >= (model::ElementCount(shape_) + block_ - 1) / block_;
  }

  T Element() {
    std::string_view bytes = in_.Take(sizeof(T));
    T value = 0;
    if (bytes.size() == sizeof(T)) std::memcpy(&value, bytes.data(), sizeof(T));
    return value;
  }

  static void PutBits(std::vector<uint64_t>& words, int64_t first, std::span<const uint64_t> bits) {
    auto word = static_cast<size_t>(first >> 6);
    int shift = static_cast<int>(first & 63);
    for (size_t i = 0; i < bits.size(); ++i) {
      words[word + i] |= bits[i] << shift;
      if (shift != 0 && bits[i] >> (64 - shift) != 0) words[word + i + 1] |= bits[i] >> (64 - shift);
    }
  }

  // Fills a block of the tensor, which is zero so far.
  Status ReadValues(ByteReader& block, std::span<const uint64_t> bits, std::span<T> out) {
    bool some = stored_ == kKept || stored_ == kNonZero;
    size_t n = out.size();
    if (some) {
      n = 0;
      for (uint64_t word : bits) n += static_cast<size_t>(std::popcount(word));
    }
    gathered_.resize(std::max(gathered_.size(), n));
    T* target = some ? gathered_.data() : out.data();
    if (coding_ == kConstant) {
      std::fill(target, target + n, entries_[0]);
    } else if (coding_ == kCodebook) {
      planes_.resize(std::max(planes_.size(), n));
      TRY(DecodePlane(block, std::span(planes_).first(n)));
      for (size_t i = 0; i < n; ++i) {
        if (planes_[i] >= entries_.size()) return Corrupt("a codebook has fewer entries than are used");
        target[i] = entries_[planes_[i]];
      }
    } else {
      planes_.resize(std::max(planes_.size(), n * sizeof(T)));
      for (size_t k = 0; k < sizeof(T); ++k) TRY(DecodePlane(block, std::span(planes_).subspan(k * n, n)));
      Join<T>(planes_.data(), n, IsFloat(dtype_), target);
    }
    if (!some) return Ok();
    const T* next = gathered_.data();
    for (size_t w = 0; w < bits.size(); ++w) {
      for (uint64_t word = bits[w]; word != 0; word &= word - 1) out[64 * w + static_cast<size_t>(std::countr_zero(word))] = *next++;
    }
    return Ok();
  }

  ByteReader in_;
  DType dtype_;
  const Shape& shape_;
  int64_t block_;
  Stored stored_ = kAll;
  Coding coding_ = kPlanes;
  std::vector<T> entries_, gathered_;
  std::vector<uint8_t> planes_;
};

}  // namespace

Status EncodeTensorPayload(const Tensor& tensor, const Mask* mask, const ByteSink& sink) {
  CHECK(mask == nullptr || mask->shape() == tensor.shape());
  switch (model::SizeOf(tensor.dtype())) {
    case 1: return Encoder<uint8_t>(tensor, mask, sink).Run();
    case 2: return Encoder<uint16_t>(tensor, mask, sink).Run();
    case 4: return Encoder<uint32_t>(tensor, mask, sink).Run();
    default: return Encoder<uint64_t>(tensor, mask, sink).Run();
  }
}

Result<DecodedTensor> DecodeTensorPayload(std::string_view payload, DType dtype, const Shape& shape) {
  switch (model::SizeOf(dtype)) {
    case 1: return Decoder<uint8_t>(payload, dtype, shape).Run();
    case 2: return Decoder<uint16_t>(payload, dtype, shape).Run();
    case 4: return Decoder<uint32_t>(payload, dtype, shape).Run();
    default: return Decoder<uint64_t>(payload, dtype, shape).Run();
  }
}

}  // namespace pare::storage
