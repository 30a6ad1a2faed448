// plan: what a recipe would run, without running anything. The same planner as the coordinator's.
#include <cstdio>
#include <set>

#include "cli/commands.h"
#include "cli/recipe_input.h"
#include "cli/render.h"
#include "recipes/planner.h"
#include "storage/index.h"
#include "storage/store.h"

namespace pare::cli {
namespace {

// Keys whose artifacts the store has, also beside a living coordinator; no store: none.
Result<std::set<StepKey>> CachedKeys(const std::string& store) {
  std::set<StepKey> keys;
  auto index = storage::Index::OpenForReading(storage::StorePaths(store).index());
  if (!index.ok() && index.error().code == ErrorCode::kNotFound) return keys;
  if (!index.ok()) return index.error();
  ASSIGN_OR_RETURN(storage::StoredState state, (*index)->Load());
  for (const storage::ArtifactRow& row : state.artifacts) keys.insert(row.key);
  return keys;
}

Result<Json> MakePlan(const Target& target, const std::string& path, bool resolved_only) {
  ASSIGN_OR_RETURN(recipes::Recipe recipe, ReadRecipe(path));
  ASSIGN_OR_RETURN(Inputs inputs, PrepareInputs(recipe, path, nullptr));
  ASSIGN_OR_RETURN(recipes::ResolvedRecipe resolved, recipes::Resolve(recipe, inputs.data, inputs.weights));
  if (resolved_only) return resolved.tree;
  ASSIGN_OR_RETURN(std::set<StepKey> cached, CachedKeys(target.store));
  Json steps = Json::array(), warnings = Json::array();
  int64_t to_run = 0, reused = 0;
  double seconds = 0;
  std::set<StepKey> seen;
  for (const recipes::PlannedStep& step : recipes::FullPlan(resolved)) {
    ASSIGN_OR_RETURN(recipes::Prediction p, recipes::Predict(step, resolved));
    bool have = cached.count(step.key) > 0, shared = !seen.insert(step.key).second;
    (have ? reused : to_run) += !shared;
    if (!have && !shared) seconds += p.seconds;
    steps.push_back({{"name", step.name}, {"variant", step.variant}, {"kind", step.spec.kind}, {"key", step.key.hex()},
                     {"state", have ? "cached" : shared ? "shared" : "to run"}, {"parameters", p.parameters}, {"parameters_nonzero", p.parameters_nonzero},
                     {"multiply_adds", p.multiply_adds}, {"bytes", p.checkpoint_bytes}, {"seconds", p.seconds}});
  }
  for (const recipes::Finding& f : resolved.warnings) {
    warnings.push_back((f.line > 0 ? path + ":" + std::to_string(f.line) + ":" + std::to_string(f.column) + ": " : "") + f.text);
  }
  return Json{{"resolved", resolved.tree}, {"steps", std::move(steps)}, {"to_run", to_run}, {"cached", reused}, {"seconds", seconds}, {"warnings", std::move(warnings)}};
}

}  // namespace

void AddPlanCommand(CLI::App& app, Context& context) {
  auto options = std::make_shared<std::pair<std::string, bool>>();
  CLI::App* command = AddCommand(app, context, "plan", "Shows the steps a recipe would run, what is cached, and predicted size and time.", "pare plan recipes/fashion-lenet.yaml");
  command->add_option("RECIPE", options->first, "recipe file (YAML)")->required();
  command->add_flag("--resolved", options->second, "print the recipe with every default written out");
  command->callback([&context, options] {
    context.action = [&context, options] {
      auto plan = MakePlan(context.target, options->first, options->second);
      if (!plan.ok()) return Fail(plan.error(), context.target.json);
      bool json = context.target.json || options->second;
      std::printf("%s\n", json ? (options->second ? plan->dump(2) : Canonical(*plan)).c_str() : RenderPlan(*plan).c_str());
      return 0;
    };
  });
}

}  // namespace pare::cli
