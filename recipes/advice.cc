// What results tell against a recipe: doubts that planning alone cannot have.
#include <cstdio>

#include "recipes/plan.h"

namespace pare::recipes {
namespace {

std::optional<double> AccuracyOf(const Outcomes& outcomes, const StepKey& evaluation) {
  auto it = outcomes.find(evaluation);
  if (it == outcomes.end() || !it->second.done) return std::nullopt;
  Json results = it->second.results.Tree();
  if (!results.is_object() || !results.contains("accuracy")) return std::nullopt;
  return results["accuracy"].get<double>();
}

std::string Percent(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f %%", value);
  return text;
}

}  // namespace

std::vector<std::string> Advice(const ResolvedRecipe& recipe, const Outcomes& outcomes) {
  std::vector<std::string> advice;
  std::shared_ptr<const Plan> plan = recipe.plan != nullptr ? recipe.plan : MakePlan(recipe);
  if (plan == nullptr) return advice;
  for (const PlannedLesson& lesson : plan->lessons) {
    auto teacher = AccuracyOf(outcomes, lesson.teacher_evaluation), student = AccuracyOf(outcomes, lesson.student_evaluation);
    if (!teacher || !student || *teacher > *student) continue;
    advice.push_back(lesson.step + ": teacher " + lesson.teacher + " (" + Percent(*teacher) + " on validation) is no better than the student " +
                     (lesson.before ? "was before it" : "became") + " (" + Percent(*student) + "); a better teacher, or none, serves it more");
  }
  return advice;
}

}  // namespace pare::recipes
