// Operators that own parameters, and attention.
#include <array>
#include <cmath>

#include "worker/engine/kernels.h"

namespace pare::engine::kernels {
namespace {

std::vector<int64_t> Pair(int64_t h, int64_t w) { return {h, w}; }

// Whether some tensor but the bias trains: the weight, or what an encoding has in its place.
bool WeightTrains(const NodeState& n) {
  for (size_t i = 0; i < n.gradients.size(); ++i) {
    if (n.gradients[i].defined() && !(i == 1 && n.node->attributes.bias)) return true;
  }
  return false;
}

// Of a batch norm: those of the shard's samples, not the running ones.
bool UsesBatchStatistics(const ShardState& shard, const NodeState& n) { return shard.training && n.trains; }

// Heads apart: [n, s, w] → [n·heads, s, w/heads].
at::Tensor SplitHeads(const at::Tensor& t, int64_t heads) {
  int64_t n = t.size(0), s = t.size(1), d = t.size(2) / heads;
  return t.reshape({n, s, heads, d}).transpose(1, 2).reshape({n * heads, s, d});
}
at::Tensor JoinHeads(const at::Tensor& t, int64_t n, int64_t heads) {
  int64_t s = t.size(1), d = t.size(2);
  return t.reshape({n, heads, s, d}).transpose(1, 2).reshape({n, s, heads * d});
}

// Of q and k as SplitHeads leaves them, [n · heads, s, d].
double ScoreScale(const at::Tensor& q) { return 1.0 / std::sqrt(static_cast<double>(q.size(2))); }
at::Tensor Scores(const at::Tensor& q, const at::Tensor& k) { return at::bmm(q, k.transpose(1, 2)).mul_(ScoreScale(q)); }
// Key mask [n, s], zero is "ignore": which scores are.
at::Tensor Dropped(const at::Tensor& mask, int64_t heads) { return mask.eq(0).unsqueeze(1).repeat_interleave(heads, 0); }

}  // namespace

at::Tensor Rows(const at::Tensor& t) { return t.dim() == 2 ? t : t.reshape({-1, t.size(-1)}); }

at::Tensor BiasOf(const NodeState& n) { return n.node->attributes.bias ? n.parameters[1] : at::Tensor(); }

at::Tensor Affine(const NodeState& n, const at::Tensor& x, const at::Tensor& weight) {
  return n.node->attributes.bias ? at::addmm(n.parameters[1], x, weight.t()) : at::mm(x, weight.t());
}

void SetLinearValue(ShardState& shard, NodeState& n, const at::Tensor& out) {
  std::vector<int64_t> sizes = shard.Input(n, 0).sizes().vec();
  sizes.back() = n.node->attributes.out_features;
  n.value = out.dim() == static_cast<int64_t>(sizes.size()) ? out : out.reshape(sizes);
}

void BiasBackward(NodeState& n, const at::Tensor& dy) {
  if (n.node->attributes.bias && n.gradients[1].defined()) at::sum_out(n.gradients[1], dy, 0);
}

void LinearForward(ShardState& shard, NodeState& n) {
  const at::Tensor& input = shard.Input(n, 0);
  at::Tensor x = Rows(input);
  std::vector<int64_t> sizes = input.sizes().vec();
  sizes.back() = n.node->attributes.out_features;
  if (!n.value.defined() || n.value.sizes() != at::IntArrayRef(sizes)) n.value = at::empty(sizes, input.options());
  at::Tensor out = n.value.view({x.size(0), sizes.back()});
  if (n.node->attributes.bias) at::addmm_out(out, n.parameters[1], x, n.parameters[0].t());
  else at::mm_out(out, x, n.parameters[0].t());
}

void LinearBackward(ShardState& shard, NodeState& n) {
  at::Tensor x = Rows(shard.Input(n, 0)), dy = Rows(n.gradient);
  if (n.gradients[0].defined()) at::mm_out(n.gradients[0], dy.t(), x);
  BiasBackward(n, dy);
  if (!shard.Wants(n, 0)) return;
  const at::Tensor& input = shard.Input(n, 0);
  if (!n.workspace.defined() || n.workspace.sizes() != input.sizes()) n.workspace = at::empty(input.sizes(), input.options());
  at::Tensor dx = n.workspace.view({x.size(0), x.size(1)});
  at::mm_out(dx, dy, n.parameters[0]);
  shard.AddGrad(n, 0, n.workspace);
}

void ConvForward(ShardState& shard, NodeState& n) { ConvWith(shard, n, n.parameters[0]); }
void ConvBackward(ShardState& shard, NodeState& n) { ConvBackwardThrough(shard, n, n.parameters[0]); }

void ConvBackwardThrough(ShardState& shard, NodeState& n, const at::Tensor& weight) {
  at::Tensor gradient = ConvBackwardWith(shard, n, weight);
  if (n.gradients[0].defined()) n.gradients[0].copy_(gradient);
}

void ConvWith(ShardState& shard, NodeState& n, const at::Tensor& weight) {
  const model::Attributes& a = n.node->attributes;
  n.value = at::convolution(shard.Input(n, 0), weight, BiasOf(n), Pair(a.stride_h, a.stride_w),
                            Pair(a.padding_h, a.padding_w), Pair(1, 1), false, Pair(0, 0), a.groups);
}

at::Tensor ConvBackwardWith(ShardState& shard, NodeState& n, const at::Tensor& weight) {
  const model::Attributes& a = n.node->attributes;
  std::vector<int64_t> bias_sizes = {a.out_channels};
  bool bias_trains = a.bias && n.gradients[1].defined();
  auto [dx, dw, db] = at::convolution_backward(n.gradient, shard.Input(n, 0), weight, a.bias ? at::OptionalIntArrayRef(bias_sizes) : at::OptionalIntArrayRef(),
                                               Pair(a.stride_h, a.stride_w), Pair(a.padding_h, a.padding_w), Pair(1, 1), false, Pair(0, 0),
                                               a.groups, {shard.Wants(n, 0), WeightTrains(n), bias_trains});
  if (bias_trains) n.gradients[1].copy_(db);
  if (shard.Wants(n, 0)) shard.AddGrad(n, 0, dx);
  return dw;
}

// Training: statistics of this shard only ("ghost batch norm"); the caller folds saved[0] (mean) and saved[1] (1/√(var + ε))
// of all shards into the running statistics, in shard order. A frozen one uses its running statistics and leaves them alone.
void BatchNormForward(ShardState& shard, NodeState& n) {
  const model::Attributes& a = n.node->attributes;
  const at::Tensor& x = shard.Input(n, 0);
  at::Tensor none;
  if (UsesBatchStatistics(shard, n)) {
    auto [y, mean, inverse] = at::native_batch_norm(x, n.parameters[0], n.parameters[1], none, none, true, a.momentum, a.epsilon);
    n.value = y;
    n.saved = {mean, inverse};
  } else {
    n.value = std::get<0>(at::native_batch_norm(x, n.parameters[0], n.parameters[1], n.parameters[2], n.parameters[3], false, a.momentum, a.epsilon));
  }
}

void BatchNormBackward(ShardState& shard, NodeState& n) {
  const model::Attributes& a = n.node->attributes;
  std::array<bool, 3> wanted = {shard.Wants(n, 0), n.trains, n.trains};
  at::Tensor none;
  auto [dx, dw, db] = UsesBatchStatistics(shard, n)
                          ? at::native_batch_norm_backward(n.gradient, shard.Input(n, 0), n.parameters[0], none, none, n.saved[0], n.saved[1], true, a.epsilon, wanted)
                          : at::native_batch_norm_backward(n.gradient, shard.Input(n, 0), n.parameters[0], n.parameters[2], n.parameters[3], none, none, false, a.epsilon, wanted);
  if (n.gradients[0].defined()) n.gradients[0].copy_(dw);
  if (n.gradients[1].defined()) n.gradients[1].copy_(db);
  if (shard.Wants(n, 0)) shard.AddGrad(n, 0, dx);
}

void LayerNormForward(ShardState& shard, NodeState& n) {
  const model::Attributes& a = n.node->attributes;
  auto [y, mean, rstd] = at::native_layer_norm(shard.Input(n, 0), {a.features}, n.parameters[0], n.parameters[1], a.epsilon);
  n.value = y;
  n.saved = {mean, rstd};
}

void LayerNormBackward(ShardState& shard, NodeState& n) {
  auto [dx, dw, db] = at::native_layer_norm_backward(n.gradient, shard.Input(n, 0), {n.node->attributes.features}, n.saved[0], n.saved[1],
                                                     n.parameters[0], n.parameters[1], {shard.Wants(n, 0), n.trains, n.trains});
  if (n.gradients[0].defined()) n.gradients[0].copy_(dw);
  if (n.gradients[1].defined()) n.gradients[1].copy_(db);
  if (shard.Wants(n, 0)) shard.AddGrad(n, 0, dx);
}

// Ids arrive as float32 (samples are float32 throughout) and are exact up to 2^24.
void EmbeddingForward(ShardState& shard, NodeState& n) {
  n.saved = {shard.Input(n, 0).to(at::kLong)};
  n.value = at::embedding(n.parameters[0], n.saved[0]);
}

void EmbeddingBackward(ShardState&, NodeState& n) {
  if (!n.trains) return;
  n.gradients[0].copy_(at::embedding_dense_backward(n.gradient, n.saved[0], n.node->attributes.vocabulary, -1, false));
}

void AttentionForward(ShardState& shard, NodeState& n) {
  int64_t heads = n.node->attributes.heads, batch = shard.Input(n, 0).size(0);
  at::Tensor q = SplitHeads(shard.Input(n, 0), heads), k = SplitHeads(shard.Input(n, 1), heads), v = SplitHeads(shard.Input(n, 2), heads);
  at::Tensor scores = Scores(q, k);
  if (n.inputs.size() == 4) scores.masked_fill_(Dropped(shard.Input(n, 3), heads), -1e30);
  at::Tensor p = at::softmax(scores, -1);
  n.saved = {q, k, v, p};
  n.value = JoinHeads(at::bmm(p, v), batch, heads);
}

void AttentionBackward(ShardState& shard, NodeState& n) {
  int64_t heads = n.node->attributes.heads, batch = n.gradient.size(0);
  const at::Tensor &q = n.saved[0], &k = n.saved[1], &v = n.saved[2], &p = n.saved[3];
  at::Tensor dy = SplitHeads(n.gradient, heads);
  at::Tensor dp = at::bmm(dy, v.transpose(1, 2));
  at::Tensor ds = at::_softmax_backward_data(dp, p, -1, at::kFloat).mul_(ScoreScale(q));
  if (shard.Wants(n, 0)) shard.AddGrad(n, 0, JoinHeads(at::bmm(ds, k), batch, heads));
  if (shard.Wants(n, 1)) shard.AddGrad(n, 1, JoinHeads(at::bmm(ds.transpose(1, 2), q), batch, heads));
  if (shard.Wants(n, 2)) shard.AddGrad(n, 2, JoinHeads(at::bmm(p.transpose(1, 2), dy), batch, heads));
}

void AttentionScoresForward(ShardState& shard, NodeState& n) {
  int64_t heads = n.node->attributes.heads;
  at::Tensor q = SplitHeads(shard.Input(n, 0), heads), k = SplitHeads(shard.Input(n, 1), heads), drop;
  at::Tensor scores = Scores(q, k);
  if (n.inputs.size() == 3) {
    drop = Dropped(shard.Input(n, 2), heads);
    scores.masked_fill_(drop, 0.0);
  }
  n.saved = {q, k, drop};
  n.value = scores.reshape({-1, heads, q.size(1), k.size(1)});
}

void AttentionScoresBackward(ShardState& shard, NodeState& n) {
  int64_t heads = n.node->attributes.heads, batch = n.gradient.size(0);
  const at::Tensor &q = n.saved[0], &k = n.saved[1], &drop = n.saved[2];
  at::Tensor ds = n.gradient.reshape({batch * heads, q.size(1), k.size(1)}).mul(ScoreScale(q));
  if (drop.defined()) ds.masked_fill_(drop, 0.0);
  if (shard.Wants(n, 0)) shard.AddGrad(n, 0, JoinHeads(at::bmm(ds, k), batch, heads));
  if (shard.Wants(n, 1)) shard.AddGrad(n, 1, JoinHeads(at::bmm(ds.transpose(1, 2), q), batch, heads));
}

}  // namespace pare::engine::kernels
