// Coupling: which features of a network can only be removed together, found by walking the graph.
//
// A node's value has one feature axis: the channels of an image [c, h, w], the last dimension of anything else. Walking the
// nodes in order, every operator says how the features of its value come from those of its inputs:
//   linear, conv2d, embedding   new features; those of the input are consumed (columns of the weight)
//   conv2d in groups            one group's input and output features together (depthwise: a channel)
//   batch norm, activations, pooling, dropout   the same features
//   flatten, reshape            a feature where it came from, several times perhaps: these are removed together
//   add                         the features of all inputs, one by one, together (residual connections)
//   concat                      along the features: one after the other; along another axis: together, as add
//   attention                   everything of one head together: its rows of query, key and value
//   first, sequence mean        the features of the sequence
//   layer norm, softmax         features stay: removing one would change the others' mean and deviation, or their sum
//   input, output               features stay
// Operators that this table does not know, and layers whose weights are encoded (int8), leave the features of their inputs as they are.
// What belongs together is a union-find over features; a *unit* is one such set with the slices of weights that make it.
// Pure function of a graph, no thread rule.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/graph.h"

namespace pare::methods {

// One index of one tensor along an axis: a row of a linear (axis 0), a column of an embedding (axis 1).
struct Slice {
  std::string tensor;
  int axis = 0;
  int64_t index = 0;
  bool operator==(const Slice&) const = default;
};

struct Unit {
  int id = 0;                   // of the set, as in Coupling.features
  std::vector<Slice> weights;   // prunable: the rows that compute it, in tensor order
  std::vector<Slice> own;       // biases and normalization that are this unit's alone
  bool head = false;            // an attention head
  std::string fixed;            // why it cannot be removed; empty: it can
};

struct Coupling {
  // By node: the id of the set to which every feature of its value belongs.
  std::vector<std::vector<int>> features;
  // By node: the feature axis of its value's shape.
  std::vector<int> axes;
  // Every set, indexed by id; a set without weights is one of the input's.
  std::vector<Unit> units;
};

// REQUIRES: info = Analyze(graph).
Coupling CoupledUnits(const model::Graph& graph, const model::GraphInfo& info);

// Units that share their layers: as many of them as the layers are wide.
struct UnitClass {
  std::vector<std::string> tensors;  // that compute them
  std::vector<const Unit*> units;    // in order of features
};
// The removable units by the tensors that compute them, in tensor order; heads or all others. `units` must outlive it.
std::vector<UnitClass> ClassesOf(const Coupling& coupling, bool heads);

// A part of the graph that reaches the output only through one input of one addition: without it, that input counts as
// zero, and shapes stay. What "layer removal" removes.
struct Branch {
  int add = 0;                       // node
  size_t input = 0;                  // of that node
  std::vector<int> nodes;            // ascending
  std::vector<std::string> weights;  // prunable tensors of these nodes
  std::vector<std::string> own;      // their other trainable tensors
};
// Every such part that holds weights. At least one input of an addition is never offered: if all could go, the one with
// the fewest weights (a projection beside the main path) stays.
std::vector<Branch> ResidualBranches(const model::Graph& graph, const model::GraphInfo& info);

}  // namespace pare::methods
