// Calibration: a few training samples that stand for all of them where a step needs to know a network's activations, not to
// train it. One thread calls.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model/graph.h"
#include "model/tensor.h"
#include "methods/low_rank.h"
#include "worker/engine/network.h"
#include "worker/runner/steps.h"

namespace pare::runner {

// The first `samples` of the rows that train, in the order of the permutation (seed, kCalibrate). kInvalid: there are not so
// many, or none is asked for.
Result<std::vector<uint32_t>> CalibrationSamples(const std::vector<uint32_t>& training, int64_t samples, uint64_t seed);
// The same of the training split, validation cut away.
Result<std::vector<uint32_t>> CalibrationRows(const StepData& data, int64_t samples, uint64_t seed);

// The values of some nodes for calibration samples in their order, without augmentation. Bits do not depend on the number of
// threads.
class CalibrationPass {
 public:
  // kInvalid: not so many samples, or the model does not fit the data. REQUIRES: taps are nodes of the model; context outlives.
  static Result<CalibrationPass> Open(StepContext& context, const storage::Checkpoint& model, std::vector<std::string> taps, int64_t samples);
  // visit(values, n) for every batch of n samples: values[t] is [n, elements] of taps[t]. kStopped: on request.
  using Visitor = std::function<Status(std::span<const std::span<float>> values, int64_t n)>;
  Status ForEachBatch(const Visitor& visit);

 private:
  explicit CalibrationPass(StepContext& context) : context_(&context) {}

  StepContext* context_;
  StepData data_;
  std::vector<uint32_t> rows_;
  int64_t batch_ = 1;
  std::unique_ptr<engine::Network> network_;
};

// The second moment E[x·xᵀ] of the input vectors of weights, F64 [columns, columns] each, in the order of `tensors`, over
// calibration samples in their order, without augmentation. Bits do not depend on the number of threads.
// kInvalid: fewer vectors than a layer has columns (names it and how many samples would do); kStopped: on request.
Result<std::vector<model::Tensor>> InputCovariances(StepContext& context, const storage::Checkpoint& model,
                                                    const std::vector<std::string>& tensors, methods::ConvForm form, int64_t samples);

}  // namespace pare::runner
