// Plan: all that a recipe's steps are, worked out once: the chains with their keys, the test evaluations that follow the
// decision, and what each checkpoint is expected to keep. Immutable, shared by copies of a ResolvedRecipe. Inside recipes/.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "methods/outline.h"
#include "model/graph.h"
#include "recipes/planner.h"

namespace pare::recipes {

// Of a checkpoint, from its outline.
struct Expected {
  double sparsity = 0;  // of the tensors pruned so far
  int64_t parameters = 0;
  int64_t parameters_nonzero = 0;
  int64_t multiply_adds = 0;
  int64_t multiply_adds_nonzero = 0;
  int64_t checkpoint_bytes = 0;
};
Expected ExpectedOf(const methods::Outline& outline);

// What planning has to say about an item of a variant.
struct Remark {
  std::string pointer;  // of the item's section
  std::string text;
};

// A teacher and what it taught, for Advice: keys of evaluations that may be there one day.
struct PlannedLesson {
  std::string step, teacher;  // names
  StepKey teacher_evaluation, student_evaluation;
  bool before = false;  // the student's is of what it was before the step
};

struct Plan {
  std::vector<PlannedStep> chains;  // init, baseline, every variant's steps and validation evaluations; topological
  // The test evaluation that belongs to the validation evaluation chains[i]; used once the decision is taken.
  std::map<size_t, PlannedStep> tests;
  // Wanted after the test evaluations, as far as their inputs are: topological.
  std::vector<PlannedStep> afterwards;
  std::vector<PlannedLesson> lessons;
  std::map<StepKey, Expected> expected;  // by the step that makes the checkpoint
  Json promote;                          // params of the promote step; null: nothing is promoted
  uint64_t seed = 0;
  std::string device;
  JsonText hints;
  model::GraphInfo info;
  std::map<std::string, methods::Outline> left;  // by variant: the network at its end
  std::vector<Remark> refusals;  // steps that make no sense where they stand; a recipe with any is not resolved
  std::vector<Remark> warnings;
};

// Null for a value that Resolve did not make (a stored recipe of another release).
std::shared_ptr<const Plan> MakePlan(const ResolvedRecipe& recipe);
PlannedStep PromoteStep(const Plan& plan, std::map<std::string, StepKey> inputs);

}  // namespace pare::recipes
