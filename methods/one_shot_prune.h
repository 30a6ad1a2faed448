// prune, schedule one_shot: the rewrite behind the step of docs/formats.md. See methods/pruning.h for the rules.
#pragma once

#include "methods/registry.h"

namespace pare::methods {

Result<Model> OneShotPrune(Model model, const Json& params, uint64_t seed);

}  // namespace pare::methods
