// The promotion rule: which of the evaluated candidates is promoted, and why. Pure.
#include <algorithm>
#include <cstdio>
#include <tuple>

#include "recipes/planner.h"

namespace pare::recipes {
namespace {

struct Ranked {
  std::string step;
  double accuracy, drop;  // percent; percentage points below the baseline
  int64_t objective;
  bool met;
  Json model;
};

int64_t ObjectiveOf(const Json& summary, const std::string& minimize) {
  if (minimize == "bytes") return summary.at("checkpoint_bytes").get<int64_t>();
  return summary.at(minimize == "parameters" ? "parameters_nonzero" : "multiply_adds_nonzero").get<int64_t>();
}

std::string Digits(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", value);
  return text;
}

// Those that meet the goal first, smallest first (then more accurate, then by name); the others by how far they miss it.
bool Better(const Ranked& a, const Ranked& b) {
  if (a.met != b.met) return a.met;
  if (a.met) return std::tie(a.objective, b.accuracy, a.step) < std::tie(b.objective, a.accuracy, b.step);
  return std::tie(a.drop, a.objective, a.step) < std::tie(b.drop, b.objective, b.step);
}

}  // namespace

Json RunLocalStep(const PlannedStep& step, const ResolvedRecipe&, const Outcomes& outcomes) {
  CHECK(step.local && step.spec.kind == "promote");
  const Json& goal = step.spec.params["goal"];
  std::string minimize = goal["minimize"].get<std::string>();
  double allowed = goal["max_accuracy_drop"].get<double>();
  auto results = [&](const StepKey& key) {
    auto it = outcomes.find(key);
    CHECK(it != outcomes.end() && it->second.done);
    return it->second.results.Tree();
  };
  double baseline = results(step.spec.inputs.at("baseline"))["accuracy"].get<double>();
  std::vector<Ranked> ranking;
  const std::string prefix = "candidate/";
  for (const auto& [role, key] : step.spec.inputs) {
    if (role.rfind(prefix, 0) != 0) continue;
    Json r = results(key);
    double accuracy = r["accuracy"].get<double>(), drop = baseline - accuracy;
    // Accuracies are ratios of small integers: a hair of rounding must not decide.
    ranking.push_back({role.substr(prefix.size()), accuracy, drop, ObjectiveOf(r["summary"], minimize), drop <= allowed + 1e-9, r["model"]});
  }
  std::sort(ranking.begin(), ranking.end(), Better);
  Json list = Json::array();
  int64_t met = 0;
  for (const Ranked& r : ranking) {
    met += r.met;
    list.push_back({{"step", r.step}, {"accuracy", r.accuracy}, {"drop", r.drop}, {"objective", r.objective}, {"met_goal", r.met}});
  }
  Json decision = {{"as", step.spec.params["as"]}, {"goal", goal}, {"ranking", std::move(list)}, {"chosen", nullptr}, {"artifact", nullptr}, {"met_goal", false}};
  std::string within = Digits(allowed) + " pp of the baseline (" + Digits(baseline) + " %)";
  if (ranking.empty()) {
    decision["reason"] = "there are no candidates";
    return decision;
  }
  const Ranked& best = ranking.front();
  decision["met_goal"] = best.met;
  if (!best.met && !step.spec.params["keep_best_effort"].get<bool>()) {
    decision["reason"] = "none of " + std::to_string(ranking.size()) + " candidates is within " + within + ", and keep_best_effort is off";
    return decision;
  }
  decision["chosen"] = best.step;
  decision["artifact"] = best.model;
  decision["reason"] = best.met ? "smallest " + minimize + " among " + std::to_string(met) + " of " + std::to_string(ranking.size()) + " candidates within " + within
                                : "none of " + std::to_string(ranking.size()) + " candidates is within " + within + "; this one misses it least (" + Digits(best.drop) + " pp)";
  return decision;
}

}  // namespace pare::recipes
