#include "model/op_table.h"

#include <array>
#include <cmath>
#include <string>

namespace pare::model {
namespace {

using Inputs = std::span<const Shape>;

Error Bad(const std::string& text) { return Error{ErrorCode::kInvalid, text}; }

Result<Shape> Same(const Attributes&, Inputs in) { return in[0]; }

Result<Shape> InferInput(const Attributes& a, Inputs) {
  if (a.shape.empty()) return Bad("an input needs a shape");
  for (int64_t d : a.shape) {
    if (d < 1) return Bad("input shape " + ToString(a.shape) + ": every dimension must be at least 1");
  }
  return a.shape;
}

Result<Shape> InferLinear(const Attributes& a, Inputs in) {
  if (a.in_features < 1 || a.out_features < 1) return Bad("in_features and out_features must be at least 1");
  if (in[0].empty() || in[0].back() != a.in_features) {
    return Bad("takes a last dimension of " + std::to_string(a.in_features) + ", but its input is " + ToString(in[0]));
  }
  Shape shape = in[0];
  shape.back() = a.out_features;
  return shape;
}

Result<int64_t> Window(int64_t size, int64_t kernel, int64_t stride, int64_t padding) {
  if (kernel < 1 || stride < 1 || padding < 0) return Bad("kernel and stride must be at least 1, padding at least 0");
  if (size + 2 * padding < kernel) {
    return Bad("window of " + std::to_string(kernel) + " does not fit in " + std::to_string(size) + " + 2·" +
               std::to_string(padding) + " pixels");
  }
  return (size + 2 * padding - kernel) / stride + 1;
}

Result<Shape> InferConv(const Attributes& a, Inputs in) {
  if (in[0].size() != 3) return Bad("takes images [channels, height, width], but its input is " + ToString(in[0]));
  if (in[0][0] != a.in_channels) {
    return Bad("takes " + std::to_string(a.in_channels) + " channels, but its input is " + ToString(in[0]));
  }
  if (a.groups < 1 || a.out_channels < 1 || a.in_channels % a.groups != 0 || a.out_channels % a.groups != 0) {
    return Bad("groups (" + std::to_string(a.groups) + ") must divide in_channels and out_channels");
  }
  ASSIGN_OR_RETURN(int64_t h, Window(in[0][1], a.kernel_h, a.stride_h, a.padding_h));
  ASSIGN_OR_RETURN(int64_t w, Window(in[0][2], a.kernel_w, a.stride_w, a.padding_w));
  return Shape{a.out_channels, h, w};
}

Result<Shape> InferPool(const Attributes& a, Inputs in) {
  if (in[0].size() != 3) return Bad("takes images [channels, height, width], but its input is " + ToString(in[0]));
  if (2 * a.padding_h > a.kernel_h || 2 * a.padding_w > a.kernel_w) return Bad("padding may be at most half the kernel");
  ASSIGN_OR_RETURN(int64_t h, Window(in[0][1], a.kernel_h, a.stride_h, a.padding_h));
  ASSIGN_OR_RETURN(int64_t w, Window(in[0][2], a.kernel_w, a.stride_w, a.padding_w));
  return Shape{in[0][0], h, w};
}

Result<Shape> InferGlobalPool(const Attributes&, Inputs in) {
  if (in[0].size() != 3) return Bad("takes images [channels, height, width], but its input is " + ToString(in[0]));
  return Shape{in[0][0], 1, 1};
}

Status CheckEpsilon(const Attributes& a) {
  if (!(a.epsilon > 0 && a.epsilon < 1)) return Bad("epsilon must be above 0 and below 1");
  return Ok();
}

Result<Shape> InferBatchNorm(const Attributes& a, Inputs in) {
  TRY(CheckEpsilon(a));
  if (!(a.momentum >= 0 && a.momentum <= 1)) return Bad("momentum must be in [0, 1]");
  if (in[0].size() != 3 || in[0][0] != a.features) {
    return Bad("takes images of " + std::to_string(a.features) + " channels, but its input is " + ToString(in[0]));
  }
  return in[0];
}

Result<Shape> InferLayerNorm(const Attributes& a, Inputs in) {
  TRY(CheckEpsilon(a));
  if (in[0].empty() || in[0].back() != a.features) {
    return Bad("takes a last dimension of " + std::to_string(a.features) + ", but its input is " + ToString(in[0]));
  }
  return in[0];
}

Result<Shape> InferFlatten(const Attributes&, Inputs in) { return Shape{ElementCount(in[0])}; }

Result<Shape> InferReshape(const Attributes& a, Inputs in) {
  if (a.shape.empty() || !FitsElements(a.shape, kMaxActivationElements) || ElementCount(a.shape) != ElementCount(in[0])) {
    return Bad("cannot reshape " + ToString(in[0]) + " to " + ToString(a.shape) + ": element counts must agree");
  }
  return a.shape;
}

Result<Shape> InferAdd(const Attributes&, Inputs in) {
  for (const Shape& shape : in) {
    if (shape != in[0]) return Bad("cannot add " + ToString(in[0]) + " and " + ToString(shape));
  }
  return in[0];
}

Result<Shape> InferConcat(const Attributes& a, Inputs in) {
  Shape out = in[0];
  if (a.axis < 0 || a.axis >= static_cast<int64_t>(out.size())) {
    return Bad("axis " + std::to_string(a.axis) + " is outside " + ToString(out));
  }
  auto axis = static_cast<size_t>(a.axis);
  for (size_t i = 1; i < in.size(); ++i) {
    Shape expected = in[0], found = in[i];
    if (found.size() != expected.size()) return Bad("cannot concatenate " + ToString(expected) + " and " + ToString(found));
    out[axis] += found[axis];
    expected[axis] = found[axis];
    if (expected != found) return Bad("cannot concatenate " + ToString(in[0]) + " and " + ToString(found));
  }
  return out;
}

Result<Shape> InferSoftmax(const Attributes& a, Inputs in) {
  if (a.axis < 0 || a.axis >= static_cast<int64_t>(in[0].size())) {
    return Bad("axis " + std::to_string(a.axis) + " is outside " + ToString(in[0]));
  }
  return in[0];
}

Result<Shape> InferDropout(const Attributes& a, Inputs in) {
  if (!(a.probability >= 0 && a.probability < 1)) return Bad("probability must be in [0, 1)");
  return in[0];
}

Result<Shape> InferScale(const Attributes& a, Inputs in) {
  if (!std::isfinite(a.factor)) return Bad("factor must be finite");
  return in[0];
}

Result<Shape> InferEmbedding(const Attributes& a, Inputs in) {
  if (a.vocabulary < 1 || a.dimension < 1) return Bad("vocabulary and dimension must be at least 1");
  if (!(a.deviation > 0 && a.deviation <= 1)) return Bad("deviation must be above 0 and at most 1");
  Shape out = in[0];
  out.push_back(a.dimension);
  return out;
}

Result<Shape> InferAttention(const Attributes& a, Inputs in) {
  for (size_t i = 0; i < 3; ++i) {
    if (in[i].size() != 2) return Bad("query, key and value are [sequence, width], found " + ToString(in[i]));
  }
  if (in[0][1] != in[1][1] || in[1][0] != in[2][0]) {
    return Bad("query " + ToString(in[0]) + ", key " + ToString(in[1]) + " and value " + ToString(in[2]) + " do not fit");
  }
  if (a.heads < 1 || in[0][1] % a.heads != 0 || in[2][1] % a.heads != 0) {
    return Bad("heads (" + std::to_string(a.heads) + ") must divide the width");
  }
  if (in.size() == 4 && in[3] != Shape{in[1][0]}) return Bad("key mask must be [" + std::to_string(in[1][0]) + "]");
  return Shape{in[0][0], in[2][1]};
}

Result<Shape> InferAttentionScores(const Attributes& a, Inputs in) {
  if (in[0].size() != 2 || in[1].size() != 2 || in[0][1] != in[1][1]) {
    return Bad("query and key are [sequence, width] of one width, found " + ToString(in[0]) + " and " + ToString(in[1]));
  }
  if (a.heads < 1 || in[0][1] % a.heads != 0) return Bad("heads (" + std::to_string(a.heads) + ") must divide the width");
  if (in.size() == 3 && in[2] != Shape{in[1][0]}) return Bad("key mask must be [" + std::to_string(in[1][0]) + "]");
  return Shape{a.heads, in[0][0], in[1][0]};
}

Result<Shape> InferIds(const Attributes&, Inputs in) {
  if (in[0].size() != 1) return Bad("takes a sequence of ids, but its input is " + ToString(in[0]));
  return in[0];
}

Result<Shape> InferSegments(const Attributes& a, Inputs in) {
  if (a.segments < 1) return Bad("segments must be at least 1");
  return InferIds(a, in);
}

Result<Shape> InferFirst(const Attributes&, Inputs in) {
  if (in[0].size() != 2) return Bad("takes [sequence, width], but its input is " + ToString(in[0]));
  return Shape{in[0][1]};
}

Result<Shape> InferSequenceMean(const Attributes& a, Inputs in) {
  if (in.size() == 2 && in[0].size() == 2 && in[1] != Shape{in[0][0]}) return Bad("key mask must be [" + std::to_string(in[0][0]) + "]");
  return InferFirst(a, in);
}

TensorSpec Spec(const Node& node, const char* role, Shape shape, int64_t fan_in, bool prunable) {
  int64_t elements = FitsElements(shape, kMaxTensorElements) ? ElementCount(shape) : 0;  // Analyze refuses what does not fit
  return TensorSpec{node.name + "." + role, node.name, role, std::move(shape), DType::kF32, true, prunable, fan_in, prunable, elements};
}

void LinearTensors(const Node& node, std::vector<TensorSpec>& out) {
  const Attributes& a = node.attributes;
  out.push_back(Spec(node, "weight", {a.out_features, a.in_features}, a.in_features, true));
  if (a.bias) out.push_back(Spec(node, "bias", {a.out_features}, a.in_features, false));
}

void ConvTensors(const Node& node, std::vector<TensorSpec>& out) {
  const Attributes& a = node.attributes;
  int64_t fan_in = a.in_channels / a.groups * a.kernel_h * a.kernel_w;
  out.push_back(Spec(node, "weight", {a.out_channels, a.in_channels / a.groups, a.kernel_h, a.kernel_w}, fan_in, true));
  if (a.bias) out.push_back(Spec(node, "bias", {a.out_channels}, fan_in, false));
}

void BatchNormTensors(const Node& node, std::vector<TensorSpec>& out) {
  Shape shape{node.attributes.features};
  out.push_back(Spec(node, "weight", shape, 0, false));
  out.push_back(Spec(node, "bias", shape, 0, false));
  for (const char* role : {"running_mean", "running_var"}) {
    out.push_back(Spec(node, role, shape, 0, false));
    out.back().trainable = false;
    out.back().parameters = 0;
  }
}

void LayerNormTensors(const Node& node, std::vector<TensorSpec>& out) {
  Shape shape{node.attributes.features};
  out.push_back(Spec(node, "weight", shape, 0, false));
  out.push_back(Spec(node, "bias", shape, 0, false));
}

void EmbeddingTensors(const Node& node, std::vector<TensorSpec>& out) {
  out.push_back(Spec(node, "weight", {node.attributes.vocabulary, node.attributes.dimension}, 0, true));
}

int64_t NoCost(const Attributes&, Inputs, const Shape&) { return 0; }
int64_t PerElement(const Attributes&, Inputs, const Shape& out) { return ElementCount(out); }
int64_t LinearCost(const Attributes& a, Inputs, const Shape& out) { return ElementCount(out) * a.in_features; }
int64_t ConvCost(const Attributes& a, Inputs, const Shape& out) {
  return ElementCount(out) * (a.in_channels / a.groups) * a.kernel_h * a.kernel_w;
}
int64_t PoolCost(const Attributes& a, Inputs, const Shape& out) { return ElementCount(out) * a.kernel_h * a.kernel_w; }
int64_t AttentionCost(const Attributes&, Inputs in, const Shape&) { return in[0][0] * in[1][0] * (in[0][1] + in[2][1]); }

int64_t AttentionScoresCost(const Attributes&, Inputs in, const Shape&) { return in[0][0] * in[1][0] * in[0][1]; }

int64_t SequenceMeanCost(const Attributes&, Inputs in, const Shape&) { return ElementCount(in[0]); }

constexpr int kMany = 64;

const std::array<OpRow, kOpTypeCount>& Rows() {
  static const std::array<OpRow, kOpTypeCount> rows = {{
      {OpType::kInput, "input", 0, 0, {"shape", "dtype"}, InferInput, nullptr, NoCost},
      {OpType::kLinear, "linear", 1, 1, {"in_features", "out_features", "bias", "encoding", "activations", "bits", "block_size", "double_quantization"},
       InferLinear, LinearTensors, LinearCost},
      {OpType::kConv2d, "conv2d", 1, 1,
       {"in_channels", "out_channels", "kernel_h", "kernel_w", "stride_h", "stride_w", "padding_h", "padding_w", "groups", "bias",
        "encoding", "activations", "bits"},
       InferConv, ConvTensors, ConvCost},
      {OpType::kBatchNorm2d, "batch_norm2d", 1, 1, {"features", "epsilon", "momentum"}, InferBatchNorm, BatchNormTensors, PerElement},
      {OpType::kLayerNorm, "layer_norm", 1, 1, {"features", "epsilon"}, InferLayerNorm, LayerNormTensors, PerElement},
      {OpType::kRelu, "relu", 1, 1, {}, Same, nullptr, NoCost},
      {OpType::kGelu, "gelu", 1, 1, {"approximate_tanh"}, Same, nullptr, NoCost},
      {OpType::kTanh, "tanh", 1, 1, {}, Same, nullptr, NoCost},
      {OpType::kSigmoid, "sigmoid", 1, 1, {}, Same, nullptr, NoCost},
      {OpType::kSilu, "silu", 1, 1, {}, Same, nullptr, NoCost},
      {OpType::kSoftmax, "softmax", 1, 1, {"axis"}, InferSoftmax, nullptr, NoCost},
      {OpType::kMaxPool2d, "max_pool2d", 1, 1, {"kernel_h", "kernel_w", "stride_h", "stride_w", "padding_h", "padding_w"},
       InferPool, nullptr, NoCost},
      {OpType::kAvgPool2d, "avg_pool2d", 1, 1, {"kernel_h", "kernel_w", "stride_h", "stride_w", "padding_h", "padding_w"},
       InferPool, nullptr, PoolCost},
      {OpType::kGlobalAvgPool2d, "global_avg_pool2d", 1, 1, {}, InferGlobalPool, nullptr, NoCost},
      {OpType::kFlatten, "flatten", 1, 1, {}, InferFlatten, nullptr, NoCost},
      {OpType::kReshape, "reshape", 1, 1, {"shape"}, InferReshape, nullptr, NoCost},
      {OpType::kAdd, "add", 2, kMany, {}, InferAdd, nullptr, NoCost},
      {OpType::kConcat, "concat", 1, kMany, {"axis"}, InferConcat, nullptr, NoCost},
      {OpType::kDropout, "dropout", 1, 1, {"probability"}, InferDropout, nullptr, NoCost},
      {OpType::kEmbedding, "embedding", 1, 1, {"vocabulary", "dimension", "deviation", "encoding", "activations", "bits"}, InferEmbedding, EmbeddingTensors, NoCost},
      {OpType::kAttention, "attention", 3, 4, {"heads"}, InferAttention, nullptr, AttentionCost},
      {OpType::kScale, "scale", 1, 1, {"factor"}, InferScale, nullptr, PerElement},
      {OpType::kPositions, "positions", 1, 1, {}, InferIds, nullptr, NoCost},
      {OpType::kSegments, "segments", 1, 1, {"id", "segments"}, InferSegments, nullptr, NoCost},
      {OpType::kKeyMask, "key_mask", 1, 1, {"id"}, InferIds, nullptr, NoCost},
      {OpType::kFirst, "first", 1, 1, {}, InferFirst, nullptr, NoCost},
      {OpType::kSequenceMean, "sequence_mean", 1, 2, {}, InferSequenceMean, nullptr, SequenceMeanCost},
      {OpType::kAttentionScores, "attention_scores", 2, 3, {"heads"}, InferAttentionScores, nullptr, AttentionScoresCost},
  }};
  return rows;
}

}  // namespace

std::span<const OpRow> OpTable() { return Rows(); }

bool FitsElements(const Shape& shape, int64_t limit) {
  int64_t elements = 1;
  for (int64_t d : shape) {
    if (d < 1 || d > limit / elements) return false;
    elements *= d;
  }
  return true;
}

const OpRow& RowOf(OpType type) {
  const OpRow& row = Rows()[static_cast<size_t>(type)];
  CHECK(row.type == type);
  return row;
}

}  // namespace pare::model
