// The step kinds as written: what must, may and must not stand together.
#include "recipes/check.h"
#include "recipes/resolve.h"
#include "recipes/schema.h"

namespace pare::recipes {
namespace {

double NumberOr(const Json& section, const char* field, double otherwise) {
  return section.contains(field) && section[field].is_number() ? section[field].get<double>() : otherwise;
}

std::string TextOr(const Json& section, const char* field, const std::string& otherwise) {
  return section.contains(field) && section[field].is_string() ? section[field].get<std::string>() : otherwise;
}

}  // namespace

std::string Checker::OfTrain(const char* field, const char* otherwise) const {
  return tree_.contains("train") && tree_["train"].is_object() ? TextOr(tree_["train"], field, otherwise) : otherwise;
}

void Checker::Training(const Json& section, const std::string& pointer, const std::string& schedule) {
  for (const char* field : {"optimizer", "schedule"}) {
    bool good = !section.contains(field) || FindField("prune", field) != nullptr || !CheckValue(*FindField("train", field), section[field]);
    if (!good) return;  // said already
  }
  std::string inherited = OfTrain("optimizer", "sgd"), optimizer = TextOr(section, "optimizer", inherited);
  auto only = [&](std::initializer_list<const char*> fields, bool meaningful, const std::string& with, const std::string& found) {
    for (const char* field : fields) {
      if (section.contains(field) && !meaningful) Fail(pointer + "/" + field, std::string(field) + ": only with " + with + ", here it is " + found);
    }
  };
  only({"momentum", "nesterov"}, optimizer == "sgd", "optimizer: sgd", optimizer);
  only({"beta1", "beta2", "epsilon"}, optimizer != "sgd", "optimizer: adam or adamw", optimizer);
  only({"milestones", "gamma"}, schedule == "multi_step", "schedule: multi_step", schedule);
  only({"final_learning_rate"}, schedule == "cosine" || schedule == "linear", "schedule: cosine or linear", schedule);
  if (section.value("nesterov", Json()) == true && NumberOr(section, "momentum", 0.9) == 0) Fail(pointer + "/nesterov", "nesterov: needs a momentum above 0");
  if (TextOr(section, "schedule", "") == "multi_step" && (!section.contains("milestones") || section["milestones"].empty())) {
    bool inherits = OfTrain("schedule", "constant") == "multi_step" && TextOr(section, "rewind", "none") != "none";
    if (!inherits || section.contains("milestones")) Fail(pointer + "/schedule", "schedule: multi_step needs milestones, the epochs at which the rate falls");
  }
  if ((optimizer == "sgd") != (inherited == "sgd") && !section.contains("learning_rate")) {
    Fail(pointer + "/optimizer", "optimizer: " + optimizer + " instead of train's " + inherited + " needs its own learning_rate");
  }
}

void Checker::Prune(const Json& prune, const std::string& pointer) {
  if (!Section("prune", prune, pointer, "train")) return;
  Density(prune, pointer);
  std::string schedule = TextOr(prune, "schedule", "one_shot");
  if (schedule == "linear" || schedule == "cubic") ScheduledPrune(prune, pointer);
  if (schedule == "one_shot") OneShotPrune(prune, pointer);
}

void Checker::OneShotPrune(const Json& prune, const std::string& pointer) {
  if (prune.contains("sparsity") == prune.contains("fraction_of_remaining")) {
    Fail(pointer, "prune: a one_shot step needs exactly one of sparsity and fraction_of_remaining");
  }
  for (const auto& [key, value] : prune.items()) {
    bool scheduled = key == "init_sparsity" || key == "final_sparsity" || key == "start_epoch" || key == "end_epoch" || key == "update_frequency";
    if (scheduled || (FindField("train", key) && key != "schedule")) Fail(pointer + "/" + key, key + ": only with schedule: linear or cubic");
  }
}

void Checker::ScheduledPrune(const Json& prune, const std::string& pointer) {
  if (!prune.contains("final_sparsity")) Fail(pointer, "prune: schedule linear or cubic needs final_sparsity");
  for (const char* key : {"sparsity", "fraction_of_remaining"}) {
    if (prune.contains(key)) Fail(pointer + "/" + key, std::string(key) + ": only with schedule: one_shot; use final_sparsity");
  }
  if (NumberOr(prune, "init_sparsity", 0) > NumberOr(prune, "final_sparsity", 1)) Fail(pointer + "/init_sparsity", "init_sparsity is larger than final_sparsity");
  double epochs = NumberOr(prune, "epochs", kDefaultStepEpochs), start = NumberOr(prune, "start_epoch", 0);
  double end = NumberOr(prune, "end_epoch", DefaultEndEpoch(epochs));
  if (!(start < end)) {
    const char* field = prune.contains("end_epoch") ? "/end_epoch" : "/start_epoch";
    Fail(pointer + field, "start_epoch (" + Canonical(Json(start)) + ") must be before end_epoch (" + Canonical(Json(end)) + ")");
  } else if (end > epochs) {
    Fail(pointer + "/end_epoch", "end_epoch is after the step's last epoch (epochs: " + Canonical(Json(static_cast<int64_t>(epochs))) + ")");
  }
  std::string schedule = OfTrain("schedule", "constant");  // `schedule` is that of the sparsity here
  Training(prune, pointer, schedule);
}

// A global ranking that may not reach its amount would fail after the training before it.
void Checker::Density(const Json& prune, const std::string& pointer) {
  double low = NumberOr(prune, "min_density", 0), high = NumberOr(prune, "max_density", 1);
  if (low > high) return Fail(pointer + "/min_density", "min_density is larger than max_density");
  if (TextOr(prune, "scope", "global") != "global") return;
  for (const char* field : {"sparsity", "init_sparsity", "final_sparsity"}) {
    if (!prune.contains(field) || !prune[field].is_number()) continue;
    double density = 1 - prune[field].get<double>();
    if (density < 0 || density > 1) continue;  // said already
    if (density < low - 1e-9) Fail(pointer + "/" + field, std::string(field) + ": more than min_density allows to remove; every layer keeps at least " + Canonical(Json(low)));
    if (density > high + 1e-9) Fail(pointer + "/" + field, std::string(field) + ": less than max_density removes; every layer keeps at most " + Canonical(Json(high)));
  }
  bool scheduled = TextOr(prune, "schedule", "one_shot") != "one_shot";
  if (scheduled && !prune.contains("init_sparsity") && high < 1) Fail(pointer + "/max_density", "max_density: needs init_sparsity, the sparsity that it starts from");
}

void Checker::Retrain(const Json& retrain, const std::string& pointer) {
  if (!Section("retrain", retrain, pointer, "train")) return;
  std::string rewind = TextOr(retrain, "rewind", "none");
  if (retrain.contains("to") && rewind == "none") Fail(pointer + "/to", "to: only with rewind: learning_rate or weights");
  // Fine-tuning runs at a constant rate unless it says otherwise; a rewound step replays the schedule of train.
  std::string otherwise = rewind == "none" ? "constant" : OfTrain("schedule", "constant");
  Training(retrain, pointer, TextOr(retrain, "schedule", otherwise));
}

void Checker::Evaluate(const Json& evaluate, const std::string& pointer) {
  if (!evaluate.is_null()) Section("evaluate", evaluate, pointer);  // "- evaluate:" alone is enough
}

}  // namespace pare::recipes
