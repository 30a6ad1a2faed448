// distill: trains the network towards a teacher's answers, beside the labels or instead of them.
#include "methods/distillation.h"
#include "recipes/dense_weights.h"
#include "recipes/outside.h"
#include "recipes/teaching.h"

namespace pare::recipes {
namespace {

constexpr Field kFields[] = {
    {"distill", "teacher", "text", "", 0, 0, "", "", "who teaches: baseline, init, best (the most accurate of the baseline and this variant's candidates so far), VARIANT (what it ends with), VARIANT/STEP, NAME@VERSION or NAME@champion of the registry, a directory as pare export writes it (./DIR), or a .safetensors file", "baseline"},
    {"distill", "teacher_model", "section", "", 0, 0, "", "", "architecture of a teacher that is a .safetensors file, as in model; default: the recipe's", "{architecture: resnet20}"},
    {"distill", "temperature", "number", "2", 0.01, 1000, "", "", "softens the teacher's answers; its square scales the gradient", "4"},
    {"distill", "hardness", "number", "0.5", 0, 1, "", "", "weight of the teacher; the labels have the rest", "0.9"},
    {"distill", "match", "map", "{}", 0, 0, "", "", "nodes of the student, each with the node of the teacher whose values it shall reproduce; NODE.scores: of an attention block; different widths are joined by a learned projection", "{fc1: fc2}"},
    {"distill", "match_weight", "number", "1", 0, 1e6, "", "", "match: weight of the mean squared difference", "0.1"},
    {"distill", "rewind", "name", "\"none\"", 0, 0, "none,weights", "", "weights: start again from earlier weights under the present masks", "weights"},
    {"distill", "to", "rewind", "", 0, 0, "", "epoch", "rewind: the epoch of train whose weights come back; default: init", "init"},
    {"distill", "control", "boolean", "false", 0, 0, "", "", "also train the same network as long without the teacher, and compare the two on the test samples in the report", "true"},
};

void Check(CheckContext& context, const Json& distill, const std::string& pointer) {
  if (!distill.contains("teacher")) context.Fail(pointer, "distill: 'teacher' is missing; for example teacher: baseline");
  std::string teacher = TextOr(distill, "teacher", "");
  if (teacher.empty() && distill.contains("teacher") && distill["teacher"].is_string()) context.Fail(pointer + "/teacher", "teacher: expected a name, found \"\"");
  if (distill.contains("teacher_model")) {
    if (PlaceOf(teacher) != ModelPlace::kFile) context.Refuse(distill, pointer, {"teacher_model"}, "only with a teacher that is a .safetensors file");
    else context.Model(distill["teacher_model"], pointer + "/teacher_model");
  }
  if (!distill.contains("match")) context.Refuse(distill, pointer, {"match_weight"}, "only with match");
  if (TextOr(distill, "rewind", "none") == "none") context.Refuse(distill, pointer, {"to"}, "only with rewind: weights");
  context.Training(distill, pointer, TextOr(distill, "schedule", "constant"));
}

void ResolveDistill(ResolveContext& context, Json& distill, const std::string& pointer) {
  bool rewinds = distill.value("rewind", "none") == "weights";
  if (rewinds && !context.has_train()) {
    return context.Fail(pointer + "/rewind", "rewind needs the weights of the baseline: there is no train section");
  }
  Json to = distill.value("to", Json("init"));
  ResolveTeaching(context, distill, "distill", pointer);
  distill["to"] = rewinds && to.is_number() ? to : Json(0);
  if (rewinds && to.is_number() && to.get<int64_t>() > context.train()["epochs"].get<int64_t>()) {
    context.Fail(pointer + "/to", "to: training has only " + Canonical(context.train()["epochs"]) + " epochs");
  }
}

bool CheckMatch(Chain& chain, const Json& distill, const PlannedModel& teacher) {
  const Json& match = distill["match"];
  if (distill["teacher"] == "best" && &chain.graph() != &chain.recipe().graph) {
    chain.Refuse("match", "match: which network is the best is known only once all have run, and a student is not like the baseline; name the teacher");
    return false;
  }
  for (const auto& [tensor, layer] : chain.outline().layers) {
    if (!match.contains(layer.node) || !layer.factored) continue;
    chain.Refuse("match", "match: " + layer.node + " is no longer in the network, an earlier step has replaced it by two thin layers; match the node behind it, or put distill before that step");
    return false;
  }
  for (const auto& [student, node] : match.items()) {
    if (!chain.IsFactored(teacher.key, node.get<std::string>())) continue;
    chain.Refuse("match", "match: the teacher has no node " + node.get<std::string>() + " any more, a step of it has replaced it by two thin layers; match the node behind it");
    return false;
  }
  auto matching = methods::MatchNodes(chain.graph(), chain.GraphOf(teacher.key), match.get<std::map<std::string, std::string>>());
  if (!matching.ok()) chain.Refuse("match", matching.error().message);
  return matching.ok();
}

void PlanDistill(Chain& chain, const Json& distill) {
  if (!chain.MayTrain("distill")) return;
  std::optional<PlannedModel> teacher = FindTeacher(chain, distill);
  if (!teacher) return;
  if (!distill["match"].empty() && !CheckMatch(chain, distill, *teacher)) return;
  Lesson lesson = LessonOf(distill, *teacher);
  if (distill["rewind"] == "weights") {
    if (!FitsDenseWeights(chain.outline())) {
      return chain.Refuse("rewind", "weights: the network has changed since the baseline (layers factored, units removed or weights clustered), its earlier weights do not fit; leave rewind out, or put distill before that step");
    }
    lesson.weights = chain.WeightsAt(distill["to"].get<int64_t>());
  }
  ControlStart start = chain.StartControl(lesson.weights);
  std::optional<StepKey> before = chain.evaluation();
  Distill(chain, distill, lesson);
  chain.RecordLesson(distill["teacher"].get<std::string>(), teacher->key, before);
  if (distill["control"].get<bool>()) chain.Compare(chain.Control(start, distill, 1));
}

}  // namespace

Kind DistillKind() {
  Kind kind;
  kind.name = "distill";
  kind.fields = kFields;
  kind.help = "train the network towards the answers of a teacher";
  kind.examples = {"{teacher: baseline}", "{teacher: baseline, match: {fc1: fc1}}"};
  kind.train_fields = true;
  kind.check = Check;
  kind.resolve = ResolveDistill;
  kind.plan = PlanDistill;
  kind.trains = [](const Json&) { return true; };
  return kind;
}

}  // namespace pare::recipes
