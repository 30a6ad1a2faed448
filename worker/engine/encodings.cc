#include "worker/engine/encodings.h"

#include "common/check.h"

namespace pare::engine {
namespace {

using model::Encoding;
using model::OpType;
namespace k = kernels;

constexpr EncodedKernel kTable[] = {
    {Encoding::kInt8, OpType::kLinear, {k::PackInt8, k::Int8LinearForward, nullptr}},
    {Encoding::kInt8, OpType::kConv2d, {k::PackInt8, k::DecodedConvForward, nullptr}},
    {Encoding::kInt8, OpType::kEmbedding, {nullptr, k::Int8EmbeddingForward, nullptr}},
    {Encoding::kInt8Fake, OpType::kLinear, {nullptr, k::FakeLinearForward, k::FakeLinearBackward}},
    {Encoding::kInt8Fake, OpType::kConv2d, {nullptr, k::FakeConvForward, k::FakeConvBackward}},
    {Encoding::kInt8Fake, OpType::kEmbedding, {nullptr, k::FakeEmbeddingForward, k::EmbeddingBackward}},
};

}  // namespace

std::span<const EncodedKernel> EncodedKernels() { return kTable; }

NodeKernel KernelOf(const model::Node& node) {
  if (node.attributes.encoding == Encoding::kDense) return {nullptr, KernelOf(node.op).forward, KernelOf(node.op).backward};
  for (const EncodedKernel& row : kTable) {
    if (row.encoding == node.attributes.encoding && row.op == node.op) return row.kernel;
  }
  return {};
}

const at::Tensor& kernels::Extra(const NodeState& node, std::string_view role) {
  for (size_t i = 0; i < node.roles.size(); ++i) {
    if (node.roles[i] == role) return node.parameters[i];
  }
  CHECK(false);
  return node.parameters[0];
}

}  // namespace pare::engine
