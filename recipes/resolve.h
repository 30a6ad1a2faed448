// Parts of resolving that the planner shares. Inside recipes/ only.
#pragma once

#include "common/json.h"

namespace pare::recipes {

inline constexpr int kDefaultStepEpochs = 3;  // of fine-tuning and scheduled prune steps
// Of a scheduled prune step: the last third trains under frozen masks.
inline double DefaultEndEpoch(double epochs) { return epochs * 2.0 / 3.0; }

// TrainParams (docs/formats.md) of a section with all train fields. `epochs`: length of the schedule.
Json TrainParams(const Json& train, int64_t epochs);

}  // namespace pare::recipes
