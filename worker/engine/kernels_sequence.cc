// Operators on sequences of token ids [n, s] and of features [n, s, w]. Ids, positions and masks are float32 like all samples, and
// functions of the sample alone: no gradient goes through them.
#include "worker/engine/kernels.h"

namespace pare::engine::kernels {
namespace {

// [n, s, 1]; undefined without a mask.
at::Tensor MaskOf(const ShardState& shard, const NodeState& n) {
  return n.inputs.size() == 2 ? shard.Input(n, 1).ne(0).to(at::kFloat).unsqueeze(2) : at::Tensor();
}
// What a sum over the sequence is divided by, [n, 1]: a sample of padding alone has the mean 0.
at::Tensor CountOf(const at::Tensor& mask) { return mask.sum(1).clamp_min_(1); }

}  // namespace

void PositionsForward(ShardState& shard, NodeState& n) {
  const at::Tensor& ids = shard.Input(n, 0);
  n.value = at::arange(ids.size(1), ids.options()).expand_as(ids);
}

void SegmentsForward(ShardState& shard, NodeState& n) {
  const model::Attributes& a = n.node->attributes;
  at::Tensor separators = shard.Input(n, 0).eq(a.id).to(at::kFloat);
  n.value = at::cumsum(separators, 1).sub_(separators).clamp_max_(static_cast<double>(a.segments - 1));
}

void KeyMaskForward(ShardState& shard, NodeState& n) { n.value = shard.Input(n, 0).ne(n.node->attributes.id).to(at::kFloat); }

void FirstForward(ShardState& shard, NodeState& n) { n.value = shard.Input(n, 0).select(1, 0).contiguous(); }

void FirstBackward(ShardState& shard, NodeState& n) {
  at::Tensor dx = at::zeros_like(shard.Input(n, 0));
  dx.select(1, 0).copy_(n.gradient);
  shard.AddGrad(n, 0, dx);
}

void SequenceMeanForward(ShardState& shard, NodeState& n) {
  const at::Tensor& x = shard.Input(n, 0);
  at::Tensor mask = MaskOf(shard, n);
  n.value = mask.defined() ? (x * mask).sum(1).div_(CountOf(mask)) : x.mean(1);
}

void SequenceMeanBackward(ShardState& shard, NodeState& n) {
  const at::Tensor& x = shard.Input(n, 0);
  at::Tensor mask = MaskOf(shard, n);
  if (!mask.defined()) return shard.AddGrad(n, 0, n.gradient.div(static_cast<double>(x.size(1))).unsqueeze(1).expand_as(x).contiguous());
  shard.AddGrad(n, 0, n.gradient.div(CountOf(mask)).unsqueeze(1) * mask);
}

}  // namespace pare::engine::kernels
