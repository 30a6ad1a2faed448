// Chain: one variant while its steps are planned: the newest checkpoint, what the network is like there (methods/outline.h),
// and everything a step kind may do: add the chain's next step, steps shared between variants, evaluations, and refuse.
// Given to the step kinds (recipes/kinds.h). Inside recipes/ only.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "methods/outline.h"
#include "recipes/planner.h"

namespace pare::recipes {

class PlanBuilder;

// A checkpoint that some step leaves.
struct PlannedModel {
  StepKey key;
  std::string name;  // of the step
};

// Where training with a teacher began, for the same training without one.
struct ControlStart {
  PlannedModel model;
  std::optional<StepKey> weights;  // of these, under the masks of `model`
  int64_t epochs = 0;
  methods::Outline outline;
};

class Chain {
 public:
  // Starts at the dense baseline.
  Chain(PlanBuilder& builder, std::string variant, size_t items);

  // What is there.
  const std::string& variant() const { return variant_; }
  const PlannedModel& newest() const { return model_; }
  const StepKey& model() const { return model_.key; }          // the newest checkpoint
  const std::string& name() const { return model_.name; }      // of the step that made it
  methods::Outline& outline() { return outline_; }             // of it
  const model::Graph& graph() const;                           // dense, of the newest student if there was one; every `tensors` names its weights
  const model::GraphInfo& info() const;
  const ResolvedRecipe& recipe() const;
  const PlannedModel& baseline() const;
  int64_t epochs() const { return epochs_; }                   // trained so far
  bool is_last() const { return is_last_; }                    // the item that is being planned ends the variant
  // The checkpoint of a step by its name: init, baseline, a step of this chain or "<variant>/<step>" of another variant,
  // which is then planned first. Nothing, after a refusal at `field`, if there is none or two variants need each other.
  std::optional<PlannedModel> Find(const std::string& step, const std::string& field);
  // The baseline's weights as they were after `epoch` epochs, or those a student began with; a student has no others: it
  // refuses. REQUIRES: the recipe trains, epoch is within.
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
  void Advance(const std::string& kind, Json params, std::map<std::string, StepKey> inputs, bool reads_data,
               const Json& hints = Json::object());
  // A step beside the chains that leaves no checkpoint of the chain: spectra, a teacher's logits. Equal ones, of any
  // variant, are one step; `name` gets a number if another step has it.
  StepKey Helper(const std::string& name, const std::string& kind, Json params, std::map<std::string, StepKey> inputs, bool reads_data,
                 const Json& hints = Json::object());
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

  // Students, teachers, generations (chain_teaching.cc).
  // Goes on with this network, initialized by `seed`.
  void StartOver(model::Graph graph, uint64_t seed);
  // Dense graph of a checkpoint that the plan makes.
  const model::Graph& GraphOf(const StepKey& model) const;
  // Whether its layer `node` of that graph is a low-rank pair by now.
  bool IsFactored(const StepKey& model, const std::string& node) const;
  // Fresh weights for the present network, others for every generation.
  StepKey NewWeights(int64_t generation);
  // A network from outside of the recipe (recipes/outside.h), and its evaluation.
  PlannedModel OutsideModelStep(const std::string& name, const std::string& kind, Json params, const model::Graph& graph);
  // The chain goes on with the more accurate of `first` and the newest checkpoint. The key of the kept one's evaluation.
  StepKey KeepBetter(const PlannedModel& first, const StepKey& first_evaluation, const StepKey& second_evaluation);
  // The most accurate of the baseline and the chain's candidates so far.
  PlannedModel Best();
  ControlStart StartControl(std::optional<StepKey> weights) const;
  // Trained from there without a teacher, `times` times as long as `training` says.
  PlannedModel Control(const ControlStart& start, const Json& training, int64_t times);
  // Compares the newest checkpoint with the control on the test samples, after the decision.
  void Compare(const PlannedModel& control);
  // For advice once accuracies are known: the newest checkpoint was taught by `teacher`; `before`: evaluation of what it
  // was before, if there is one.
  void RecordLesson(const std::string& teacher, const StepKey& teacher_model, std::optional<StepKey> before);
  // The evaluation of the newest checkpoint, if it has one.
  std::optional<StepKey> evaluation() const { return evaluated_ ? std::optional(evaluation_) : std::nullopt; }

 private:
  friend class PlanBuilder;
  std::string NextName(const std::string& kind);
  StepKey EvaluateBeside(const PlannedModel& model);

  PlanBuilder& builder_;
  std::string variant_;
  PlannedModel model_;
  methods::Outline outline_;
  std::shared_ptr<const model::Graph> graph_;  // of a student; null: the recipe's
  std::shared_ptr<const model::GraphInfo> info_;
  std::optional<StepKey> start_;          // first weights of a student
  std::vector<PlannedModel> candidates_;  // so far
  int64_t epochs_ = 0;
  int ordinal_ = 0, width_ = 2;  // of step numbers
  bool evaluated_ = true, is_last_ = false;
  StepKey evaluation_;
  std::string pointer_;  // of the section that is being planned
};

}  // namespace pare::recipes
