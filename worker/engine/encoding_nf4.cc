// nf4 weights of linears: decoded anew for every use, so that nothing but the codes stays in memory (a layer's float32 weight
// lives as long as its own multiplication). Gradients pass through to the input; the weight itself is frozen.
#include "model/nf4.h"
#include "worker/engine/encodings.h"
#include "worker/engine/tensors.h"

namespace pare::engine::kernels {
namespace {

at::Tensor Decode(const NodeState& n) {
  const model::Attributes& a = n.node->attributes;
  model::Nf4 parts;
  parts.codes = HostView(n.parameters[0]);
  parts.scales = HostView(Extra(n, "weight_scale"));
  if (a.double_quantization) parts.steps = HostView(Extra(n, "weight_steps"));
  at::Tensor weight = at::empty({a.out_features, a.in_features}, at::kFloat);
  model::DecodeNf4(parts, a.block_size, 0, {weight.data_ptr<float>(), static_cast<size_t>(weight.numel())});
  return weight.to(n.parameters[0].device());
}

}  // namespace

void Nf4LinearForward(ShardState& shard, NodeState& n) {
  const model::Attributes& a = n.node->attributes;
  const at::Tensor& input = shard.Input(n, 0);
  std::vector<int64_t> sizes = input.sizes().vec();
  sizes.back() = a.out_features;
  if (!n.value.defined() || n.value.sizes() != at::IntArrayRef(sizes)) n.value = at::empty(sizes, input.options());
  at::Tensor x = Rows(input), out = n.value.view({x.size(0), a.out_features}), weight = Decode(n);
  if (a.bias) at::addmm_out(out, n.parameters[1], x, weight.t());
  else at::mm_out(out, x, weight.t());
}

void Nf4LinearBackward(ShardState& shard, NodeState& n) {
  at::Tensor dy = Rows(n.gradient);
  BiasBackward(n, dy);
  if (!shard.Wants(n, 0)) return;
  shard.AddGrad(n, 0, at::mm(dy, Decode(n)).view(shard.Input(n, 0).sizes()));
}

}  // namespace pare::engine::kernels
