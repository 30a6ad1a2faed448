#include "worker/engine/int8_linear.h"

#include <ATen/Context.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/native/quantized/PackedParams.h>

#include <algorithm>

namespace pare::engine {
namespace {

using model::InputCodes;

class FbgemmLinear : public Int8Linear {
 public:
  FbgemmLinear(const at::Tensor& weight, const at::Tensor& scales, const at::Tensor& bias) {
    using Prepack = c10::intrusive_ptr<LinearPackedParamsBase>(at::Tensor, std::optional<at::Tensor>);
    static const auto prepack = c10::Dispatcher::singleton().findSchemaOrThrow("quantized::linear_prepack", "").typed<Prepack>();
    at::Tensor quantized = at::_make_per_channel_quantized_tensor(weight, scales.to(at::kDouble), at::zeros({weight.size(0)}, at::kLong), 0);
    // Engines of one process: FBGEMM's packing is kept in the result, the setting is not read again.
    at::globalContext().setQEngine(at::QEngine::FBGEMM);
    packed_ = prepack.call(quantized, bias.defined() ? std::optional(bias.clone()) : std::nullopt);
  }

  // reduce_range: codes up to 127.
  at::Tensor Dynamic(const at::Tensor& x) const override { return packed_->apply_dynamic(x, true); }
  at::Tensor Static(const at::Tensor& x, const InputCodes& codes) const override {
    // The operator's own codes end at 255.
    double high = static_cast<double>(model::kActivationLevels - codes.zero_point) * static_cast<double>(codes.scale);
    return packed_->apply_with_input_q_dq_qweight_dq_output_fp32(at::clamp_max(x, high), codes.scale, codes.zero_point);
  }

 private:
  c10::intrusive_ptr<LinearPackedParamsBase> packed_;
};

class FloatLinear : public Int8Linear {
 public:
  FloatLinear(const at::Tensor& weight, const at::Tensor& scales, const at::Tensor& bias)
      : weight_(weight.to(at::kFloat).mul_(scales.unsqueeze(1))), bias_(bias.defined() ? bias.clone() : bias) {}

  at::Tensor Dynamic(const at::Tensor& x) const override {
    return Static(x, model::ChooseCodes(x.min().item<float>(), x.max().item<float>()));
  }
  at::Tensor Static(const at::Tensor& x, const InputCodes& codes) const override {
    at::Tensor rounded = RoundToCodes(x, codes);
    return bias_.defined() ? at::addmm(bias_, rounded, weight_.t()) : at::mm(rounded, weight_.t());
  }

 private:
  at::Tensor weight_, bias_;
};

bool HasFbgemm() {
  const auto& engines = at::globalContext().supportedQEngines();
  return std::find(engines.begin(), engines.end(), at::QEngine::FBGEMM) != engines.end();
}

}  // namespace

at::Tensor RoundToCodes(const at::Tensor& x, const InputCodes& codes) {
  auto zero = static_cast<double>(codes.zero_point);
  return at::mul(x, 1.0f / codes.scale).add_(zero).round_().clamp_(0, model::kActivationLevels).sub_(zero).mul_(codes.scale);
}

std::shared_ptr<const Int8Linear> Int8Linear::Pack(const at::Tensor& weight, const at::Tensor& scales, const at::Tensor& bias) {
  if (weight.is_cpu() && HasFbgemm()) return std::make_shared<FbgemmLinear>(weight, scales, bias);
  return std::make_shared<FloatLinear>(weight, scales, bias);
}

}  // namespace pare::engine
