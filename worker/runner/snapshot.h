// Snapshot: a training step in the middle, as one blob from which it continues bit for bit.
//
// Format, version 1: a safetensors file with the tensors
//   "weight/<name>"     parameters and buffers as they are (a removed weight may be −0.0)
//   "mask/<name>"       I64, Mask::packed()
//   "optimizer/<name>"  Optimizer::State()
//   "sum/<name>"        F32: sums over the step so far ("movement"), in the order of the flat parameter buffer
//   "state"             U8: canonical JSON {"format": 1, "step", "epoch", "batch", "loss_sum", "correct", "samples",
//                       "labelled", "history": […]}; epoch and batch name the next batch, epoch as on the schedule
// Raw, without compression: it is written while training goes on, and lives until the next one.
// Rejected: the checkpoint codec (spends time on size); JSON in safetensors metadata (our reader drops it).
// Plain values, no thread rule. Decoding errors are kCorrupt, or kInvalid for a snapshot of another step.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/digest.h"
#include "common/json.h"
#include "model/mask.h"

namespace pare::runner {

struct EpochRecord {
  int64_t epoch = 0;  // from 1, as on the schedule
  double loss = 0.0;
  std::optional<double> train_accuracy;       // percent of the samples with a label; none: there was no such sample
  std::optional<double> validation_accuracy;  // percent
  bool operator==(const EpochRecord&) const = default;
};
Json ToJson(const EpochRecord& record);

// Where training is, and the sums over the present epoch so far.
struct TrainPosition {
  int64_t epoch = 0, batch = 0;
  double loss_sum = 0.0;
  int64_t correct = 0, samples = 0, labelled = 0;
  std::vector<EpochRecord> history;
};

struct Snapshot {
  model::TensorMap weights;
  model::MaskMap masks;
  model::TensorMap optimizer;
  model::TensorMap sums;
  TrainPosition position;
};

std::string EncodeSnapshot(const Snapshot& snapshot, const StepKey& step);
Result<Snapshot> DecodeSnapshot(std::span<const std::byte> bytes, std::shared_ptr<const void> keep_alive,
                                const StepKey& step);

}  // namespace pare::runner
