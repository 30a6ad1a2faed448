// Entropy coding of small alphabets, and of byte planes: what the checkpoint codec is built from. Pure functions of their
// input: the same bytes on every machine (zstd's output, used where it is clearly smaller, is the same for one zstd version).
//
// Range variant of asymmetric numeral systems (Duda 2013, arXiv 1311.2540), four interleaved states (Giesen 2014, arXiv
// 1402.3392) of 32 bits, probabilities in 1/4096, renormalized by 16-bit words. A coded string is the four states (u32
// each) and then the words, all little-endian, in the order in which the decoder reads them. Symbol i belongs to state i mod 4:
//
//   slot = x mod 4096; s = the symbol with start(s) <= slot < start(s) + frequency(s)
//   x = frequency(s) * (x / 4096) + slot − start(s);  if x < 65536: x = 65536 x + next word
//
// Every state ends at 65536 with no word left: a decoder checks both.
// Rejected: an adaptive binary coder (a bit at a time: ten times slower); zstd alone (Huffman codes cost up to 5 % on
// masks; other bytes with other versions).
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace pare::storage {

inline constexpr uint32_t kAnsTotal = 4096;

// One symbol for the encoder: where its slots start, and how many it has (1 … 4095).
struct AnsInterval {
  uint16_t start = 0, frequency = 0;
};
std::string AnsEncode(std::span<const AnsInterval> symbols);

// For the decoder, by slot: symbol | frequency << 8 | (slot − start) << 20.
using AnsTable = std::array<uint32_t, kAnsTotal>;

// Decodes symbols in order; the caller picks the table of each. Arbitrary bytes are safe.
class AnsDecoder {
 public:
  // Bytes that are too short decode to something, and Finished() is false.
  explicit AnsDecoder(std::string_view bytes);

  // The next symbol, of state `lane` = index mod 4.
  uint8_t Next(const AnsTable& table, size_t lane) {
    uint32_t x = states_[lane];
    uint32_t entry = table[x & (kAnsTotal - 1)];
    x = (entry >> 8 & 0xFFF) * (x >> 12) + (entry >> 20);
    if (x < (1u << 16)) x = x << 16 | Word();
    states_[lane] = x;
    return static_cast<uint8_t>(entry);
  }
  // All that was encoded has been decoded, and nothing else.
  bool Finished() const;

 private:
  uint32_t Word() {
    if (end_ - next_ < 2) {
      overrun_ = true;
      return 0;
    }
    uint32_t word = next_[0] | static_cast<uint32_t>(next_[1]) << 8;
    next_ += 2;
    return word;
  }
  std::array<uint32_t, 4> states_{};
  const uint8_t* next_ = nullptr;
  const uint8_t* end_ = nullptr;
  bool overrun_ = false;
};

// Reads little-endian values from the front of bytes; past the end it gives zeros and bad() is true.
class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : bytes_(bytes) {}
  uint8_t U8() { return static_cast<uint8_t>(Number(1)); }
  uint16_t U16() { return static_cast<uint16_t>(Number(2)); }
  uint32_t U32() { return static_cast<uint32_t>(Number(4)); }
  uint64_t U64() { return Number(8); }
  std::string_view Take(size_t size);
  size_t left() const { return bytes_.size(); }
  bool bad() const { return bad_; }

 private:
  uint64_t Number(size_t size);
  std::string_view bytes_;
  bool bad_ = false;
};

void AppendLittleEndian(std::string& out, uint64_t value, size_t size);

// A plane of bytes (n is known to the reader), coded the smallest of four ways:
//   u8 0, n bytes                        as they are
//   u8 1, u32 length, bytes              zstd
//   u8 2, u32 length, bytes: u8 symbols − 1, per symbol in rising order (u8 symbol, u16 frequency), ANS string
//   u8 3, u8 byte                        all bytes are equal (also for n = 0: byte 0)
void EncodePlane(std::string& out, std::span<const uint8_t> plane);
// A plane that is not kept in memory, always as ANS. `source` gives the bytes from `first` on; it is asked for them from the
// last to the first, part by part. REQUIRES: `counts`, of each byte, sums to `size`; at least two are not 0.
using ByteCounts = std::array<uint32_t, 256>;
using PlaneSource = std::function<void(size_t first, std::span<uint8_t> bytes)>;
void EncodeLongPlane(std::string& out, size_t size, const ByteCounts& counts, const PlaneSource& source);
// kCorrupt when the bytes are not a plane of this size.
Status DecodePlane(ByteReader& in, std::span<uint8_t> plane);

// log2(n) in 1/65536, rounded down, by integers only: decisions of the encoder must not depend on a math library.
// REQUIRES: n > 0.
uint64_t Log2Fixed(uint64_t n);
// The least that `ones` ones among `n` bits can take, in bits, rounded down: n · H(ones / n). REQUIRES: n < 2^40.
uint64_t BinaryEntropyBits(uint64_t ones, uint64_t n);

}  // namespace pare::storage
