#include "recipes/resolve_context.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <numbers>
#include <utility>

#include "recipes/schema.h"
#include "recipes/select.h"

namespace pare::recipes {
namespace {

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

}  // namespace

int64_t DefaultShards(const Json& train) {
  return std::max<int64_t>(1, std::llround(static_cast<double>(train["batch_size"].get<int64_t>()) / 64.0));
}

void EraseTrainFields(Json& section, const std::string& kind) {
  for (const Field* f : FieldsOf("train")) {
    if (FindField(kind, f->name) == nullptr) section.erase(std::string(f->name));
  }
}

void ResolveContext::Warn(const std::string& pointer, const std::string& text) {
  Recipe::Position p = recipe_.position(pointer);
  warnings_.push_back({Finding::Severity::kWarning, p.line, p.column, text});
}

std::vector<std::string> ResolveContext::Tensors(const Json& section, const std::string& pointer) {
  return SelectTensors(info(), graph(), section, pointer, errors_);
}

bool ResolveContext::CanTrain(const Json& step, const std::string& pointer) {
  if (has_train() || (step.contains("learning_rate") && step.contains("optimizer"))) return true;
  Fail(pointer, "there is no train section to inherit from: give at least optimizer and learning_rate here");
  return false;
}

Json ResolveContext::MergedTrain(const Json& step) const {
  Json train = has_train() ? tree_["train"] : Json::object();
  train["epochs"] = kDefaultStepEpochs;
  for (const Field* f : FieldsOf("train")) {
    std::string name(f->name);
    if (step.contains(name)) train[name] = step[name];
  }
  FillDefaults("train", train);
  ResolveLabels(train);
  if (!train.contains("shards") || (step.contains("batch_size") && !step.contains("shards"))) train["shards"] = DefaultShards(train);
  return train;
}

// The schedule of train, squeezed or stretched into the step's epochs.
Json ResolveContext::FromNothing(const Json& written) const {
  Json step = written;
  if (has_train() && !written.contains("epochs")) step["epochs"] = train()["epochs"];
  Json train = MergedTrain(step);
  if (!has_train()) return train;
  double factor = train["epochs"].get<double>() / tree_["train"]["epochs"].get<double>();
  if (!written.contains("milestones")) {
    for (Json& m : train["milestones"]) m = std::max(1.0, std::floor(m.get<double>() * factor));
  }
  if (!written.contains("warmup_epochs")) train["warmup_epochs"] = train["warmup_epochs"].get<double>() * factor;
  return train;
}

Json ResolveContext::FineTuning(const Json& written, const std::string& pointer) {
  if (std::exchange(fresh_, false)) return FromNothing(written);
  Json train = MergedTrain(written);
  if (!written.contains("schedule")) train["schedule"] = "constant";
  if (!written.contains("milestones")) train["milestones"] = Json::array();
  if (!written.contains("warmup_epochs")) train["warmup_epochs"] = 0.0;
  if (!written.contains("final_learning_rate")) train["final_learning_rate"] = 0.0;
  if (!has_train()) return train;
  if (!written.contains("learning_rate")) {
    train["learning_rate"] = LastLearningRate(tree_["train"]);
  } else if (train["schedule"] == "constant" && tree_["train"]["schedule"] != "constant" &&
             train["learning_rate"].get<double>() >= tree_["train"]["learning_rate"].get<double>()) {
    Warn(pointer + "/learning_rate", "fine-tuning at the full rate of train until the end leaves the weights noisy; use a tenth, or schedule: cosine");
  }
  return train;
}

// A number of samples becomes a fraction of them.
void ResolveContext::ResolveLabels(Json& train) const {
  double labels = train["labels"].get<double>();
  if (labels > 1) train["labels"] = labels / static_cast<double>(training_samples());
}

bool ResolveContext::HasLabels(const Json& train) const { return std::llround(train["labels"].get<double>() * static_cast<double>(training_samples())) > 0; }

void ResolveContext::CheckBatch(const Json& train, const std::string& pointer, bool taught) {
  if (train["labels"].get<double>() > 1) {
    Fail(pointer + "/labels", "labels: the training split has only " + std::to_string(training_samples()) + " samples");
  } else if (!taught && !HasLabels(train)) {
    Fail(pointer + "/labels", "labels: none is left to train on without a teacher; give more, or distill with hardness above 0");
  }
  int64_t batch = train["batch_size"].get<int64_t>(), samples = training_samples();
  if (batch > samples) {
    Fail(pointer + "/batch_size", "batch_size " + std::to_string(batch) + " is larger than the training split of " + std::to_string(samples));
  } else if (samples / batch < 8) {
    Warn(pointer + "/batch_size", "batch_size " + std::to_string(batch) + " leaves only " + std::to_string(samples / batch) + " optimizer steps an epoch");
  }
  if (train["shards"].get<int64_t>() > batch) Fail(pointer + "/shards", "shards: more shards than the " + std::to_string(batch) + " samples of a batch");
}

}  // namespace pare::recipes
