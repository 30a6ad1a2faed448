// The engine's table of encodings: how a node with an encoded weight runs. One row per encoding and operator of
// model/encoding.h but dense, whose kernels are those of worker/engine/kernels.h; a test fails if a row is missing. Inside
// worker/engine only (torch types).
#pragma once

#include <span>

#include "worker/engine/kernels.h"

namespace pare::engine {

struct EncodedKernel {
  model::Encoding encoding;
  model::OpType op;
  NodeKernel kernel;
};
std::span<const EncodedKernel> EncodedKernels();

namespace kernels {

// The tensor of a role that the encoding adds ("weight_scale"), from the node's parameters. REQUIRES: the node has it.
const at::Tensor& Extra(const NodeState& node, std::string_view role);

// int8 (worker/engine/encoding_int8.cc).
std::shared_ptr<const PackedWeight> PackInt8(const NodeState&);
void Int8LinearForward(ShardState&, NodeState&);
void DecodedConvForward(ShardState&, NodeState&);
void Int8EmbeddingForward(ShardState&, NodeState&);

// int8_fake: forward on rounded values, gradients straight through (worker/engine/encoding_fake.cc).
void FakeLinearForward(ShardState&, NodeState&);
void FakeLinearBackward(ShardState&, NodeState&);
void FakeConvForward(ShardState&, NodeState&);
void FakeConvBackward(ShardState&, NodeState&);
void FakeEmbeddingForward(ShardState&, NodeState&);

}  // namespace kernels
}  // namespace pare::engine
