#include "methods/one_shot_prune.h"

#include "methods/pruning.h"

namespace pare::methods {

Result<Model> OneShotPrune(Model model, const Json& params, uint64_t seed) {
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(model.graph));
  ASSIGN_OR_RETURN(PruneOptions options, PruneOptionsFromJson(params, info));
  PruneAmount amount;
  for (auto [field, value] : {std::pair{"sparsity", &amount.sparsity},
                              std::pair{"fraction_of_remaining", &amount.fraction_of_remaining}}) {
    if (!params.contains(field)) continue;
    ASSIGN_OR_RETURN(*value, NumberField(params, field));
  }
  ASSIGN_OR_RETURN(std::vector<WeightView> weights, ViewWeights(options, info, model.tensors));
  ASSIGN_OR_RETURN(model.masks, Prune(options, amount, weights, model.masks, {seed, 0}));
  ApplyMasks(model.masks, model.tensors);
  return model;
}

}  // namespace pare::methods
