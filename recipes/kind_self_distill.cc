// self_distill: the network teaches the next generation of itself, which stays only if it is better on the validation samples.
#include "model/encoding.h"
#include "recipes/teaching.h"

namespace pare::recipes {
namespace {

constexpr Field kFields[] = {
    {"self_distill", "generations", "integer", "3", 1, 100, "", "", "how often; each is a candidate, and the most accurate so far goes on", "2"},
    {"self_distill", "start", "name", "\"continue\"", 0, 0, "continue,new", "", "a generation starts from the weights that were kept, or newly initialized (under the same masks)", "new"},
    {"self_distill", "teacher", "name", "\"kept\"", 0, 0, "kept,best", "", "the network that was kept, or the most accurate of the baseline and this variant's candidates so far", "best"},
    {"self_distill", "temperature", "number", "2", 0.01, 1000, "", "", "softens the teacher's answers; its square scales the gradient", "4"},
    {"self_distill", "hardness", "number", "0.5", 0, 1, "", "", "weight of the teacher; the labels have the rest", "0.9"},
    {"self_distill", "control", "boolean", "true", 0, 0, "", "", "also train the same network as long, all generations together, without a teacher, and compare the two on the test samples in the report", "false"},
};

void Check(CheckContext& context, const Json& section, const std::string& pointer) {
  context.Training(section, pointer, TextOr(section, "schedule", "constant"));
}

void ResolveSelfDistill(ResolveContext& context, Json& section, const std::string& pointer) {
  // What starts from nothing needs the schedule that made the baseline.
  if (section.value("start", "continue") == "new") context.StartFresh();
  ResolveTeaching(context, section, "self_distill", pointer);
}

void PlanSelfDistill(Chain& chain, const Json& section) {
  if (!chain.MayTrain("self_distill")) return;
  bool renewed = section["start"] == "new";
  for (const auto& [name, layer] : chain.outline().layers) {
    if (!renewed || layer.encoding == model::Encoding::kDense) continue;
    return chain.Refuse("start", "new: " + layer.node + " is " + std::string(model::ToString(layer.encoding)) + ", which new weights are not; use start: continue, or put self_distill before the step that made it so");
  }
  auto generations = section["generations"].get<int64_t>();
  ControlStart start = chain.StartControl(renewed ? std::optional(chain.NewWeights(1)) : std::nullopt);
  StepKey evaluation = chain.Evaluate();
  for (int64_t generation = 1; generation <= generations; ++generation) {
    PlannedModel kept = chain.newest();
    Lesson lesson = LessonOf(section, section["teacher"] == "best" ? chain.Best() : kept);
    if (renewed) lesson.weights = chain.NewWeights(generation);
    Distill(chain, section, lesson);
    StepKey next = chain.Evaluate();
    evaluation = chain.KeepBetter(kept, evaluation, next);
  }
  if (section["control"].get<bool>()) chain.Compare(chain.Control(start, section, generations));
}

}  // namespace

Kind SelfDistillKind() {
  Kind kind;
  kind.name = "self_distill";
  kind.fields = kFields;
  kind.help = "let the network teach the next generation of itself, which stays if it is better";
  kind.examples = {"{}", "{start: new}"};
  kind.may_be_empty = true;
  kind.train_fields = true;
  kind.check = Check;
  kind.resolve = ResolveSelfDistill;
  kind.plan = PlanSelfDistill;
  return kind;
}

}  // namespace pare::recipes
