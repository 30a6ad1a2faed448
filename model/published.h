// Weights as others publish them, brought into the form of a graph. What differs in files of the same network: a prefix before
// every name (BertForSequenceClassification writes "bert.encoder.layer.0…"), the names of a norm's tensors (gamma and beta
// in files that came from TensorFlow), half precision, heads of the task it was trained on, buffers that are no weights. Nothing
// else is guessed. Plain functions, no thread rule.
#pragma once

#include <string>
#include <vector>

#include "model/graph.h"

namespace pare::model {

struct FittedWeights {
  TensorMap tensors;  // one for every TensorSpec of the graph
  // What was done to the file, for people; empty: the tensors are the file's.
  std::vector<std::string> notes;
  bool new_head = false;  // the file has no weights of the graph's last layer: they are initial ones
};

// `seed`: of the initial weights of a head that the file lacks (model/initialize.h). A file that fits as it is stays as it is.
// kInvalid names the first tensor that is missing, unknown, or of another shape or type, by its name in the graph.
// REQUIRES: Analyze(graph) made `info`.
Result<FittedWeights> FitWeights(const Graph& graph, const GraphInfo& info, const TensorMap& file, uint64_t seed);

}  // namespace pare::model
