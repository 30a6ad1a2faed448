#include "recipes/resolve.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <numbers>

#include "model/architectures.h"
#include "recipes/findings.h"
#include "recipes/plan.h"
#include "recipes/recipe.h"
#include "recipes/schema.h"
#include "recipes/select.h"

namespace pare::recipes {
namespace {

int64_t DefaultShards(const Json& train) {
  return std::max<int64_t>(1, std::llround(static_cast<double>(train["batch_size"].get<int64_t>()) / 64.0));
}

// The rate of the baseline's last epoch, nine digits (so that another libm gives the same recipe).
double LastLearningRate(const Json& train) {
  double rate = train["learning_rate"].get<double>(), epochs = train["epochs"].get<double>();
  std::string kind = train["schedule"].get<std::string>();
  if (kind == "multi_step") {
    for (const Json& m : train["milestones"]) rate *= m.get<double>() <= epochs - 1 ? train["gamma"].get<double>() : 1.0;
  } else if (kind == "cosine" || kind == "linear") {
    double final = train["final_learning_rate"].get<double>();
    double left = std::min(1.0, 1.0 / std::max(1.0, epochs - train["warmup_epochs"].get<double>()));
    double share = kind == "linear" ? left : 0.5 * (1.0 - std::cos(std::numbers::pi * left));
    rate = final + (rate - final) * share;
  }
  char digits[32];
  std::snprintf(digits, sizeof digits, "%.9g", rate);
  return std::strtod(digits, nullptr);
}

class Resolver {
 public:
  Resolver(const Recipe& recipe, const data::DataInfo& data) : recipe_(recipe), tree_(recipe.tree()), errors_(recipe.name(), recipe.positions()) {
    out_.data = data;
    out_.name = tree_.at("name").get<std::string>();
  }

  Result<ResolvedRecipe> Run(const Digest& weights) {
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
    for (auto& [name, steps] : tree_["variants"].items()) ResolveSteps(steps, "/variants/" + name);
    if (!errors_.empty()) return errors_.ToError();
    WarnOfData();
    for (const auto& [name, steps] : tree_["variants"].items()) WarnOfVariant(steps, "/variants/" + name);
    out_.tree = std::move(tree_);
    out_.plan = MakePlan(out_);
    CHECK(out_.plan != nullptr);
    if (size_t steps = out_.plan->chains.size() + out_.plan->tests.size() + 1; steps > kMaxPlannedSteps) {
      Fail("/variants", "a job has at most " + std::to_string(kMaxPlannedSteps) + " steps, evaluations included; this one has " + std::to_string(steps));
      return errors_.ToError();
    }
    WarnOfPlan();
    return std::move(out_);
  }

 private:
  void Fail(const std::string& pointer, const std::string& text) { errors_.Add(pointer, text); }
  void Warn(const std::string& pointer, const std::string& text) {
    Recipe::Position p = recipe_.position(pointer);
    out_.warnings.push_back({Finding::Severity::kWarning, p.line, p.column, text});
  }

  void ResolveModel() {
    Json parameters = tree_["model"];
    std::string architecture = parameters["architecture"].get<std::string>();
    parameters.erase("architecture");
    parameters.erase("weights");
    auto resolved = model::ResolveArchitecture(architecture, parameters);
    if (!resolved.ok()) return Fail("/model", "model: " + resolved.error().message);
    auto graph = model::BuildArchitecture(architecture, parameters, out_.data.sample_shape, out_.data.classes);
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
    model["architecture"] = architecture;
    if (tree_["model"].contains("weights")) model["weights"] = tree_["model"]["weights"];
    tree_["model"] = std::move(model);
  }

  void ResolveData() {
    Json& data = tree_["data"];
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
      Fail("/data/augment", "augment: flips and shifts need images, the samples have shape " + model::ToString(out_.data.sample_shape));
    }
  }

  void ResolveTrain() {
    Json& train = tree_["train"];
    FillDefaults("train", train);
    if (!train.contains("shards")) train["shards"] = DefaultShards(train);
    CheckBatch(train, "/train");
    if (train["warmup_epochs"].get<double>() > train["epochs"].get<double>()) Fail("/train/warmup_epochs", "warmup_epochs is longer than epochs");
    for (const Json& m : train["milestones"]) {
      if (m.get<double>() >= train["epochs"].get<double>()) {
        Warn("/train/milestones", "milestone " + Canonical(m) + " is never reached: training ends after " + Canonical(train["epochs"]) + " epochs");
      }
    }
  }

  void CheckBatch(const Json& train, const std::string& pointer) {
    int64_t batch = train["batch_size"].get<int64_t>(), samples = out_.data.train_count - tree_["data"]["validation"].get<int64_t>();
    if (batch > samples) {
      Fail(pointer + "/batch_size", "batch_size " + std::to_string(batch) + " is larger than the training split of " + std::to_string(samples));
    } else if (samples / batch < 8) {
      Warn(pointer + "/batch_size", "batch_size " + std::to_string(batch) + " leaves only " + std::to_string(samples / batch) + " optimizer steps an epoch");
    }
    if (train["shards"].get<int64_t>() > batch) Fail(pointer + "/shards", "shards: more shards than the " + std::to_string(batch) + " samples of a batch");
  }

  void ResolveSteps(Json& steps, const std::string& pointer) {
    for (size_t i = 0; i < steps.size(); ++i) {
      std::string at = pointer + "/" + std::to_string(i);
      Json& item = steps[i];
      if (item.contains("steps")) ResolveSteps(item["steps"], at + "/steps");
      if (item.contains("prune")) ResolvePrune(item["prune"], at + "/prune");
      if (item.contains("retrain")) ResolveRetrain(item["retrain"], at + "/retrain");
      if (item.contains("evaluate")) {
        if (item["evaluate"].is_null()) item["evaluate"] = Json::object();
        FillDefaults("evaluate", item["evaluate"]);
      }
    }
  }

  void ResolvePrune(Json& prune, const std::string& pointer) {
    const Json written = prune;
    FillDefaults("prune", prune);
    if (prune["criterion"] == "magnitude") prune["criterion"] = "magnitude_l1";
    prune["tensors"] = SelectTensors(info_, out_.graph, prune, pointer, errors_);
    if (prune["schedule"] == "one_shot") return;
    if (!CanTrain(written, pointer)) return;
    Json train = MergedTrain(written, kDefaultStepEpochs);
    double epochs = train["epochs"].get<double>();
    if (tree_.contains("train")) {
      // The baseline's schedule, squeezed into this step's epochs.
      double factor = epochs / tree_["train"]["epochs"].get<double>();
      train["schedule"] = tree_["train"]["schedule"];
      if (!written.contains("warmup_epochs")) train["warmup_epochs"] = train["warmup_epochs"].get<double>() * factor;
      if (!written.contains("milestones")) {
        for (Json& m : train["milestones"]) m = std::max(1.0, std::floor(m.get<double>() * factor));
      }
    }
    prune["train"] = std::move(train);
    for (const Field* f : FieldsOf("train")) {
      if (f->name != "schedule") prune.erase(std::string(f->name));
    }
    for (const auto& [field, otherwise] : {std::pair("init_sparsity", 0.0), {"start_epoch", 0.0}, {"end_epoch", DefaultEndEpoch(epochs)}, {"update_frequency", 0.5}}) {
      if (!prune.contains(field)) prune[field] = otherwise;
    }
    CheckBatch(prune["train"], pointer);
  }

  void ResolveRetrain(Json& retrain, const std::string& pointer) {
    const Json written = retrain;
    bool rewinds = written.value("rewind", "none") != "none";
    if (rewinds && !tree_.contains("train")) {
      return Fail(pointer + "/rewind", "rewind needs the schedule and the weights of the baseline: there is no train section");
    }
    if (!CanTrain(written, pointer)) return;
    retrain = MergedTrain(written, kDefaultStepEpochs);
    if (written.contains("rewind")) retrain["rewind"] = written["rewind"];
    FillDefaults("retrain", retrain);
    if (rewinds) ResolveRewind(retrain, written, pointer); else ResolveFineTune(retrain, written, pointer);
    CheckBatch(retrain, pointer);
  }

  void ResolveFineTune(Json& retrain, const Json& written, const std::string& pointer) {
    retrain["to"] = nullptr;
    if (!written.contains("schedule")) retrain["schedule"] = "constant";
    if (!written.contains("milestones")) retrain["milestones"] = Json::array();
    if (!written.contains("warmup_epochs")) retrain["warmup_epochs"] = 0.0;
    if (!written.contains("final_learning_rate")) retrain["final_learning_rate"] = 0.0;
    if (!tree_.contains("train")) return;
    if (!written.contains("learning_rate")) {
      retrain["learning_rate"] = LastLearningRate(tree_["train"]);
    } else if (retrain["schedule"] == "constant" && tree_["train"]["schedule"] != "constant" &&
               retrain["learning_rate"].get<double>() >= tree_["train"]["learning_rate"].get<double>()) {
      Warn(pointer + "/learning_rate", "fine-tuning at the full rate of train until the end leaves the weights noisy; use a tenth, or schedule: cosine");
    }
  }

  void ResolveRewind(Json& retrain, const Json& written, const std::string& pointer) {
    int64_t total = tree_["train"]["epochs"].get<int64_t>();
    int64_t epochs = written.contains("epochs") ? retrain["epochs"].get<int64_t>() : 0;
    if (epochs > total) return Fail(pointer + "/epochs", "epochs: the schedule of train has only " + std::to_string(total) + " epochs to replay");
    bool weights = retrain["rewind"] == "weights";
    Json to = written.value("to", Json());
    int64_t entry = to.is_number() ? to.get<int64_t>() : weights || to == "init" || epochs == 0 ? 0 : total - epochs;
    if (entry >= total) {
      return Fail(pointer + "/to", "to: epoch " + std::to_string(entry) + " is not before the end of training (" + std::to_string(total) + " epochs)");
    }
    if (epochs == 0) epochs = total - entry;
    if (entry + epochs > total) {
      return Fail(pointer + "/epochs", "epochs: from epoch " + std::to_string(entry) + " the schedule of train has only " + std::to_string(total - entry) + " epochs left");
    }
    retrain["to"] = entry;
    retrain["epochs"] = epochs;
  }

  // A step that trains says itself how where there is no train section.
  bool CanTrain(const Json& step, const std::string& pointer) {
    if (tree_.contains("train") || (step.contains("learning_rate") && step.contains("optimizer"))) return true;
    Fail(pointer, "there is no train section to inherit from: give at least optimizer and learning_rate here");
    return false;
  }

  // The fields of train, overridden by those the step gives.
  Json MergedTrain(const Json& step, int64_t default_epochs) const {
    Json train = tree_.contains("train") ? tree_["train"] : Json::object();
    train["epochs"] = default_epochs;
    for (const Field* f : FieldsOf("train")) {
      std::string name(f->name);
      bool pruning = step.contains("final_sparsity") && name == "schedule";
      if (step.contains(name) && !pruning) train[name] = step[name];
    }
    FillDefaults("train", train);
    if (!train.contains("shards") || (step.contains("batch_size") && !step.contains("shards"))) train["shards"] = DefaultShards(train);
    return train;
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

  void WarnOfVariant(const Json& steps, const std::string& pointer) {
    const Json* last = &steps.back();
    std::string at = pointer + "/" + std::to_string(steps.size() - 1);
    while (last->contains("steps")) {
      at += "/steps/" + std::to_string((*last)["steps"].size() - 1);
      last = &(*last)["steps"].back();
    }
    if (!last->contains("prune") || (*last)["prune"]["schedule"] != "one_shot") return;
    const Json& prune = (*last)["prune"];
    if (prune.value("sparsity", 0.0) > 0.8) Warn(at + "/prune", "a large part of the weights is removed and nothing is retrained afterwards");
  }

  void WarnOfPlan() {
    for (const std::string& doubt : out_.plan->doubts) Warn("/variants/" + doubt.substr(0, doubt.find('/')), doubt);
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
};

}  // namespace

Json TrainParams(const Json& t, int64_t epochs) {
  return {{"epochs", epochs},
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
}

Result<ResolvedRecipe> Resolve(const Recipe& recipe, const data::DataInfo& data, const Digest& weights) {
  return Resolver(recipe, data).Run(weights);
}

Json ToJson(const ResolvedRecipe& r) {
  Json warnings = Json::array();
  for (const Finding& f : r.warnings) warnings.push_back({{"line", f.line}, {"column", f.column}, {"text", f.text}});
  return {{"name", r.name}, {"tree", r.tree}, {"data", data::ToJson(r.data)}, {"graph", model::ToJson(r.graph)},
          {"weights", r.weights.is_none() ? "" : r.weights.hex()}, {"warnings", std::move(warnings)}};
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
  r.plan = MakePlan(r);
  if (r.plan == nullptr) return Error{ErrorCode::kCorrupt, "stored recipe '" + r.name + "' does not describe a plan"};
  return r;
}

Digest DigestOf(const ResolvedRecipe& recipe) {
  Json json = ToJson(recipe);
  json.erase("warnings");
  return pare::DigestOf(std::string_view(Canonical(json)));
}

}  // namespace pare::recipes
