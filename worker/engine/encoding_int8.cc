// int8 weights: linears multiply integers, convolutions run in float32 with the weight decoded once (storage only: libtorch's
// integer convolutions need integer outputs), embeddings decode the rows they look up.
#include "worker/engine/encodings.h"
#include "worker/engine/int8_linear.h"

namespace pare::engine::kernels {
namespace {

struct DecodedWeight : PackedWeight {
  at::Tensor weight;  // F32
};

at::Tensor Decode(const NodeState& n) {
  std::vector<int64_t> rows(static_cast<size_t>(n.parameters[0].dim()), 1);
  rows[0] = -1;
  return n.parameters[0].to(at::kFloat).mul_(Extra(n, "weight_scale").view(rows));
}

}  // namespace

std::shared_ptr<const PackedWeight> PackInt8(const NodeState& n) {
  if (n.node->attributes.activations != model::Activations::kFloat) {
    return Int8Linear::Pack(n.parameters[0], Extra(n, "weight_scale"), BiasOf(n));
  }
  auto decoded = std::make_shared<DecodedWeight>();
  decoded->weight = Decode(n);
  return decoded;
}

void Int8LinearForward(ShardState& shard, NodeState& n) {
  const model::Attributes& a = n.node->attributes;
  at::Tensor x = Rows(shard.Input(n, 0)).contiguous(), out;
  if (a.activations == model::Activations::kFloat) {
    out = Affine(n, x, static_cast<const DecodedWeight&>(*n.packed).weight);
  } else if (const auto& linear = static_cast<const Int8Linear&>(*n.packed); a.activations == model::Activations::kDynamic) {
    out = linear.Dynamic(x);
  } else {
    out = linear.Static(x, {Extra(n, "input_scale").item<float>(), Extra(n, "input_zero_point").item<int32_t>()});
  }
  SetLinearValue(shard, n, out);
}

void DecodedConvForward(ShardState& shard, NodeState& n) {
  ConvWith(shard, n, static_cast<const DecodedWeight&>(*n.packed).weight);
}

void Int8EmbeddingForward(ShardState& shard, NodeState& n) {
  at::Tensor ids = shard.Input(n, 0).to(at::kLong);
  at::Tensor flat = ids.reshape({-1});
  at::Tensor rows = n.parameters[0].index_select(0, flat).to(at::kFloat);
  rows.mul_(Extra(n, "weight_scale").index_select(0, flat).unsqueeze(1));
  std::vector<int64_t> sizes = ids.sizes().vec();
  sizes.push_back(n.node->attributes.dimension);
  n.value = rows.view(sizes);
}

}  // namespace pare::engine::kernels
