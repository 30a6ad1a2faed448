// int8_fake: training with the rounding of int8 (quantization-aware training, Jacob 2018, section 3). The forward sees weight
// and input as int8 would, the backward takes the rounding for the identity (straight-through, Bengio 2013). An input
// outside of what static codes can say gets no gradient: moving it would change nothing.
#include "worker/engine/encodings.h"
#include "worker/engine/int8_linear.h"

namespace pare::engine::kernels {
namespace {

// Rows to codes and back: methods/quantize.h, QuantizeRows, on tensors.
at::Tensor RoundWeight(const at::Tensor& weight) {
  at::Tensor rows = weight.reshape({weight.size(0), -1});
  at::Tensor scale = rows.abs().amax(1, true).div_(model::kWeightScaleLevels).clamp_min_(model::kSmallestWeightScale);
  at::Tensor codes = at::mul(rows, scale.reciprocal()).round_().clamp_(model::kWeightCodeMin, model::kWeightCodeMax);
  return codes.mul_(scale).view(weight.sizes());
}

at::Tensor RoundInput(const NodeState& n, const at::Tensor& x) {
  switch (n.node->attributes.activations) {
    case model::Activations::kFloat: return x;
    case model::Activations::kDynamic: return RoundToCodes(x, model::ChooseCodes(x.min().item<float>(), x.max().item<float>()));
    case model::Activations::kStatic: break;
  }
  return RoundToCodes(x, {Extra(n, "input_scale").item<float>(), Extra(n, "input_zero_point").item<int32_t>()});
}

// Where static codes clip the input, its gradient is zero.
void ClipGradient(const NodeState& n, const at::Tensor& x, at::Tensor& dx) {
  if (n.node->attributes.activations != model::Activations::kStatic) return;
  double scale = Extra(n, "input_scale").item<float>(), zero = Extra(n, "input_zero_point").item<int32_t>();
  dx.masked_fill_(x.lt(-(zero + 0.5) * scale).logical_or_(x.gt((model::kActivationLevels - zero + 0.5) * scale)), 0.0);
}

}  // namespace

// saved: the weight and the input as the forward saw them.
void FakeLinearForward(ShardState& shard, NodeState& n) {
  n.saved = {RoundWeight(n.parameters[0]), RoundInput(n, Rows(shard.Input(n, 0)))};
  SetLinearValue(shard, n, Affine(n, n.saved[1], n.saved[0]));
}

void FakeLinearBackward(ShardState& shard, NodeState& n) {
  const at::Tensor& input = shard.Input(n, 0);
  at::Tensor dy = Rows(n.gradient);
  if (n.gradients[0].defined()) at::mm_out(n.gradients[0], dy.t(), n.saved[1]);
  BiasBackward(n, dy);
  if (!shard.Wants(n, 0)) return;
  at::Tensor dx = at::mm(dy, n.saved[0]).view(input.sizes());
  ClipGradient(n, input, dx);
  shard.AddGrad(n, 0, dx);
}

void FakeConvForward(ShardState& shard, NodeState& n) {
  n.saved = {RoundWeight(n.parameters[0])};
  ConvWith(shard, n, n.saved[0]);
}

void FakeConvBackward(ShardState& shard, NodeState& n) { ConvBackwardThrough(shard, n, n.saved[0]); }

void FakeEmbeddingForward(ShardState& shard, NodeState& n) {
  n.saved = {shard.Input(n, 0).to(at::kLong)};
  n.value = at::embedding(RoundWeight(n.parameters[0]), n.saved[0]);
}

}  // namespace pare::engine::kernels
