// Compiled with -ffp-contract=off: decoded weights have the same bits everywhere.
#include "model/nf4.h"

#include <algorithm>
#include <cmath>

namespace pare::model {
namespace {

int64_t Groups(int64_t n, int64_t each) { return (n + each - 1) / each; }

// Halfway between neighbours.
std::array<float, 15> Boundaries() {
  std::array<float, 15> b{};
  for (size_t i = 0; i < b.size(); ++i) b[i] = (kNf4Levels[i] + kNf4Levels[i + 1]) / 2;
  return b;
}

uint8_t CodeOf(float value) {
  static const std::array<float, 15> boundaries = Boundaries();
  return static_cast<uint8_t>(std::lower_bound(boundaries.begin(), boundaries.end(), value) - boundaries.begin());
}

// Scale of block b, as decoding sees it.
float ScaleOf(const Nf4& parts, int64_t b) {
  auto i = static_cast<size_t>(b);
  if (parts.scales.dtype() == DType::kF32) return parts.scales.values<float>()[i];
  auto steps = parts.steps.values<float>();
  return std::max(0.0f, steps.back() + static_cast<float>(parts.scales.values<int8_t>()[i]) * steps[i / kScalesPerStep]);
}

void QuantizeScales(std::span<const float> scales, Nf4& parts) {
  auto n = static_cast<int64_t>(scales.size()), groups = Groups(n, kScalesPerStep);
  parts.scales = Tensor(DType::kI8, {n});
  parts.steps = Tensor(DType::kF32, {groups + 1});
  auto q = parts.scales.mutable_values<int8_t>();
  auto steps = parts.steps.mutable_values<float>();
  double sum = 0;
  for (float s : scales) sum += s;
  float center = static_cast<float>(sum / static_cast<double>(n));
  steps.back() = center;
  for (size_t g = 0; g < static_cast<size_t>(groups); ++g) {
    auto group = scales.subspan(g * kScalesPerStep, std::min<size_t>(kScalesPerStep, scales.size() - g * kScalesPerStep));
    float largest = 0;
    for (float s : group) largest = std::max(largest, std::abs(s - center));
    steps[g] = largest / 127.0f;
    for (size_t i = 0; i < group.size(); ++i) {
      float rounded = steps[g] > 0 ? std::nearbyint((group[i] - center) / steps[g]) : 0.0f;
      q[g * kScalesPerStep + i] = static_cast<int8_t>(std::clamp(rounded, -127.0f, 127.0f));
    }
  }
}

}  // namespace

Nf4Sizes Nf4SizesOf(int64_t elements, int64_t block) {
  int64_t blocks = Groups(elements, block);
  return {Groups(elements, 2), blocks, Groups(blocks, kScalesPerStep)};
}

Nf4 EncodeNf4(std::span<const float> values, int64_t block, bool double_quantization) {
  CHECK(block >= 2 && block % 2 == 0);
  Nf4Sizes sizes = Nf4SizesOf(static_cast<int64_t>(values.size()), block);
  Nf4 parts;
  parts.codes = Tensor(DType::kU8, {sizes.codes});
  auto width = static_cast<size_t>(block);
  std::vector<float> scales(static_cast<size_t>(sizes.blocks), 0.0f);
  for (size_t i = 0; i < values.size(); ++i) scales[i / width] = std::max(scales[i / width], std::abs(values[i]));
  if (double_quantization) QuantizeScales(scales, parts);
  else parts.scales = Tensor::Of<float>(DType::kF32, {sizes.blocks}, scales);
  auto codes = parts.codes.mutable_values<uint8_t>();
  for (size_t i = 0; i < values.size(); ++i) {
    // Against the scale that decoding will use. One that rounding took to zero or below holds nothing but zeros.
    float scale = ScaleOf(parts, static_cast<int64_t>(i / width));
    uint8_t code = CodeOf(scale > 0 ? values[i] / scale : 0.0f);
    codes[i / 2] = static_cast<uint8_t>(codes[i / 2] | (i % 2 == 0 ? code << 4 : code));
  }
  return parts;
}

void DecodeNf4(const Nf4& parts, int64_t block, int64_t first, std::span<float> out) {
  auto codes = parts.codes.values<uint8_t>();
  std::array<float, 16> scaled{};
  int64_t present = -1;
  for (size_t k = 0; k < out.size(); ++k) {
    int64_t i = first + static_cast<int64_t>(k);
    if (i / block != present) {
      present = i / block;
      float scale = ScaleOf(parts, present);
      for (size_t l = 0; l < scaled.size(); ++l) scaled[l] = scale * kNf4Levels[l];
    }
    uint8_t byte = codes[static_cast<size_t>(i / 2)];
    out[k] = scaled[i % 2 == 0 ? byte >> 4 : byte & 15];
  }
}

}  // namespace pare::model
