// The methods: each a rewrite of a model (graph, tensors, masks), one file pair, listed here and nowhere else. A method
// needs no coordinator, disk or data; methods that need data get it from the step that calls them.
//
// Pure functions, no thread rule. Errors are kInvalid and name the field.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "common/json.h"
#include "model/graph.h"
#include "model/mask.h"

namespace pare::methods {

struct Model {
  model::Graph graph;
  model::TensorMap tensors;
  model::MaskMap masks;
};

struct Method {
  std::string_view name;
  std::string_view help;
  // `params` as in docs/formats.md, "Step parameters"; everything random is keyed by `seed`.
  Result<Model> (*apply)(Model model, const Json& params, uint64_t seed);
};
std::span<const Method> Methods();
// nullptr if there is none of this name.
const Method* FindMethod(std::string_view name);

}  // namespace pare::methods
