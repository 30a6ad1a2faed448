// prune, schedule one_shot: the rewrite behind the step of docs/formats.md. See methods/pruning.h for the rules.
#pragma once

#include "methods/registry.h"

namespace pare::methods {

Result<Model> OneShotPrune(Model model, const Json& params, Toolbox& toolbox);
// Of any schedule: the layers' densities as the step's amount says them; a global ranking is taken to remove the same
// share everywhere, and a doubt is left where the density bounds leave no room for the amount.
Result<Outline> OutlineOneShotPrune(Outline outline, const Json& params);

}  // namespace pare::methods
