#include "common/random.h"

#include <cmath>
#include <numbers>
#include <numeric>

#include "common/check.h"

namespace pare {
namespace {

// Folds the stream's indices into 64 bits (splitmix64 finalizer, applied per word): nearby indices give unrelated values.
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
  constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
  for (int round = 0; round < 10; ++round) {
    uint64_t product0 = uint64_t{kMultiplier0} * counter[0];
    uint64_t product1 = uint64_t{kMultiplier1} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<uint32_t>(product0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

RandomStream::RandomStream(uint64_t seed, RandomPurpose purpose, uint64_t a, uint64_t b, uint64_t c) {
  uint64_t key = Mix(seed ^ Mix(static_cast<uint64_t>(purpose)));
  key_ = {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)};
  high_ = Mix(Mix(Mix(a) ^ b) ^ c);
}

std::array<uint32_t, 4> RandomStream::Block(uint64_t i) const {
  return Philox4x32({static_cast<uint32_t>(i), static_cast<uint32_t>(i >> 32),
                     static_cast<uint32_t>(high_), static_cast<uint32_t>(high_ >> 32)},
                    key_);
}

uint32_t RandomStream::Bits() {
  if (used_ == 4) {
    words_ = Block(next_block_++);
    used_ = 0;
  }
  return words_[used_++];
}

double RandomStream::Uniform() {
  uint64_t high = Bits() >> 5, low = Bits() >> 6;
  return static_cast<double>(high << 26 | low) * 0x1.0p-53;
}

uint64_t RandomStream::Below(uint64_t n) {
  CHECK(n > 0);
  // Rejection keeps every value equally likely; the number of draws depends on the stream only.
  uint64_t limit = UINT64_MAX - UINT64_MAX % n;
  uint64_t x;
  do {
    x = uint64_t{Bits()} << 32 | Bits();
  } while (x >= limit);
  return x % n;
}

double RandomStream::Normal() {
  double u = 1.0 - Uniform(), v = Uniform();
  return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
}

std::vector<uint32_t> Permutation(RandomStream stream, uint32_t n) {
  std::vector<uint32_t> order(n);
  std::iota(order.begin(), order.end(), 0u);
  for (uint32_t i = n; i > 1; --i) std::swap(order[i - 1], order[stream.Below(i)]);
  return order;
}

}  // namespace pare
