// Whether earlier weights fit a network: what retrain and distill ask before they rewind. Inside recipes/ only.
#pragma once

#include <algorithm>

#include "methods/outline.h"

namespace pare::recipes {

// Nothing was factored, removed, clustered or quantized since.
inline bool FitsDenseWeights(const methods::Outline& outline) {
  return !outline.reshaped && std::all_of(outline.layers.begin(), outline.layers.end(), [](const auto& entry) { return entry.second.encoding == model::Encoding::kDense; });
}

}  // namespace pare::recipes
