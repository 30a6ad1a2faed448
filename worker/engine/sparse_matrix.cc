#include "worker/engine/sparse_matrix.h"

#include "common/check.h"

namespace pare::engine {
namespace {

struct Rows {
  const int64_t* starts;
  const int32_t* indices;
  const float* values;
  const float* bias;  // or null
  int64_t rows;
};

// Samples [0, count) of a tile that starts at xt and yt.
void AnySamples(const Rows& m, const float* xt, int64_t batch, int64_t count, float* yt) {
  for (int64_t r = 0; r < m.rows; ++r) {
    float* y = yt + r * batch;
    for (int64_t s = 0; s < count; ++s) y[s] = m.bias == nullptr ? 0.0f : m.bias[r];
    for (int64_t i = m.starts[r], end = m.starts[r + 1]; i < end; ++i) {
      const float* x = xt + m.indices[i] * batch;
      float w = m.values[i];
      for (int64_t s = 0; s < count; ++s) y[s] += w * x[s];
    }
  }
}

#if defined(__x86_64__)

// A tile of LANES · COUNT samples, whose sums stay in COUNT registers. One text for all widths: a vector type only becomes
// one register in a function that is compiled for it, so neither a template nor target_clones would do.
#define PARE_SPARSE_TILE(NAME, TARGET, LANES, COUNT)                                                  \
  __attribute__((target(TARGET))) void NAME(const Rows& m, const float* xt, int64_t batch, float* yt) { \
    typedef float Register __attribute__((vector_size(4 * LANES)));                                   \
    typedef float Memory __attribute__((vector_size(4 * LANES), aligned(4), may_alias));              \
    for (int64_t r = 0; r < m.rows; ++r) {                                                            \
      Register sums[COUNT];                                                                           \
      float start = m.bias == nullptr ? 0.0f : m.bias[r];                                             \
      _Pragma("GCC unroll 8") for (int k = 0; k < COUNT; ++k) sums[k] = Register{} + start;           \
      for (int64_t i = m.starts[r], end = m.starts[r + 1]; i < end; ++i) {                            \
        const Memory* x = reinterpret_cast<const Memory*>(xt + m.indices[i] * batch);                 \
        float w = m.values[i];                                                                        \
        _Pragma("GCC unroll 8") for (int k = 0; k < COUNT; ++k) sums[k] += w * x[k];                  \
      }                                                                                               \
      Memory* y = reinterpret_cast<Memory*>(yt + r * batch); /* auto would forget the alignment */    \
      _Pragma("GCC unroll 8") for (int k = 0; k < COUNT; ++k) y[k] = sums[k];                         \
    }                                                                                                 \
  }
PARE_SPARSE_TILE(Avx512Of128, "avx512f", 16, 8)
PARE_SPARSE_TILE(Avx512Of64, "avx512f", 16, 4)
PARE_SPARSE_TILE(Avx512Of32, "avx512f", 16, 2)
PARE_SPARSE_TILE(Avx512Of16, "avx512f", 16, 1)
PARE_SPARSE_TILE(Avx2Of64, "avx2,fma", 8, 8)
PARE_SPARSE_TILE(Avx2Of32, "avx2,fma", 8, 4)
PARE_SPARSE_TILE(Avx2Of16, "avx2,fma", 8, 2)
PARE_SPARSE_TILE(Avx2Of8, "avx2,fma", 8, 1)
#undef PARE_SPARSE_TILE

#endif

// The samples of a tile, all features of them, should stay in the second-level cache while the rows pass. Narrower tiles than
// this do too little per weight.
constexpr int64_t kTileBytes = 448 << 10, kNarrow = 32;

// Tiles in falling order of width; what is left over is done by AnySamples.
struct Tile {
  int64_t width;
  void (*run)(const Rows&, const float* xt, int64_t batch, float* yt);
};

std::span<const Tile> TilesOfThisProcessor() {
#if defined(__x86_64__)
  static constexpr Tile kAvx512[] = {{128, Avx512Of128}, {64, Avx512Of64}, {32, Avx512Of32}, {16, Avx512Of16}, {8, Avx2Of8}};
  static constexpr Tile kAvx2[] = {{64, Avx2Of64}, {32, Avx2Of32}, {16, Avx2Of16}, {8, Avx2Of8}};
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("fma")) return kAvx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return kAvx2;
#endif
  return {};
}

}  // namespace

SparseMatrix::SparseMatrix(std::span<const float> weight, int64_t rows, int64_t columns) : rows_(rows), columns_(columns) {
  CHECK(static_cast<int64_t>(weight.size()) == rows * columns && columns < (int64_t{1} << 31));
  starts_.push_back(0);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      float w = weight[static_cast<size_t>(r * columns + c)];
      if (w == 0.0f) continue;
      indices_.push_back(static_cast<int32_t>(c));
      values_.push_back(w);
    }
    starts_.push_back(static_cast<int64_t>(values_.size()));
  }
}

void SparseMatrix::Multiply(const float* xt, std::span<const float> bias, int64_t batch, float* yt) const {
  Rows m{starts_.data(), indices_.data(), values_.data(), bias.empty() ? nullptr : bias.data(), rows_};
  int64_t first = 0;
  for (const Tile& tile : TilesOfThisProcessor()) {
    if (tile.width > kNarrow && tile.width * columns_ * 4 > kTileBytes) continue;
    for (; first + tile.width <= batch; first += tile.width) tile.run(m, xt + first, batch, yt + first);
  }
  if (first < batch) AnySamples(m, xt + first, batch, batch - first, yt + first);
}

}  // namespace pare::engine
