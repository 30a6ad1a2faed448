// What students, teachers and generations need of a chain: another network to go on with, the better of two, the best so far,
// and a control that trained as long without a teacher.
#include <algorithm>
#include <cmath>

#include "recipes/chain.h"
#include "recipes/plan_builder.h"
#include "recipes/resolve.h"

namespace pare::recipes {

void Chain::StartOver(model::Graph graph, uint64_t seed) {
  auto info = model::Analyze(graph);
  CHECK(info.ok());
  graph_ = std::make_shared<const model::Graph>(std::move(graph));
  info_ = std::make_shared<const model::GraphInfo>(*std::move(info));
  outline_ = methods::OutlineOf(*graph_, *info_);
  epochs_ = 0;
  PlannedStep step = builder_.Make(NextName("student"), variant_, "initialize", {{"graph", model::ToJson(*graph_)}}, {}, false, seed);
  model_ = {step.key, step.name};
  start_ = step.key;
  evaluated_ = false;
  builder_.AddModel(std::move(step), outline_, graph_);
}

const model::Graph& Chain::GraphOf(const StepKey& model) const { return builder_.GraphOf(model); }

bool Chain::IsFactored(const StepKey& model, const std::string& node) const { return builder_.IsFactored(model, node); }

StepKey Chain::NewWeights(int64_t generation) {
  Json params = Json::object();
  std::map<std::string, StepKey> inputs;
  if (outline_.reshaped) inputs["like"] = model_.key;
  else params["graph"] = model::ToJson(graph());
  uint64_t seed = builder_.seed() + static_cast<uint64_t>(generation);
  PlannedStep step = builder_.MakeShared("new-weights", "initialize", std::move(params), std::move(inputs), false, seed);
  StepKey key = step.key;
  if (!builder_.Has(key)) builder_.AddModel(std::move(step), outline_, graph_);
  return key;
}

PlannedModel Chain::OutsideModelStep(const std::string& name, const std::string& kind, Json params, const model::Graph& graph) {
  PlannedStep step = builder_.MakeShared(name, kind, std::move(params), {}, false);
  PlannedModel made{step.key, step.name};
  auto info = model::Analyze(graph);
  CHECK(info.ok());
  if (!builder_.Has(step.key)) builder_.AddModel(std::move(step), methods::OutlineOf(graph, *info), std::make_shared<const model::Graph>(graph));
  EvaluateBeside(made);
  return made;
}

StepKey Chain::EvaluateBeside(const PlannedModel& model) {
  PlannedStep step = builder_.MakeShared(model.name + "-evaluate", "evaluate", {{"split", "validation"}}, {{"model", model.key}}, true);
  step.model_step = model.name;
  return builder_.Has(step.key) ? step.key : builder_.Add(std::move(step));
}

StepKey Chain::KeepBetter(const PlannedModel& first, const StepKey& first_evaluation, const StepKey& second_evaluation) {
  PlannedStep step = builder_.Make(NextName("choose"), variant_, "choose", {{"rule", "better"}},
                                   {{"first", first.key}, {"second", model_.key}, {"first_evaluation", first_evaluation}, {"second_evaluation", second_evaluation}}, false);
  model_ = {step.key, step.name};
  builder_.AddModel(std::move(step), outline_, graph_);
  // Both are candidates already: it is measured to be compared with the next, not to be promoted.
  PlannedStep evaluation = builder_.Make(model_.name + "/evaluate", variant_, "evaluate", {{"split", "validation"}}, {{"model", model_.key}}, true);
  evaluation.model_step = model_.name;
  evaluation_ = builder_.Add(std::move(evaluation));
  evaluated_ = true;
  return evaluation_;
}

PlannedModel Chain::Best() {
  PlannedModel best = builder_.baseline();
  StepKey evaluation = builder_.EvaluationOf(best.key);
  for (const PlannedModel& candidate : candidates_) {
    best = HelperModel("best-" + variant_, "choose", {{"rule", "better"}},
                       {{"first", best.key}, {"second", candidate.key}, {"first_evaluation", evaluation}, {"second_evaluation", builder_.EvaluationOf(candidate.key)}},
                       false, outline_);
    evaluation = EvaluateBeside(best);
  }
  return best;
}

ControlStart Chain::StartControl(std::optional<StepKey> weights) const { return {model_, weights, epochs_, outline_}; }

PlannedModel Chain::Control(const ControlStart& start, const Json& training, int64_t times) {
  Json stretched = training;
  // Without a teacher, an epoch has the labelled samples only.
  double labels = training.at("labels").get<double>();
  if (labels < 1) times *= std::max<int64_t>(1, std::llround(1 / labels));
  int64_t epochs = training.at("epochs").get<int64_t>() * times;
  stretched["epochs"] = epochs;
  for (Json& milestone : stretched.at("milestones")) milestone = milestone.get<double>() * static_cast<double>(times);
  Json params = {{"train", TrainParams(stretched, epochs)}, {"start_epoch", 0}, {"stop_epoch", epochs}, {"draw_epoch", start.epochs}, {"rule", "fine_tune"}};
  std::map<std::string, StepKey> inputs = {{"model", start.model.key}};
  if (start.weights) inputs["rewind"] = *start.weights;
  return HelperModel("control-" + variant_, "retrain", std::move(params), std::move(inputs), true, start.outline);
}

void Chain::Compare(const PlannedModel& control) {
  Evaluate();
  StepKey second = builder_.TestOf(model_, variant_), first = builder_.TestOf(control, "");
  builder_.Afterwards(builder_.Make(model_.name + "/against-control", variant_, "compare", Json::object(), {{"first", first}, {"second", second}}, false));
}

void Chain::RecordLesson(const std::string& teacher, const StepKey& teacher_model, std::optional<StepKey> before) {
  StepKey student = before ? *before : builder_.EvaluationOf(model_.key), its = builder_.EvaluationOf(teacher_model);
  if (student != its) builder_.AddLesson({model_.name, teacher, its, student, before.has_value()});
}

}  // namespace pare::recipes
