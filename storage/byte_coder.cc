#include "storage/byte_coder.h"

#include <zstd.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "common/check.h"

namespace pare::storage {
namespace {

constexpr uint32_t kAnsLow = 1u << 16;
constexpr int kZstdLevel = 3;
constexpr size_t kSample = 8192;  // bytes that tell whether a plane repeats itself

enum Method : uint8_t { kRaw = 0, kZstd = 1, kAns = 2, kConstant = 3 };

Error Corrupt(const char* text) { return Error{ErrorCode::kCorrupt, text}; }

ByteCounts CountsOf(std::span<const uint8_t> plane) {
  // Four tables: equal neighbours do not wait for each other's increments.
  std::array<ByteCounts, 4> parts{};
  size_t i = 0;
  for (; i + 4 <= plane.size(); i += 4) {
    for (size_t k = 0; k < 4; ++k) ++parts[k][plane[i + k]];
  }
  for (; i < plane.size(); ++i) ++parts[0][plane[i]];
  for (size_t s = 0; s < 256; ++s) parts[0][s] += parts[1][s] + parts[2][s] + parts[3][s];
  return parts[0];
}

// Frequencies that sum to kAnsTotal, at least 1 where there is a count, by largest remainders.
// REQUIRES: at least two symbols have a count.
std::array<uint16_t, 256> FrequenciesOf(const ByteCounts& counts, uint64_t total) {
  std::array<uint16_t, 256> frequencies{};
  std::array<int64_t, 256> excess{};  // frequency · total − count · kAnsTotal
  int64_t sum = 0;
  for (size_t s = 0; s < 256; ++s) {
    if (counts[s] == 0) continue;
    uint64_t share = uint64_t{counts[s]} * kAnsTotal;
    frequencies[s] = static_cast<uint16_t>(std::max<uint64_t>(1, share / total));
    excess[s] = static_cast<int64_t>(frequencies[s] * total) - static_cast<int64_t>(share);
    sum += frequencies[s];
  }
  auto amount = static_cast<int64_t>(total);
  for (; sum < kAnsTotal; ++sum) {
    size_t least = 0;
    for (size_t s = 1; s < 256; ++s) {
      if (counts[s] != 0 && (counts[least] == 0 || excess[s] < excess[least])) least = s;
    }
    ++frequencies[least];
    excess[least] += amount;
  }
  for (; sum > kAnsTotal; --sum) {
    size_t most = 256;
    for (size_t s = 0; s < 256; ++s) {
      if (frequencies[s] > 1 && (most == 256 || excess[s] > excess[most])) most = s;
    }
    --frequencies[most];
    excess[most] -= amount;
  }
  return frequencies;
}

struct AnsModel {
  std::array<AnsInterval, 256> intervals;
  std::string table;  // as a plane has it
};

AnsModel ModelOf(const ByteCounts& counts, uint64_t total) {
  std::array<uint16_t, 256> frequencies = FrequenciesOf(counts, total);
  AnsModel model{{}, std::string(1, '\0')};
  uint16_t start = 0;
  size_t symbols = 0;
  for (size_t s = 0; s < 256; ++s) {
    if (frequencies[s] == 0) continue;
    model.intervals[s] = {start, frequencies[s]};
    start = static_cast<uint16_t>(start + frequencies[s]);
    AppendLittleEndian(model.table, s, 1);
    AppendLittleEndian(model.table, frequencies[s], 2);
    ++symbols;
  }
  model.table[0] = static_cast<char>(symbols - 1);
  return model;
}

std::vector<AnsInterval> SequenceOf(std::span<const uint8_t> bytes, const AnsModel& model) {
  std::vector<AnsInterval> sequence(bytes.size());
  for (size_t i = 0; i < bytes.size(); ++i) sequence[i] = model.intervals[bytes[i]];
  return sequence;
}

using AnsStates = std::array<uint32_t, 4>;

AnsStates FirstStates() {
  AnsStates states;
  states.fill(kAnsLow);
  return states;
}

// Encodes from the last symbol to the first; `emit` takes the words, the decoder's last one first.
// REQUIRES: the index of symbols[0] in the whole string is a multiple of 4.
template <typename Emit>
void Push(AnsStates& states, std::span<const AnsInterval> symbols, Emit emit) {
  for (size_t i = symbols.size(); i-- > 0;) {
    uint32_t& x = states[i & 3];
    uint32_t frequency = symbols[i].frequency;
    if (x >= uint64_t{frequency} << 20) {
      emit(static_cast<uint16_t>(x));
      x >>= 16;
    }
    x = x / frequency * kAnsTotal + x % frequency + symbols[i].start;
  }
}

void AppendAnsString(std::string& out, const AnsStates& states, std::span<const uint16_t> words) {
  for (uint32_t state : states) AppendLittleEndian(out, state, 4);
  static_assert(std::endian::native == std::endian::little);
  out.append(reinterpret_cast<const char*>(words.data()), words.size_bytes());
}

std::string EncodeAnsPlane(std::span<const uint8_t> plane, const ByteCounts& counts) {
  AnsModel model = ModelOf(counts, plane.size());
  return model.table + AnsEncode(SequenceOf(plane, model));
}

std::string Compress(std::span<const uint8_t> bytes) {
  std::string out(ZSTD_compressBound(bytes.size()), '\0');
  size_t size = ZSTD_compress(out.data(), out.size(), bytes.data(), bytes.size(), kZstdLevel);
  CHECK(!ZSTD_isError(size));
  out.resize(size);
  return out;
}

// What an ANS plane will take, in bytes, but for rounding.
uint64_t AnsEstimate(const ByteCounts& counts, uint64_t total) {
  uint64_t bits = 0, symbols = 0;  // bits in 1/65536
  for (uint32_t count : counts) {
    if (count == 0) continue;
    bits += count * (Log2Fixed(total) - Log2Fixed(count));
    ++symbols;
  }
  return (bits >> 19) + 3 * symbols + 17;
}

// Whether zstd finds what single bytes do not show: repetitions. Tells from two samples.
bool RepeatsItself(std::span<const uint8_t> plane, uint64_t otherwise) {
  if (plane.size() <= 2 * kSample) return true;
  size_t size = Compress(plane.first(kSample)).size() + Compress(plane.subspan(plane.size() / 2, kSample)).size();
  return size * plane.size() < otherwise * 2 * kSample / 100 * 97;
}

Status DecodeAnsPlane(std::string_view bytes, std::span<uint8_t> plane) {
  ByteReader in(bytes);
  size_t symbols = size_t{in.U8()} + 1;
  AnsTable table;
  uint32_t slot = 0;
  for (size_t i = 0; i < symbols; ++i) {
    uint8_t symbol = in.U8();
    uint32_t frequency = in.U16();
    if (frequency == 0 || frequency >= kAnsTotal || frequency > kAnsTotal - slot) return Corrupt("a byte plane's frequencies are wrong");
    for (uint32_t k = 0; k < frequency; ++k) table[slot++] = symbol | frequency << 8 | k << 20;
  }
  if (slot != kAnsTotal || in.bad()) return Corrupt("a byte plane's frequencies are wrong");
  AnsDecoder decoder(in.Take(in.left()));
  size_t i = 0, n = plane.size();
  for (; i + 4 <= n; i += 4) {
    for (size_t lane = 0; lane < 4; ++lane) plane[i + lane] = decoder.Next(table, lane);
  }
  for (; i < n; ++i) plane[i] = decoder.Next(table, i & 3);
  return decoder.Finished() ? Ok() : Status(Corrupt("a byte plane is damaged"));
}

}  // namespace

std::string AnsEncode(std::span<const AnsInterval> symbols) {
  AnsStates states = FirstStates();
  // At most one word per symbol; the decoder reads them backwards.
  std::vector<uint16_t> words(symbols.size());
  size_t at = words.size();
  Push(states, symbols, [&](uint16_t word) { words[--at] = word; });
  std::string out;
  AppendAnsString(out, states, std::span(words).subspan(at));
  return out;
}

AnsDecoder::AnsDecoder(std::string_view bytes) {
  ByteReader in(bytes);
  for (uint32_t& state : states_) {
    state = in.U32();
    // A state below the low end never comes from an encoder and would ask for more than one word.
    if (state < kAnsLow) overrun_ = true;
  }
  overrun_ = overrun_ || in.bad();
  std::string_view rest = in.Take(in.left());
  next_ = reinterpret_cast<const uint8_t*>(rest.data());
  end_ = next_ + rest.size();
}

bool AnsDecoder::Finished() const {
  return !overrun_ && next_ == end_ && std::all_of(states_.begin(), states_.end(), [](uint32_t x) { return x == kAnsLow; });
}

std::string_view ByteReader::Take(size_t size) {
  if (size > bytes_.size()) {
    bad_ = true;
    size = bytes_.size();
  }
  std::string_view taken = bytes_.substr(0, size);
  bytes_.remove_prefix(size);
  return taken;
}

uint64_t ByteReader::Number(size_t size) {
  std::string_view bytes = Take(size);
  uint64_t value = 0;
  if (bytes.size() == size) std::memcpy(&value, bytes.data(), size);
  return value;
}

void AppendLittleEndian(std::string& out, uint64_t value, size_t size) { out.append(reinterpret_cast<const char*>(&value), size); }

void EncodePlane(std::string& out, std::span<const uint8_t> plane) {
  ByteCounts counts = CountsOf(plane);
  auto symbols = std::count_if(counts.begin(), counts.end(), [](uint32_t c) { return c > 0; });
  if (symbols <= 1) {
    out.push_back(kConstant);
    out.push_back(plane.empty() ? '\0' : static_cast<char>(plane[0]));
    return;
  }
  uint64_t ans = AnsEstimate(counts, plane.size()), best = std::min<uint64_t>(ans, plane.size());
  std::string coded;
  Method method = kRaw;
  if (RepeatsItself(plane, best)) {
    coded = Compress(plane);
    if (coded.size() < best) method = kZstd;
  }
  if (method == kRaw && ans < plane.size()) {
    coded = EncodeAnsPlane(plane, counts);
    if (coded.size() < plane.size()) method = kAns;
  }
  out.push_back(static_cast<char>(method));
  if (method == kRaw) {
    out.append(reinterpret_cast<const char*>(plane.data()), plane.size());
    return;
  }
  AppendLittleEndian(out, coded.size(), 4);
  out += coded;
}

void EncodeLongPlane(std::string& out, size_t size, const ByteCounts& counts, const PlaneSource& source) {
  constexpr size_t kPart = 1 << 18;  // a multiple of 4
  AnsModel model = ModelOf(counts, size);
  AnsStates states = FirstStates();
  std::vector<uint16_t> words;
  std::vector<uint8_t> part;
  for (size_t end = size; end > 0; end -= part.size()) {
    size_t first = (end - 1) / kPart * kPart;
    part.resize(end - first);
    source(first, part);
    Push(states, SequenceOf(part, model), [&](uint16_t word) { words.push_back(word); });
  }
  std::reverse(words.begin(), words.end());
  out.push_back(kAns);
  AppendLittleEndian(out, model.table.size() + sizeof states + 2 * words.size(), 4);
  out += model.table;
  AppendAnsString(out, states, words);
}

Status DecodePlane(ByteReader& in, std::span<uint8_t> plane) {
  uint8_t method = in.U8();
  if (method == kConstant) {
    std::memset(plane.data(), in.U8(), plane.size());
    return in.bad() ? Status(Corrupt("a byte plane ends early")) : Ok();
  }
  size_t length = method == kRaw ? plane.size() : in.U32();
  std::string_view bytes = in.Take(length);
  if (in.bad()) return Corrupt("a byte plane ends early");
  switch (method) {
    case kRaw: std::memcpy(plane.data(), bytes.data(), bytes.size()); return Ok();
    case kZstd: {
      size_t got = ZSTD_decompress(plane.data(), plane.size(), bytes.data(), bytes.size());
      return ZSTD_isError(got) || got != plane.size() ? Status(Corrupt("a compressed byte plane is damaged")) : Ok();
    }
    case kAns: return DecodeAnsPlane(bytes, plane);
    default: return Error{ErrorCode::kVersion, "a byte plane is coded in a way that is not known to this version"};
  }
}

uint64_t Log2Fixed(uint64_t n) {
  CHECK(n > 0);
  auto whole = static_cast<uint64_t>(std::bit_width(n) - 1);
  // The fraction, bit by bit: squaring doubles the logarithm.
  uint64_t mantissa = whole >= 31 ? n >> (whole - 31) : n << (31 - whole);  // in [1, 2) · 2^31
  uint64_t fraction = 0;
  for (int bit = 0; bit < 16; ++bit) {
    mantissa = mantissa * mantissa >> 31;
    fraction <<= 1;
    if (mantissa >> 32 != 0) {
      mantissa >>= 1;
      fraction |= 1;
    }
  }
  return whole << 16 | fraction;
}

uint64_t BinaryEntropyBits(uint64_t ones, uint64_t n) {
  uint64_t zeros = n - ones;
  if (ones == 0 || zeros == 0) return 0;
  auto part = [n](uint64_t count) { return count * (Log2Fixed(n) - Log2Fixed(count)); };
  return (part(ones) + part(zeros)) >> 16;
}

}  // namespace pare::storage
