// The one table of operators: names, JSON attributes, shape inference, tensors and counts. Adding an operator means adding
// an OpType, a row here and a row in the engine's table; tests fail if either is forgotten.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "model/graph.h"

namespace pare::model {

// Names of the attributes that an operator reads; all others stay at their default.
struct OpRow {
  OpType type;
  std::string_view name;
  int min_inputs, max_inputs;
  std::vector<std::string_view> attributes;
  // Shape of the value, from the inputs' shapes. kInvalid without the node's name (the caller adds it).
  Result<Shape> (*infer)(const Attributes& attributes, std::span<const Shape> inputs);
  void (*tensors)(const Node& node, std::vector<TensorSpec>& out);  // null: owns none
  // Multiply-adds for one sample.
  int64_t (*multiply_adds)(const Attributes& attributes, std::span<const Shape> inputs, const Shape& output);
};

// REQUIRES: a valid OpType. Rows are in OpType order.
const OpRow& RowOf(OpType type);
std::span<const OpRow> OpTable();

}  // namespace pare::model
