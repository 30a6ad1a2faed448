// Importance: what the gradients of calibration samples say about weights, for the criteria taylor and fisher
// (methods/pruning.h). Gradients are those of the network as it is used: evaluation mode, no augmentation. One thread calls.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/dataset.h"
#include "worker/engine/network.h"

namespace pare::runner {

// Largest number of samples per batch for mean gradients; part of the result, as sums in another order round differently.
inline constexpr int64_t kGradientBatch = 100;

enum class GradientMoment { kMean, kMeanSquare };
// One value per element of network.parameters(): the gradient of the mean loss of `rows`, or the mean of the squares of
// single samples' gradients. network.gradients() is overwritten, everything else stays. Bits do not depend on threads.
// REQUIRES: rows not empty; the network was made with max_batch ≥ min(kGradientBatch, rows).
std::vector<float> GradientsOf(engine::Network& network, const data::Split& split, const data::DataSpec& spec,
                               std::span<const uint32_t> rows, GradientMoment moment);

}  // namespace pare::runner
