// Parameters of training steps, read once from a step's spec (docs/formats.md, "Step parameters") into values that need no
// further checks. Errors are kInvalid and name the field. Plain values, no thread rule.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "common/json.h"
#include "worker/engine/optimizer.h"
#include "worker/engine/schedule.h"
#include "methods/pruning.h"

namespace pare::runner {

struct TrainOptions {
  int64_t epochs = 1;
  int64_t batch_size = 128;
  int64_t shards = 1;
  engine::OptimizerOptions optimizer;
  engine::ScheduleOptions schedule;
  double label_smoothing = 0.0;
  double clip_norm = 0.0;  // 0: no clipping
  double labels = 1.0;     // fraction of the training samples whose label may be used
};
// Reads `params.train`.
Result<TrainOptions> TrainOptionsFromJson(const Json& params);

// Which epochs of a run a step trains: [start, stop) on the schedule; epoch e draws with draw + e − start.
struct EpochRange {
  int64_t start = 0, stop = 1, draw = 0;
};
Result<EpochRange> EpochRangeFromJson(const Json& params, const TrainOptions& train);

// Distillation: how a teacher is listened to.
struct DistillOptions {
  double temperature = 2.0, hardness = 0.5;  // worker/engine/loss.h
  std::map<std::string, std::string> match;  // node of the student → node of the teacher
  double match_weight = 1.0;
};
Result<DistillOptions> DistillOptionsFromJson(const Json& params);

// Pruning while training: sparsity follows a schedule in epochs of the step.
struct GradualPruning {
  methods::PruneOptions options;
  bool cubic = true;
  double initial = 0.0, final = 0.0;
  double start_epoch = 0.0, end_epoch = 1.0, update_frequency = 1.0;
};
Result<GradualPruning> GradualPruningFromJson(const Json& params, const model::Graph& graph, const model::GraphInfo& info, int64_t epochs);

// One refresh of the masks, as soon as `batch` batches of the step are done.
struct MaskRefresh {
  int64_t batch = 0;
  double sparsity = 0.0;
  bool operator==(const MaskRefresh&) const = default;
};
// Refresh k is due at epoch min(start + k · frequency, end): batch round(that · batches), an exact integer; the last is
// always at end_epoch with the final sparsity, after which masks stay. Several on one batch become the last of them.
std::vector<MaskRefresh> MaskRefreshes(const GradualPruning& pruning, int64_t batches);

}  // namespace pare::runner
