#include "worker/engine/sparse_matrix.h"

#include <gtest/gtest.h>

#include <cmath>

#include "common/random.h"

namespace pare::engine {
namespace {

std::vector<float> Numbers(size_t n, double density, uint64_t seed) {
  RandomStream stream(seed, RandomPurpose::kTest);
  std::vector<float> out(n);
  for (float& v : out) {
    double value = stream.Normal();
    v = stream.Uniform() < density ? static_cast<float>(value) : 0.0f;
  }
  return out;
}

TEST(SparseMatrixTest, EqualsTheDenseProductForAnyBatch) {
  constexpr int64_t kRows = 13, kColumns = 37;
  std::vector<float> w = Numbers(kRows * kColumns, 0.2, 1), bias = Numbers(kRows, 1, 2);
  SparseMatrix matrix(w, kRows, kColumns);
  int64_t nonzeros = 0;
  for (float v : w) nonzeros += v != 0.0f;
  EXPECT_EQ(matrix.nonzeros(), nonzeros);
  // Every tile width, several of them, and what is left over; an odd address too.
  for (int64_t batch : {1, 7, 8, 16, 31, 33, 64, 100, 128, 200, 333}) {
    std::vector<float> xt = Numbers(static_cast<size_t>(kColumns * batch) + 1, 1, 3), yt(static_cast<size_t>(kRows * batch) + 1);
    for (bool with_bias : {true, false}) {
      matrix.Multiply(xt.data() + 1, with_bias ? std::span<const float>(bias) : std::span<const float>(), batch, yt.data() + 1);
      for (int64_t r = 0; r < kRows; ++r) {
        for (int64_t s = 0; s < batch; ++s) {
          double sum = with_bias ? bias[static_cast<size_t>(r)] : 0.0;
          for (int64_t c = 0; c < kColumns; ++c) {
            sum += static_cast<double>(w[static_cast<size_t>(r * kColumns + c)]) * xt[static_cast<size_t>(1 + c * batch + s)];
          }
          ASSERT_NEAR(yt[static_cast<size_t>(1 + r * batch + s)], sum, 1e-5) << "batch " << batch << ", row " << r << ", sample " << s;
        }
      }
    }
  }
}

TEST(SparseMatrixTest, RowsWithoutWeightsGiveTheBias) {
  std::vector<float> w(3 * 4, 0.0f), bias = {1.0f, -2.0f, 0.5f}, x(4 * 40, 9.0f), y(3 * 40);
  SparseMatrix(w, 3, 4).Multiply(x.data(), bias, 40, y.data());
  for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(y[i], bias[i / 40]);
}

TEST(SparseMatrixTest, WideLayersUseNarrowTilesWithTheSameResult) {
  // More columns than a tile of 64 samples of them would fit into the cache.
  constexpr int64_t kRows = 3, kColumns = 5000, kBatch = 70;
  std::vector<float> w = Numbers(kRows * kColumns, 0.02, 4), xt = Numbers(kColumns * kBatch, 1, 5), yt(kRows * kBatch);
  SparseMatrix(w, kRows, kColumns).Multiply(xt.data(), {}, kBatch, yt.data());
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t s = 0; s < kBatch; ++s) {
      double sum = 0;
      for (int64_t c = 0; c < kColumns; ++c) sum += static_cast<double>(w[static_cast<size_t>(r * kColumns + c)]) * xt[static_cast<size_t>(c * kBatch + s)];
      ASSERT_NEAR(yt[static_cast<size_t>(r * kBatch + s)], sum, 1e-4);
    }
  }
}

}  // namespace
}  // namespace pare::engine
