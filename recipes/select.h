// Which weights a step works on: `targets` and `ignore` patterns against the tensors of a graph. Inside recipes/ only.
// A pattern is a layer or tensor name, a glob, "re:" and a regular expression that must match the whole name, or an
// operator type ("linear"). A "module." in front is ignored.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/json.h"
#include "model/graph.h"

namespace pare::recipes {

// What is wrong with the pattern itself, or nothing.
std::optional<std::string> PatternError(const std::string& pattern);

// Names of the prunable tensors that `targets` select (null: every linear and conv2d) and `ignore` does not, in graph
// order. kInvalid names a pattern without a match and the nearest layer. REQUIRES: patterns without a PatternError.
Result<std::vector<std::string>> SelectTensors(const model::GraphInfo& info, const model::Graph& graph, const Json& targets, const Json& ignore);

}  // namespace pare::recipes
