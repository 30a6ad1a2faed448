#include "recipes/plan.h"

#include <cmath>

#include "recipes/plan_builder.h"

namespace pare::recipes {
namespace {

// Bits per weight of a coded mask.
double Entropy(double p) { return p <= 0 || p >= 1 ? 0.0 : -p * std::log2(p) - (1 - p) * std::log2(1 - p); }

}  // namespace

Expected ExpectedOf(const methods::Outline& outline) {
  Expected e;
  double parameters = outline.other_parameters, nonzero = parameters, adds = outline.other_multiply_adds, effective = adds;
  double bits = parameters * methods::kBitsPerFloat, masked = 0, gone = 0;
  for (const auto& [name, layer] : outline.layers) {
    double kept = layer.weights * layer.density;
    parameters += layer.weights;
    nonzero += kept;
    adds += layer.multiply_adds;
    effective += layer.multiply_adds * layer.density;
    bits += kept * layer.bits;
    if (!layer.masked) continue;
    bits += layer.weights * Entropy(layer.density);
    masked += layer.weights;
    gone += layer.weights - kept;
  }
  e.sparsity = masked > 0 ? gone / masked : 0;
  e.parameters = std::llround(parameters);
  e.parameters_nonzero = std::llround(nonzero);
  e.multiply_adds = std::llround(adds);
  e.multiply_adds_nonzero = std::llround(effective);
  e.checkpoint_bytes = std::llround(bits / 8);
  return e;
}

std::shared_ptr<const Plan> MakePlan(const ResolvedRecipe& recipe) {
  try {
    return PlanBuilder(recipe).Build();
  } catch (const std::exception&) {  // a field is missing, of another type, or names what the graph does not have
    return nullptr;
  }
}

PlannedStep PromoteStep(const Plan& plan, std::map<std::string, StepKey> inputs) {
  PlannedStep step;
  step.name = "promote";
  step.spec = {"promote", plan.promote, std::move(inputs), JsonText(), plan.seed, plan.device};
  step.Seal();
  step.hints = plan.hints;
  step.local = true;
  return step;
}

}  // namespace pare::recipes
