// SparseMatrix: a weight of which most are zero, laid out for Yᵀ = W · Xᵀ + b with activations feature-major (all samples of
// one feature beside each other): every weight that is left multiplies one run of memory. Built once; no torch here.
//
// The kernel is this project's own, in GCC vector types compiled for AVX2 and AVX-512; other processors run a plain loop. Per
// row it keeps the sums of up to 128 samples in registers and adds the weights in column order: no threads, no reordering.
// Rejected: CSR · dense in libtorch (MKL), the usual orientation 0.3 to 0.9 times as fast as dense, transposed about half as
// fast as this (bench/methods/kernels). Immutable, shared by threads; a call runs on the calling thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace pare::engine {

class SparseMatrix {
 public:
  // weight [rows, columns], row-major. REQUIRES: columns < 2³¹.
  SparseMatrix(std::span<const float> weight, int64_t rows, int64_t columns);

  // xt [columns, batch] → yt [rows, batch]. bias [rows], or empty.
  void Multiply(const float* xt, std::span<const float> bias, int64_t batch, float* yt) const;

  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  int64_t nonzeros() const { return static_cast<int64_t>(values_.size()); }

 private:
  int64_t rows_, columns_;
  std::vector<int64_t> starts_;   // of each row, and the end
  std::vector<int32_t> indices_;  // columns
  std::vector<float> values_;
};

}  // namespace pare::engine
