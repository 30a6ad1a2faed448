#include "worker/engine/encodings.h"

#include <algorithm>

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
    {Encoding::kNf4, OpType::kLinear, {nullptr, k::Nf4LinearForward, k::Nf4LinearBackward}},
    {Encoding::kInt8Fake, OpType::kLinear, {nullptr, k::FakeLinearForward, k::FakeLinearBackward}},
    {Encoding::kInt8Fake, OpType::kConv2d, {nullptr, k::FakeConvForward, k::FakeConvBackward}},
    {Encoding::kInt8Fake, OpType::kEmbedding, {nullptr, k::FakeEmbeddingForward, k::EmbeddingBackward}},
    {Encoding::kCodebook, OpType::kLinear, {k::PackCodes, k::CodebookLinearForward, k::CodebookLinearBackward}},
    {Encoding::kCodebook, OpType::kConv2d, {k::PackCodes, k::CodebookConvForward, k::CodebookConvBackward}},
    {Encoding::kCodebook, OpType::kEmbedding, {k::PackCodes, k::CodebookEmbeddingForward, k::CodebookEmbeddingBackward}},
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

size_t kernels::ExtraIndex(const NodeState& node, std::string_view role) {
  auto it = std::find(node.roles.begin(), node.roles.end(), role);
  CHECK(it != node.roles.end());
  return static_cast<size_t>(it - node.roles.begin());
}

}  // namespace pare::engine
