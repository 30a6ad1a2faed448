// Linear algebra of low rank: spectra of weight matrices, their factors, and covariances of layer inputs. Torch-free header.
//
// Precision. The spectrum of a float32 matrix A is taken from the Gram matrix of its smaller side in float64 (A·Aᵀ or
// Aᵀ·A, eigenvalues λ = σ²). Error of λ_i: a few 2⁻⁵³ · λ_1 · min(m, n); so of σ_i about 10⁻⁸ · σ_1 where σ_i is small and
// 10⁻¹⁵ relative where it is large, below what rounding the weights to float32 has left of them (6·10⁻⁸ · σ_1). Energies,
// sums of λ, are good to 10⁻¹³. Three times as fast as an SVD. Factors are orthogonal projections of A, so that an error in
// a basis vector costs its square.
//
// Determinism: one thread and one intra-op thread per matrix; the bits do not depend on the number of threads.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/result.h"
#include "model/graph.h"
#include "model/tensor.h"

namespace pare::engine {

struct SpectrumJob {
  std::string name;                          // for messages
  model::Tensor matrix;                      // W: F32 [rows, columns]
  std::optional<model::Tensor> covariance;   // C: F64 [columns, columns]; given: the spectrum is that of W·L, C = L·Lᵀ
  int64_t keep = 0;                          // factors of this rank; 0: values only
};

struct SpectrumResult {
  std::vector<double> energies;  // σ² of W, or of W·L: min(rows, columns), descending, ≥ 0
  // The best factors of every rank r ≤ keep: the first r columns of `up` F32 [rows, keep] and rows of `down` F32
  // [keep, columns], L undone; σ is shared out between them by square roots. Empty when keep is 0.
  model::Tensor up, down;
  double ridge = 0;  // what was added to the diagonal of C, as a fraction of its mean
};

// Cholesky with a ridge: 10⁻⁶ of the mean of the diagonal, ten times as much each time the matrix is not yet positive.
inline constexpr double kRidge = 1e-6;

// Matrices shared out over `threads`. kDiverged: a value that is not finite (names the matrix); kInvalid: a covariance that
// is zero; kInternal: libtorch. REQUIRES: 0 ≤ keep ≤ min(rows, columns), shapes fit.
Result<std::vector<SpectrumResult>> Spectra(std::span<const SpectrumJob> jobs, int threads);

// torch.linalg.svdvals (vectors: torch.linalg.svd) of every matrix, one after the other, in float32 with `threads` intra-op
// threads, squared: what Spectra is tested and measured against.
Result<std::vector<std::vector<double>>> TorchSpectra(std::span<const SpectrumJob> jobs, bool vectors, int threads);

// How a layer's input is cut into the vectors x of y = W·x.
struct PatchForm {
  model::Shape input;  // of the node, without batch
  // Windows of an image, [channels, height, width]; 0: the last dimension is x.
  int64_t kernel_h = 0, kernel_w = 0, stride_h = 1, stride_w = 1, padding_h = 0, padding_w = 0;
  int64_t columns() const;
  int64_t vectors() const;  // per sample
};
// Sums x·xᵀ over all vectors of the samples, in float64, in the order given. Not thread-safe.
class CovarianceSum {
 public:
  explicit CovarianceSum(PatchForm form);
  ~CovarianceSum();
  CovarianceSum(CovarianceSum&&) noexcept;
  // values: [samples, …input].
  void Add(std::span<const float> values, int64_t samples);
  // The mean, F64 [columns, columns] (not centered). REQUIRES: something was added.
  model::Tensor Mean() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// body(0 … tasks−1) on `threads` threads with one intra-op thread each.
void RunParallel(int tasks, int threads, const std::function<void(int)>& body);

}  // namespace pare::engine
