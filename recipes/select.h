// Which weights a step works on: `targets` and `ignore` patterns against the tensors of a graph. Inside recipes/ only.
// A pattern is a layer or tensor name, a glob, "re:" and a regular expression that must match the whole name, or an
// operator type ("linear"). A "module." in front is ignored.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/json.h"
#include "model/graph.h"
#include "recipes/findings.h"

namespace pare::recipes {

// What is wrong with the pattern itself, or nothing.
std::optional<std::string> PatternError(const std::string& pattern);
// Whether a name of anything is what the pattern describes. REQUIRES: no PatternError.
bool MatchesPattern(const std::string& pattern, const std::string& name);

// Names of the prunable tensors that `targets` of a step's section select (absent: every linear and conv2d) and `ignore`
// does not, in graph order. A pattern without a match, and a choice that leaves nothing, go to `errors`.
// `pointer`: of the section. REQUIRES: patterns without a PatternError.
std::vector<std::string> SelectTensors(const model::GraphInfo& info, const model::Graph& graph, const Json& section, const std::string& pointer,
                                       Errors& errors);

}  // namespace pare::recipes
