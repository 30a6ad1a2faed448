// PlanBuilder: makes a Plan, chain by chain. The step kinds say what each item becomes; this keeps the list of steps, their
// names and keys. Inside recipes/ only.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "recipes/chain.h"
#include "recipes/plan.h"

namespace pare::recipes {

class PlanBuilder {
 public:
  // REQUIRES: outlives this.
  explicit PlanBuilder(const ResolvedRecipe& recipe);
  // Null: the graph cannot be analyzed. Throws what Json throws where the tree is not as Resolve leaves it.
  std::shared_ptr<const Plan> Build();

  // For Chain.
  const ResolvedRecipe& recipe() const { return recipe_; }
  const model::GraphInfo& info() const { return plan_.info; }
  const PlannedModel& baseline() const { return baseline_; }
  const methods::Outline& dense() const { return dense_; }
  int64_t baseline_epochs() const { return baseline_epochs_; }
  PlannedStep Make(std::string name, std::string variant, std::string kind, Json params, std::map<std::string, StepKey> inputs, bool reads_data,
                   std::optional<uint64_t> seed = std::nullopt) const;
  StepKey Add(PlannedStep step);
  // One that leaves a checkpoint; it can be found by its name afterwards.
  // `graph`: dense, if it is not the recipe's.
  StepKey AddModel(PlannedStep step, const methods::Outline& outline, std::shared_ptr<const model::Graph> graph = nullptr);
  const model::Graph& GraphOf(const StepKey& model) const;
  bool IsFactored(const StepKey& model, const std::string& node) const;
  // The key of a checkpoint's evaluation on validation samples, planned or not.
  StepKey EvaluationOf(const StepKey& model) const;
  // The evaluation of a checkpoint on test samples, which is wanted after the decision.
  StepKey TestOf(const PlannedModel& model, const std::string& variant);
  // A step that is wanted after the decision and those before it here.
  void Afterwards(PlannedStep step) { plan_.afterwards.push_back(std::move(step)); }
  void AddLesson(PlannedLesson lesson) { plan_.lessons.push_back(std::move(lesson)); }
  uint64_t seed() const { return plan_.seed; }
  // The step of this kind that is planned already, or a new one with `name`, numbered if it is taken.
  PlannedStep MakeShared(const std::string& name, const std::string& kind, Json params, std::map<std::string, StepKey> inputs, bool reads_data,
                         std::optional<uint64_t> seed = std::nullopt);
  // What Find takes, as far as it is planned: steps that leave a network, and all variants.
  std::vector<std::string> ModelNames() const;
  bool Has(const StepKey& key) const { return keys_.count(key) != 0; }
  // The evaluation of a checkpoint; its key.
  StepKey Evaluate(const std::string& of, const std::string& variant, const StepKey& model, bool candidate);
  StepKey WeightsAt(int64_t epoch);
  // Plans the variant of a step's name first, if it is not planned yet. Null: no such step. `busy`: it waits for itself.
  const PlannedModel* Find(const std::string& step, bool& busy);
  void Refuse(std::string pointer, std::string text) { plan_.refusals.push_back({std::move(pointer), std::move(text)}); }
  void Warn(std::string pointer, std::string text) { plan_.warnings.push_back({std::move(pointer), std::move(text)}); }

 private:
  void Baseline();
  Json TrainUntil(int64_t stop) const;
  void Variant(const std::string& name);

  const ResolvedRecipe& recipe_;
  const Json& tree_;
  JsonText data_;
  Plan plan_;
  methods::Outline dense_;
  PlannedModel init_, baseline_;
  int64_t baseline_epochs_ = 0;
  std::map<int64_t, StepKey> rewinds_;
  std::map<std::string, PlannedModel> models_;  // by step name
  std::map<std::string, bool> variants_;        // true: planned; false: being planned
  std::set<StepKey> keys_;
  std::map<StepKey, std::set<std::string>> factored_;  // nodes of their dense graphs that are low-rank pairs by now
  std::map<StepKey, std::shared_ptr<const model::Graph>> graphs_;  // of checkpoints whose dense graph is not the recipe's
  std::map<std::string, StepKey> shared_names_;
};

}  // namespace pare::recipes
