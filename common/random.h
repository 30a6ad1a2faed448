// Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3",
// SC'11, section 3.3). A draw is a pure function of (seed, purpose, indices): no state to save in a snapshot, no order of
// calls to keep, the same on any thread or host.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace pare {

// What a stream is for: two purposes never share numbers. Values are part of every result: never renumber.
enum class RandomPurpose : uint32_t {
  kInitialize = 1,       // weights; index = parameter ordinal
  kShuffle = 2,          // sample order; index = epoch
  kDropout = 3,          // indices = epoch, batch, shard, node
  kAugment = 4,          // indices = epoch, sample
  kSplit = 5,            // train/validation split
  kPruneRandom = 6,      // random criterion; index = tensor ordinal
  kTest = 7,
  kCalibrate = 8,        // order of the training samples for calibration
  kLabels = 9,           // which training samples have a label that may be used
};

std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// A stream of draws addressed by position. Cheap to copy; not shared between threads while drawing.
class RandomStream {
 public:
  // Streams with different (seed, purpose, a, b, c) are independent.
  RandomStream(uint64_t seed, RandomPurpose purpose, uint64_t a = 0, uint64_t b = 0, uint64_t c = 0);

  // Four 32-bit words at block `i`.
  std::array<uint32_t, 4> Block(uint64_t i) const;

  uint32_t Bits();                  // next 32 bits
  double Uniform();                 // [0, 1), 53 bits
  uint64_t Below(uint64_t n);       // [0, n) without bias. REQUIRES: n > 0
  double Normal();                  // mean 0, deviation 1 (Box–Muller)

 private:
  std::array<uint32_t, 2> key_;
  uint64_t high_;  // the upper half of the counter: the sub-stream
  uint64_t next_block_ = 0;
  std::array<uint32_t, 4> words_{};
  int used_ = 4;
};

// A permutation of 0 … n−1 (Fisher–Yates on the stream).
std::vector<uint32_t> Permutation(RandomStream stream, uint32_t n);

}  // namespace pare
