// codebook: weights that share a few values ("trained quantization", Han 2016, section 3.3). The values train: the gradient
// of one is the sum over the weights that have it. Code 0 is the value 0 and gets none.
#include <vector>

#include "worker/engine/encodings.h"

namespace pare::engine::kernels {
namespace {

struct Codes : PackedWeight {
  at::Tensor indices;  // I32, flat: what index_select takes
};

at::Tensor LookUp(const NodeState& n) {
  return Extra(n, "weight_values").index_select(0, static_cast<const Codes&>(*n.packed).indices).view(n.parameters[0].sizes());
}

// The gradient of the values from that of the weights. In index order and in double: the same on any machine.
void SumByCode(NodeState& n, const at::Tensor& weight_gradient) {
  at::Tensor& out = n.gradients[ExtraIndex(n, "weight_values")];
  if (!out.defined()) return;
  const at::Tensor& codes = n.parameters[0];
  at::Tensor g = weight_gradient.contiguous();
  if (!g.is_cpu()) {
    // On a GPU the sum that sorts first, which is the one without atomics.
    out.copy_(at::embedding_dense_backward(g.view({-1, 1}), codes.view({-1}).to(at::kLong), out.size(0), 0, false).view({-1}));
    return;
  }
  std::vector<double> sums(static_cast<size_t>(out.size(0)), 0.0);
  const uint8_t* code = codes.const_data_ptr<uint8_t>();
  const float* value = g.const_data_ptr<float>();
  for (int64_t i = 0, size = g.numel(); i < size; ++i) sums[code[i]] += value[i];
  sums[0] = 0.0;
  for (size_t i = 0; i < sums.size(); ++i) out.data_ptr<float>()[i] = static_cast<float>(sums[i]);
}

}  // namespace

std::shared_ptr<const PackedWeight> PackCodes(const NodeState& n) {
  auto codes = std::make_shared<Codes>();
  codes->indices = n.parameters[0].reshape({-1}).to(at::kInt);
  return codes;
}

// saved: the weight that the forward used.
void CodebookLinearForward(ShardState& shard, NodeState& n) {
  n.saved = {LookUp(n)};
  SetLinearValue(shard, n, Affine(n, Rows(shard.Input(n, 0)), n.saved[0]));
}

void CodebookLinearBackward(ShardState& shard, NodeState& n) {
  const at::Tensor& input = shard.Input(n, 0);
  at::Tensor dy = Rows(n.gradient);
  SumByCode(n, at::mm(dy.t(), Rows(input)));
  BiasBackward(n, dy);
  if (shard.Wants(n, 0)) shard.AddGrad(n, 0, at::mm(dy, n.saved[0]).view(input.sizes()));
}

void CodebookConvForward(ShardState& shard, NodeState& n) {
  n.saved = {LookUp(n)};
  ConvWith(shard, n, n.saved[0]);
}

void CodebookConvBackward(ShardState& shard, NodeState& n) { SumByCode(n, ConvBackwardWith(shard, n, n.saved[0])); }

void CodebookEmbeddingForward(ShardState& shard, NodeState& n) {
  n.saved = {shard.Input(n, 0).to(at::kLong)};
  n.value = at::embedding(LookUp(n), n.saved[0]);
}

void CodebookEmbeddingBackward(ShardState&, NodeState& n) {
  SumByCode(n, at::embedding_dense_backward(n.gradient, n.saved[0], n.node->attributes.vocabulary, -1, false));
}

}  // namespace pare::engine::kernels
