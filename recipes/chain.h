// Chain: one variant while its steps are planned: the newest checkpoint, what the network is like there (methods/outline.h),
// and everything a step kind may do: add the chain's next step, steps shared between variants, evaluations, and refuse.
// Given to the step kinds (recipes/kinds.h). Inside recipes/ only.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "methods/outline.h"
#include "recipes/planner.h"

namespace pare::recipes {

class PlanBuilder;

// A checkpoint that some step leaves.
struct PlannedModel {
  StepKey key;
  std::string name;  // of the step
};

class Chain {
 public:
  // Starts at the dense baseline.
  Chain(PlanBuilder& builder, std::string variant, size_t items);

  // What is there.
  const std::string& variant() const { return variant_; }
  const StepKey& model() const { return model_.key; }          // the newest checkpoint
  const std::string& name() const { return model_.name; }      // of the step that made it
  methods::Outline& outline() { return outline_; }             // of it
  const model::Graph& graph() const;                           // dense; every `tensors` names its weights
  const model::GraphInfo& info() const;
  const ResolvedRecipe& recipe() const;
  const PlannedModel& baseline() const;
  int64_t epochs() const { return epochs_; }                   // trained so far
  bool is_last() const { return is_last_; }                    // the item that is being planned ends the variant
  // The checkpoint of a step by its name: init, baseline, a step of this chain or "<variant>/<step>" of another variant,
  // which is then planned first. Nothing, after a refusal at `field`, if there is none or two variants need each other.
  std::optional<PlannedModel> Find(const std::string& step, const std::string& field);
  // The baseline's weights as they were after `epoch` epochs; REQUIRES: the recipe trains, epoch is within.
  StepKey WeightsAt(int64_t epoch);

  // Sense. Each says false after a refusal: the kind returns then.
  void Refuse(const std::string& field, const std::string& text);  // "" : the section as a whole
  void Warn(const std::string& text);
  // A step that trains the whole network.
  bool MayTrain(std::string_view kind);
  // The outline after the step that is about to be added, or the reason why there is no such step.
  bool Become(Result<methods::Outline> outline);

  // Steps.
  // "<variant>/<number>-<kind>": works on the newest checkpoint (input "model", unless `inputs` has one) and leaves the
  // next one, which looks like outline().
  void Advance(const std::string& kind, Json params, std::map<std::string, StepKey> inputs, bool reads_data);
  // A step beside the chains that leaves no checkpoint of the chain: spectra, a teacher's logits. Equal ones, of any
  // variant, are one step; `name` gets a number if another step has it.
  StepKey Helper(const std::string& name, const std::string& kind, Json params, std::map<std::string, StepKey> inputs, bool reads_data);
  // The same for one that leaves a checkpoint like `outline` (an adopted teacher).
  PlannedModel HelperModel(const std::string& name, const std::string& kind, Json params, std::map<std::string, StepKey> inputs, bool reads_data,
                           const methods::Outline& outline);
  // Evaluates the newest checkpoint as a candidate, now; otherwise the planner does when an item that trains, the variant,
  // or the item before an evaluate ends. The key of the evaluation on validation samples.
  StepKey Evaluate();

  // `train`, `start_epoch`, `stop_epoch`, `draw_epoch` of a step with these settings that trains on from here, or replays
  // the baseline's schedule from `start` on. Counts its epochs.
  Json Training(const Json& train);
  Json ReplayedTraining(const Json& train, int64_t start);

 private:
  friend class PlanBuilder;

  PlanBuilder& builder_;
  std::string variant_;
  PlannedModel model_;
  methods::Outline outline_;
  int64_t epochs_ = 0;
  int ordinal_ = 0, width_ = 2;  // of step numbers
  bool evaluated_ = true, is_last_ = false;
  StepKey evaluation_;
  std::string pointer_;  // of the section that is being planned
};

}  // namespace pare::recipes
