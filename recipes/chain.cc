#include "recipes/chain.h"

#include <algorithm>

#include "recipes/findings.h"
#include "recipes/plan_builder.h"
#include "recipes/resolve.h"
#include "recipes/schema.h"

namespace pare::recipes {
namespace {

JsonText With(const JsonText& hints, const Json& more) {
  if (more.empty()) return hints;
  Json all = hints.Tree();
  all.update(more);
  return all;
}

}  // namespace

Chain::Chain(PlanBuilder& builder, std::string variant, size_t items)
    : builder_(builder), variant_(std::move(variant)), model_(builder.baseline()), outline_(builder.dense()), epochs_(builder.baseline_epochs()),
      width_(items > 999 ? 4 : items > 99 ? 3 : 2), evaluation_(builder.EvaluationOf(model_.key)) {}

const model::Graph& Chain::graph() const { return graph_ != nullptr ? *graph_ : builder_.recipe().graph; }
const model::GraphInfo& Chain::info() const { return info_ != nullptr ? *info_ : builder_.info(); }
const ResolvedRecipe& Chain::recipe() const { return builder_.recipe(); }
const PlannedModel& Chain::baseline() const { return builder_.baseline(); }

std::optional<PlannedModel> Chain::Find(const std::string& step, const std::string& field) {
  bool busy = false;
  const PlannedModel* found = builder_.Find(step, busy);
  if (found != nullptr) return *found;
  std::string near = Nearest(step, builder_.ModelNames());
  Refuse(field, busy ? field + ": the variant of '" + step + "' needs this one: neither can come first"
                     : field + ": there is no step '" + Shortened(step) + "' that leaves a network" + (near.empty() ? ". " : "; did you mean '" + near + "'? ") +
                           "Name baseline, init, best, a variant, VARIANT/STEP as pare plan shows it, NAME@VERSION of the registry, ./DIRECTORY of an export, or FILE.safetensors");
  return std::nullopt;
}

StepKey Chain::WeightsAt(int64_t epoch) {
  if (!start_) return builder_.WeightsAt(epoch);
  if (epoch > 0) Refuse("to", "to: a student has no weights of epoch " + std::to_string(epoch) + " of train, it was not there; use to: init");
  return *start_;
}

std::string Chain::NextName(const std::string& kind) {
  std::string number = std::to_string(++ordinal_);
  number.insert(0, static_cast<size_t>(std::max(0, width_ - static_cast<int>(number.size()))), '0');
  return variant_ + "/" + number + "-" + kind;
}

void Chain::Refuse(const std::string& field, const std::string& text) { builder_.Refuse(field.empty() ? pointer_ : pointer_ + "/" + field, text); }
void Chain::Warn(const std::string& text) { builder_.Warn(pointer_, text); }

bool Chain::MayTrain(std::string_view kind) {
  Status status = methods::CheckTrainable(outline(), kind);
  if (!status.ok()) Refuse("", status.error().message);
  return status.ok();
}

bool Chain::Become(Result<methods::Outline> outline) {
  if (!outline.ok()) {
    Refuse("", outline.error().message);
    return false;
  }
  outline_ = *std::move(outline);
  return true;
}

void Chain::Advance(const std::string& kind, Json params, std::map<std::string, StepKey> inputs, bool reads_data, const Json& hints) {
  model_.name = NextName(kind);
  for (const std::string& doubt : outline_.doubts) Warn(model_.name + ": " + doubt);
  outline_.doubts.clear();
  inputs.try_emplace("model", model_.key);
  PlannedStep step = builder_.Make(model_.name, variant_, kind, std::move(params), std::move(inputs), reads_data);
  step.hints = With(step.hints, hints);
  model_.key = builder_.AddModel(std::move(step), outline_, graph_);
  evaluated_ = false;
}

StepKey Chain::Helper(const std::string& name, const std::string& kind, Json params, std::map<std::string, StepKey> inputs, bool reads_data,
                      const Json& hints) {
  PlannedStep step = builder_.MakeShared(name, kind, std::move(params), std::move(inputs), reads_data);
  step.hints = With(step.hints, hints);
  return builder_.Has(step.key) ? step.key : builder_.Add(std::move(step));
}

PlannedModel Chain::HelperModel(const std::string& name, const std::string& kind, Json params, std::map<std::string, StepKey> inputs, bool reads_data,
                                const methods::Outline& outline) {
  PlannedStep step = builder_.MakeShared(name, kind, std::move(params), std::move(inputs), reads_data);
  PlannedModel made{step.key, step.name};
  if (!builder_.Has(step.key)) builder_.AddModel(std::move(step), outline);
  return made;
}

StepKey Chain::Evaluate() {
  if (!evaluated_) {
    evaluation_ = builder_.Evaluate(model_.name, variant_, model_.key, true);
    candidates_.push_back(model_);
  }
  evaluated_ = true;
  return evaluation_;
}

Json Chain::Training(const Json& train) {
  int64_t epochs = train.at("epochs").get<int64_t>();
  Json training = {{"train", TrainParams(train, epochs)}, {"start_epoch", 0}, {"stop_epoch", epochs}, {"draw_epoch", epochs_}};
  epochs_ += epochs;
  return training;
}

Json Chain::ReplayedTraining(const Json& train, int64_t start) {
  int64_t epochs = train.at("epochs").get<int64_t>();
  epochs_ += epochs;
  return {{"train", TrainParams(train, builder_.baseline_epochs())}, {"start_epoch", start}, {"stop_epoch", start + epochs}, {"draw_epoch", start}};
}

}  // namespace pare::recipes
