// Whether weights are numbers: training that diverged and damaged files leave NaN and infinities. Plain functions, no thread rule.
#pragma once

#include "model/graph.h"

namespace pare::model {

// kInvalid names the first float32 tensor with a value that is not finite, the value and its place.
Status CheckFinite(const TensorMap& tensors);

}  // namespace pare::model
