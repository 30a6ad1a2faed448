#include "worker/engine/linalg.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/worker/engine/reference_values.h"

namespace pare::engine {
namespace {

using model::DType;
using model::Tensor;

constexpr double kPi = 3.14159265358979323846;

// Column k of the orthonormal DCT-II basis of length n.
double Dct(int64_t n, int64_t i, int64_t k) {
  return std::sqrt((k == 0 ? 1.0 : 2.0) / static_cast<double>(n)) * std::cos(kPi * (static_cast<double>(i) + 0.5) * static_cast<double>(k) / static_cast<double>(n));
}

// Σ sigma_k u_k v_kᵀ: its singular values are known.
Tensor Composed(int64_t rows, int64_t columns, const std::vector<double>& sigma) {
  Tensor w(DType::kF32, {rows, columns});
  auto values = w.mutable_values<float>();
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      double sum = 0;
      for (size_t k = 0; k < sigma.size(); ++k) sum += sigma[k] * Dct(rows, r, static_cast<int64_t>(k)) * Dct(columns, c, static_cast<int64_t>(k));
      values[static_cast<size_t>(r * columns + c)] = static_cast<float>(sum);
    }
  }
  return w;
}

std::vector<double> Falling(size_t n) {
  std::vector<double> sigma;
  for (size_t i = 0; i < n; ++i) sigma.push_back(3.0 * std::pow(0.7, static_cast<double>(i)));
  return sigma;
}

// Squared Frobenius norm of (W − up_r · down_r) · L; l empty: of W − up_r · down_r.
double Error2(const Tensor& w, const SpectrumResult& s, int64_t rank, const std::vector<double>& l = {}) {
  int64_t rows = w.shape()[0], columns = w.shape()[1], stored = s.up.shape()[1];
  double total = 0;
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<double> difference(static_cast<size_t>(columns));
    for (int64_t c = 0; c < columns; ++c) {
      double d = w.values<float>()[static_cast<size_t>(r * columns + c)];
      for (int64_t k = 0; k < rank; ++k) {
        d -= static_cast<double>(s.up.values<float>()[static_cast<size_t>(r * stored + k)]) * s.down.values<float>()[static_cast<size_t>(k * columns + c)];
      }
      difference[static_cast<size_t>(c)] = d;
    }
    for (int64_t c = 0; c < columns; ++c) {
      double d = l.empty() ? difference[static_cast<size_t>(c)] : 0;
      for (int64_t k = 0; k < columns && !l.empty(); ++k) d += difference[static_cast<size_t>(k)] * l[static_cast<size_t>(k * columns + c)];
      total += d * d;
    }
  }
  return total;
}

TEST(SpectraTest, EqualSingularValuesThatAreKnown) {
  for (auto [rows, columns] : {std::pair<int64_t, int64_t>{12, 20}, {20, 12}, {16, 16}}) {
    std::vector<double> sigma = Falling(12);
    auto result = *Spectra(std::vector<SpectrumJob>{{"w", Composed(rows, columns, sigma), {}, 12}}, 1);
    ASSERT_EQ(result[0].energies.size(), static_cast<size_t>(std::min(rows, columns)));
    for (size_t i = 0; i < sigma.size(); ++i) EXPECT_NEAR(std::sqrt(result[0].energies[i]), sigma[i], 1e-6) << i;
    for (size_t i = sigma.size(); i < result[0].energies.size(); ++i) EXPECT_NEAR(result[0].energies[i], 0, 1e-12);
  }
}

TEST(SpectraTest, FactorsOfEveryRankLoseTheRestOfTheEnergy) {
  for (auto [rows, columns] : {std::pair<int64_t, int64_t>{10, 17}, {17, 10}}) {
    Tensor w = Composed(rows, columns, Falling(10));
    auto result = *Spectra(std::vector<SpectrumJob>{{"w", w, {}, 8}}, 1);
    for (int64_t rank : {1, 3, 8}) {
      double rest = 0;
      for (size_t i = static_cast<size_t>(rank); i < 10; ++i) rest += result[0].energies[i];
      EXPECT_NEAR(Error2(w, result[0], rank), rest, 1e-6 * result[0].energies[0]) << rank;
    }
  }
}

TEST(SpectraTest, EqualTorchLinalgSvdPlainAndWhitened) {
  const Json stored = ReadReference("low_rank.json");
  for (const Json& reference : stored.at("spectra")) {
    model::Shape shape = reference["shape"];
    auto matrix = reference["matrix"].get<std::vector<float>>();
    auto covariance = reference["covariance"].get<std::vector<double>>();
    Tensor w = Tensor::Of<float>(DType::kF32, shape, matrix), c = Tensor::Of<double>(DType::kF64, {shape[1], shape[1]}, covariance);
    auto result = *Spectra(std::vector<SpectrumJob>{{"plain", w, {}, 0}, {"whitened", w, c, 0}}, 1);
    for (size_t which : {0, 1}) {
      auto expected = reference[which == 0 ? "plain" : "whitened"].get<std::vector<double>>();
      ASSERT_EQ(result[which].energies.size(), expected.size());
      for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(std::sqrt(result[which].energies[i]), expected[i], 1e-9 * expected[0]) << i;
    }
  }
}

// L with L·Lᵀ = c + ridge · mean(diagonal), by the textbook.
std::vector<double> CholeskyOf(const Tensor& c, double ridge) {
  auto n = static_cast<size_t>(c.shape()[0]);
  std::vector<double> a(c.values<double>().begin(), c.values<double>().end()), l(n * n, 0.0);
  double mean = 0;
  for (size_t i = 0; i < n; ++i) mean += a[i * n + i] / static_cast<double>(n);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      double sum = a[i * n + j] + (i == j ? ridge * mean : 0.0);
      for (size_t k = 0; k < j; ++k) sum -= l[i * n + k] * l[j * n + k];
      l[i * n + j] = i == j ? std::sqrt(sum) : sum / l[j * n + j];
    }
  }
  return l;
}

TEST(SpectraTest, WhitenedFactorsLoseLeastOfTheOutputs) {
  for (auto [rows, columns] : {std::pair<int64_t, int64_t>{6, 11}, {11, 6}}) {
    Tensor w = Composed(rows, columns, Falling(6));
    PatchForm form{{columns}};
    CovarianceSum sum(form);
    std::vector<float> x(static_cast<size_t>(40 * columns));
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(std::sin(1.1 * static_cast<double>(i * i % 97)) * (1.0 + static_cast<double>(i % static_cast<size_t>(columns))));
    sum.Add(x, 40);
    auto result = *Spectra(std::vector<SpectrumJob>{{"w", w, sum.Mean(), 5}, {"w", w, {}, 5}}, 2);
    EXPECT_EQ(result[0].ridge, kRidge);
    std::vector<double> l = CholeskyOf(sum.Mean(), kRidge);
    for (int64_t rank : {1, 2, 5}) {
      double rest = 0;
      for (size_t i = static_cast<size_t>(rank); i < 6; ++i) rest += result[0].energies[i];
      EXPECT_NEAR(Error2(w, result[0], rank, l), rest, 1e-5 * result[0].energies[0]) << rank;
      EXPECT_LE(Error2(w, result[0], rank, l), Error2(w, result[1], rank, l)) << "no better than the plain one at rank " << rank;
    }
  }
}

TEST(SpectraTest, ARankDeficientCovarianceIsRaisedUntilItHasAFactor) {
  Tensor c(DType::kF64, {5, 5});
  for (double& v : c.mutable_values<double>()) v = 2.0;  // rank 1
  auto result = Spectra(std::vector<SpectrumJob>{{"w", Composed(4, 5, Falling(4)), c, 3}}, 1);
  ASSERT_TRUE(result.ok()) << result.error().message;
  EXPECT_GE((*result)[0].ridge, kRidge);
  for (float v : (*result)[0].down.values<float>()) EXPECT_TRUE(std::isfinite(v));
}

TEST(SpectraTest, BitsDoNotDependOnTheNumberOfThreads) {
  std::vector<SpectrumJob> jobs;
  for (int64_t i = 0; i < 7; ++i) jobs.push_back({"w" + std::to_string(i), Composed(8 + 5 * i, 40 - 3 * i, Falling(6)), {}, 4});
  auto one = *Spectra(jobs, 1);
  for (int threads : {2, 3, 8}) {
    auto many = *Spectra(jobs, threads);
    for (size_t i = 0; i < jobs.size(); ++i) {
      EXPECT_EQ(many[i].energies, one[i].energies) << threads;
      EXPECT_EQ(many[i].up.digest(), one[i].up.digest());
      EXPECT_EQ(many[i].down.digest(), one[i].down.digest());
    }
  }
}

TEST(SpectraTest, NamesTheLayerThatCannotBeDecomposed) {
  Tensor bad = Composed(4, 5, Falling(4));
  bad.mutable_values<float>()[7] = NAN;
  auto diverged = Spectra(std::vector<SpectrumJob>{{"fine", Composed(4, 5, Falling(4)), {}, 1}, {"fc9.weight", bad, {}, 1}}, 2);
  ASSERT_FALSE(diverged.ok());
  EXPECT_EQ(diverged.error().code, ErrorCode::kDiverged);
  EXPECT_NE(diverged.error().message.find("fc9.weight"), std::string::npos);
  auto silent = Spectra(std::vector<SpectrumJob>{{"fc9.weight", Composed(4, 5, Falling(4)), Tensor(DType::kF64, {5, 5}), 1}}, 1);
  ASSERT_FALSE(silent.ok());
  EXPECT_NE(silent.error().message.find("whitened: false"), std::string::npos) << silent.error().message;
}

// Σ x·xᵀ / n over the windows of an image, by hand.
TEST(CovarianceTest, OfAConvolutionsWindowsEqualsBruteForce) {
  PatchForm form{{2, 5, 4}, 3, 2, 2, 1, 1, 0};
  EXPECT_EQ(form.columns(), 12);
  EXPECT_EQ(form.vectors(), 3 * 3);
  std::vector<float> x(3 * 40);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(std::cos(0.7 * static_cast<double>(i)));
  CovarianceSum sum(form);
  sum.Add(std::span(x).first(80), 2);
  sum.Add(std::span(x).subspan(80), 1);
  Tensor mean = sum.Mean();
  std::vector<double> expected(144, 0.0);
  for (int64_t n = 0; n < 3; ++n) {
    for (int64_t oy = 0; oy < 3; ++oy) {
      for (int64_t ox = 0; ox < 3; ++ox) {
        std::vector<double> window;
        for (int64_t c = 0; c < 2; ++c) {
          for (int64_t ky = 0; ky < 3; ++ky) {
            for (int64_t kx = 0; kx < 2; ++kx) {
              int64_t y = oy * 2 - 1 + ky, at = ((n * 2 + c) * 5 + y) * 4 + ox + kx;
              window.push_back(y >= 0 && y < 5 ? static_cast<double>(x[static_cast<size_t>(at)]) : 0.0);
            }
          }
        }
        for (size_t i = 0; i < 12; ++i) {
          for (size_t k = 0; k < 12; ++k) expected[i * 12 + k] += window[i] * window[k] / 27.0;
        }
      }
    }
  }
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(mean.values<double>()[i], expected[i], 1e-12) << i;
}

TEST(CovarianceTest, OfSequencesCountsEveryPosition) {
  CovarianceSum sum({{3, 2}});
  sum.Add(std::vector<float>{1, 2, 3, 4, 5, 6}, 1);
  Tensor mean = sum.Mean();
  EXPECT_DOUBLE_EQ(mean.values<double>()[0], (1.0 + 9 + 25) / 3);
  EXPECT_DOUBLE_EQ(mean.values<double>()[1], (2.0 + 12 + 30) / 3);
}

}  // namespace
}  // namespace pare::engine
