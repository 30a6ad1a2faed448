// NF4: weights in 4 bits, blocks of 64 values with a scale each, the scales themselves in 8 bits (Dettmers et al. 2023, "QLoRA:
// Efficient Finetuning of Quantized LLMs", section 3: 4-bit NormalFloat, double quantization).
//
// A value is scale · level[code]: scale is the largest magnitude of its block, `level` the 16 quantiles of the paper's
// appendix E; zero is a level, so removed weights stay exactly zero. Codes are stored two a byte, the first value in the
// high half (as bitsandbytes does). Double quantization: scale = center + q · step with q in −127 … 127, one step for
// every 256 scales, and `center` the mean of all scales. (The paper stores q as an 8-bit float with a table of its own;
// evenly spaced q have half the error on scales that differ by less than a factor of four, which those of one tensor do.)
// Bits per weight: 4 + 8/64 + 32/(64 · 256) = 4.127; with float32 scales 4.5.
//
// Pure functions on plain values, no thread rule.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "model/tensor.h"

namespace pare::model {

inline constexpr std::array<float, 16> kNf4Levels = {
    -1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f, -0.18477343022823334f,
    -0.09105003625154495f, 0.0f, 0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
    0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f};
inline constexpr int kNf4Zero = 7;  // the code of zero
inline constexpr int64_t kScalesPerStep = 256;

// Sizes of the parts for `elements` values in blocks of `block`.
struct Nf4Sizes {
  int64_t codes = 0;   // bytes
  int64_t blocks = 0;  // scales
  int64_t steps = 0;   // of double quantization
};
Nf4Sizes Nf4SizesOf(int64_t elements, int64_t block);

// The parts of one tensor. Without double quantization `scales` is F32 [blocks] and `steps` has no elements to speak of:
// it is absent.
struct Nf4 {
  Tensor codes;   // U8 [codes]
  Tensor scales;  // I8 [blocks] (double quantization) or F32 [blocks]
  Tensor steps;   // F32 [steps + 1]: the steps, then the center. Only with double quantization
};
// Each value to the nearest level, ties to the lower; scales to nearest. REQUIRES: block is even; finite values.
Nf4 EncodeNf4(std::span<const float> values, int64_t block, bool double_quantization);

// Values [first, first + out.size()), e.g. a row of a matrix. The scales are worked out on the way.
// REQUIRES: parts of the sizes above.
void DecodeNf4(const Nf4& parts, int64_t block, int64_t first, std::span<float> out);

}  // namespace pare::model
