#include "storage/mask_coder.h"

#include <algorithm>
#include <vector>

namespace pare::storage {
namespace {

constexpr int kProbabilityBits = 16;
constexpr uint32_t kTop = 1u << 24;
// Slow adaptation for a density that hardly moves within a tensor; a faster start finds it.
constexpr int kSlowShift = 9, kFastShift = 4;

// Probability that a bit is 1, one context per previous-bit history; `seen` makes the first updates large.
class Model {
 public:
  uint32_t probability() const { return std::clamp<uint32_t>(p_, 32, (1u << kProbabilityBits) - 32); }
  void Update(bool bit) {
    int shift = std::min(kSlowShift, kFastShift + (seen_ >> 4));
    ++seen_;
    if (bit) p_ += ((1u << kProbabilityBits) - p_) >> shift;
    else p_ -= p_ >> shift;
  }

 private:
  uint32_t p_ = 1u << (kProbabilityBits - 1);
  int seen_ = 0;
};

// Row densities differ (a dead neuron keeps nothing): the context is how dense the row was so far, against 8 levels.
class Contexts {
 public:
  explicit Contexts(int64_t row) : row_(std::max<int64_t>(1, row)) {}
  Model& Next() {
    if (position_ == row_) {
      position_ = kept_ = 0;
    }
    if (position_ < 16) return models_[0];
    int64_t permille = kept_ * 1000 / position_;
    int level = 1;
    for (int64_t bound : {10, 25, 50, 90, 150, 250, 400, 600, 800}) level += permille >= bound;
    return models_[level];
  }
  void Count(bool bit) {
    ++position_;
    kept_ += bit;
  }

 private:
  int64_t row_, position_ = 0, kept_ = 0;
  Model models_[11];
};

class Encoder {
 public:
  void Put(bool bit, uint32_t p) {
    uint32_t bound = (range_ >> kProbabilityBits) * p;
    if (bit) {
      range_ = bound;
    } else {
      low_ += bound;
      range_ -= bound;
    }
    while (range_ < kTop) {
      range_ <<= 8;
      Shift();
    }
  }
  std::string Finish() {
    for (int i = 0; i < 5; ++i) Shift();
    return std::move(out_);
  }

 private:
  void Shift() {
    if (low_ < 0xFF000000u || low_ > 0xFFFFFFFFu) {
      uint8_t carry = static_cast<uint8_t>(low_ >> 32);
      if (started_) out_.push_back(static_cast<char>(cache_ + carry));
      for (; pending_ > 0; --pending_) out_.push_back(static_cast<char>(0xFF + carry));
      cache_ = static_cast<uint8_t>(low_ >> 24);
      started_ = true;
    } else {
      ++pending_;
    }
    low_ = (low_ & 0x00FFFFFFu) << 8;
  }

  uint64_t low_ = 0;
  uint32_t range_ = 0xFFFFFFFFu;
  uint8_t cache_ = 0;
  bool started_ = false;
  int64_t pending_ = 0;
  std::string out_;
};

class Decoder {
 public:
  explicit Decoder(std::string_view bytes) : bytes_(bytes) {
    for (int i = 0; i < 4; ++i) code_ = code_ << 8 | Byte();
  }
  bool Get(uint32_t p) {
    uint32_t bound = (range_ >> kProbabilityBits) * p;
    bool bit = code_ < bound;
    if (bit) {
      range_ = bound;
    } else {
      code_ -= bound;
      range_ -= bound;
    }
    while (range_ < kTop) {
      range_ <<= 8;
      code_ = code_ << 8 | Byte();
    }
    return bit;
  }
  bool overrun() const { return overrun_; }

 private:
  uint32_t Byte() {
    if (at_ < bytes_.size()) return static_cast<uint8_t>(bytes_[at_++]);
    overrun_ = true;
    return 0;
  }
  std::string_view bytes_;
  size_t at_ = 0;
  uint32_t code_ = 0, range_ = 0xFFFFFFFFu;
  bool overrun_ = false;
};

int64_t RowLength(const model::Shape& shape) {
  return shape.empty() || shape[0] == 0 ? 1 : model::ElementCount(shape) / shape[0];
}

}  // namespace

std::string EncodeMask(const model::Mask& mask) {
  Contexts contexts(RowLength(mask.shape()));
  Encoder encoder;
  for (int64_t i = 0, n = mask.size(); i < n; ++i) {
    bool bit = mask.keeps(i);
    Model& model = contexts.Next();
    encoder.Put(bit, model.probability());
    model.Update(bit);
    contexts.Count(bit);
  }
  return encoder.Finish();
}

Result<model::Mask> DecodeMask(model::Shape shape, std::string_view bytes) {
  Contexts contexts(RowLength(shape));
  Decoder decoder(bytes);
  model::Mask mask(shape);
  for (int64_t i = 0, n = mask.size(); i < n; ++i) {
    Model& model = contexts.Next();
    bool bit = decoder.Get(model.probability());
    model.Update(bit);
    contexts.Count(bit);
    if (!bit) mask.set(i, false);
    // The encoder's five closing bytes make every honest stream long enough.
    if (decoder.overrun()) return Error{ErrorCode::kCorrupt, "mask: the coded bytes end early"};
  }
  return mask;
}

}  // namespace pare::storage
