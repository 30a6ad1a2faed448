// ResolveContext: what resolving a step's section needs: the recipe with the sections before the variants resolved, the
// model, the data, and where errors and warnings go. Given to the step kinds (recipes/kinds.h). Inside recipes/ only.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "model/graph.h"
#include "recipes/findings.h"
#include "recipes/recipe.h"

namespace pare::recipes {

inline constexpr int kDefaultStepEpochs = 3;  // of a step that trains and does not say for how long

class ResolveContext {
 public:
  // REQUIRES: all outlive this.
  ResolveContext(const Recipe& recipe, const Json& tree, const ResolvedRecipe& resolved, const model::GraphInfo& info, Errors& errors,
                 std::vector<Finding>& warnings)
      : recipe_(recipe), tree_(tree), resolved_(resolved), info_(info), errors_(errors), warnings_(warnings) {}

  const Json& tree() const { return tree_; }
  bool has_train() const { return tree_.contains("train"); }
  const Json& train() const { return tree_.at("train"); }  // REQUIRES: has_train()
  const data::DataInfo& data() const { return resolved_.data; }
  // Of the dense model: the recipe's, or the newest student's of the variant.
  const model::Graph& graph() const { return student_ ? student_->graph : resolved_.graph; }
  const model::GraphInfo& info() const { return student_ ? student_->info : info_; }
  int64_t training_samples() const { return resolved_.data.train_count - tree_.at("data").at("validation").get<int64_t>(); }

  void Fail(const std::string& pointer, const std::string& text) { errors_.Add(pointer, text); }
  void Warn(const std::string& pointer, const std::string& text);

  // Walking through a variant: it begins at the baseline; a student takes its place; and the next training starts from
  // nothing, so that it needs a whole schedule.
  void StartVariant() { student_.reset(), fresh_ = false; }
  void UseModel(model::Graph graph, model::GraphInfo info) { student_ = {std::move(graph), std::move(info)}; }
  void StartFresh() { fresh_ = true; }
  bool fresh() const { return fresh_; }  // the network has not been trained yet

  // The weights that `targets` and `ignore` select, in graph order; patterns without a match are errors.
  std::vector<std::string> Tensors(const Json& section, const std::string& pointer);
  // False, with an error: a step that trains must say how where there is no train section.
  bool CanTrain(const Json& step, const std::string& pointer);
  // The fields of train, overridden by those that the step gives; `epochs` is the step's.
  Json MergedTrain(const Json& step) const;
  // The same for training on from the present weights: at a constant rate, the baseline's last, unless the step says
  // otherwise. `written`: the step's section as written.
  // After StartFresh: the whole schedule of train, for as many epochs unless the step says otherwise.
  Json FineTuning(const Json& written, const std::string& pointer);
  // `labels`, given as a fraction or as a number of samples, becomes a fraction.
  void ResolveLabels(Json& train) const;
  // Whether a sample is left that has its label.
  bool HasLabels(const Json& train) const;
  // Batch, shards, labels and split must fit. `taught`: by a teacher, so that no label is needed.
  void CheckBatch(const Json& train, const std::string& pointer, bool taught = false);

 private:
  Json FromNothing(const Json& written) const;

  const Recipe& recipe_;
  const Json& tree_;
  const ResolvedRecipe& resolved_;
  const model::GraphInfo& info_;
  Errors& errors_;
  std::vector<Finding>& warnings_;
  struct Student {
    model::Graph graph;
    model::GraphInfo info;
  };
  std::optional<Student> student_;
  bool fresh_ = false;
};

// Takes out of a section the fields that are train's and not its own (they are in its `train` by then).
void EraseTrainFields(Json& section, const std::string& kind);
int64_t DefaultShards(const Json& train);

}  // namespace pare::recipes
