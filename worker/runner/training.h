// Training: epochs of batches over a dataset, with masks, optional gradual pruning, snapshots and stop requests.
//
// A result is a pure function of TrainJob without `threads`: draws are keyed by position, batches go in the order of
// (seed, kShuffle, draw epoch), and an interrupted run that continues from its snapshot ends with the same bits.
// One thread calls; the network uses its own threads inside.
//
// In a gang rank 0 reports progress and takes snapshots at intervals. When the exchange breaks every rank is at the boundary
// before the batch, leaves a snapshot as if it were asked to stop, and any of them continues it.
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/clock.h"
#include "data/dataset.h"
#include "model/graph.h"
#include "worker/collective/collective.h"
#include "worker/runner/hooks.h"
#include "worker/runner/params.h"
#include "worker/runner/snapshot.h"
#include "worker/runner/snapshot_writer.h"
#include "worker/runner/teacher.h"

namespace pare::runner {

inline constexpr Millis kProgressInterval{200};

// Which of `rows` have a label that may be used, ascending: the first round(fraction · n) of the permutation (seed, kLabels).
std::vector<uint32_t> LabelledRows(std::span<const uint32_t> rows, double fraction, uint64_t seed);

struct TrainJob {
  const model::Graph& graph;
  const model::GraphInfo& info;
  model::TensorMap weights;  // removed weights are zero
  model::MaskMap masks;
  const data::Dataset& dataset;
  data::DataSpec data;
  TrainOptions options;
  EpochRange range;
  std::optional<GradualPruning> gradual;
  // Teaches beside the labels, and alone where a sample has none that may be used. Null: samples without a label are left out.
  Teacher* teacher = nullptr;
  std::vector<std::string> taps;  // nodes whose values the teacher gives targets for
  std::set<std::string> frozen = {};  // tensors that keep their values: no gradient, no update, not in snapshots
  uint64_t seed = 0;
  StepKey step;  // whose snapshots these are

  // How to run, never what:
  std::shared_ptr<collective::Collective> gang = nullptr;  // with whom; every rank calls Train with the same job
  std::string device = "cpu";
  int threads = 1;
  int64_t snapshot_every_epochs = 0;    // 0: none
  double snapshot_every_seconds = 0.0;  // 0: none
};

struct TrainResult {
  model::TensorMap weights;  // removed weights are exactly +0.0
  model::MaskMap masks;
  std::vector<EpochRecord> history;
};

// What a stopped step left, if it was asked to keep something.
struct TrainServices {
  StepHooks& hooks;
  SnapshotWriter& snapshots;
  const Clock& clock;
  std::optional<StoredSnapshot>& stopped;
};

// Errors: kStopped, on request or because a rank of the gang is gone (services.stopped is the snapshot, if one is to be kept
// and was stored); kDiverged names epoch, batch,
// learning rate and a remedy; kInvalid: data and model do not fit, or no training samples.
Result<TrainResult> Train(TrainJob job, std::optional<Snapshot> resume, const TrainServices& services);

}  // namespace pare::runner
