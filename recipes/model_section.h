// A `model` section of a recipe as a network: {"architecture": NAME, …its own fields, "weights": FILE}. Pure; no thread rule.
// Errors are kInvalid and name the field and what is allowed, as model/architectures.h says.
#pragma once

#include "common/json.h"
#include "data/dataset.h"
#include "model/graph.h"

namespace pare::recipes {

// The section with every field of its architecture written out, less the weights. REQUIRES: "architecture" is a text.
Result<Json> ResolveModelSection(Json section);
// Its network for samples and classes of these data; kInvalid also where it reads token ids and a sample has another value.
// REQUIRES: as above.
Result<model::Graph> BuildModelSection(Json section, const data::DataInfo& data);

}  // namespace pare::recipes
