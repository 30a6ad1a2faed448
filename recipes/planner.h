// Planner: recipe and results so far → steps wanted. Pure: the same arguments give the same steps, whatever the order in
// which results arrived. The coordinator and `pare plan` call the same functions.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "recipes/recipe.h"
#include "recipes/step.h"

namespace pare::recipes {

// Of one job, evaluations and decision included: what a coordinator takes.
inline constexpr size_t kMaxPlannedSteps = 20'000;

struct PlannedStep {
  std::string name;     // unique within the job: "baseline", "iterative/03-retrain", "promote"
  std::string variant;  // empty: not of one variant
  StepSpec spec;
  StepKey key;
  // True: decided by the coordinator itself with RunLocalStep; never sent to a worker.
  bool local = false;
  // True: a candidate's evaluation (its "model" input is the candidate's checkpoint).
  bool candidate = false;
  std::string model_step;  // for evaluations: name of the step that made the model
  // How to run, never what: {"snapshot_every_epochs": 1, "snapshot_every_seconds": 0}. Not part of the key.
  Json hints = Json::object();
};

struct StepOutcome {
  bool done = false;     // false: failed for good
  Digest artifact;       // if done
  Json results;          // the artifact's results, if done
};
using Outcomes = std::map<StepKey, StepOutcome>;

// Every step the job wants, in a fixed topological order; finished ones are included. A step whose input failed is not
// wanted. Steps that depend on results (promote: over the evaluations that succeeded) appear once those are known, or
// failed for good. The job is finished when every wanted step has an outcome.
std::vector<PlannedStep> Next(const ResolvedRecipe& recipe, const Outcomes& outcomes);

// All steps that will run if every step succeeds: what `pare plan` shows and a submit predicts.
std::vector<PlannedStep> FullPlan(const ResolvedRecipe& recipe);

// Doubts that only results can tell: a teacher no better than its student. One text each, in the order of the plan.
std::vector<std::string> Advice(const ResolvedRecipe& recipe, const Outcomes& outcomes);

// Decides a local step (promote): results of its artifact (kind "decision"). REQUIRES: step.local, and an outcome for
// every input.
Json RunLocalStep(const PlannedStep& step, const ResolvedRecipe& recipe, const Outcomes& outcomes);

// What one core of a present server does in dense float32, about. Predicted times are for comparing steps.
inline constexpr double kPlanFlopsPerSecond = 100e9;

// What a step is expected to cost and give, for `pare plan`: from the recipe's sparsities alone, nothing is measured.
struct Prediction {
  int64_t parameters = 0;
  int64_t parameters_nonzero = 0;
  int64_t multiply_adds = 0;        // dense
  int64_t multiply_adds_nonzero = 0;
  int64_t checkpoint_bytes = 0;     // about
  double training_samples = 0;      // epochs x training images
  double seconds = 0;               // about, one core at kPlanFlopsPerSecond; the output says so
};
Result<Prediction> Predict(const PlannedStep& step, const ResolvedRecipe& recipe);

}  // namespace pare::recipes
