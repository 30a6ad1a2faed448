// Constants: features of a network's values that are one number whatever the sample, because the masks removed all that
// computes them. What `remove` has to know before it takes them away. Inside methods/.
//
//   linear, conv2d    a feature whose row is masked is its bias
//   batch norm        (c − mean) / √(var + ε) · γ + β with the running statistics; β where γ is masked
//   activations       f(c); dropout: c, as when the model is used
//   max, global pool  c; average pool with padding only if c = 0 (the border averages zeros in)
//   add               the sum; concat, flatten, reshape: where they come from
//   attention         the value's constant: weights over the sequence sum to one
//   embedding         0 for a masked column
//   first             c; sequence mean with a mask only if c = 0 (a sample of padding alone has the mean 0)
// Everything else is not constant. Pure function, no thread rule.
#pragma once

#include <vector>

#include "methods/coupling.h"
#include "model/mask.h"

namespace pare::methods {

// By node and feature (Coupling): the number, or NaN. REQUIRES: coupling of this graph; tensors and masks fit it.
std::vector<std::vector<double>> ConstantFeatures(const model::Graph& graph, const model::GraphInfo& info, const Coupling& coupling,
                                                  const model::TensorMap& tensors, const model::MaskMap& masks);

// Whether the mask removes all of a slice of a tensor; false without a mask.
bool IsMasked(const model::MaskMap& masks, const Slice& slice);

}  // namespace pare::methods
