#include "methods/one_shot_prune.h"

#include <algorithm>

#include "methods/pruning.h"

namespace pare::methods {

Result<Model> OneShotPrune(Model model, const Json& params, Toolbox& toolbox) {
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(model.graph));
  ASSIGN_OR_RETURN(PruneOptions options, PruneOptionsFromJson(params, model.graph, info));
  PruneAmount amount;
  for (auto [field, value] : {std::pair{"sparsity", &amount.sparsity},
                              std::pair{"fraction_of_remaining", &amount.fraction_of_remaining}}) {
    if (!params.contains(field)) continue;
    ASSIGN_OR_RETURN(*value, NumberField(params, field));
  }
  if (options.criterion == Criterion::kMovement) {
    return Error{ErrorCode::kInvalid, "prune: criterion movement sums over training: use it with schedule linear or cubic"};
  }
  ASSIGN_OR_RETURN(std::vector<WeightView> weights, ViewWeights(options, info, model.tensors));
  model::TensorMap gradients;
  if (WantsCalibration(options.criterion)) {
    ASSIGN_OR_RETURN(gradients, toolbox.Gradients(model.graph, model.tensors, {options.calibration_samples, options.criterion == Criterion::kFisher}));
    for (WeightView& view : weights) view.companion = gradients.at(view.name).values<float>();
  }
  ASSIGN_OR_RETURN(model.masks, Prune(options, amount, weights, model.masks, {toolbox.seed(), 0}));
  ApplyMasks(model.masks, model.tensors);
  return model;
}

Result<Outline> OutlineOneShotPrune(Outline outline, const Json& params) {
  ASSIGN_OR_RETURN(std::vector<LayerOutline*> layers, LayersOf(outline, params.at("tensors")));
  TRY(CheckFloat(outline, layers, "prune"));
  bool of_remaining = params.contains("fraction_of_remaining");
  const char* amount = of_remaining ? "fraction_of_remaining" : params.contains("sparsity") ? "sparsity" : "final_sparsity";
  double share = 1 - params.at(amount).get<double>(), low = params.at("min_density").get<double>(), high = params.at("max_density").get<double>();
  double wanted = 0, least = 0, most = 0, n = static_cast<double>(layers.size());
  bool units = params.contains("granularity") && params.at("granularity").at("kind") == "structured", removes = params.contains("granularity") || of_remaining;
  for (LayerOutline* layer : layers) {
    double target = of_remaining ? layer->density * share : std::min(layer->density, share);
    wanted += target * layer->weights;
    least += std::min(layer->density, low) * layer->weights;
    most += std::min(layer->density, high) * layer->weights;
    removes = removes || std::clamp(target, low, high) < layer->density;
    layer->masked = true;
    layer->density = std::min(layer->density, std::clamp(target, low, high));
    if (units) layer->width = std::min(layer->width, layer->density);
  }
  if (!removes) outline.doubts.push_back("its layers are at least that sparse already, so it removes next to nothing; ask for more than the steps before it");
  // A global ranking refuses an amount that the bounds leave no room for; each layer's count may be off by one half.
  if (params.at("scope") != "global") return outline;
  if (wanted < least - n) outline.doubts.push_back("min_density leaves less to remove than the step asks for, it will fail");
  if (wanted > most + n) outline.doubts.push_back("max_density removes more than the step asks for, it will fail");
  return outline;
}

}  // namespace pare::methods
