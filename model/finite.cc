#include "model/finite.h"

#include <algorithm>
#include <cmath>
#include <span>

namespace pare::model {

Status CheckFinite(const TensorMap& tensors) {
  for (const auto& [name, tensor] : tensors) {
    if (tensor.dtype() != DType::kF32) continue;
    std::span<const float> values = tensor.values<float>();
    auto bad = std::find_if(values.begin(), values.end(), [](float v) { return !std::isfinite(v); });
    if (bad == values.end()) continue;
    return Error{ErrorCode::kInvalid, "tensor '" + name + "' holds " + (std::isnan(*bad) ? "NaN" : "an infinity") + " at element " +
                                          std::to_string(bad - values.begin())};
  }
  return Ok();
}

}  // namespace pare::model
