// Summary of a model's size: what reports and predictions say, in the shape of docs/formats.md, "Results".
#pragma once

#include <string>
#include <vector>

#include "common/json.h"
#include "model/graph.h"
#include "model/mask.h"

namespace pare::model {

struct LayerSummary {
  std::string tensor;
  Shape shape;
  Encoding encoding = Encoding::kDense;
  int64_t size = 0, kept = 0;
  bool masked = false;
  Digest mask;
};

struct ModelSummary {
  int64_t parameters = 0, parameters_nonzero = 0;
  int64_t weight_bytes = 0;  // of all tensors, as their encodings hold them: in memory, before the checkpoint's coding
  int64_t multiply_adds = 0, multiply_adds_nonzero = 0;
  // Fractions removed: of masked tensors, of all these weights, of every parameter.
  double sparsity_pruned_layers = 0, sparsity_weights = 0, sparsity_parameters = 0;
  std::vector<LayerSummary> layers;  // the weight of every linear, conv2d and embedding
};

// `tensors` may be empty (a prediction): then what the masks keep counts as non-zero.
ModelSummary Summarize(const Graph& graph, const GraphInfo& info, const TensorMap& tensors, const MaskMap& masks);
Json ToJson(const ModelSummary& summary);

}  // namespace pare::model
