// Units that structured pruning may remove: channels (neurons, FFN columns), attention heads, residual branches, as slices
// of tensors. methods/coupling.h finds them; here they are chosen by the layers that a step works on.
//
// A unit takes part if every layer that computes it is among `tensors`. Others, and those that the graph fixes, stay.
// Pure functions, no thread rule.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "methods/coupling.h"
#include "methods/granularity.h"

namespace pare::methods {

// A slice of axis −1 is the whole tensor.
inline constexpr int kWholeTensor = -1;

struct PrunableUnit {
  std::vector<Slice> weights;  // whose scores it has
  std::vector<Slice> own;      // biases and normalization that go with it
};

// Units between which a choice of so many is made: those computed by the same layers; all residual branches.
struct PrunableClass {
  std::string name;          // for messages: its layers
  bool keep_one = true;      // a layer of no width is none
  uint64_t ordinal = 0;      // of its first tensor in GraphInfo.tensors
  std::vector<PrunableUnit> units;
};

struct UnitPlan {
  std::vector<PrunableClass> classes;
  std::map<std::string, model::Shape> shapes;  // of every tensor that a slice names
};

// kInvalid says why nothing can be removed. `tensors` in the order of `info`.
Result<UnitPlan> PlanUnits(const model::Graph& graph, const model::GraphInfo& info, UnitKind unit, const std::vector<std::string>& tensors);

// visit(i) for the flat indices of a slice of a tensor of `shape`, in order.
template <typename Visit>
void ForEachIndex(const model::Shape& shape, const Slice& slice, Visit&& visit) {
  int64_t size = model::ElementCount(shape);
  if (slice.axis == kWholeTensor) {
    for (int64_t i = 0; i < size; ++i) visit(i);
    return;
  }
  auto axis = static_cast<size_t>(slice.axis);
  int64_t inner = model::ElementCount(model::Shape(shape.begin() + slice.axis + 1, shape.end())), wide = shape[axis] * inner;
  for (int64_t outer = 0; outer < size; outer += wide) {
    for (int64_t i = 0; i < inner; ++i) visit(outer + slice.index * inner + i);
  }
}

}  // namespace pare::methods
