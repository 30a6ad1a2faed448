#include "worker/engine/sparse_matrix.h"

#include "common/check.h"
#include "common/simd.h"

namespace pare::engine {
namespace {

// 16 floats at any address: one register of AVX-512, two of AVX2.
typedef float Lane __attribute__((vector_size(64), aligned(4), may_alias));
constexpr int64_t kLane = 16, kTile = 64;  // samples

struct Rows {
  const int64_t* starts;
  const int32_t* indices;
  const float* values;
  const float* bias;  // or null
  int64_t rows;
};

// Samples [0, 64) of a tile that starts at xt and yt.
PARE_CLONES void MultiplyTile(const Rows& m, const float* xt, int64_t batch, float* yt) {
  for (int64_t r = 0; r < m.rows; ++r) {
    float start = m.bias == nullptr ? 0.0f : m.bias[r];
    Lane a = Lane{} + start, b = a, c = a, d = a;
    for (int64_t i = m.starts[r], end = m.starts[r + 1]; i < end; ++i) {
      const auto* x = reinterpret_cast<const Lane*>(xt + m.indices[i] * batch);
      float w = m.values[i];
      a += w * x[0];
      b += w * x[1];
      c += w * x[2];
      d += w * x[3];
    }
    auto* y = reinterpret_cast<Lane*>(yt + r * batch);
    y[0] = a;
    y[1] = b;
    y[2] = c;
    y[3] = d;
  }
}

// Samples [0, 16).
PARE_CLONES void MultiplyLane(const Rows& m, const float* xt, int64_t batch, float* yt) {
  for (int64_t r = 0; r < m.rows; ++r) {
    Lane a = Lane{} + (m.bias == nullptr ? 0.0f : m.bias[r]);
    for (int64_t i = m.starts[r], end = m.starts[r + 1]; i < end; ++i) a += m.values[i] * *reinterpret_cast<const Lane*>(xt + m.indices[i] * batch);
    *reinterpret_cast<Lane*>(yt + r * batch) = a;
  }
}

// Samples [0, 32).
PARE_CLONES void MultiplyPair(const Rows& m, const float* xt, int64_t batch, float* yt) {
  for (int64_t r = 0; r < m.rows; ++r) {
    Lane a = Lane{} + (m.bias == nullptr ? 0.0f : m.bias[r]), b = a;
    for (int64_t i = m.starts[r], end = m.starts[r + 1]; i < end; ++i) {
      const auto* x = reinterpret_cast<const Lane*>(xt + m.indices[i] * batch);
      float w = m.values[i];
      a += w * x[0];
      b += w * x[1];
    }
    auto* y = reinterpret_cast<Lane*>(yt + r * batch);
    y[0] = a;
    y[1] = b;
  }
}

// The last few samples. Fused as the compiler fuses the lanes' multiply-adds.
PARE_CLONES void MultiplySamples(const Rows& m, const float* xt, int64_t batch, int64_t samples, float* yt) {
  for (int64_t r = 0; r < m.rows; ++r) {
    for (int64_t s = 0; s < samples; ++s) {
      float sum = m.bias == nullptr ? 0.0f : m.bias[r];
      for (int64_t i = m.starts[r], end = m.starts[r + 1]; i < end; ++i) sum += m.values[i] * xt[m.indices[i] * batch + s];
      yt[r * batch + s] = sum;
    }
  }
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
  for (; first + kTile <= batch; first += kTile) MultiplyTile(m, xt + first, batch, yt + first);
  for (; first + 2 * kLane <= batch; first += 2 * kLane) MultiplyPair(m, xt + first, batch, yt + first);
  for (; first + kLane <= batch; first += kLane) MultiplyLane(m, xt + first, batch, yt + first);
  if (first < batch) MultiplySamples(m, xt + first, batch, batch - first, yt + first);
}

}  // namespace pare::engine
