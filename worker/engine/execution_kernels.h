// The kernels behind worker/engine/execution.h. Inside worker/engine only (torch types).
#pragma once

#include <string_view>

#include "worker/engine/kernels.h"

namespace pare::engine {

// A null forward: the node cannot run this way.
NodeKernel KernelOf(const model::Node& node, std::string_view way);
// The node's weight as float32 [out, in], decoded by model::DecodeWeight.
at::Tensor DecodedWeight(const NodeState& node);

}  // namespace pare::engine
