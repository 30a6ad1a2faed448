// Calibration: a few training samples that stand for all of them where a step needs to know a network's activations, not to
// train it. One thread calls.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/graph.h"
#include "model/tensor.h"
#include "methods/low_rank.h"
#include "worker/runner/steps.h"

namespace pare::runner {

// The first `samples` of the training split (validation cut away) in the order of the permutation (seed, kCalibrate).
// kInvalid: there are not so many, or none is asked for.
Result<std::vector<uint32_t>> CalibrationRows(const StepData& data, int64_t samples, uint64_t seed);

// The second moment E[x·xᵀ] of the input vectors of weights, F64 [columns, columns] each, in the order of `tensors`, over
// calibration samples in their order, without augmentation. Bits do not depend on the number of threads.
// kInvalid: fewer vectors than a layer has columns (names it and how many samples would do); kStopped: on request.
Result<std::vector<model::Tensor>> InputCovariances(StepContext& context, const storage::Checkpoint& model,
                                                    const std::vector<std::string>& tensors, methods::ConvForm form, int64_t samples);

}  // namespace pare::runner
