#include "recipes/planner.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>
#include <set>
#include <tuple>

#include "model/counts.h"
#include "recipes/resolve.h"
#include "recipes/schema.h"

namespace pare::recipes {
namespace {

// Rate in force when training ends: of the last epoch's first batch (a rate of exactly zero would teach nothing).
double LastLearningRate(const Json& train) {
  double rate = train["learning_rate"].get<double>(), epochs = train["epochs"].get<double>();
  std::string kind = train["schedule"].get<std::string>();
  if (kind == "multi_step") {
    for (const Json& m : train["milestones"]) rate *= m.get<double>() <= epochs - 1 ? train["gamma"].get<double>() : 1.0;
  } else if (kind == "cosine" || kind == "linear") {
    double final = train["final_learning_rate"].get<double>(), left = 1.0 / epochs;
    double share = kind == "linear" ? left : 0.5 * (1.0 - std::cos(3.14159265358979323846 * left));
    rate = final + (rate - final) * share;
  }
  return rate;
}

// The train section with a step's overrides; `epochs` is the step's own.
Json Merged(const Json& tree, const Json& step) {
  Json train = tree.contains("train") ? tree["train"] : Json::object();
  FillDefaults("train", train);
  for (const Field* f : FieldsOf("train")) {
    if (step.contains(f->name)) train[std::string(f->name)] = step[std::string(f->name)];
  }
  if (!train.contains("shards") || (step.contains("batch_size") && !step.contains("shards"))) {
    train["shards"] = std::max<int64_t>(1, std::llround(train["batch_size"].get<double>() / 64.0));
  }
  return train;
}

// Squeezes the whole schedule by `factor`: milestones, warm-up and length.
void Scale(Json& train, double factor) {
  for (Json& m : train["milestones"]) m = m.get<double>() * factor;
  train["warmup_epochs"] = train["warmup_epochs"].get<double>() * factor;
}

class Builder {
 public:
  explicit Builder(const ResolvedRecipe& recipe) : recipe_(recipe), tree_(recipe.tree) {
    seed_ = tree_["seed"].get<uint64_t>();
    device_ = tree_["device"].get<std::string>();
    hints_ = {{"snapshot_every_epochs", tree_["snapshot"]["every_epochs"]}, {"snapshot_every_seconds", tree_["snapshot"]["every_seconds"]}};
    const Json& d = tree_["data"];
    data::DataSpec spec;
    spec.fingerprint = recipe.data.fingerprint;
    spec.validation = d["validation"].get<int64_t>();
    spec.split_seed = seed_;
    for (size_t c = 0; c < recipe.data.mean.size(); ++c) {
      bool standard = d["normalize"] == "standard";
      spec.offset.push_back(standard ? recipe.data.mean[c] : 0.0);
      spec.scale.push_back(standard && recipe.data.deviation[c] > 0 ? 1.0 / recipe.data.deviation[c] : 1.0);
    }
    spec.flip = d["augment"]["flip"].get<bool>();
    spec.shift = d["augment"]["shift"].get<int64_t>();
    data_ = data::ToJson(spec);
  }

  std::vector<PlannedStep> Chains() {
    Baseline();
    for (const auto& [name, steps] : tree_["variants"].items()) Variant(name, steps);
    return std::move(steps_);
  }

  PlannedStep Evaluation(const std::string& of, const std::string& variant, const StepKey& model, const std::string& split) const {
    PlannedStep step = Make(of + (split == "test" ? "/test" : "/evaluate"), variant, "evaluate", {{"split", split}}, {{"model", model}}, true);
    step.model_step = of;
    return step;
  }

  PlannedStep Promote(const std::map<std::string, StepKey>& inputs) const {
    Json params = {{"goal", tree_["goal"]}, {"as", tree_["promote"]["as"]}, {"keep_best_effort", tree_["promote"]["keep_best_effort"]}};
    PlannedStep step = Make("promote", "", "promote", std::move(params), inputs, false);
    step.local = true;
    return step;
  }

 private:
  struct Chain {
    std::string variant;
    StepKey model;      // newest
    std::string name;   // of the step that made it
    int64_t epochs = 0;  // trained so far
    int ordinal = 0;
    int width = 2;
    bool evaluated = true;
  };

  PlannedStep Make(std::string name, std::string variant, std::string kind, Json params, std::map<std::string, StepKey> inputs, bool data) const {
    PlannedStep step;
    step.name = std::move(name);
    step.variant = std::move(variant);
    step.spec = {std::move(kind), std::move(params), std::move(inputs), data ? data_ : Json(), seed_, device_};
    step.key = KeyOf(step.spec);
    step.hints = hints_;
    return step;
  }
  StepKey Add(PlannedStep step) {
    steps_.push_back(std::move(step));
    return steps_.back().key;
  }

  void Baseline() {
    Json graph = model::ToJson(recipe_.graph);
    bool given = !recipe_.weights.is_none();
    if (given) init_ = Add(Make("init", "", "import", {{"graph", graph}, {"weights", recipe_.weights.hex()}}, {}, false));
    else init_ = Add(Make("init", "", "initialize", {{"graph", graph}}, {}, false));
    baseline_ = init_;
    baseline_name_ = "init";
    if (tree_.contains("train")) {
      baseline_ = Add(Make("baseline", "", "train", TrainStep(tree_["train"]["epochs"].get<int64_t>()), {{"model", init_}}, true));
      baseline_name_ = "baseline";
      baseline_epochs_ = tree_["train"]["epochs"].get<int64_t>();
    }
    if (tree_["data"]["validation"].get<int64_t>() > 0) Add(Evaluation(baseline_name_, "", baseline_, "validation"));
  }

  Json TrainStep(int64_t stop) const {
    return {{"train", TrainParams(tree_["train"])}, {"start_epoch", 0}, {"stop_epoch", stop}, {"draw_epoch", 0}};
  }

  // The baseline's weights as they were at epoch k: a step of its own, so that variants never change the baseline's key.
  StepKey WeightsAt(int64_t k) {
    if (k == 0) return init_;
    auto it = rewinds_.find(k);
    if (it != rewinds_.end()) return it->second;
    return rewinds_[k] = Add(Make("baseline@" + std::to_string(k), "", "train", TrainStep(k), {{"model", init_}}, true));
  }

  static size_t CountSteps(const Json& steps) {
    size_t count = 0;
    for (const Json& item : steps) {
      if (item.contains("steps")) count += CountSteps(item["steps"]) * item["repeat"]["times"].get<size_t>();
      else count += !item.contains("evaluate");
    }
    return count;
  }

  void Variant(const std::string& name, const Json& steps) {
    Chain chain{name, baseline_, baseline_name_, baseline_epochs_, 0, CountSteps(steps) > 99 ? 4 : 2, true};
    std::vector<const Json*> flat;
    Flatten(steps, flat);
    for (size_t i = 0; i < flat.size(); ++i) {
      const Json& item = *flat[i];
      bool trains = true;
      if (item.contains("prune")) {
        Prune(item["prune"], chain);
        trains = item["prune"]["schedule"] != "one_shot";
      } else if (item.contains("retrain")) {
        Retrain(item["retrain"], chain);
      }
      // Between a prune step and the training that repairs it nothing is worth evaluating.
      bool followed = i + 1 < flat.size() && !flat[i + 1]->contains("evaluate");
      if (item.contains("evaluate") || trains || !followed) EvaluateCandidate(chain);
    }
  }

  static void Flatten(const Json& steps, std::vector<const Json*>& flat) {
    for (const Json& item : steps) {
      if (!item.contains("steps")) {
        flat.push_back(&item);
        continue;
      }
      for (int64_t t = item["repeat"]["times"].get<int64_t>(); t > 0; --t) Flatten(item["steps"], flat);
    }
  }

  void EvaluateCandidate(Chain& chain) {
    if (chain.evaluated) return;
    PlannedStep step = Evaluation(chain.name, chain.variant, chain.model, "validation");
    step.candidate = true;
    Add(std::move(step));
    chain.evaluated = true;
  }

  std::string NextName(Chain& chain, const char* kind) {
    std::string number = std::to_string(++chain.ordinal);
    number.insert(0, static_cast<size_t>(std::max(0, chain.width - static_cast<int>(number.size()))), '0');
    return chain.variant + "/" + number + "-" + kind;
  }
  void Advance(Chain& chain, PlannedStep step) {
    chain.name = step.name;
    chain.model = Add(std::move(step));
    chain.evaluated = false;
  }

  void Prune(const Json& prune, Chain& chain) {
    Json params = {{"schedule", prune["schedule"]}, {"criterion", prune["criterion"]}, {"scope", prune["scope"]}, {"tensors", prune["tensors"]},
                   {"min_density", prune["min_density"]}, {"max_density", prune["max_density"]}};
    bool one_shot = prune["schedule"] == "one_shot";
    if (one_shot) {
      const char* amount = prune.contains("sparsity") ? "sparsity" : "fraction_of_remaining";
      params[amount] = prune[amount];
    } else {
      for (const char* f : {"init_sparsity", "final_sparsity", "start_epoch", "end_epoch", "update_frequency"}) params[f] = prune[f];
      Json train = Merged(tree_, prune);
      // The baseline's schedule, squeezed into this step's epochs, unless the step names its own.
      if (tree_.contains("train")) {
        Scale(train, prune["epochs"].get<double>() / tree_["train"]["epochs"].get<double>());
        train["schedule"] = tree_["train"]["schedule"];
      } else {
        train["schedule"] = "constant";
      }
      params["train"] = TrainParams(train);
      params["draw_epoch"] = chain.epochs;
      chain.epochs += prune["epochs"].get<int64_t>();
    }
    std::string name = NextName(chain, "prune");
    Advance(chain, Make(name, chain.variant, "prune", std::move(params), {{"model", chain.model}}, !one_shot));
  }

  void Retrain(const Json& retrain, Chain& chain) {
    std::string rewind = retrain["rewind"].get<std::string>();
    int64_t epochs = retrain["epochs"].get<int64_t>();
    Json train = Merged(tree_, retrain);
    std::map<std::string, StepKey> inputs = {{"model", chain.model}};
    int64_t start = 0;
    int64_t draw = chain.epochs;
    if (rewind == "none") {
      if (!retrain.contains("schedule")) {
        train["schedule"] = "constant";
        train["milestones"] = Json::array();
        train["warmup_epochs"] = 0;
        if (!retrain.contains("learning_rate") && tree_.contains("train")) train["learning_rate"] = LastLearningRate(tree_["train"]);
      }
    } else {
      int64_t to = retrain["to"].get<int64_t>(), total = tree_["train"]["epochs"].get<int64_t>();
      double factor = static_cast<double>(epochs) / static_cast<double>(total - to);
      Scale(train, factor);
      start = to;  // with epochs of its own a step enters the squeezed schedule at 0 (Resolve sees to it)
      train["epochs"] = static_cast<double>(total) * factor;
      if (rewind == "weights") {
        inputs["rewind"] = WeightsAt(to);
        draw = to;
      }
    }
    Json params = {{"train", TrainParams(train)}, {"start_epoch", start}, {"stop_epoch", start + epochs},
                   {"draw_epoch", draw}, {"rule", rewind == "none" ? "fine_tune" : rewind}};
    params["train"]["epochs"] = epochs;
    chain.epochs += epochs;
    std::string name = NextName(chain, "retrain");
    Advance(chain, Make(name, chain.variant, "retrain", std::move(params), std::move(inputs), true));
  }

  const ResolvedRecipe& recipe_;
  const Json& tree_;
  uint64_t seed_ = 0;
  std::string device_;
  Json hints_, data_;
  StepKey init_, baseline_;
  std::string baseline_name_;
  int64_t baseline_epochs_ = 0;
  std::map<int64_t, StepKey> rewinds_;
  std::vector<PlannedStep> steps_;
};

// The plan with `outcome(key)` telling what is known: nullopt unknown, true done, false failed.
template <typename OutcomeOf>
std::vector<PlannedStep> Plan(const ResolvedRecipe& recipe, OutcomeOf outcome) {
  Builder builder(recipe);
  std::vector<PlannedStep> wanted;
  std::set<StepKey> dead;
  bool finished = true, baseline_done = false;
  std::map<std::string, StepKey> evaluations;
  std::vector<const PlannedStep*> evaluated;
  std::vector<PlannedStep> chains = builder.Chains();
  for (const PlannedStep& step : chains) {
    bool alive = std::all_of(step.spec.inputs.begin(), step.spec.inputs.end(), [&](const auto& input) { return !dead.count(input.second); });
    std::optional<bool> known = alive ? outcome(step.key) : std::optional<bool>(false);
    if (alive) wanted.push_back(step);
    if (known == false) dead.insert(step.key);
    finished = finished && known.has_value();
    if (step.spec.kind != "evaluate" || known != true) continue;
    bool baseline = !step.candidate;
    baseline_done = baseline_done || baseline;
    evaluations[baseline ? "baseline" : "candidate/" + step.model_step] = step.key;
    evaluated.push_back(&step);
  }
  if (!finished || !baseline_done) return wanted;
  bool decided = true;
  if (recipe.tree.contains("promote")) {
    PlannedStep promote = builder.Promote(evaluations);
    decided = outcome(promote.key).has_value();
    wanted.push_back(std::move(promote));
  }
  if (!decided) return wanted;
  for (const PlannedStep* e : evaluated) {
    PlannedStep test = builder.Evaluation(e->model_step, e->variant, e->spec.inputs.at("model"), "test");
    wanted.push_back(std::move(test));
  }
  return wanted;
}

int64_t Objective(const Json& summary, const std::string& minimize) {
  if (minimize == "bytes") return summary.at("checkpoint_bytes").get<int64_t>();
  return summary.at(minimize == "parameters" ? "parameters_nonzero" : "multiply_adds_nonzero").get<int64_t>();
}

std::string Percent(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", value);
  return text;
}

struct Ranked {
  std::string step;
  double accuracy, drop;
  int64_t objective;
  bool met;
  Json model;
};

}  // namespace

std::vector<PlannedStep> Next(const ResolvedRecipe& recipe, const Outcomes& outcomes) {
  return Plan(recipe, [&](const StepKey& key) {
    auto it = outcomes.find(key);
    return it == outcomes.end() ? std::optional<bool>() : std::optional<bool>(it->second.done);
  });
}

std::vector<PlannedStep> FullPlan(const ResolvedRecipe& recipe) {
  return Plan(recipe, [](const StepKey&) { return std::optional<bool>(true); });
}

Json RunLocalStep(const PlannedStep& step, const ResolvedRecipe&, const Outcomes& outcomes) {
  CHECK(step.local && step.spec.kind == "promote");
  const Json& goal = step.spec.params["goal"];
  std::string minimize = goal["minimize"].get<std::string>();
  double allowed = goal["max_accuracy_drop"].get<double>();
  auto results = [&](const StepKey& key) -> const Json& {
    auto it = outcomes.find(key);
    CHECK(it != outcomes.end() && it->second.done);
    return it->second.results;
  };
  double baseline = results(step.spec.inputs.at("baseline"))["accuracy"].get<double>();
  std::vector<Ranked> ranking;
  for (const auto& [role, key] : step.spec.inputs) {
    if (role == "baseline") continue;
    const Json& r = results(key);
    double accuracy = r["accuracy"].get<double>(), drop = baseline - accuracy;
    // Accuracies are ratios of small integers: a hair of rounding must not decide.
    ranking.push_back({role.substr(10), accuracy, drop, Objective(r["summary"], minimize), drop <= allowed + 1e-9, r["model"]});
  }
  std::sort(ranking.begin(), ranking.end(), [](const Ranked& a, const Ranked& b) {
    if (a.met != b.met) return a.met;
    if (a.met) return std::tie(a.objective, b.accuracy, a.step) < std::tie(b.objective, a.accuracy, b.step);
    return std::tie(a.drop, a.objective, a.step) < std::tie(b.drop, b.objective, b.step);
  });
  Json list = Json::array();
  int64_t met = 0;
  for (const Ranked& r : ranking) {
    met += r.met;
    list.push_back({{"step", r.step}, {"accuracy", r.accuracy}, {"drop", r.drop}, {"objective", r.objective}, {"met_goal", r.met}});
  }
  Json decision = {{"as", step.spec.params["as"]}, {"goal", goal}, {"ranking", std::move(list)}, {"chosen", nullptr}, {"artifact", nullptr}, {"met_goal", false}};
  std::string within = Percent(allowed) + " pp of the baseline (" + Percent(baseline) + " %)";
  std::string count = std::to_string(met) + " of " + std::to_string(ranking.size()) + " candidates";
  bool choose = !ranking.empty() && (ranking[0].met || step.spec.params["keep_best_effort"].get<bool>());
  if (choose) {
    decision["chosen"] = ranking[0].step;
    decision["artifact"] = ranking[0].model;
    decision["met_goal"] = ranking[0].met;
    decision["reason"] = ranking[0].met ? "smallest " + minimize + " among the " + count + " within " + within
                                        : "no candidate is within " + within + "; this one misses it least (" + Percent(ranking[0].drop) + " pp)";
  } else {
    decision["reason"] = ranking.empty() ? "there are no candidates" : "no candidate is within " + within + ", and keep_best_effort is off";
  }
  return decision;
}

Result<Prediction> Predict(const PlannedStep& step, const ResolvedRecipe& recipe) {
  constexpr double kPlanFlopsPerSecond = 50e9;  // one core of a present server, dense float32
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(recipe.graph));
  Prediction p;
  p.parameters = p.parameters_nonzero = info.parameters;
  p.multiply_adds = info.multiply_adds;
  p.checkpoint_bytes = static_cast<int64_t>(static_cast<double>(info.parameters) * 3.6);
  double samples = static_cast<double>(recipe.data.train_count - recipe.tree["data"]["validation"].get<int64_t>());
  const Json& params = step.spec.params;
  double epochs = 0;
  if (params.contains("stop_epoch")) epochs = params["stop_epoch"].get<double>() - params["start_epoch"].get<double>();
  else if (params.contains("train")) epochs = params["train"]["epochs"].get<double>();
  p.training_samples = epochs * samples;
  double forward = 2.0 * static_cast<double>(info.multiply_adds);
  // Backward costs twice the forward pass.
  p.seconds = p.training_samples * 3.0 * forward / kPlanFlopsPerSecond;
  if (step.spec.kind == "evaluate") {
    double count = static_cast<double>(params["split"] == "test" ? recipe.data.test_count : recipe.tree["data"]["validation"].get<int64_t>());
    p.seconds = count * forward / kPlanFlopsPerSecond;
  }
  return p;
}

}  // namespace pare::recipes
