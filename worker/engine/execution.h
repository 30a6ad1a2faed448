// Execution: how each linear of a finished network runs. The ways differ in speed, little or not at all in results:
//
//   encoded   as the node's encoding says: float32 through MKL, int8 through FBGEMM
//   float32   the decoded weight, dense: for encoded nodes
//   bfloat16  weight and input rounded to bfloat16, sums in float32; where the processor multiplies it
//   sparse    the weights that are not zero, activations feature-major (worker/engine/sparse_matrix.h). Neighbouring layers
//             and activation functions keep that layout: it is turned once at the start of such a run and once at its end
//
// Which is fastest depends on machine, batch and sparsity: MeasureExecution finds out. Networks that train take encoded.
// No torch type here. Errors are kInvalid and name node and way.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "common/result.h"
#include "model/graph.h"
#include "model/tensor.h"

namespace pare::engine {

// Way by node; nodes that are not named run as encoded.
using ExecutionPlan = std::map<std::string, std::string>;

// The ways that a node can run on this machine. Empty: not a linear.
std::vector<std::string> WaysOf(const model::Node& node, double density);

struct LayerExecution {
  std::string node;
  double density = 1.0;  // fraction of weights that are not zero
  std::string way;       // the fastest
  std::string reason;    // "sparse: 1.2 ms, encoded 3.4 ms at batch 128"
  std::map<std::string, double> milliseconds;  // median, by way
};

struct MeasureOptions {
  int64_t batch = 32;
  int repeats = 15;  // per way, interleaved, after as many to warm up as it takes to see each way three times
};

// Measures every linear alone, one thread, in the order of the graph. What the user pays is inside: rounding of inputs and
// turning of layouts, once in and once out. A way must win by kMinGain to replace "encoded".
inline constexpr double kMinGain = 1.05;
Result<std::vector<LayerExecution>> MeasureExecution(const model::Graph& graph, const model::TensorMap& weights, const MeasureOptions& options);
ExecutionPlan PlanOf(const std::vector<LayerExecution>& layers);

}  // namespace pare::engine
