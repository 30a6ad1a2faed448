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

// Sizes that Analyze accepts. The products that infer, tensors and multiply_adds form of them fit in 63 bits.
inline constexpr int64_t kMaxActivationElements = int64_t{1} << 30;  // of one sample
inline constexpr int64_t kMaxTensorElements = int64_t{1} << 32;
inline constexpr int64_t kMaxWindow = 1 << 15;  // kernel, stride, padding
inline constexpr int64_t kMaxSize = int64_t{1} << 30;  // every other integer attribute

// Whether every dimension is at least 1 and their product at most `limit`.
bool FitsElements(const Shape& shape, int64_t limit);

// REQUIRES: a valid OpType. Rows are in OpType order.
const OpRow& RowOf(OpType type);
std::span<const OpRow> OpTable();

}  // namespace pare::model
