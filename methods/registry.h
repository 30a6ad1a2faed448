// The methods: each a rewrite of a model (graph, tensors, masks), one file pair, listed in registry.cc and nowhere else.
// The recipe language (fields, check), the planner (outline) and the runner (apply) read this table, so a method that is
// listed can be written in a recipe, is checked, planned, executed and documented. docs/architecture.md, "Adding a
// method", shows one from end to end.
//
// A step kind that needs more than a section of fields and one step (training, several inputs, helper steps) has a row
// in recipes/kinds.cc and one in worker/runner/steps.cc; its rewrite may still be listed here.
//
// Pure functions, no thread rule. Errors are kInvalid and name the field or layer, and what to do instead.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "methods/field.h"
#include "methods/outline.h"
#include "methods/toolbox.h"
#include "model/graph.h"
#include "model/mask.h"

namespace pare::methods {

struct Model {
  model::Graph graph;
  model::TensorMap tensors;
  model::MaskMap masks;
  Json notes = Json::object();  // of the checkpoint; carried from step to step
};

// What is wrong with a section of a recipe as written; `field` may be empty: the section as a whole.
struct Problem {
  std::string field;
  std::string text;
};

struct Method {
  std::string_view name;  // of the step kind, and of its section in a recipe
  std::string_view help;  // one sentence
  // The section's fields. Empty for a method whose step kind has a row of its own in recipes/kinds.cc.
  std::span<const Field> fields;
  // The step reads the dataset (calibration); the step key then depends on it.
  bool reads_data = false;
  // Contradictions in a section whose fields are each good. May be null.
  std::vector<Problem> (*check)(const Json& section) = nullptr;
  // What becomes of the network, or why the method refuses it: at planning time, without tensors.
  Result<Outline> (*outline)(Outline before, const Json& params) = nullptr;
  // The rewrite. `params`: docs/formats.md, "Step parameters": the section with every default, `targets` and `ignore`
  // replaced by `tensors`, names in the dense graph of the chain (Resolved below finds them in `model`).
  Result<Model> (*apply)(Model model, const Json& params, Toolbox& toolbox) = nullptr;
};
std::span<const Method> Methods();
// nullptr if there is none of this name.
const Method* FindMethod(std::string_view name);

// `params.tensors` in the present graph, in its order: a tensor that low_rank replaced stands for the weights of the nodes
// "<node>.*"; one whose layer was removed is skipped. kInvalid: the field is missing or holds something else than names.
Result<std::vector<model::TensorSpec>> PresentTensors(const Json& params, const model::GraphInfo& info);

}  // namespace pare::methods
