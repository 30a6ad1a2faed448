// Int8Linear: the one place that multiplies integers. y = (q(x) − zero point) · Wᵀ · scales + bias with 32-bit sums, where q
// rounds x to the codes 0 … model::kActivationLevels. Inside worker/engine only (torch types).
//
// The kernels are FBGEMM's, reached through the operators behind torch.ao.quantization. Those are deprecated upstream:
// nothing else in the project uses them, tests compare them with arithmetic of our own, and another kernel needs only
// another implementation here. Where FBGEMM is not (no x86, a GPU), the same values are computed in float32.
//
// Immutable, shared by threads; a call runs on the calling thread (one intra-op thread).
#pragma once

#include <ATen/ATen.h>

#include <memory>

#include "model/encoding.h"
#include "worker/engine/kernels.h"

namespace pare::engine {

class Int8Linear : public PackedWeight {
 public:
  // weight I8 [out, in], scales F32 [out], bias F32 [out] or undefined. Copied.
  static std::shared_ptr<const Int8Linear> Pack(const at::Tensor& weight, const at::Tensor& scales, const at::Tensor& bias);

  // x F32 [rows, in] → F32 [rows, out]. The codes are chosen by the range of all of x.
  virtual at::Tensor Dynamic(const at::Tensor& x) const = 0;
  // Values outside of what the codes can say are clipped.
  virtual at::Tensor Static(const at::Tensor& x, const model::InputCodes& codes) const = 0;
};

// x as the codes say it: clipped and rounded, still float32.
at::Tensor RoundToCodes(const at::Tensor& x, const model::InputCodes& codes);

}  // namespace pare::engine
