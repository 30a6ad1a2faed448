// Sensitivity: one weight made worse at a time, in the ways that later steps would: by zeros, by a lower rank, by fewer bits. What
// the accuracy is then is measured by the step (worker/runner/step_sensitivity.cc).
//
// Pure functions, no thread rule. REQUIRES throughout: F32 tensors without NaN.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/json.h"
#include "model/graph.h"
#include "model/mask.h"

namespace pare::methods {

struct SensitivityOptions {
  std::vector<std::string> tensors;  // present ones
  std::vector<double> sparsities, energies;
  std::vector<int64_t> bits;
  int64_t samples = 0;  // of the validation split; 0: all
};
// Reads `tensors`, `sparsities`, `energies`, `bits`, `samples`. kInvalid names the field.
Result<SensitivityOptions> SensitivityOptionsFromJson(const Json& params, const model::GraphInfo& info);

// The smallest magnitudes zero, as prune per layer would (ties by index); `mask`: what is removed already, or null.
model::Tensor Sparsified(const model::Tensor& weight, double sparsity, const model::Mask* mask);

// Rows of the matrix [out, in·kh·kw] rounded to signed integers of `bits`: code = round(w / s), s = max|w| / (2^(bits−1) − 1) of
// the row, ties to even. REQUIRES: 2 ≤ bits ≤ 16.
model::Tensor Rounded(const model::Tensor& weight, int64_t bits);

// The matrix at the smallest rank that keeps `energies[k]` of Σ σ², for every k.
struct Truncated {
  int64_t rank = 0;
  model::Tensor weight;
};
std::vector<Truncated> TruncatedTo(const model::Tensor& weight, const std::vector<double>& energies);

}  // namespace pare::methods
