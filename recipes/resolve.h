// Parts of resolving that the planner shares. Inside recipes/ only.
#pragma once

#include "common/json.h"

namespace pare::recipes {

// TrainParams (docs/formats.md) of a section with all train fields. `epochs`: length of the schedule.
Json TrainParams(const Json& train, int64_t epochs);

}  // namespace pare::recipes
