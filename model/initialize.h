// Starting weights: counter-based, so a pure function of (graph, seed). The defaults are PyTorch's: linear and conv2d
// weights and biases uniform in ±1/√fan_in (torch.nn.Linear.reset_parameters, Kaiming uniform with a = √5), norms 1 and 0,
// embeddings N(0, deviation²), 1 unless the architecture says otherwise.
#pragma once

#include "model/graph.h"

namespace pare::model {

// One tensor for every TensorSpec of the graph. REQUIRES: Analyze(graph) succeeds.
TensorMap InitializeWeights(const Graph& graph, const GraphInfo& info, uint64_t seed);
// kInvalid names the first tensor that is missing, unknown, or of another shape or type.
Status CheckWeights(const GraphInfo& info, const TensorMap& tensors);

}  // namespace pare::model
