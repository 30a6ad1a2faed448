// Outline: what planning knows of a network along a chain of steps, without tensors: how each layer is stored and
// executed, about how many weights it has left, and whether it can still be trained or rewritten. Every step kind says
// what it does to the outline, and refuses one on which it makes no sense.
//
// Names are those of the dense graph that the chain started from, throughout: a layer that low_rank replaced or that was
// removed keeps its entry. Counts are doubles because they are predictions. Plain values, no thread rule.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "model/graph.h"

namespace pare::methods {

// What byte planes and zstd leave of a trained float32 value, in bits.
inline constexpr double kBitsPerFloat = 28.8;

struct LayerOutline {
  std::string node;            // of the dense graph
  model::OpType op = model::OpType::kLinear;
  model::Shape shape;          // of the dense weight
  double weights = 0;          // present ones: fewer after low_rank or removal
  double multiply_adds = 0;    // one sample, dense execution
  double density = 1;          // fraction of the weights that the masks keep
  bool masked = false;
  double width = 1;            // fraction of its units that structured pruning keeps; until they are removed
  double bits = kBitsPerFloat;  // of one kept weight in a checkpoint
  model::Encoding encoding = model::Encoding::kDense;
  bool factored = false;       // a low-rank pair
  bool adapted = false;        // an adapter beside it waits to be merged
};

struct Outline {
  std::map<std::string, LayerOutline> layers;  // every prunable tensor, by name
  double other_parameters = 0;                 // biases, normalizations
  double other_multiply_adds = 0;
  bool reshaped = false;  // the graph is no longer the dense one: units removed or layers factored
  std::string adapters;   // "lora" or "qlora" while adapters wait to be merged
  std::string encoder;    // the step kind that left weights that cannot be trained: "quantize", …; empty: all can
  // What a step expects to go wrong without being sure; the planner warns with the step's name and empties it.
  std::vector<std::string> doubts;
};

Outline OutlineOf(const model::Graph& graph, const model::GraphInfo& info);

// Stores the layers of `graph`, the dense one of the outline, as they are stored there now.
void SetEncodings(model::Graph& graph, const Outline& outline);

// The layers of `tensors`. kInvalid names one that the network does not have.
Result<std::vector<LayerOutline*>> LayersOf(Outline& outline, const Json& tensors);

// The rules of order that all methods share. Errors are kInvalid: the reason and a remedy, to be shown at the step.
// A step that trains: every weight must be float32, or frozen under adapters that `kind` trains itself.
Status CheckTrainable(const Outline& outline, std::string_view kind);
// A step that changes the weights of `layers` as float32 numbers (prune, low_rank, cast, …).
Status CheckFloat(const Outline& outline, const std::vector<LayerOutline*>& layers, std::string_view kind);

// After training, float32 weights have all their bits again.
void MarkTrained(Outline& outline);

}  // namespace pare::methods
