#include "recipes/teaching.h"

#include <algorithm>
#include <cmath>

#include "methods/distillation.h"
#include "recipes/outside.h"

namespace pare::recipes {
namespace {

constexpr double kHot = 4;  // temperatures from here on are known to diverge without clipping

bool IsEncoder(const model::Graph& graph) {
  return std::any_of(graph.nodes.begin(), graph.nodes.end(), [](const model::Node& node) { return node.op == model::OpType::kAttention; });
}

bool Augments(const ResolvedRecipe& recipe) {
  const Json& augment = recipe.tree.at("data").at("augment");
  return augment.at("flip").get<bool>() || augment.at("shift").get<int64_t>() > 0;
}

std::optional<PlannedModel> OutsideTeacher(Chain& chain, const std::string& name) {
  auto found = chain.recipe().outside.find(name);
  if (found == chain.recipe().outside.end()) {
    chain.Refuse("teacher", "teacher: " + Quoted(name) + " was not looked up: submit the recipe with this release's pare");
    return std::nullopt;
  }
  const OutsideModel& outside = found->second;
  bool stored = !outside.artifact.is_none();
  Json params = stored ? Json{{"artifact", outside.artifact.hex()}} : Json{{"graph", model::ToJson(outside.graph)}, {"weights", outside.weights.hex()}};
  return chain.OutsideModelStep("teacher", stored ? "adopt" : "import", std::move(params), outside.graph);
}

std::string Times(double ratio) { return std::to_string(std::llround(ratio)); }

void WarnOfSize(Chain& chain, const std::string& name, const model::Graph& teacher) {
  auto its = model::Analyze(teacher);
  if (!its.ok()) return;
  double ratio = static_cast<double>(its->parameters) / std::max(1.0, static_cast<double>(chain.info().parameters));
  if (ratio >= kFarLarger) {
    chain.Warn("teacher " + name + " has " + Times(ratio) + " times the student's parameters, far more than it can follow; a teacher in between often teaches better");
  } else if (ratio < 0.5 && its->multiply_adds * 2 < chain.info().multiply_adds) {
    // Both: convolutions do much with few parameters.
    chain.Warn("teacher " + name + " has less than half of the student's parameters and multiply-adds; it can hardly be better than the student alone");
  }
}

}  // namespace

void ResolveTeaching(ResolveContext& context, Json& section, const std::string& kind, const std::string& pointer) {
  Json written = section;
  if (IsEncoder(context.graph()) && !context.fresh() && !written.contains("optimizer") && !written.contains("learning_rate")) {
    written["optimizer"] = "adamw";
    written["learning_rate"] = 1e-5;
  }
  if (!context.CanTrain(written, pointer)) return;
  Json resolved = context.FineTuning(written, pointer);
  for (const Field* field : FieldsOf(kind)) {
    std::string name(field->name);
    if (written.contains(name)) resolved[name] = written[name];
  }
  FillDefaults(kind, resolved);
  context.CheckBatch(resolved, pointer, resolved["hardness"].get<double>() > 0);
  if (resolved["control"].get<bool>() && !context.HasLabels(resolved)) {
    context.Fail(pointer, "control: there is no label to train a control without the teacher on; set control: false");
  }
  section = std::move(resolved);
}

std::optional<PlannedModel> FindTeacher(Chain& chain, const Json& section) {
  std::string name = section.at("teacher").get<std::string>();
  std::optional<PlannedModel> teacher;
  if (name == "best") teacher = chain.Best();
  else if (PlaceOf(name) != ModelPlace::kRecipe) teacher = OutsideTeacher(chain, name);
  else teacher = chain.Find(name, "teacher");
  if (!teacher) return std::nullopt;
  const model::Graph& graph = chain.GraphOf(teacher->key);
  if (Status fits = methods::CheckTeacher(chain.graph(), graph, name); !fits.ok()) {
    chain.Refuse("teacher", fits.error().message);
    return std::nullopt;
  }
  if (name != "best") WarnOfSize(chain, name, graph);
  return teacher;
}

Lesson LessonOf(const Json& section, PlannedModel teacher) {
  Lesson lesson{.teacher = std::move(teacher)};
  lesson.temperature = section.at("temperature").get<double>();
  lesson.hardness = section.at("hardness").get<double>();
  if (section.contains("match")) {
    lesson.match = section["match"];
    lesson.match_weight = section.at("match_weight").get<double>();
  }
  return lesson;
}

void Distill(Chain& chain, const Json& section, const Lesson& lesson) {
  Json params = chain.Training(section);
  params["temperature"] = lesson.temperature;
  params["hardness"] = lesson.hardness;
  std::map<std::string, StepKey> inputs;
  if (lesson.weights) inputs["rewind"] = *lesson.weights;
  bool in_the_loop = Augments(chain.recipe()) || !lesson.match.empty();
  if (Augments(chain.recipe())) {
    chain.Warn("augmentation changes the samples every epoch, so the teacher answers them again each time instead of once for all: an epoch takes the teacher's time as well");
  }
  if (lesson.temperature >= kHot && section.at("clip_norm") == 0) {
    chain.Warn("temperature " + Canonical(Json(lesson.temperature)) + ": the teacher's part of the gradient grows with its square, and training may diverge; add clip_norm: 1, or lower it");
  }
  Json hints = {{"teacher", lesson.teacher.name}};
  if (in_the_loop) {
    inputs["teacher"] = lesson.teacher.key;
  } else {
    inputs["logits"] = chain.Helper("logits", "logits", {{"split", "train"}}, {{"model", lesson.teacher.key}}, true, hints);
  }
  if (!lesson.match.empty()) {
    params["match"] = lesson.match;
    params["match_weight"] = lesson.match_weight;
  }
  methods::MarkTrained(chain.outline());
  chain.Advance("distill", std::move(params), std::move(inputs), true, hints);
}

}  // namespace pare::recipes
