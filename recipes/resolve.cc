#include "recipes/resolve.h"

#include <fnmatch.h>

#include <algorithm>
#include <cmath>
#include <regex>

#include "model/architectures.h"
#include "recipes/recipe.h"
#include "recipes/schema.h"

namespace pare::recipes {
namespace {

using model::TensorSpec;

bool Matches(const std::string& raw, const TensorSpec& spec, const std::string& op) {
  // Weights saved from torch's DataParallel carry a "module." prefix: harmless.
  std::string pattern = raw.rfind("module.", 0) == 0 ? raw.substr(7) : raw;
  if (pattern.rfind("re:", 0) == 0) {
    try {
      std::regex regex(pattern.substr(3));
      return std::regex_match(spec.name, regex) || std::regex_match(spec.node, regex);
    } catch (const std::regex_error&) {
      return false;
    }
  }
  return pattern == op || ::fnmatch(pattern.c_str(), spec.name.c_str(), 0) == 0 || ::fnmatch(pattern.c_str(), spec.node.c_str(), 0) == 0;
}

std::vector<std::string> PatternList(const Json& patterns) {
  if (patterns.is_string()) return {patterns.get<std::string>()};
  return patterns.is_array() ? patterns.get<std::vector<std::string>>() : std::vector<std::string>();
}

class Resolver {
 public:
  Resolver(const Recipe& recipe, const data::DataInfo& data) : recipe_(recipe) {
    out_.data = data;
    out_.name = recipe.tree().at("name").get<std::string>();
  }

  Result<ResolvedRecipe> Run(const Digest& weights) {
    out_.weights = weights;
    tree_ = recipe_.tree();
    FillDefaults("recipe", tree_);
    TRY(ResolveModel());
    TRY(ResolveData());
    if (tree_.contains("train")) {
      FillDefaults("train", tree_["train"]);
      FillShards(tree_["train"]);
    }
    FillDefaults("snapshot", tree_["snapshot"]);
    FillDefaults("goal", tree_["goal"]);
    FillDefaults("target", tree_["goal"]["target"]);
    if (tree_.contains("promote")) FillDefaults("promote", tree_["promote"]);
    TRY(CheckTrain());
    for (auto& [name, steps] : tree_["variants"].items()) TRY(ResolveSteps(steps, "/variants/" + name));
    Warn();
    out_.tree = std::move(tree_);
    return std::move(out_);
  }

 private:
  Error At(const std::string& pointer, const std::string& text) const {
    Recipe::Position p = recipe_.position(pointer);
    std::string where = recipe_.name();
    if (p.line > 0) where += ":" + std::to_string(p.line) + ":" + std::to_string(p.column);
    return Error{ErrorCode::kInvalid, where + ": " + text};
  }
  void WarnAt(const std::string& pointer, const std::string& text) {
    Recipe::Position p = recipe_.position(pointer);
    out_.warnings.push_back({Finding::Severity::kWarning, p.line, p.column, text});
  }

  Status ResolveModel() {
    Json parameters = tree_["model"];
    std::string architecture = parameters["architecture"].get<std::string>();
    parameters.erase("architecture");
    parameters.erase("weights");
    auto resolved = model::ResolveArchitecture(architecture, parameters);
    if (!resolved.ok()) return At("/model", resolved.error().message);
    auto graph = model::BuildArchitecture(architecture, parameters, out_.data.sample_shape, out_.data.classes);
    if (!graph.ok()) return At("/model", graph.error().message);
    out_.graph = *std::move(graph);
    auto info = model::Analyze(out_.graph);
    if (!info.ok()) {
      return At("/model", "the model does not take samples of shape " + model::ToString(out_.data.sample_shape) + ": " + info.error().message);
    }
    info_ = *std::move(info);
    Json model = *resolved;
    model["architecture"] = architecture;
    if (tree_["model"].contains("weights")) model["weights"] = tree_["model"]["weights"];
    tree_["model"] = std::move(model);
    return Ok();
  }

  Status ResolveData() {
    Json& data = tree_["data"];
    FillDefaults("data", data);
    FillDefaults("augment", data["augment"]);
    int64_t validation = data["validation"].get<int64_t>();
    if (validation >= out_.data.train_count) {
      return At("/data/validation", "validation: " + std::to_string(validation) + " of only " + std::to_string(out_.data.train_count) + " training samples");
    }
    if (validation == 0 && (!tree_["variants"].empty() || tree_.contains("promote"))) {
      return At("/data", "data: variants and promote need a validation split, which drives every decision; add for example validation: " +
                             std::to_string(std::max<int64_t>(1, out_.data.train_count / 12)));
    }
    bool image = out_.data.sample_shape.size() == 3;
    if (!image && (data["augment"]["flip"].get<bool>() || data["augment"]["shift"].get<int64_t>() > 0)) {
      return At("/data/augment", "augment: flips and shifts need images, the samples have shape " + model::ToString(out_.data.sample_shape));
    }
    return Ok();
  }

  static void FillShards(Json& train) {
    if (train.contains("shards")) return;
    train["shards"] = std::max<int64_t>(1, std::llround(static_cast<double>(train["batch_size"].get<int64_t>()) / 64.0));
  }

  Status CheckTrain() {
    if (!tree_.contains("train")) return Ok();
    const Json& train = tree_["train"];
    int64_t samples = out_.data.train_count - tree_["data"]["validation"].get<int64_t>();
    if (train["batch_size"].get<int64_t>() > samples) {
      return At("/train/batch_size", "batch_size " + Canonical(train["batch_size"]) + " is larger than the training split of " + std::to_string(samples));
    }
    if (train["warmup_epochs"].get<double>() > train["epochs"].get<double>()) return At("/train/warmup_epochs", "warmup_epochs is longer than epochs");
    return Ok();
  }

  Status ResolveSteps(Json& steps, const std::string& pointer) {
    for (size_t i = 0; i < steps.size(); ++i) {
      std::string at = pointer + "/" + std::to_string(i);
      Json& item = steps[i];
      if (item.contains("steps")) TRY(ResolveSteps(item["steps"], at + "/steps"));
      if (item.contains("prune")) TRY(ResolvePrune(item["prune"], at + "/prune"));
      if (item.contains("retrain")) TRY(ResolveRetrain(item["retrain"], at + "/retrain"));
      if (item.contains("evaluate")) {
        if (item["evaluate"].is_null()) item["evaluate"] = Json::object();
        FillDefaults("evaluate", item["evaluate"]);
      }
    }
    return Ok();
  }

  Status ResolvePrune(Json& prune, const std::string& pointer) {
    FillDefaults("prune", prune);
    if (prune["criterion"] == "magnitude") prune["criterion"] = "magnitude_l1";
    auto tensors = SelectTensors(info_, out_.graph, prune.value("targets", Json()), prune.value("ignore", Json()));
    if (!tensors.ok()) return At(pointer + (prune.contains("targets") ? "/targets" : "/ignore"), tensors.error().message);
    if (tensors->empty()) return At(pointer, "prune: nothing is left to prune after ignore");
    prune["tensors"] = *tensors;
    if (prune["min_density"].get<double>() > prune["max_density"].get<double>()) return At(pointer + "/min_density", "min_density is larger than max_density");
    if (prune["schedule"] == "one_shot") return Ok();
    if (!prune.contains("epochs")) prune["epochs"] = kDefaultStepEpochs;
    double epochs = prune["epochs"].get<double>();
    if (!prune.contains("init_sparsity")) prune["init_sparsity"] = 0;
    if (!prune.contains("start_epoch")) prune["start_epoch"] = 0;
    if (!prune.contains("end_epoch")) prune["end_epoch"] = epochs * 2.0 / 3.0;
    if (!prune.contains("update_frequency")) prune["update_frequency"] = 0.5;
    if (!(prune["start_epoch"].get<double>() < prune["end_epoch"].get<double>())) return At(pointer, "prune: start_epoch must be before end_epoch");
    return NeedTrain(prune, pointer);
  }

  Status ResolveRetrain(Json& retrain, const std::string& pointer) {
    FillDefaults("retrain", retrain);
    bool rewind = retrain["rewind"] != "none";
    if (rewind && (!retrain.contains("to") || retrain["to"] == "init")) retrain["to"] = 0;
    TRY(NeedTrain(retrain, pointer));
    if (!rewind) {
      if (!retrain.contains("epochs")) retrain["epochs"] = kDefaultStepEpochs;
      if (tree_.contains("train") && retrain.contains("learning_rate") && retrain["learning_rate"].get<double>() >= tree_["train"]["learning_rate"].get<double>()) {
        WarnAt(pointer + "/learning_rate", "fine-tuning with the full learning rate may undo what the model has learned; a tenth or less is usual");
      }
      return Ok();
    }
    if (!tree_.contains("train")) return At(pointer + "/rewind", "rewind needs the baseline's schedule: there is no train section");
    int64_t total = tree_["train"]["epochs"].get<int64_t>(), to = retrain["to"].get<int64_t>();
    if (to >= total) return At(pointer + "/to", "to: epoch " + std::to_string(to) + " is not before the end of training (" + std::to_string(total) + " epochs)");
    if (!retrain.contains("epochs")) retrain["epochs"] = total - to;
    return Ok();
  }

  // Without a train section a step that trains says itself how.
  Status NeedTrain(const Json& step, const std::string& pointer) const {
    if (tree_.contains("train") || (step.contains("learning_rate") && step.contains("optimizer"))) return Ok();
    return At(pointer, "there is no train section to inherit from: give at least optimizer and learning_rate here");
  }

  void Warn() {
    int64_t validation = tree_["data"]["validation"].get<int64_t>();
    double drop = tree_["goal"]["max_accuracy_drop"].get<double>();
    if (validation > 0 && drop > 0) {
      // Half-width of a 95 % interval at 90 % accuracy: the difference that the split can tell apart.
      double half = 196.0 * std::sqrt(0.09 / static_cast<double>(validation));
      if (half > 2 * drop) {
        WarnAt("/data/validation", "validation: " + std::to_string(validation) + " samples give an interval of about ±" + std::to_string(half).substr(0, 4) +
                                       " pp, more than the promised " + Canonical(tree_["goal"]["max_accuracy_drop"]) + " pp can tell apart");
      }
    }
    if (tree_["variants"].empty()) WarnAt("/variants", "there are no variants: only the baseline will be trained");
  }

  const Recipe& recipe_;
  ResolvedRecipe out_;
  Json tree_;
  model::GraphInfo info_;
};

}  // namespace

Result<std::vector<std::string>> SelectTensors(const model::GraphInfo& info, const model::Graph& graph, const Json& targets, const Json& ignore) {
  std::vector<std::string> known;
  for (const TensorSpec& spec : info.tensors) {
    if (spec.prunable) known.push_back(spec.node);
  }
  std::vector<std::string> wanted = PatternList(targets), unwanted = PatternList(ignore);
  bool standard = wanted.empty();
  if (standard) wanted = {"linear", "conv2d"};
  std::vector<bool> used(wanted.size() + unwanted.size());
  std::vector<std::string> selected;
  for (const TensorSpec& spec : info.tensors) {
    if (!spec.prunable) continue;
    std::string op(model::ToString(graph.Find(spec.node)->op));
    bool in = false, out = false;
    for (size_t i = 0; i < wanted.size(); ++i) {
      bool match = Matches(wanted[i], spec, op);
      in = in || match;
      used[i] = used[i] || match;
    }
    for (size_t i = 0; i < unwanted.size(); ++i) {
      bool match = Matches(unwanted[i], spec, op);
      out = out || match;
      used[wanted.size() + i] = used[wanted.size() + i] || match;
    }
    if (in && !out) selected.push_back(spec.name);
  }
  for (size_t i = 0; i < used.size(); ++i) {
    if (used[i] || (standard && i < wanted.size())) continue;
    const std::string& pattern = i < wanted.size() ? wanted[i] : unwanted[i - wanted.size()];
    std::string near = Nearest(pattern, known), list;
    for (const std::string& k : known) list += (list.empty() ? "" : ", ") + k;
    return Error{ErrorCode::kInvalid, "pattern '" + pattern + "' matches no prunable layer" + (near.empty() ? "" : "; did you mean '" + near + "'?") + " Layers: " + list};
  }
  return selected;
}

Json TrainParams(const Json& t) {
  return {{"epochs", t.at("epochs")},
          {"batch_size", t.at("batch_size")},
          {"shards", t.at("shards")},
          {"optimizer",
           {{"kind", t.at("optimizer")}, {"momentum", t.at("momentum")}, {"nesterov", t.at("nesterov")}, {"beta1", t.at("beta1")},
            {"beta2", t.at("beta2")}, {"epsilon", t.at("epsilon")}, {"weight_decay", t.at("weight_decay")}}},
          {"schedule",
           {{"kind", t.at("schedule")}, {"learning_rate", t.at("learning_rate")}, {"final_learning_rate", t.at("final_learning_rate")},
            {"milestones", t.at("milestones")}, {"gamma", t.at("gamma")}, {"warmup_epochs", t.at("warmup_epochs")}, {"epochs", t.at("epochs")}}},
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
    r.warnings.push_back({Finding::Severity::kWarning, w.value("line", 0), w.value("column", 0), w.value("text", "")});
  }
  return r;
}

Digest DigestOf(const ResolvedRecipe& recipe) {
  Json json = ToJson(recipe);
  json.erase("warnings");
  return pare::DigestOf(std::string_view(Canonical(json)));
}

}  // namespace pare::recipes
