// The training path's reading side: compiled with -O3. Every output element is one multiply and one subtract of its input,
// so bits do not depend on how rows are grouped.
#include <algorithm>

#include "common/random.h"
#include "common/simd.h"
#include "data/dataset.h"

namespace pare::data {
namespace {

struct Layout {
  size_t channels, height, width, sample;
};

Layout LayoutOf(const Split& split) {
  const auto& shape = split.samples.shape();
  size_t sample = 1;
  for (size_t i = 1; i < shape.size(); ++i) sample *= static_cast<size_t>(shape[i]);
  if (shape.size() == 4) return {static_cast<size_t>(shape[1]), static_cast<size_t>(shape[2]), static_cast<size_t>(shape[3]), sample};
  return {1, 1, sample, sample};
}

// value = raw · a + b per channel.
struct Affine {
  float a, b;
};
Affine ChannelAffine(const DataSpec& spec, size_t channel, bool bytes) {
  double unit = bytes ? 1.0 / 255.0 : 1.0;
  double scale = spec.scale.empty() ? 1.0 : spec.scale[channel], offset = spec.offset.empty() ? 0.0 : spec.offset[channel];
  return {static_cast<float>(unit * scale), static_cast<float>(-offset * scale)};
}

PARE_CLONES void Convert(const uint8_t* __restrict in, float* __restrict out, size_t n, Affine f) {
  for (size_t i = 0; i < n; ++i) out[i] = static_cast<float>(in[i]) * f.a + f.b;
}
PARE_CLONES void Convert(const float* __restrict in, float* __restrict out, size_t n, Affine f) {
  for (size_t i = 0; i < n; ++i) out[i] = in[i] * f.a + f.b;
}

// Rows are drawn from all over the dataset, which no hardware prefetcher foresees.
constexpr size_t kRowsAhead = 4, kCacheLine = 64;
void Prefetch(const void* row, size_t bytes) {
  const char* at = static_cast<const char*>(row);
  for (size_t i = 0; i < bytes; i += kCacheLine) __builtin_prefetch(at + i);
}

template <typename T>
void GatherRows(const Split& split, const DataSpec& spec, std::span<const uint32_t> rows, std::span<float> out, bool bytes) {
  Layout l = LayoutOf(split);
  CHECK(out.size() == rows.size() * l.sample);
  const T* data = split.samples.values<T>().data();
  size_t plane = l.sample / l.channels;
  for (size_t c = 0; c < l.channels; ++c) {
    Affine f = ChannelAffine(spec, c, bytes);
    for (size_t r = 0; r < rows.size(); ++r) {
      if (r + kRowsAhead < rows.size()) Prefetch(data + rows[r + kRowsAhead] * l.sample + c * plane, plane * sizeof(T));
      Convert(data + rows[r] * l.sample + c * plane, out.data() + r * l.sample + c * plane, plane, f);
    }
  }
}

void Augment(float* image, float* scratch, const Layout& l, bool flip, int64_t dy, int64_t dx) {
  auto h = static_cast<int64_t>(l.height), w = static_cast<int64_t>(l.width);
  for (size_t c = 0; c < l.channels; ++c) {
    float* plane = image + c * l.height * l.width;
    std::copy(plane, plane + h * w, scratch);
    for (int64_t y = 0; y < h; ++y) {
      for (int64_t x = 0; x < w; ++x) {
        int64_t sy = y - dy, sx = (flip ? w - 1 - x : x) - dx;
        plane[y * w + x] = sy >= 0 && sy < h && sx >= 0 && sx < w ? scratch[sy * w + sx] : 0.0f;
      }
    }
  }
}

}  // namespace

void Gather(const Split& split, const DataSpec& spec, std::span<const uint32_t> rows, std::span<float> out) {
  if (split.samples.dtype() == model::DType::kU8) GatherRows<uint8_t>(split, spec, rows, out, true);
  else GatherRows<float>(split, spec, rows, out, false);
}

void GatherAugmented(const Split& split, const DataSpec& spec, std::span<const uint32_t> rows, uint64_t seed, int64_t epoch,
                     std::span<float> out) {
  Gather(split, spec, rows, out);
  if (!spec.flip && spec.shift == 0) return;
  Layout l = LayoutOf(split);
  std::vector<float> scratch(l.height * l.width);
  for (size_t r = 0; r < rows.size(); ++r) {
    RandomStream stream(seed, RandomPurpose::kAugment, static_cast<uint64_t>(epoch), rows[r]);
    bool flip = spec.flip && (stream.Bits() & 1);
    uint64_t span = 2 * static_cast<uint64_t>(spec.shift) + 1;
    int64_t dy = static_cast<int64_t>(stream.Below(span)) - spec.shift, dx = static_cast<int64_t>(stream.Below(span)) - spec.shift;
    Augment(out.data() + r * l.sample, scratch.data(), l, flip, dy, dx);
  }
}

void GatherLabels(const Split& split, std::span<const uint32_t> rows, std::span<int64_t> out) {
  auto labels = split.labels.values<int64_t>();
  for (size_t i = 0; i < rows.size(); ++i) out[i] = labels[rows[i]];
}

}  // namespace pare::data
