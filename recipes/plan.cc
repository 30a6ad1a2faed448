#include "recipes/plan.h"

#include <algorithm>
#include <cmath>

#include "recipes/resolve.h"

namespace pare::recipes {
namespace {

// What byte planes and zstd leave of trained float32 values, in bits per value; the coded mask comes on top.
constexpr double kBitsPerValue = 28.8;

double Entropy(double p) { return p <= 0 || p >= 1 ? 0.0 : -p * std::log2(p) - (1 - p) * std::log2(1 - p); }

// Fraction of each pruned tensor that is kept, as the recipe says it.
using Densities = std::map<std::string, double>;

Expected ExpectedOf(const model::Graph& graph, const model::GraphInfo& info, const Densities& densities) {
  Expected e;
  double kept = static_cast<double>(info.parameters), adds = static_cast<double>(info.multiply_adds);
  double bits = kept * kBitsPerValue, masked = 0, gone = 0;
  for (const model::TensorSpec& spec : info.tensors) {
    auto density = densities.find(spec.name);
    if (density == densities.end()) continue;
    auto size = static_cast<double>(model::ElementCount(spec.shape));
    double sparsity = 1 - density->second;
    masked += size;
    gone += size * sparsity;
    bits += size * (Entropy(sparsity) - sparsity * kBitsPerValue);
    adds -= static_cast<double>(info.counts[static_cast<size_t>(graph.IndexOf(spec.node))].multiply_adds) * sparsity;
  }
  e.sparsity = masked > 0 ? gone / masked : 0;
  e.parameters_nonzero = std::llround(kept - gone);
  e.multiply_adds_nonzero = std::llround(adds);
  e.checkpoint_bytes = std::llround(bits / 8);
  return e;
}

// A variant with `repeat` written out.
void Flatten(const Json& steps, std::vector<const Json*>& flat) {
  for (const Json& item : steps) {
    if (!item.contains("steps")) {
      flat.push_back(&item);
      continue;
    }
    for (int64_t t = item["repeat"]["times"].get<int64_t>(); t > 0; --t) Flatten(item["steps"], flat);
  }
}

Json DataSpecOf(const ResolvedRecipe& recipe) {
  const Json& d = recipe.tree.at("data");
  data::DataSpec spec;
  spec.fingerprint = recipe.data.fingerprint;
  spec.validation = d.at("validation").get<int64_t>();
  spec.split_seed = recipe.tree.at("seed").get<uint64_t>();
  bool standard = d.at("normalize") == "standard";
  for (size_t c = 0; c < recipe.data.mean.size(); ++c) {
    spec.offset.push_back(standard ? recipe.data.mean[c] : 0.0);
    spec.scale.push_back(standard && recipe.data.deviation[c] > 0 ? 1.0 / recipe.data.deviation[c] : 1.0);
  }
  spec.flip = d.at("augment").at("flip").get<bool>();
  spec.shift = d.at("augment").at("shift").get<int64_t>();
  return data::ToJson(spec);
}

class Builder {
 public:
  explicit Builder(const ResolvedRecipe& recipe) : recipe_(recipe), tree_(recipe.tree), data_(DataSpecOf(recipe)) {
    plan_.seed = tree_.at("seed").get<uint64_t>();
    plan_.device = tree_.at("device").get<std::string>();
    const Json& snapshot = tree_.at("snapshot");
    plan_.hints = {{"snapshot_every_epochs", snapshot.at("every_epochs")}, {"snapshot_every_seconds", snapshot.at("every_seconds")}};
    if (tree_.contains("promote")) {
      const Json& promote = tree_.at("promote");
      plan_.promote = {{"goal", tree_.at("goal")}, {"as", promote.at("as")}, {"keep_best_effort", promote.at("keep_best_effort")}};
    }
  }

  std::shared_ptr<const Plan> Build() {
    auto info = model::Analyze(recipe_.graph);
    if (!info.ok()) return nullptr;
    plan_.info = *std::move(info);
    for (const model::TensorSpec& spec : plan_.info.tensors) sizes_[spec.name] = static_cast<double>(model::ElementCount(spec.shape));
    Baseline();
    for (const auto& [name, steps] : tree_.at("variants").items()) Variant(name, steps);
    return std::make_shared<const Plan>(std::move(plan_));
  }

 private:
  struct Chain {
    std::string variant;
    StepKey model;        // newest checkpoint
    std::string name;     // of the step that made it
    int64_t epochs = 0;   // trained so far
    int ordinal = 0, width = 2;
    bool evaluated = true;
    Densities densities;
  };

  PlannedStep Make(std::string name, std::string variant, std::string kind, Json params, std::map<std::string, StepKey> inputs, bool data) const {
    PlannedStep step;
    step.name = std::move(name);
    step.variant = std::move(variant);
    step.spec = {std::move(kind), std::move(params), std::move(inputs), data ? data_ : Json(), plan_.seed, plan_.device};
    step.key = KeyOf(step.spec);
    step.hints = plan_.hints;
    return step;
  }
  StepKey Add(PlannedStep step) {
    plan_.chains.push_back(std::move(step));
    return plan_.chains.back().key;
  }
  StepKey AddModel(PlannedStep step, const Densities& densities) {
    plan_.expected[step.key] = ExpectedOf(recipe_.graph, plan_.info, densities);
    return Add(std::move(step));
  }

  void Evaluate(const std::string& of, const std::string& variant, const StepKey& model, bool candidate) {
    auto evaluation = [&](const char* suffix, const char* split) {
      PlannedStep step = Make(of + suffix, variant, "evaluate", {{"split", split}}, {{"model", model}}, true);
      step.model_step = of;
      return step;
    };
    PlannedStep test = evaluation("/test", "test");
    // Without a validation split there is nothing to decide, and nothing to wait for before the test split is read.
    if (tree_.at("data").at("validation") == 0) {
      Add(std::move(test));
      return;
    }
    PlannedStep step = evaluation("/evaluate", "validation");
    step.candidate = candidate;
    plan_.tests[plan_.chains.size()] = std::move(test);
    Add(std::move(step));
  }

  void Baseline() {
    Json graph = model::ToJson(recipe_.graph);
    if (recipe_.weights.is_none()) {
      init_ = AddModel(Make("init", "", "initialize", {{"graph", graph}}, {}, false), {});
    } else {
      init_ = AddModel(Make("init", "", "import", {{"graph", graph}, {"weights", recipe_.weights.hex()}}, {}, false), {});
    }
    baseline_ = init_;
    baseline_name_ = "init";
    if (tree_.contains("train")) {
      baseline_epochs_ = tree_.at("train").at("epochs").get<int64_t>();
      baseline_name_ = "baseline";
      baseline_ = AddModel(Make("baseline", "", "train", TrainUntil(baseline_epochs_), {{"model", init_}}, true), {});
    }
    Evaluate(baseline_name_, "", baseline_, false);
  }

  Json TrainUntil(int64_t stop) const {
    return {{"train", TrainParams(tree_.at("train"), baseline_epochs_)}, {"start_epoch", 0}, {"stop_epoch", stop}, {"draw_epoch", 0}};
  }

  // The baseline's weights as they were at epoch k: a step of its own, so that variants never change the baseline's key.
  StepKey WeightsAt(int64_t k) {
    if (k == 0) return init_;
    auto [it, fresh] = rewinds_.try_emplace(k);
    if (fresh) it->second = AddModel(Make("baseline@" + std::to_string(k), "", "train", TrainUntil(k), {{"model", init_}}, true), {});
    return it->second;
  }

  void Variant(const std::string& name, const Json& steps) {
    std::vector<const Json*> flat;
    Flatten(steps, flat);
    Chain chain{name, baseline_, baseline_name_, baseline_epochs_, 0, flat.size() > 999 ? 4 : flat.size() > 99 ? 3 : 2, true, {}};
    for (size_t i = 0; i < flat.size(); ++i) {
      const Json& item = *flat[i];
      bool trains = item.contains("retrain");
      if (item.contains("prune")) {
        Prune(item["prune"], chain);
        trains = item["prune"]["schedule"] != "one_shot";
      } else if (item.contains("retrain")) {
        Retrain(item["retrain"], chain);
      }
      // Between a prune step and the training that repairs it nothing is worth evaluating.
      bool repaired = i + 1 < flat.size() && !flat[i + 1]->contains("evaluate");
      if (chain.evaluated || !(trains || item.contains("evaluate") || !repaired)) continue;
      Evaluate(chain.name, chain.variant, chain.model, true);
      chain.evaluated = true;
    }
  }

  void Advance(Chain& chain, const char* kind, Json params, std::map<std::string, StepKey> inputs, bool data) {
    std::string number = std::to_string(++chain.ordinal);
    number.insert(0, static_cast<size_t>(std::max(0, chain.width - static_cast<int>(number.size()))), '0');
    chain.name = chain.variant + "/" + number + "-" + kind;
    inputs["model"] = chain.model;
    chain.model = AddModel(Make(chain.name, chain.variant, kind, std::move(params), std::move(inputs), data), chain.densities);
    chain.evaluated = false;
  }

  void Prune(const Json& prune, Chain& chain) {
    Json params = {{"schedule", prune["schedule"]}, {"criterion", prune["criterion"]}, {"scope", prune["scope"]}, {"tensors", prune["tensors"]},
                   {"min_density", prune["min_density"]}, {"max_density", prune["max_density"]}};
    bool one_shot = prune["schedule"] == "one_shot", of_remaining = prune.contains("fraction_of_remaining");
    const char* amount = !one_shot ? "final_sparsity" : of_remaining ? "fraction_of_remaining" : "sparsity";
    params[amount] = prune[amount];
    double share = 1 - prune[amount].get<double>(), low = prune["min_density"].get<double>(), high = prune["max_density"].get<double>();
    double wanted = 0, least = 0, most = 0, n = static_cast<double>(prune["tensors"].size());
    for (const Json& tensor : prune["tensors"]) {
      double& density = chain.densities.try_emplace(tensor.get<std::string>(), 1.0).first->second;
      double size = sizes_.at(tensor.get<std::string>()), target = of_remaining ? density * share : std::min(density, share);
      wanted += target * size;
      least += std::min(density, low) * size;
      most += std::min(density, high) * size;
      density = std::min(density, std::clamp(target, low, high));
    }
    if (!one_shot) {
      for (const char* f : {"init_sparsity", "start_epoch", "end_epoch", "update_frequency"}) params[f] = prune[f];
      int64_t epochs = prune["train"]["epochs"].get<int64_t>();
      params["train"] = TrainParams(prune["train"], epochs);
      params["draw_epoch"] = chain.epochs;
      chain.epochs += epochs;
    }
    Advance(chain, "prune", std::move(params), {}, !one_shot);
    // A global ranking refuses an amount that the bounds leave no room for; each layer's count may be off by one half.
    if (prune["scope"] != "global") return;
    if (wanted < least - n) plan_.doubts.push_back(chain.name + ": min_density leaves less to remove than the step asks for, it will fail");
    if (wanted > most + n) plan_.doubts.push_back(chain.name + ": max_density removes more than the step asks for, it will fail");
  }

  void Retrain(const Json& retrain, Chain& chain) {
    std::string rewind = retrain["rewind"].get<std::string>();
    int64_t epochs = retrain["epochs"].get<int64_t>();
    bool fine_tune = rewind == "none";
    // A rewound epoch belongs to the baseline's schedule and draws as the baseline's did.
    int64_t start = fine_tune ? 0 : retrain["to"].get<int64_t>();
    Json params = {{"train", TrainParams(retrain, fine_tune ? epochs : baseline_epochs_)}, {"start_epoch", start}, {"stop_epoch", start + epochs},
                   {"draw_epoch", fine_tune ? chain.epochs : start}, {"rule", fine_tune ? "fine_tune" : rewind}};
    std::map<std::string, StepKey> inputs;
    if (rewind == "weights") inputs["rewind"] = WeightsAt(start);
    chain.epochs += epochs;
    Advance(chain, "retrain", std::move(params), std::move(inputs), true);
  }

  const ResolvedRecipe& recipe_;
  const Json& tree_;
  Json data_;
  Plan plan_;
  StepKey init_, baseline_;
  std::string baseline_name_;
  int64_t baseline_epochs_ = 0;
  std::map<int64_t, StepKey> rewinds_;
  std::map<std::string, double> sizes_;  // by tensor
};

}  // namespace

std::shared_ptr<const Plan> MakePlan(const ResolvedRecipe& recipe) {
  try {
    return Builder(recipe).Build();
  } catch (const std::exception&) {  // a field is missing, of another type, or names what the graph does not have
    return nullptr;
  }
}

PlannedStep PromoteStep(const Plan& plan, std::map<std::string, StepKey> inputs) {
  PlannedStep step;
  step.name = "promote";
  step.spec = {"promote", plan.promote, std::move(inputs), Json(), plan.seed, plan.device};
  step.key = KeyOf(step.spec);
  step.hints = plan.hints;
  step.local = true;
  return step;
}

}  // namespace pare::recipes
