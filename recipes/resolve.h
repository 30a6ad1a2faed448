// Parts of resolving that the planner shares. Inside recipes/ only.
#pragma once

#include <string>
#include <vector>

#include "common/json.h"
#include "model/graph.h"

namespace pare::recipes {

inline constexpr int kDefaultStepEpochs = 3;  // of retrain and scheduled prune steps

// Names of the prunable tensors that `targets` select and `ignore` does not. kInvalid names a pattern without a match and
// the nearest known name.
Result<std::vector<std::string>> SelectTensors(const model::GraphInfo& info, const model::Graph& graph, const Json& targets, const Json& ignore);
// TrainParams (docs/formats.md) of a section with all train fields.
Json TrainParams(const Json& train);

}  // namespace pare::recipes
