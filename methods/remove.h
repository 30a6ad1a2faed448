// remove: takes masked units out of the network for good, with every dimension coupled to them: parameters, multiply-adds
// and file shrink, and ordinary dense kernels run what is left. Whoever masked them does not matter: structured pruning
// (methods/prune_units.h), or any mask that emptied a row.
//
//  - A unit (methods/coupling.h) goes when the masks remove every weight that computes it, all these layers are among
//    `tensors`, and the graph does not fix it. One unit of every layer stays, and one head of every attention.
//  - A removed unit's value is not always zero: behind a masked row there is still its bias, and f(bias) behind an
//    activation f, and what a batch norm makes of it. That number c (methods/constants.h) goes into what reads it: the
//    reader's bias becomes b + W[:, unit] · c, and a reader without bias gets one. So the smaller network computes what
//    the masked one does, up to rounding. Where this cannot be done, a convolution with padding that reads c ≠ 0 (zeros at
//    the border would count), the unit stays, masked, and the report says why. Structured pruning also masks bias and
//    normalization, so that c = f(0), which is zero but for the sigmoid.
//  - Residual branches: an input of an addition that is zero in all its features is dropped with everything that leads to it
//    alone (whole layers go); an addition with one input left is no node any more.
//  - Masks shrink with their tensors; one that keeps everything is dropped, and the tensor is dense.
// Batch norm: the constants are those of evaluation (running statistics).
// Errors: kInvalid names the field. Pure functions, no thread rule.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "methods/registry.h"

namespace pare::methods {

inline constexpr Field kRemoveFields[] = {
    Targets("remove"),
    Ignore("remove"),
};
// The rewrite as a step. Reports per layer {"before", "after"} (widths), "removed" for a layer that is gone, and "stayed".
Result<Model> Remove(Model model, const Json& params, Toolbox& toolbox);
// Widths become what prune with granularity channel, head or layer left of them. kInvalid: no step before it left any such.
Result<Outline> OutlineRemove(Outline outline, const Json& params);

// What happened to one layer.
struct Removal {
  std::string layer;
  int64_t before = 0, after = 0;  // width; 0: the layer is gone
  std::string stayed;             // why masked units are still there
};

// `tensors`: weights whose units may go.
Result<std::vector<Removal>> RemoveMaskedUnits(Model& model, const std::set<std::string>& tensors);

}  // namespace pare::methods
