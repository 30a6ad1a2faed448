// student: the chain goes on with another network, newly initialized: the small one that a big one shall teach.
#include "recipes/kinds.h"
#include "recipes/model_section.h"

namespace pare::recipes {
namespace {

constexpr Field kFields[] = {
    {"student", "model", "section", "", 0, 0, "", "", "the network, as in the recipe's model (without weights); default: that one", "{architecture: mlp, hidden: [100]}"},
    {"student", "seed", "integer", "", 0, 9007199254740991.0, "", "", "draws its first weights; default: the recipe's seed", "2"},
};

void Check(CheckContext& context, const Json& student, const std::string& pointer) {
  if (!student.contains("model") || !student["model"].is_object()) return;
  context.Model(student["model"], pointer + "/model");
  if (student["model"].contains("weights")) context.Fail(pointer + "/model/weights", "weights: a student starts from new weights; name trained ones as a teacher, or in the recipe's model");
}

void ResolveStudent(ResolveContext& context, Json& student, const std::string& pointer) {
  if (!student.contains("model")) student["model"] = context.tree().at("model");
  student["model"].erase("weights");
  if (!student.contains("seed")) student["seed"] = context.tree().at("seed");
  auto resolved = ResolveModelSection(student["model"]);
  if (!resolved.ok()) return context.Fail(pointer + "/model", "model: " + resolved.error().message);
  auto graph = BuildModelSection(student["model"], context.data());
  if (!graph.ok()) return context.Fail(pointer + "/model", "model: " + graph.error().message);
  if ((model::VocabularyOf(*graph) > 0) != (model::VocabularyOf(context.graph()) > 0)) {
    return context.Fail(pointer + "/model", "model: one of student and recipe reads token ids, the other numbers; the samples are given to both alike, so use encoder in both or in neither");
  }
  auto info = model::Analyze(*graph);
  if (!info.ok()) return context.Fail(pointer + "/model", "the model does not take these samples: " + info.error().message);
  student["model"] = *std::move(resolved);
  context.UseModel(*std::move(graph), *std::move(info));
  context.StartFresh();
}

void PlanStudent(Chain& chain, const Json& student) {
  auto graph = BuildModelSection(student["model"], chain.recipe().data);
  CHECK(graph.ok());  // Resolve saw it
  if (chain.model() != chain.baseline().key) {
    chain.Warn("student: a new network, in which nothing is left of the steps before it; only a teacher (teacher: best) can hand that on");
  }
  chain.StartOver(*std::move(graph), student["seed"].get<uint64_t>());
}

}  // namespace

Kind StudentKind() {
  Kind kind;
  kind.name = "student";
  kind.fields = kFields;
  kind.help = "go on with another network, newly initialized";
  kind.may_be_empty = true;
  kind.check = Check;
  kind.resolve = ResolveStudent;
  kind.plan = PlanStudent;
  return kind;
}

}  // namespace pare::recipes
