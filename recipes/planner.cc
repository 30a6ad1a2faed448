#include "recipes/planner.h"

#include <algorithm>
#include <optional>
#include <set>

#include "recipes/plan.h"

namespace pare::recipes {
namespace {

std::shared_ptr<const Plan> PlanOf(const ResolvedRecipe& recipe) {
  std::shared_ptr<const Plan> plan = recipe.plan != nullptr ? recipe.plan : MakePlan(recipe);
  CHECK(plan != nullptr);
  return plan;
}

// The plan with `outcome(key)` telling what is known: nothing yet, true done, false failed for good.
template <typename OutcomeOf>
PlannedSteps Wanted(const std::shared_ptr<const Plan>& shared, OutcomeOf outcome) {
  const Plan& plan = *shared;
  auto of_plan = [&](const PlannedStep& step) { return PlannedSteps::Shared(shared, &step); };
  PlannedSteps wanted;
  std::set<StepKey> dead;                  // failed, or built on what failed
  std::map<std::string, StepKey> measured;  // inputs of the decision
  std::vector<size_t> evaluated;
  bool finished = true;
  wanted.Reserve(plan.chains.size() + plan.tests.size() + 1);
  for (size_t i = 0; i < plan.chains.size(); ++i) {
    const PlannedStep& step = plan.chains[i];
    const auto& inputs = step.spec.inputs;
    bool alive = dead.empty() || std::none_of(inputs.begin(), inputs.end(), [&](const auto& input) { return dead.count(input.second) != 0; });
    if (alive) wanted.Add(of_plan(step));
    std::optional<bool> known = alive ? outcome(step.key) : std::optional<bool>(false);
    finished = finished && known.has_value();
    if (known == false) dead.insert(step.key);
    if (known != true || plan.tests.count(i) == 0) continue;
    measured[step.candidate ? "candidate/" + step.model_step : "baseline"] = step.key;
    evaluated.push_back(i);
  }
  // Without a baseline there is nothing to compare with, hence no decision and no reading of the test split.
  if (!finished || measured.count("baseline") == 0) return wanted;
  if (!plan.promote.is_null()) {
    wanted.Add(PromoteStep(plan, std::move(measured)));
    if (!outcome(wanted.back().key).has_value()) return wanted;
  }
  for (size_t i : evaluated) wanted.Add(of_plan(plan.tests.at(i)));
  std::set<StepKey> alive;
  for (const PlannedStep& step : plan.afterwards) {
    if (alive.empty()) for (const PlannedStep& earlier : wanted) alive.insert(earlier.key);
    const auto& inputs = step.spec.inputs;
    bool possible = std::all_of(inputs.begin(), inputs.end(), [&](const auto& input) { return alive.count(input.second) != 0 && outcome(input.second) != false; });
    if (!possible) continue;
    alive.insert(step.key);
    wanted.Add(of_plan(step));
  }
  return wanted;
}

}  // namespace

void PlannedStep::Seal() {
  spec_text = ToText(spec);
  key = KeyOf(spec_text);
}

PlannedSteps Next(const ResolvedRecipe& recipe, const Outcomes& outcomes) {
  return Wanted(PlanOf(recipe), [&](const StepKey& key) {
    auto it = outcomes.find(key);
    return it == outcomes.end() ? std::optional<bool>() : std::optional<bool>(it->second.done);
  });
}

PlannedSteps FullPlan(const ResolvedRecipe& recipe) {
  return Wanted(PlanOf(recipe), [](const StepKey&) { return std::optional<bool>(true); });
}

bool KeepsAll(const ResolvedRecipe& recipe) {
  auto keep = recipe.tree.find("keep");
  return keep == recipe.tree.end() || !keep->is_object() || keep->value("policy", "all") == "all";
}

// Plans are in topological order, so one walk from the end meets every reader before what it reads. Local steps read results alone.
std::set<StepKey> MadeAgain(const PlannedSteps& plan, bool keeps_all, const std::function<bool(const StepKey&)>& runs,
                            const std::function<bool(const StepKey&)>& collected, std::set<StepKey> needed) {
  std::set<StepKey> again;
  for (auto step = plan.rbegin(); step != plan.rend(); ++step) {
    bool open = runs(step->key);
    if (!open && (keeps_all || needed.count(step->key) != 0) && collected(step->key)) {
      again.insert(step->key);
      open = true;
    }
    if (!open || step->local) continue;
    for (const auto& [role, input] : step->spec.inputs) needed.insert(input);
  }
  return again;
}

Result<Prediction> Predict(const PlannedStep& step, const ResolvedRecipe& recipe) {
  std::shared_ptr<const Plan> plan = PlanOf(recipe);
  const Json& params = step.spec.params;
  bool evaluation = step.spec.kind == "evaluate";
  Prediction p;
  p.parameters = p.parameters_nonzero = plan->info.parameters;
  p.multiply_adds = p.multiply_adds_nonzero = plan->info.multiply_adds;
  bool measurement = step.spec.kind == "measure";
  auto expected = plan->expected.find(evaluation || measurement ? step.spec.inputs.at("model") : step.key);
  if (expected != plan->expected.end()) {
    p.parameters = expected->second.parameters;
    p.parameters_nonzero = expected->second.parameters_nonzero;
    p.multiply_adds = expected->second.multiply_adds;
    p.multiply_adds_nonzero = expected->second.multiply_adds_nonzero;
    p.checkpoint_bytes = expected->second.checkpoint_bytes;
  }
  int64_t validation = recipe.tree.at("data").at("validation").get<int64_t>(), epochs = 0;
  if (params.contains("stop_epoch")) {
    epochs = params["stop_epoch"].get<int64_t>() - params["start_epoch"].get<int64_t>();
  } else if (params.contains("train")) {
    epochs = params["train"]["epochs"].get<int64_t>();
  }
  p.training_samples = static_cast<double>(epochs * (recipe.data.train_count - validation));
  double forward = 2.0 * static_cast<double>(p.multiply_adds);  // floating-point operations for one sample
  // Backward costs twice the forward pass.
  double passes = 3.0 * p.training_samples;
  // Calibration, and a teacher's outputs for every sample, are forward passes.
  if (params.contains("calibration_samples")) passes += params["calibration_samples"].get<double>();
  if (params.value("split", "") == "train") passes += static_cast<double>(recipe.data.train_count - validation);
  if (evaluation) passes = static_cast<double>(params["split"] == "test" ? recipe.data.test_count : validation);
  // Four networks in turn, for a second at least.
  if (measurement) passes = 4.0 * params["runs"].get<double>() * params["batch"].get<double>();
  p.seconds = passes * forward / kPlanFlopsPerSecond;
  if (measurement) p.seconds = std::min(std::max(p.seconds, 1.0), params["seconds"].get<double>());
  return p;
}

}  // namespace pare::recipes
