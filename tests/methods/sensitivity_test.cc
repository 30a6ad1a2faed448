#include "methods/sensitivity.h"

#include <gtest/gtest.h>

#include <cmath>

#include "common/random.h"

namespace pare::methods {
namespace {

model::Tensor RandomMatrix(int64_t rows, int64_t columns, uint64_t seed) {
  model::Tensor t(model::DType::kF32, {rows, columns});
  RandomStream stream(seed, RandomPurpose::kTest);
  for (float& v : t.mutable_values<float>()) v = static_cast<float>(stream.Normal());
  return t;
}

double Squared(const model::Tensor& a, const model::Tensor& b) {
  double sum = 0;
  for (size_t i = 0; i < a.values<float>().size(); ++i) sum += std::pow(static_cast<double>(a.values<float>()[i]) - b.values<float>()[i], 2);
  return sum;
}

TEST(SensitivityTest, TruncationKeepsTheEnergyAskedForAndNoMoreThanNeeded) {
  for (auto [rows, columns] : {std::pair<int64_t, int64_t>{7, 19}, {19, 7}, {6, 6}}) {
    model::Tensor w = RandomMatrix(rows, columns, 3), zero(model::DType::kF32, w.shape());
    double total = Squared(w, zero);
    int64_t before = 0;
    for (const Truncated& t : TruncatedTo(w, {0.3, 0.6, 0.9, 1.0})) {
      // Eckart–Young: what is missing is exactly the energy of the singular values left out.
      EXPECT_NEAR(Squared(t.weight, zero) + Squared(w, t.weight), total, 1e-4 * total);
      EXPECT_GT(t.rank, before);
      before = t.rank;
    }
    std::vector<Truncated> all = TruncatedTo(w, {0.5, 1.0});
    EXPECT_GE(Squared(all[0].weight, zero), 0.5 * total - 1e-4);
    EXPECT_LT(Squared(w, all[1].weight), 1e-8 * total);
  }
}

TEST(SensitivityTest, FindsTheRankOfAProduct) {
  model::Tensor a = RandomMatrix(9, 3, 1), b = RandomMatrix(3, 12, 2), w(model::DType::kF32, {9, 12});
  for (size_t r = 0; r < 9; ++r) {
    for (size_t c = 0; c < 12; ++c) {
      for (size_t k = 0; k < 3; ++k) w.mutable_values<float>()[r * 12 + c] += a.values<float>()[r * 3 + k] * b.values<float>()[k * 12 + c];
    }
  }
  EXPECT_EQ(TruncatedTo(w, {1 - 1e-9})[0].rank, 3);
}

TEST(SensitivityTest, RoundingMovesAWeightByAtMostHalfAStepOfItsRow) {
  model::Tensor w = RandomMatrix(5, 40, 4);
  for (int64_t bits : {2, 4, 8}) {
    model::Tensor rounded = Rounded(w, bits);
    for (size_t r = 0; r < 5; ++r) {
      float largest = 0;
      for (size_t c = 0; c < 40; ++c) largest = std::max(largest, std::abs(w.values<float>()[r * 40 + c]));
      double step = largest / (std::pow(2, bits - 1) - 1);
      for (size_t c = 0; c < 40; ++c) {
        float x = w.values<float>()[r * 40 + c], y = rounded.values<float>()[r * 40 + c];
        EXPECT_LE(std::abs(static_cast<double>(x) - y), step / 2 * 1.0001);
        EXPECT_NEAR(y / step, std::nearbyint(y / step), 1e-3);
      }
    }
  }
}

TEST(SensitivityTest, SparseningTakesTheSmallestAndCountsWhatIsGone) {
  std::vector<float> values = {3, -1, 2, 0, -4, 5, 0.5f, -2.5f};
  model::Tensor w = model::Tensor::Of<float>(model::DType::kF32, {2, 4}, values);
  auto out = Sparsified(w, 0.5, nullptr);
  EXPECT_EQ(std::vector<float>(out.values<float>().begin(), out.values<float>().end()), (std::vector<float>{3, 0, 0, 0, -4, 5, 0, -2.5f}));
  model::Mask mask({2, 4}, std::vector<uint8_t>{0, 0, 1, 1, 1, 1, 1, 1});
  out = Sparsified(w, 0.5, &mask);
  EXPECT_EQ(std::vector<float>(out.values<float>().begin(), out.values<float>().end()), (std::vector<float>{0, 0, 2, 0, -4, 5, 0, -2.5f}));
}

}  // namespace
}  // namespace pare::methods
