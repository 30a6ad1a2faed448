// Entropy coder and byte planes: inverse on everything, close to the entropy, safe on anything.
#include "storage/byte_coder.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/storage/files.h"

namespace pare::storage {
namespace {

std::span<const uint8_t> PlaneOf(const std::string& bytes) { return {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}; }

std::string Encoded(const std::string& bytes) {
  std::string out;
  EncodePlane(out, PlaneOf(bytes));
  return out;
}

Result<std::string> Decoded(const std::string& coded, size_t size) {
  std::string plane(size, '\x5A');
  ByteReader in(coded);
  TRY(DecodePlane(in, {reinterpret_cast<uint8_t*>(plane.data()), size}));
  if (in.left() != 0) return Error{ErrorCode::kCorrupt, "bytes are left"};
  return plane;
}

// Bytes drawn independently with the given weights of 0, 1, 2, …
std::string Drawn(size_t size, const std::vector<double>& weights, uint64_t seed) {
  RandomStream random(seed, RandomPurpose::kTest);
  double total = 0;
  for (double w : weights) total += w;
  std::string bytes(size, '\0');
  for (char& byte : bytes) {
    double at = random.Uniform() * total;
    size_t s = 0;
    while (s + 1 < weights.size() && at >= weights[s]) at -= weights[s++];
    byte = static_cast<char>(s);
  }
  return bytes;
}

double EntropyBits(const std::vector<double>& weights) {
  double total = 0, bits = 0;
  for (double w : weights) total += w;
  for (double w : weights) bits -= w > 0 ? w / total * std::log2(w / total) : 0;
  return bits;
}

std::vector<double> Geometric(size_t symbols, double ratio) {
  std::vector<double> weights(symbols, 1.0);
  for (size_t i = 1; i < symbols; ++i) weights[i] = weights[i - 1] * ratio;
  return weights;
}

TEST(BytePlaneTest, EveryPlaneComesBack) {
  std::vector<std::string> planes = {"", "a", std::string(1000, '\0'), std::string(70'000, '\xFF'), "ab", RandomBytes(1, 1), RandomBytes(65'537, 2)};
  for (size_t size : {2ul, 3ul, 4ul, 5ul, 17ul, 1000ul, 20'000ul, 262'144ul}) {
    planes.push_back(Drawn(size, Geometric(256, 0.9), size));
    planes.push_back(Drawn(size, Geometric(2, 0.001), size));
    planes.push_back(std::string(size - 1, 'x') + 'y');
  }
  std::string text;
  while (text.size() < 50'000) text += "a plane that repeats itself " + std::to_string(text.size() / 1000);
  planes.push_back(text);
  for (const std::string& plane : planes) {
    auto back = Decoded(Encoded(plane), plane.size());
    ASSERT_TRUE(back.ok()) << back.error().message << ", size " << plane.size();
    EXPECT_TRUE(*back == plane) << plane.size();
  }
}

TEST(BytePlaneTest, IndependentBytesTakeTheirEntropy) {
  for (double ratio : {0.05, 0.3, 0.6, 0.8, 0.95}) {
    std::vector<double> weights = Geometric(200, ratio);
    std::string plane = Drawn(262'144, weights, 3);
    double floor = EntropyBits(weights) / 8 * static_cast<double>(plane.size());
    EXPECT_LE(static_cast<double>(Encoded(plane).size()), 1.01 * floor + 700) << ratio;  // 700: the table of frequencies
  }
}

TEST(BytePlaneTest, RandomBytesCostNothingExtra) { EXPECT_EQ(Encoded(RandomBytes(100'000, 5)).size(), 100'001u); }

TEST(BytePlaneTest, RepetitionsAreFound) {
  std::string once = RandomBytes(3000, 6), plane;
  for (int i = 0; i < 40; ++i) plane += once;
  EXPECT_LT(Encoded(plane).size(), 2 * once.size());
}

TEST(BytePlaneTest, EveryTruncationIsAnError) {
  for (const std::string& plane : {Drawn(500, Geometric(20, 0.5), 1), RandomBytes(50, 1), std::string(9, 'a'), std::string("abcabcabcabcabcabcabcabcabcabcabc")}) {
    std::string coded = Encoded(plane);
    for (size_t size = 0; size < coded.size(); ++size) EXPECT_FALSE(Decoded(coded.substr(0, size), plane.size()).ok()) << size << " of " << coded.size();
    EXPECT_FALSE(Decoded(coded + "x", plane.size()).ok());
  }
}

TEST(BytePlaneTest, APlaneOfAnotherSizeIsAnError) {
  std::string plane = Drawn(1000, Geometric(20, 0.5), 1), coded = Encoded(plane);
  for (size_t size : {0ul, 999ul, 1001ul, 4000ul}) EXPECT_FALSE(Decoded(coded, size).ok()) << size;
}

TEST(BytePlaneTest, AnyBytesAreSafe) {
  RandomStream random(8, RandomPurpose::kTest);
  std::string good = Encoded(Drawn(300, Geometric(20, 0.5), 1));
  for (int i = 0; i < 20'000; ++i) {
    std::string coded = i % 2 == 0 ? good : RandomBytes(random.Below(80), static_cast<uint64_t>(i));
    for (uint64_t n = random.Below(4); n > 0 && !coded.empty(); --n) coded[random.Below(coded.size())] = static_cast<char>(random.Bits());
    if (!coded.empty() && i % 4 == 1) coded[0] = 2;
    (void)Decoded(coded, 300);
  }
}

TEST(BytePlaneTest, ALongPlaneHasTheBytesOfOneInMemory) {
  for (size_t size : {2000ul, 262'143ul, 262'144ul, 262'145ul, 600'001ul}) {
    std::string plane = Drawn(size, Geometric(4, 0.3), 1), coded = Encoded(plane), long_coded;
    ASSERT_EQ(coded[0], 2) << "not ANS: this test compares nothing";
    ByteCounts counts{};
    for (char byte : plane) ++counts[static_cast<uint8_t>(byte)];
    size_t largest = 0, expected_end = size;
    EncodeLongPlane(long_coded, size, counts, [&](size_t first, std::span<uint8_t> bytes) {
      EXPECT_EQ(first + bytes.size(), expected_end);
      expected_end = first;
      largest = std::max(largest, bytes.size());
      std::memcpy(bytes.data(), plane.data() + first, bytes.size());
    });
    EXPECT_TRUE(long_coded == coded) << size;
    EXPECT_EQ(expected_end, 0u);
    EXPECT_LE(largest, 262'144u);
  }
}

TEST(AnsTest, SymbolsOfAnyFrequencyComeBack) {
  // Each of 2 … 4095 slots, in turn with the rest.
  for (uint32_t frequency : {1u, 2u, 15u, 16u, 2048u, 4094u, 4095u}) {
    AnsTable table;
    for (uint32_t slot = 0; slot < kAnsTotal; ++slot) {
      bool second = slot >= frequency;
      table[slot] = second | (second ? kAnsTotal - frequency : frequency) << 8 | (second ? slot - frequency : slot) << 20;
    }
    RandomStream random(frequency, RandomPurpose::kTest);
    std::vector<uint8_t> symbols(5000);
    std::vector<AnsInterval> sequence;
    for (uint8_t& s : symbols) {
      s = static_cast<uint8_t>(random.Below(2));
      sequence.push_back(s == 0 ? AnsInterval{0, static_cast<uint16_t>(frequency)}
                                : AnsInterval{static_cast<uint16_t>(frequency), static_cast<uint16_t>(kAnsTotal - frequency)});
    }
    std::string coded = AnsEncode(sequence);
    AnsDecoder decoder(coded);
    for (size_t i = 0; i < symbols.size(); ++i) ASSERT_EQ(decoder.Next(table, i & 3), symbols[i]) << frequency << " " << i;
    EXPECT_TRUE(decoder.Finished());
  }
}

TEST(FixedLogTest, IsTheLogarithm) {
  for (uint64_t n : {1ul, 2ul, 3ul, 5ul, 1000ul, 65'535ul, 1ul << 31, (1ul << 33) + 12345, 1ul << 40, ~0ul}) {
    EXPECT_NEAR(static_cast<double>(Log2Fixed(n)) / 65536, std::log2(static_cast<double>(n)), 1e-4) << n;
  }
  auto h = [](double p) { return -p * std::log2(p) - (1 - p) * std::log2(1 - p); };
  EXPECT_NEAR(static_cast<double>(BinaryEntropyBits(100'000, 1'000'000)), 1e6 * h(0.1), 100);
  EXPECT_EQ(BinaryEntropyBits(0, 10), 0u);
  EXPECT_EQ(BinaryEntropyBits(10, 10), 0u);
}

}  // namespace
}  // namespace pare::storage
