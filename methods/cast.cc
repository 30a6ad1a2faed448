#include "methods/cast.h"

#include <bit>
#include <cmath>
#include <span>

namespace pare::methods {
namespace {

constexpr float kSmallestNormalF16 = 0x1p-14f, kStepBelowIt = 0x1p-24f;  // IEEE 754 binary16

// `value` with the last `bits` bits of its significand rounded away. The carry may reach the exponent, as it should.
float Rounded(float value, int bits) {
  uint32_t word = std::bit_cast<uint32_t>(value), odd = (word >> bits) & 1;
  word += (uint32_t{1} << (bits - 1)) - 1 + odd;
  return std::bit_cast<float>(word & ~((uint32_t{1} << bits) - 1));
}

float RoundedTo(bool bf16, float value) {
  if (bf16) return Rounded(value, 16);
  if (std::abs(value) < kSmallestNormalF16) return std::nearbyint(value / kStepBelowIt) * kStepBelowIt;
  return Rounded(value, 13);
}

}  // namespace

Result<Outline> OutlineCast(Outline outline, const Json& params) {
  ASSIGN_OR_RETURN(std::vector<LayerOutline*> layers, LayersOf(outline, params.at("tensors")));
  TRY(CheckFloat(outline, layers, "cast"));
  for (LayerOutline* layer : layers) layer->bits -= params.at("format") == "bf16" ? 16 : 13;
  return outline;
}

Result<Model> Cast(Model model, const Json& params, Toolbox& toolbox) {
  ASSIGN_OR_RETURN(std::string format, StringField(params, "format"));
  if (format != "bf16" && format != "f16") return Error{ErrorCode::kInvalid, "cast: field 'format': '" + format + "' is not one of bf16, f16"};
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(model.graph));
  ASSIGN_OR_RETURN(std::vector<model::TensorSpec> specs, PresentTensors(params, info));
  const bool bf16 = format == "bf16";
  const float limit = bf16 ? 0x1.fep127f : 65504.0f;
  for (const model::TensorSpec& spec : specs) {
    const model::Tensor& before = model.tensors.at(spec.name);
    if (before.dtype() != model::DType::kF32) return Error{ErrorCode::kInvalid, "cast: " + spec.name + " is not float32"};
    model::Tensor after(model::DType::kF32, before.shape());
    std::span<const float> in = before.values<float>();
    std::span<float> out = after.mutable_values<float>();
    double largest = 0;
    for (size_t i = 0; i < in.size(); ++i) {
      out[i] = RoundedTo(bf16, in[i]);
      // The negation is true for NaN too.
      if (!(std::abs(out[i]) <= limit)) {
        return Error{ErrorCode::kInvalid, "cast: " + spec.name + " holds " + std::to_string(in[i]) + ", beyond the range of " + format + "; use bf16, or ignore the layer"};
      }
      largest = std::max(largest, std::abs(static_cast<double>(out[i]) - static_cast<double>(in[i])));
    }
    toolbox.Report(spec.node, {{"format", format}, {"largest_change", largest}});
    model.tensors.insert_or_assign(spec.name, std::move(after));
  }
  return model;
}

}  // namespace pare::methods
