// plan: what a recipe would run, without running anything. The same planner as the coordinator's, asked with what the
// coordinator (or the store) knows of the steps.
#include <cstdio>
#include <filesystem>
#include <set>

#include "cli/commands.h"
#include "cli/recipe_input.h"
#include "cli/render.h"
#include "recipes/planner.h"
#include "storage/store.h"

namespace pare::cli {
namespace {

enum class Known { kNothing, kDone, kCollected, kFailed };  // of a step; failed: it would fail again

// Nothing where there is no store yet: then nothing is known.
Result<std::unique_ptr<Connection>> ConnectIfThere(const Target& target) {
  std::error_code ignored;
  bool anything = !target.coordinator.empty() || std::filesystem::exists(storage::StorePaths(target.store).index(), ignored);
  if (!anything) return std::unique_ptr<Connection>();
  return Connect(target);
}

// Asks for the keys that `known` lacks.
Status LearnKeys(Connection* connection, const recipes::PlannedSteps& plan, std::map<StepKey, Known>& known) {
  Json keys = Json::array();
  for (const recipes::PlannedStep& step : plan) {
    if (known.emplace(step.key, Known::kNothing).second) keys.push_back(step.key.hex());
  }
  if (keys.empty() || connection == nullptr) return Ok();
  ASSIGN_OR_RETURN(Json states, connection->Call("known", {{"keys", std::move(keys)}}));
  for (const auto& [hex, state] : states.items()) {
    ASSIGN_OR_RETURN(StepKey key, StepKey::FromHex(hex));
    known[key] = state == "done" ? Known::kDone : state == "collected" ? Known::kCollected : Known::kFailed;
  }
  return Ok();
}

// All steps of the job if nothing more fails than what is known to.
Result<recipes::PlannedSteps> PlanWith(Connection* connection, const recipes::ResolvedRecipe& resolved, std::map<StepKey, Known>& known) {
  recipes::PlannedSteps plan = recipes::FullPlan(resolved);
  recipes::Outcomes outcomes;
  for (size_t before = 1; before != known.size();) {  // a failure makes another decision step, with another key
    before = known.size();
    TRY(LearnKeys(connection, plan, known));
    for (const auto& [key, what] : known) outcomes[key].done = what != Known::kFailed;
    plan = recipes::Next(resolved, outcomes);
  }
  return plan;
}

// Collected checkpoints are made again, or not missed.
void SettleCollected(const recipes::PlannedSteps& plan, bool keeps_all, std::map<StepKey, Known>& known) {
  auto is = [&known](Known what) { return [&known, what](const StepKey& key) { return known.at(key) == what; }; };
  std::set<StepKey> again = recipes::MadeAgain(plan, keeps_all, is(Known::kNothing), is(Known::kCollected));
  for (auto& [key, what] : known) {
    if (what == Known::kCollected) what = again.count(key) != 0 ? Known::kNothing : Known::kDone;
  }
}

// What the coordinator says of a step that failed before and would fail again.
Result<std::string> ReasonOf(Connection& connection, const StepKey& key) {
  ASSIGN_OR_RETURN(Json why, connection.Call("why", {{"step", key.hex()}}));
  return why.value("reason", "");
}

Result<Json> StepLine(const recipes::PlannedStep& step, const recipes::ResolvedRecipe& resolved, const std::map<StepKey, std::string>& names) {
  ASSIGN_OR_RETURN(recipes::Prediction p, recipes::Predict(step, resolved));
  Json inputs = Json::object();
  for (const auto& [role, key] : step.spec.inputs) inputs[role] = names.at(key);
  Json line = {{"name", step.name}, {"variant", step.variant}, {"kind", step.spec.kind}, {"key", step.key.hex()}, {"inputs", std::move(inputs)},
               {"parameters", p.parameters}, {"parameters_nonzero", p.parameters_nonzero}, {"multiply_adds", p.multiply_adds},
               {"multiply_adds_nonzero", p.multiply_adds_nonzero}, {"bytes", p.checkpoint_bytes}, {"seconds", p.seconds}};
  if (step.spec.kind == "evaluate") line["split"] = step.spec.params.at("split");
  return line;
}

Result<Json> MakePlan(const Target& target, const std::string& path, bool resolved_only) {
  ASSIGN_OR_RETURN(recipes::Recipe recipe, ReadRecipe(path));
  ASSIGN_OR_RETURN(Inputs inputs, PrepareInputs(recipe, path, target));
  ASSIGN_OR_RETURN(recipes::ResolvedRecipe resolved, recipes::Resolve(recipe, inputs.data, inputs.weights, inputs.outside.models));
  if (resolved_only) return resolved.tree;
  std::map<StepKey, Known> known;
  ASSIGN_OR_RETURN(auto connection, ConnectIfThere(target));
  ASSIGN_OR_RETURN(auto plan, PlanWith(connection.get(), resolved, known));
  SettleCollected(plan, recipes::KeepsAll(resolved), known);
  Json steps = Json::array(), warnings = WarningsOf(resolved, path);
  int64_t to_run = 0, cached = 0;
  double seconds = 0;
  std::map<StepKey, std::string> names;
  for (const recipes::PlannedStep& step : plan) {
    bool shared = !names.emplace(step.key, step.name).second;
    ASSIGN_OR_RETURN(Json line, StepLine(step, resolved, names));
    Known what = known.at(step.key);
    line["state"] = what == Known::kDone ? "cached" : what == Known::kFailed ? "failed" : shared ? "shared" : "to run";
    if (what == Known::kFailed) {
      ASSIGN_OR_RETURN(line["reason"], ReasonOf(*connection, step.key));
    }
    cached += what == Known::kDone && !shared;
    if (line["state"] == "to run") ++to_run, seconds += line["seconds"].get<double>();
    steps.push_back(std::move(line));
  }
  return Json{{"resolved", resolved.tree}, {"steps", std::move(steps)}, {"to_run", to_run}, {"cached", cached}, {"seconds", seconds}, {"warnings", std::move(warnings)}};
}

}  // namespace

void AddPlanCommand(CLI::App& app, Context& context) {
  auto options = std::make_shared<std::pair<std::string, bool>>();
  CLI::App* command = AddCommand(app, context, "plan", "Shows what a recipe would run: steps, what is cached, predicted size and time.", "pare plan recipes/tiny.yaml");
  command->group("Jobs");
  command->add_option("RECIPE", options->first, "recipe file (YAML)")->required()->type_name("");
  command->add_flag("--resolved", options->second, "print the recipe with every default written out as JSON");
  command->callback([&context, options] {
    context.action = [&context, options] {
      auto plan = MakePlan(context.target, options->first, options->second);
      if (!plan.ok()) return Fail(plan.error(), context.target.json);
      std::string text = options->second ? plan->dump(2) + "\n" : context.target.json ? Canonical(*plan) + "\n" : RenderPlan(*plan);
      std::fputs(text.c_str(), stdout);
      return 0;
    };
  });
}

}  // namespace pare::cli
