// The engine's table of encodings: how a node with an encoded weight runs. One row per encoding and operator of
// model/encoding.h but dense, whose kernels are those of worker/engine/kernels.h; a test fails if a row is missing. Inside
// worker/engine only (torch types).
#pragma once

#include <span>
#include <string_view>

#include "worker/engine/kernels.h"

namespace pare::engine {

struct EncodedKernel {
  model::Encoding encoding;
  model::OpType op;
  NodeKernel kernel;
};
std::span<const EncodedKernel> EncodedKernels();

namespace kernels {

// The tensor of a role that the encoding adds ("weight_scale"), among the node's parameters. REQUIRES: the node has it.
size_t ExtraIndex(const NodeState& node, std::string_view role);
inline const at::Tensor& Extra(const NodeState& node, std::string_view role) { return node.parameters[ExtraIndex(node, role)]; }

// int8 (worker/engine/encoding_int8.cc).
std::shared_ptr<const PackedWeight> PackInt8(const NodeState&);
void Int8LinearForward(ShardState&, NodeState&);
void DecodedConvForward(ShardState&, NodeState&);
void Int8EmbeddingForward(ShardState&, NodeState&);

// nf4 (worker/engine/encoding_nf4.cc).
void Nf4LinearForward(ShardState&, NodeState&);
void Nf4LinearBackward(ShardState&, NodeState&);

// int8_fake: forward on rounded values, gradients straight through (worker/engine/encoding_fake.cc).
void FakeLinearForward(ShardState&, NodeState&);
void FakeLinearBackward(ShardState&, NodeState&);
void FakeConvForward(ShardState&, NodeState&);
void FakeConvBackward(ShardState&, NodeState&);
void FakeEmbeddingForward(ShardState&, NodeState&);

// codebook: the weight is looked up in every forward, its gradient summed per value (worker/engine/encoding_codebook.cc).
std::shared_ptr<const PackedWeight> PackCodes(const NodeState&);
void CodebookLinearForward(ShardState&, NodeState&);
void CodebookLinearBackward(ShardState&, NodeState&);
void CodebookConvForward(ShardState&, NodeState&);
void CodebookConvBackward(ShardState&, NodeState&);
void CodebookEmbeddingForward(ShardState&, NodeState&);
void CodebookEmbeddingBackward(ShardState&, NodeState&);

}  // namespace kernels
}  // namespace pare::engine
