#include "recipes/resolve.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "model/architectures.h"
#include "recipes/findings.h"
#include "recipes/kinds.h"
#include "recipes/model_section.h"
#include "recipes/plan.h"
#include "recipes/recipe.h"
#include "recipes/resolve_context.h"
#include "recipes/schema.h"
#include "recipes/select.h"

namespace pare::recipes {
namespace {

class Resolver {
 public:
  Resolver(const Recipe& recipe, const data::DataInfo& data) : recipe_(recipe), tree_(recipe.tree()), errors_(recipe.name(), recipe.positions()), context_(recipe, tree_, out_, info_, errors_, out_.warnings) {
    out_.data = data;
    out_.name = tree_.at("name").get<std::string>();
  }

  Result<ResolvedRecipe> Run(const Digest& weights, const OutsideModels& outside) {
    out_.outside = outside;
    out_.weights = weights;
    FillDefaults("recipe", tree_);
    ResolveModel();
    ResolveData();
    if (!errors_.empty()) return errors_.ToError();
    if (tree_.contains("train")) ResolveTrain();
    FillDefaults("snapshot", tree_["snapshot"]);
    FillDefaults("goal", tree_["goal"]);
    FillDefaults("target", tree_["goal"]["target"]);
    if (tree_.contains("promote")) FillDefaults("promote", tree_["promote"]);
    for (auto& [name, steps] : tree_["variants"].items()) {
      context_.StartVariant();
      ResolveSteps(steps, "/variants/" + name);
    }
    if (!errors_.empty()) return errors_.ToError();
    WarnOfData();
    FillDefaults("keep", tree_["keep"]);
    Json& pinned = tree_["keep"]["pinned"];
    if (!pinned.is_array()) pinned = pinned.is_null() ? Json::array() : Json::array({pinned});
    out_.tree = tree_;
    out_.plan = MakePlan(out_);
    CHECK(out_.plan != nullptr);
    for (const Remark& refusal : out_.plan->refusals) Fail(refusal.pointer, refusal.text);
    ResolveKeep();
    if (!errors_.empty()) return errors_.ToError();
    if (size_t steps = out_.plan->chains.size() + out_.plan->tests.size() + out_.plan->afterwards.size() + 1; steps > kMaxPlannedSteps) {
      Fail("/variants", "a job has at most " + std::to_string(kMaxPlannedSteps) + " steps, evaluations included; this one has " + std::to_string(steps));
      return errors_.ToError();
    }
    WarnOfPlan();
    return std::move(out_);
  }

 private:
  void Fail(const std::string& pointer, const std::string& text) { errors_.Add(pointer, text); }
  void Warn(const std::string& pointer, const std::string& text) { context_.Warn(pointer, text); }

  void ResolveModel() {
    auto resolved = ResolveModelSection(tree_["model"]);
    if (!resolved.ok()) return Fail("/model", "model: " + resolved.error().message);
    auto graph = BuildModelSection(tree_["model"], out_.data);
    if (!graph.ok()) return Fail("/model", "model: " + graph.error().message);
    out_.graph = *std::move(graph);
    auto info = model::Analyze(out_.graph);
    if (!info.ok()) {
      return Fail("/model", "the model does not take samples of shape " + model::ToString(out_.data.sample_shape) + ": " + info.error().message);
    }
    info_ = *std::move(info);
    Json model = *std::move(resolved);
    for (const model::ArchitectureInfo& architecture_info : model::Architectures()) {
      for (const model::ArchitectureField& field : architecture_info.fields) {
        // 0 and 0.0 mean the same.
        if (field.type == "number" && model.contains(field.name)) model[field.name] = model[field.name].get<double>() + 0.0;
      }
    }
    if (tree_["model"].contains("weights")) model["weights"] = tree_["model"]["weights"];
    tree_["model"] = std::move(model);
  }

  void ResolveData() {
    Json& data = tree_["data"];
    if (model::VocabularyOf(out_.graph) > 0) {
      if (data.value("normalize", Json("none")) != "none") Fail("/data/normalize", "normalize: the samples are token ids, which are taken as they are; leave it out");
      data["normalize"] = "none";
    }
    FillDefaults("data", data);
    FillDefaults("augment", data["augment"]);
    int64_t validation = data["validation"].get<int64_t>(), train = out_.data.train_count;
    if (validation >= train) {
      Fail("/data/validation", "validation: " + std::to_string(validation) + " of only " + std::to_string(train) + " training samples; nothing is left to train on");
    } else if (validation == 0 && (!tree_["variants"].empty() || tree_.contains("promote"))) {
      Fail("/data", "data: variants and promote need a validation split, which drives every decision; add for example validation: " +
                        std::to_string(std::max<int64_t>(1, train / 12)));
    }
    bool image = out_.data.sample_shape.size() == 3;
    if (!image && (data["augment"]["flip"].get<bool>() || data["augment"]["shift"].get<int64_t>() > 0)) {
      Fail("/data/augment", "augment: flips and shifts need images, the samples " +
                               (model::VocabularyOf(out_.graph) > 0 ? "are token ids" : "have shape " + model::ToString(out_.data.sample_shape)));
    }
  }

  void ResolveTrain() {
    Json& train = tree_["train"];
    FillDefaults("train", train);
    context_.ResolveLabels(train);
    if (!train.contains("shards")) train["shards"] = DefaultShards(train);
    context_.CheckBatch(train, "/train");
    if (train["warmup_epochs"].get<double>() > train["epochs"].get<double>()) Fail("/train/warmup_epochs", "warmup_epochs is longer than epochs");
    for (const Json& m : train["milestones"]) {
      if (m.get<double>() >= train["epochs"].get<double>()) {
        Warn("/train/milestones", "milestone " + Canonical(m) + " is never reached: training ends after " + Canonical(train["epochs"]) + " epochs");
      }
    }
  }

  void ResolveSteps(Json& steps, const std::string& pointer) {
    for (size_t i = 0; i < steps.size(); ++i) {
      std::string at = pointer + "/" + std::to_string(i);
      Json& item = steps[i];
      if (item.contains("steps")) {
        ResolveSteps(item["steps"], at + "/steps");
        continue;
      }
      auto [name, section] = *item.items().begin();
      const Kind* kind = FindKind(name);
      CHECK(kind != nullptr);
      Json& inner = item[name];
      if (inner.is_null()) inner = Json::object();
      kind->resolve(context_, inner, at + "/" + name);
    }
  }

  void WarnOfData() {
    int64_t validation = tree_["data"]["validation"].get<int64_t>();
    double drop = tree_["goal"]["max_accuracy_drop"].get<double>();
    if (validation > 0 && !tree_["variants"].empty()) {
      // Half-width of a 95 % interval at 90 % accuracy: the difference that the split can tell apart.
      double half = 196.0 * std::sqrt(0.09 / static_cast<double>(validation));
      char digits[32];
      std::snprintf(digits, sizeof digits, "%.1f", half);
      if (half > 2 * drop) {
        Warn("/data/validation", "validation: an accuracy over " + std::to_string(validation) + " samples is known to about ±" + digits +
                                     " pp, the promised difference is " + Canonical(tree_["goal"]["max_accuracy_drop"]) + " pp");
      }
    }
    if (tree_["variants"].empty()) {
      Warn("", std::string("there are no variants: only the baseline will be made") + (tree_.contains("promote") ? ", and nothing promoted" : ""));
    }
  }

  // A pattern that pins nothing is an error like one that selects nothing.
  void ResolveKeep() {
    const Json& pinned = tree_["keep"]["pinned"];
    bool listed = recipe_.tree().contains("keep") && recipe_.tree()["keep"].contains("pinned") && recipe_.tree()["keep"]["pinned"].is_array();
    for (size_t i = 0; i < pinned.size(); ++i) {
      std::string pattern = pinned[i].get<std::string>();
      bool used = std::any_of(out_.plan->chains.begin(), out_.plan->chains.end(), [&](const PlannedStep& s) { return MatchesPattern(pattern, s.name); });
      if (used || !out_.plan->refusals.empty()) continue;
      Fail("/keep/pinned" + (listed ? "/" + std::to_string(i) : ""), "pinned: pattern " + Quoted(pattern) + " matches no step; pare plan lists their names");
    }
  }

  void WarnOfPlan() {
    for (const Remark& warning : out_.plan->warnings) Warn(warning.pointer, warning.text);
    std::string warned;
    for (const PlannedStep& step : out_.plan->chains) {
      auto expected = out_.plan->expected.find(step.key);
      if (expected == out_.plan->expected.end() || step.variant.empty() || step.variant == warned) continue;
      if (expected->second.sparsity <= 0.999) continue;
      warned = step.variant;
      Warn("/variants/" + step.variant, "variant " + step.variant + " reaches more than 99.9 % sparsity at " + step.name + ": hardly anything is left to learn with");
    }
  }

  const Recipe& recipe_;
  ResolvedRecipe out_;
  Json tree_;
  model::GraphInfo info_;
  Errors errors_;
  ResolveContext context_;
};

}  // namespace

Json TrainParams(const Json& t, int64_t epochs) {
  Json params = {{"epochs", epochs},
          {"batch_size", t.at("batch_size")},
          {"shards", t.at("shards")},
          {"optimizer",
           {{"kind", t.at("optimizer")}, {"momentum", t.at("momentum")}, {"nesterov", t.at("nesterov")}, {"beta1", t.at("beta1")},
            {"beta2", t.at("beta2")}, {"epsilon", t.at("epsilon")}, {"weight_decay", t.at("weight_decay")}}},
          {"schedule",
           {{"kind", t.at("schedule")}, {"learning_rate", t.at("learning_rate")}, {"final_learning_rate", t.at("final_learning_rate")},
            {"milestones", t.at("milestones")}, {"gamma", t.at("gamma")}, {"warmup_epochs", t.at("warmup_epochs")}, {"epochs", epochs}}},
          {"label_smoothing", t.at("label_smoothing")},
          {"clip_norm", t.at("clip_norm")}};
  // Absent where every label may be used, as in releases that did not know it: their step keys stay.
  if (t.value("labels", 1.0) < 1.0) params["labels"] = t["labels"];
  return params;
}

Result<ResolvedRecipe> Resolve(const Recipe& recipe, const data::DataInfo& data, const Digest& weights, const OutsideModels& outside) {
  return Resolver(recipe, data).Run(weights, outside);
}

std::string WithPlace(std::string_view name, const Finding& finding) {
  std::string place = finding.line == 0 ? "" : ":" + std::to_string(finding.line) + ":" + std::to_string(finding.column);
  return std::string(name) + place + ": " + finding.text;
}

Json ToJson(const ResolvedRecipe& r) {
  Json warnings = Json::array();
  for (const Finding& f : r.warnings) warnings.push_back({{"line", f.line}, {"column", f.column}, {"text", f.text}});
  Json json = {{"name", r.name}, {"tree", r.tree}, {"data", data::ToJson(r.data)}, {"graph", model::ToJson(r.graph)},
          {"weights", r.weights.is_none() ? "" : r.weights.hex()}, {"warnings", std::move(warnings)}};
  if (!r.outside.empty()) json["outside"] = ToJson(r.outside);
  return json;
}

Result<ResolvedRecipe> ResolvedRecipeFromJson(const Json& json) {
  ResolvedRecipe r;
  ASSIGN_OR_RETURN(r.name, StringField(json, "name"));
  if (!json.contains("tree") || !json.contains("data") || !json.contains("graph") || !json.contains("warnings")) {
    return Error{ErrorCode::kCorrupt, "stored recipe '" + r.name + "': a part is missing"};
  }
  r.tree = json["tree"];
  ASSIGN_OR_RETURN(r.data, data::DataInfoFromJson(json["data"]));
  ASSIGN_OR_RETURN(r.graph, model::GraphFromJson(json["graph"]));
  ASSIGN_OR_RETURN(std::string weights, StringField(json, "weights"));
  if (!weights.empty()) { ASSIGN_OR_RETURN(r.weights, Digest::FromHex(weights)); }
  for (const Json& w : json["warnings"]) {
    ASSIGN_OR_RETURN(int64_t line, IntField(w, "line"));
    ASSIGN_OR_RETURN(int64_t column, IntField(w, "column"));
    ASSIGN_OR_RETURN(std::string text, StringField(w, "text"));
    r.warnings.push_back({Finding::Severity::kWarning, static_cast<int>(line), static_cast<int>(column), std::move(text)});
  }
  if (json.contains("outside")) { ASSIGN_OR_RETURN(r.outside, OutsideModelsFromJson(json["outside"])); }
  r.plan = MakePlan(r);
  if (r.plan == nullptr || !r.plan->refusals.empty()) return Error{ErrorCode::kCorrupt, "stored recipe '" + r.name + "' does not describe a plan"};
  return r;
}

Digest DigestOf(const ResolvedRecipe& recipe) {
  Json json = ToJson(recipe);
  json.erase("warnings");
  return pare::DigestOf(std::string_view(Canonical(json)));
}

}  // namespace pare::recipes
