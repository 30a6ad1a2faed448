// What the steps that train have in common (step_train.cc, step_distill.cc): they differ in where graph, weights, masks,
// epochs and targets come from, nothing else. One thread.
#pragma once

#include <memory>
#include <optional>
#include <set>

#include "worker/runner/steps.h"
#include "worker/runner/training.h"

namespace pare::runner {

struct TrainPlan {
  const storage::Checkpoint& from;  // whose graph, masks and notes the result has
  model::TensorMap weights;
  TrainOptions options;
  EpochRange range;
  std::optional<GradualPruning> gradual = std::nullopt;
  std::unique_ptr<Teacher> teacher = nullptr;
  // Where training needs more than the graph of `from` (projections): that graph, with tensors of its additional nodes among
  // `weights`; they are dropped from the result.
  std::optional<model::Graph> graph = std::nullopt;
  std::vector<std::string> taps = {};
  std::set<std::string> frozen = {};  // tensors that do not train
};

// Reads `train` and the epoch range of the step's params; weights come from input `rewind` if there is one, else from `model`.
// REQUIRES: `model` outlives the plan.
Result<TrainPlan> PlanTraining(StepContext& context, const storage::Checkpoint& model);

// Trains and leaves the checkpoint to the caller. kInvalid: a layer whose encoding cannot be trained, unless others are frozen
// because adapters beside it do.
struct Trained {
  storage::Checkpoint checkpoint;
  std::vector<EpochRecord> history;
};
Result<Trained> RunTraining(StepContext& context, const StepData& data, TrainPlan plan);
Result<StepOutput> TrainAndStore(StepContext& context, const StepData& data, TrainPlan plan);

}  // namespace pare::runner
