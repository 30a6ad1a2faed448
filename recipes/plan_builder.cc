#include "recipes/plan_builder.h"

#include <stdexcept>

#include "recipes/kinds.h"
#include "recipes/resolve.h"

namespace pare::recipes {
namespace {

// One item of a variant, and where it stands.
struct Item {
  const Kind* kind;
  const Json* section;
  std::string pointer;
};

// A variant with `repeat` written out.
void Flatten(const Json& steps, const std::string& pointer, std::vector<Item>& flat) {
  for (size_t i = 0; i < steps.size(); ++i) {
    const Json& item = steps[i];
    std::string at = pointer + "/" + std::to_string(i);
    if (item.contains("steps")) {
      for (int64_t t = item["repeat"]["times"].get<int64_t>(); t > 0; --t) Flatten(item["steps"], at + "/steps", flat);
      continue;
    }
    auto [name, section] = *item.items().begin();
    const Kind* kind = FindKind(name);
    if (kind == nullptr) throw std::out_of_range(name);  // stored by another release
    flat.push_back({kind, &section, at + "/" + name});
  }
}

Json DataSpecOf(const ResolvedRecipe& recipe) {
  const Json& d = recipe.tree.at("data");
  data::DataSpec spec;
  spec.fingerprint = recipe.data.fingerprint;
  spec.validation = d.at("validation").get<int64_t>();
  spec.split_seed = recipe.tree.at("seed").get<uint64_t>();
  bool standard = d.at("normalize") == "standard";
  // Bytes are divided by 255, unless they are ids.
  const double unit = recipe.data.dtype == "U8" && model::VocabularyOf(recipe.graph) > 0 ? 255.0 : 1.0;
  for (size_t c = 0; c < recipe.data.mean.size(); ++c) {
    spec.offset.push_back(standard ? recipe.data.mean[c] : 0.0);
    spec.scale.push_back(standard && recipe.data.deviation[c] > 0 ? 1.0 / recipe.data.deviation[c] : unit);
  }
  spec.flip = d.at("augment").at("flip").get<bool>();
  spec.shift = d.at("augment").at("shift").get<int64_t>();
  return data::ToJson(spec);
}

}  // namespace

PlanBuilder::PlanBuilder(const ResolvedRecipe& recipe) : recipe_(recipe), tree_(recipe.tree), data_(DataSpecOf(recipe)) {
  plan_.seed = tree_.at("seed").get<uint64_t>();
  plan_.device = tree_.at("device").get<std::string>();
  const Json& snapshot = tree_.at("snapshot");
  plan_.hints = Json{{"snapshot_every_epochs", snapshot.at("every_epochs")}, {"snapshot_every_seconds", snapshot.at("every_seconds")}};
  if (tree_.contains("promote")) {
    const Json& promote = tree_.at("promote");
    plan_.promote = {{"goal", tree_.at("goal")}, {"as", promote.at("as")}, {"keep_best_effort", promote.at("keep_best_effort")}};
  }
}

std::shared_ptr<const Plan> PlanBuilder::Build() {
  auto info = model::Analyze(recipe_.graph);
  if (!info.ok()) return nullptr;
  plan_.info = *std::move(info);
  Baseline();
  for (const auto& [name, steps] : tree_.at("variants").items()) {
    if (variants_.count(name) == 0) Variant(name);
  }
  return std::make_shared<const Plan>(std::move(plan_));
}

PlannedStep PlanBuilder::Make(std::string name, std::string variant, std::string kind, Json params, std::map<std::string, StepKey> inputs,
                              bool reads_data, std::optional<uint64_t> seed) const {
  PlannedStep step;
  step.name = std::move(name);
  step.variant = std::move(variant);
  step.spec = {std::move(kind), std::move(params), std::move(inputs), reads_data ? data_ : JsonText(), seed.value_or(plan_.seed), plan_.device};
  step.Seal();
  step.hints = plan_.hints;
  // More workers than shards would have nothing to compute, and what does not train has none.
  const Json& resolved = step.spec.params;
  int64_t gang = std::min(tree_.value("gang", int64_t{1}), (resolved.contains("train") ? resolved["train"] : resolved).value("shards", int64_t{1}));
  if (gang > 1) {
    Json hints = plan_.hints.Tree();
    hints["gang"] = gang;
    step.hints = std::move(hints);
  }
  return step;
}

StepKey PlanBuilder::Add(PlannedStep step) {
  keys_.insert(step.key);
  plan_.chains.push_back(std::move(step));
  return plan_.chains.back().key;
}

StepKey PlanBuilder::AddModel(PlannedStep step, const methods::Outline& outline, std::shared_ptr<const model::Graph> graph) {
  if (graph != nullptr) graphs_[step.key] = std::move(graph);
  plan_.expected[step.key] = ExpectedOf(outline);
  for (const auto& [tensor, layer] : outline.layers) {
    if (layer.factored) factored_[step.key].insert(layer.node);
  }
  models_[step.name] = {step.key, step.name};
  return Add(std::move(step));
}

bool PlanBuilder::IsFactored(const StepKey& model, const std::string& node) const {
  auto found = factored_.find(model);
  return found != factored_.end() && found->second.contains(node);
}

const model::Graph& PlanBuilder::GraphOf(const StepKey& model) const {
  auto found = graphs_.find(model);
  return found == graphs_.end() ? recipe_.graph : *found->second;
}

StepKey PlanBuilder::EvaluationOf(const StepKey& model) const {
  return Make("", "", "evaluate", {{"split", "validation"}}, {{"model", model}}, true).key;
}

StepKey PlanBuilder::TestOf(const PlannedModel& model, const std::string& variant) {
  PlannedStep step = Make(model.name + "/test", variant, "evaluate", {{"split", "test"}}, {{"model", model.key}}, true);
  step.model_step = model.name;
  StepKey key = step.key;
  bool planned = std::any_of(plan_.tests.begin(), plan_.tests.end(), [&](const auto& test) { return test.second.key == key; }) ||
                 std::any_of(plan_.afterwards.begin(), plan_.afterwards.end(), [&](const PlannedStep& s) { return s.key == key; });
  if (!planned) Afterwards(std::move(step));
  return key;
}

PlannedStep PlanBuilder::MakeShared(const std::string& name, const std::string& kind, Json params, std::map<std::string, StepKey> inputs, bool reads_data,
                                    std::optional<uint64_t> seed) {
  PlannedStep step = Make(name, "", kind, std::move(params), std::move(inputs), reads_data, seed);
  for (int number = 2;; ++number) {
    auto [it, fresh] = shared_names_.try_emplace(step.name, step.key);
    if (fresh || it->second == step.key) return step;
    step.name = name + "-" + std::to_string(number);
  }
}

StepKey PlanBuilder::Evaluate(const std::string& of, const std::string& variant, const StepKey& model, bool candidate) {
  auto evaluation = [&](const char* suffix, const char* split) {
    PlannedStep step = Make(of + suffix, variant, "evaluate", {{"split", split}}, {{"model", model}}, true);
    step.model_step = of;
    return step;
  };
  PlannedStep test = evaluation("/test", "test");
  // Without a validation split there is nothing to decide, and nothing to wait for before the test split is read.
  if (tree_.at("data").at("validation") == 0) return Add(std::move(test));
  PlannedStep step = evaluation("/evaluate", "validation");
  step.candidate = candidate;
  plan_.tests[plan_.chains.size()] = std::move(test);
  return Add(std::move(step));
}

void PlanBuilder::Baseline() {
  Json graph = model::ToJson(recipe_.graph);
  dense_ = methods::OutlineOf(recipe_.graph, plan_.info);
  bool fresh = recipe_.weights.is_none();
  Json params = {{"graph", graph}};
  if (!fresh) params["weights"] = recipe_.weights.hex();
  init_ = {AddModel(Make("init", "", fresh ? "initialize" : "import", std::move(params), {}, false), dense_), "init"};
  baseline_ = init_;
  if (tree_.contains("train")) {
    baseline_epochs_ = tree_.at("train").at("epochs").get<int64_t>();
    baseline_.name = "baseline";
    baseline_.key = AddModel(Make("baseline", "", "train", TrainUntil(baseline_epochs_), {{"model", init_.key}}, true), dense_);
  }
  for (const char* name : {"init", "baseline", "promote"}) shared_names_[name] = init_.key;
  Evaluate(baseline_.name, "", baseline_.key, false);
}

Json PlanBuilder::TrainUntil(int64_t stop) const {
  return {{"train", TrainParams(tree_.at("train"), baseline_epochs_)}, {"start_epoch", 0}, {"stop_epoch", stop}, {"draw_epoch", 0}};
}

// A step of its own, so that variants never change the baseline's key.
StepKey PlanBuilder::WeightsAt(int64_t epoch) {
  if (epoch == 0) return init_.key;
  auto [it, fresh] = rewinds_.try_emplace(epoch);
  if (fresh) {
    it->second = AddModel(Make("baseline@" + std::to_string(epoch), "", "train", TrainUntil(epoch), {{"model", init_.key}}, true), dense_);
  }
  return it->second;
}

const PlannedModel* PlanBuilder::Find(const std::string& step, bool& busy) {
  auto found = models_.find(step);
  std::string variant = step.substr(0, step.find('/'));
  if (found == models_.end() && tree_.at("variants").contains(variant)) {
    auto state = variants_.find(variant);
    if (state == variants_.end()) Variant(variant);
    busy = state != variants_.end() && !state->second;
    found = models_.find(step);
  }
  return found == models_.end() ? nullptr : &found->second;
}

std::vector<std::string> PlanBuilder::ModelNames() const {
  std::vector<std::string> names;
  for (const auto& [name, model] : models_) names.push_back(name);
  for (const auto& [name, steps] : tree_.at("variants").items()) names.push_back(name);
  return names;
}

void PlanBuilder::Variant(const std::string& name) {
  variants_[name] = false;
  std::vector<Item> flat;
  Flatten(tree_.at("variants").at(name), "/variants/" + name, flat);
  Chain chain(*this, name, flat.size());
  for (size_t i = 0; i < flat.size(); ++i) {
    const Item& item = flat[i];
    chain.pointer_ = item.pointer;
    chain.is_last_ = i + 1 == flat.size();
    size_t refusals = plan_.refusals.size();
    if (item.kind->plan) item.kind->plan(chain, *item.section);
    if (plan_.refusals.size() > refusals) break;  // what follows would only complain of the consequences
    // Between a prune step and the training that repairs it nothing is worth evaluating.
    bool trains = item.kind->trains && item.kind->trains(*item.section), asked = item.kind->name == "evaluate";
    bool repaired = !chain.is_last_ && flat[i + 1].kind->name != "evaluate";
    if (trains || asked || !repaired) chain.Evaluate();
  }
  plan_.left[name] = std::move(chain.outline_);
  variants_[name] = true;
  models_.try_emplace(name, chain.newest());  // what it ends with, by the variant's name
}

}  // namespace pare::recipes
