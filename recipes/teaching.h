// Teaching: what distill and self_distill have in common: their fields, their training, the teacher's place in the plan.
// Inside recipes/ only.
#pragma once

#include <optional>
#include <string>

#include "recipes/kinds.h"

namespace pare::recipes {

// From this many times the student's parameters on a teacher is more than it can follow (Mirzadeh et al. 2020, "Improved
// knowledge distillation via teacher assistant", sees the gap hurt from about 10x depth; a warning, not an error).
inline constexpr double kFarLarger = 50;

// The section with the training that it means and every default: fine-tuning at the baseline's last rate; for encoders
// (networks with attention) that were trained before AdamW at 1e-5; for a student that starts from nothing the whole schedule of train.
void ResolveTeaching(ResolveContext& context, Json& section, const std::string& kind, const std::string& pointer);

// The network that `section.teacher` names; checked against the chain's. Nothing after a refusal.
std::optional<PlannedModel> FindTeacher(Chain& chain, const Json& section);

// What a student learns beside the labels.
struct Lesson {
  PlannedModel teacher;
  double temperature = 2.0, hardness = 0.5;
  Json match = Json::object();
  double match_weight = 1.0;
  std::optional<StepKey> weights;  // start from these, under the present masks
};
Lesson LessonOf(const Json& section, PlannedModel teacher);

// Adds the distill step, and in front of it the teacher's logits where they can be stored.
void Distill(Chain& chain, const Json& section, const Lesson& lesson);

}  // namespace pare::recipes
