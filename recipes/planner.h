// Planner: recipe and results so far → steps wanted. Pure: the same arguments give the same steps, whatever the order in
// which results arrived. The coordinator and `pare plan` call the same functions.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
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
  JsonText spec_text;  // ToText(spec)
  StepKey key;         // KeyOf(spec)
  // True: decided by the coordinator itself with RunLocalStep; never sent to a worker.
  bool local = false;
  // True: a candidate's evaluation (its "model" input is the candidate's checkpoint).
  bool candidate = false;
  std::string model_step;  // for evaluations: name of the step that made the model
  // How to run, never what: {"snapshot_every_epochs": 1, "snapshot_every_seconds": 0}. Not part of the key.
  JsonText hints = Json::object();

  // Works out spec_text and key.
  void Seal();
};

// Planned steps in order. They are shared, not copied: those of a plan stay where they are.
class PlannedSteps {
 public:
  using Shared = std::shared_ptr<const PlannedStep>;

  PlannedSteps() = default;
  void Add(Shared step) { steps_.push_back(std::move(step)); }
  void Add(PlannedStep step) { Add(std::make_shared<const PlannedStep>(std::move(step))); }
  void Reserve(size_t size) { steps_.reserve(size); }

  // Over `const PlannedStep&`.
  template <typename Base>
  struct Iterator : Base {
    using value_type = PlannedStep;
    using reference = const PlannedStep&;
    using pointer = const PlannedStep*;
    explicit Iterator(Base base) : Base(base) {}
    reference operator*() const { return **static_cast<const Base&>(*this); }
    pointer operator->() const { return &**this; }
  };
  auto begin() const { return Iterator(steps_.begin()); }
  auto end() const { return Iterator(steps_.end()); }
  auto rbegin() const { return Iterator(steps_.rbegin()); }
  auto rend() const { return Iterator(steps_.rend()); }
  size_t size() const { return steps_.size(); }
  bool empty() const { return steps_.empty(); }
  const PlannedStep& operator[](size_t at) const { return *steps_[at]; }
  const PlannedStep& back() const { return *steps_.back(); }

 private:
  std::vector<Shared> steps_;
};

struct StepOutcome {
  bool done = false;     // false: failed for good
  Digest artifact;       // if done
  JsonText results;      // the artifact's results, if done
};
using Outcomes = std::map<StepKey, StepOutcome>;

// Every step the job wants, in a fixed topological order; finished ones are included. A step whose input failed is not
// wanted. Steps that depend on results (promote: over the evaluations that succeeded) appear once those are known, or
// failed for good. The job is finished when every wanted step has an outcome.
PlannedSteps Next(const ResolvedRecipe& recipe, const Outcomes& outcomes);

// The recipe has no `keep`, or one that keeps all.
bool KeepsAll(const ResolvedRecipe& recipe);

// Of the steps that are done but whose checkpoints were collected (storage/gc.h), those that run again: a step that has yet to run
// reads what they left, perhaps one of these; or the recipe keeps all; or they are `needed` otherwise. `runs`: has no outcome yet.
std::set<StepKey> MadeAgain(const PlannedSteps& plan, bool keeps_all, const std::function<bool(const StepKey&)>& runs,
                            const std::function<bool(const StepKey&)>& collected, std::set<StepKey> needed = {});

// All steps that will run if every step succeeds: what `pare plan` shows and a submit predicts.
PlannedSteps FullPlan(const ResolvedRecipe& recipe);

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
