#include "model/encoding.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "model/nf4.h"
#include "model/op_table.h"

namespace pare::model {
namespace {

constexpr float kSmallestScale = 6.1e-5f;  // of an input: FBGEMM's SMALL_SCALE_THRESHOLD
constexpr std::array<std::string_view, 3> kActivationNames = {"float", "dynamic", "static"};

Error Bad(const std::string& text) { return Error{ErrorCode::kInvalid, text}; }

// A tensor that comes with an encoding: counted in bytes, not as a parameter.
TensorSpec Extra(const Node& node, const char* role, Shape shape, DType dtype) {
  TensorSpec spec{node.name + "." + role, node.name, role, std::move(shape), dtype, false, false, 0};
  return spec;
}

void InputTensors(const Node& node, std::vector<TensorSpec>& more) {
  if (node.attributes.activations != Activations::kStatic) return;
  more.push_back(Extra(node, "input_scale", {1}, DType::kF32));
  more.push_back(Extra(node, "input_zero_point", {1}, DType::kI32));
}

void DenseTensors(const Node&, TensorSpec&, std::vector<TensorSpec>&) {}

void Int8Tensors(const Node& node, TensorSpec& weight, std::vector<TensorSpec>& more) {
  weight.dtype = DType::kI8;
  weight.trainable = weight.prunable = false;
  more.push_back(Extra(node, "weight_scale", {weight.shape[0]}, DType::kF32));
  InputTensors(node, more);
}

void FakeTensors(const Node& node, TensorSpec&, std::vector<TensorSpec>& more) { InputTensors(node, more); }

void CodebookTensors(const Node& node, TensorSpec& weight, std::vector<TensorSpec>& more) {
  weight.dtype = DType::kU8;
  weight.trainable = weight.prunable = false;
  more.push_back(Extra(node, "weight_values", {int64_t{1} << node.attributes.bits}, DType::kF32));
  more.back().trainable = true;
}

int64_t WeightElements(const Node& node) { return node.attributes.in_features * node.attributes.out_features; }

void Nf4Tensors(const Node& node, TensorSpec& weight, std::vector<TensorSpec>& more) {
  const Attributes& a = node.attributes;
  Nf4Sizes sizes = Nf4SizesOf(WeightElements(node), a.block_size);
  weight.dtype = DType::kU8;
  weight.shape = {sizes.codes};
  weight.trainable = weight.prunable = false;
  more.push_back(Extra(node, "weight_scale", {sizes.blocks}, a.double_quantization ? DType::kI8 : DType::kF32));
  if (a.double_quantization) more.push_back(Extra(node, "weight_steps", {sizes.steps + 1}, DType::kF32));
}

Result<Tensor> Get(const Node& node, const TensorMap& tensors, const char* role, DType dtype) {
  auto it = tensors.find(node.name + "." + role);
  if (it == tensors.end()) return Bad("tensor '" + node.name + "." + role + "' is missing");
  if (it->second.dtype() != dtype) {
    return Bad("tensor '" + it->first + "' is " + std::string(ToString(it->second.dtype())) + ", needed is " + std::string(ToString(dtype)));
  }
  return it->second;
}

Result<Tensor> DecodeDense(const Node& node, const TensorMap& tensors) { return Get(node, tensors, "weight", DType::kF32); }

Result<Tensor> DecodeInt8(const Node& node, const TensorMap& tensors) {
  ASSIGN_OR_RETURN(Tensor codes, Get(node, tensors, "weight", DType::kI8));
  ASSIGN_OR_RETURN(Tensor scales, Get(node, tensors, "weight_scale", DType::kF32));
  if (codes.shape().empty() || scales.size() != codes.shape()[0]) return Bad("tensor '" + node.name + ".weight_scale' does not fit the weight");
  Tensor out(DType::kF32, codes.shape());
  auto from = codes.values<int8_t>();
  auto scale = scales.values<float>();
  auto to = out.mutable_values<float>();
  size_t row = scale.empty() ? 0 : from.size() / scale.size();
  for (size_t i = 0; i < from.size(); ++i) to[i] = static_cast<float>(from[i]) * scale[i / row];
  return out;
}

Result<Tensor> DecodeCodebook(const Node& node, const TensorMap& tensors) {
  ASSIGN_OR_RETURN(Tensor codes, Get(node, tensors, "weight", DType::kU8));
  ASSIGN_OR_RETURN(Tensor book, Get(node, tensors, "weight_values", DType::kF32));
  Tensor out(DType::kF32, codes.shape());
  auto from = codes.values<uint8_t>();
  auto values = book.values<float>();
  auto to = out.mutable_values<float>();
  for (size_t i = 0; i < from.size(); ++i) {
    if (from[i] >= values.size()) return Bad("tensor '" + node.name + ".weight' has a code beyond its " + std::to_string(values.size()) + " values");
    to[i] = values[from[i]];
  }
  return out;
}

Result<Tensor> DecodeNf4Weight(const Node& node, const TensorMap& tensors) {
  const Attributes& a = node.attributes;
  Nf4Sizes sizes = Nf4SizesOf(WeightElements(node), a.block_size);
  Nf4 parts;
  ASSIGN_OR_RETURN(parts.codes, Get(node, tensors, "weight", DType::kU8));
  ASSIGN_OR_RETURN(parts.scales, Get(node, tensors, "weight_scale", a.double_quantization ? DType::kI8 : DType::kF32));
  if (a.double_quantization) {
    ASSIGN_OR_RETURN(parts.steps, Get(node, tensors, "weight_steps", DType::kF32));
  }
  bool fits = parts.codes.size() == sizes.codes && parts.scales.size() == sizes.blocks && (!a.double_quantization || parts.steps.size() == sizes.steps + 1);
  if (!fits) return Bad("the tensors of '" + node.name + "' do not fit nf4 in blocks of " + std::to_string(a.block_size));
  Tensor out(DType::kF32, {a.out_features, a.in_features});
  DecodeNf4(parts, a.block_size, 0, out.mutable_values<float>());
  return out;
}

const std::array<EncodingRow, kEncodingCount>& Rows() {
  using enum OpType;
  using enum Activations;
  static const std::array<EncodingRow, kEncodingCount> rows = {{
      {Encoding::kDense, "dense", "float32", "weight as it is", {kLinear, kConv2d, kEmbedding}, {kFloat}, true, DenseTensors, DecodeDense},
      {Encoding::kInt8, "int8", "8-bit integers and a scale per row", "weight.float() * weight_scale, one scale per row (first dimension)",
       {kLinear, kConv2d, kEmbedding}, {kFloat, kDynamic, kStatic}, false, Int8Tensors, DecodeInt8},
      {Encoding::kInt8Fake, "int8_fake", "float32, trained to become int8", "weight as it is",
       {kLinear, kConv2d, kEmbedding}, {kFloat, kDynamic, kStatic}, true, FakeTensors, DecodeDense},
      {Encoding::kCodebook, "codebook", "codes of a few shared values", "weight_values[weight.long()]", {kLinear, kConv2d, kEmbedding}, {kFloat}, true,
       CodebookTensors, DecodeCodebook},
      {Encoding::kNf4, "nf4", "4-bit codes in blocks with a scale each", "level[code] * scale of its block; two codes a byte, the first in the high half",
       {kLinear}, {kFloat}, false, Nf4Tensors, DecodeNf4Weight},
  }};
  return rows;
}

std::string Known(std::span<const EncodingRow> rows) {
  std::string known;
  for (const EncodingRow& row : rows) known += (known.empty() ? "" : ", ") + std::string(row.name);
  return known;
}

}  // namespace

std::span<const EncodingRow> EncodingTable() { return Rows(); }

const EncodingRow& RowOf(Encoding encoding) {
  const EncodingRow& row = Rows()[static_cast<size_t>(encoding)];
  CHECK(row.encoding == encoding);
  return row;
}

Result<Encoding> EncodingFromString(std::string_view name) {
  for (const EncodingRow& row : EncodingTable()) {
    if (row.name == name) return row.encoding;
  }
  return Bad("unknown encoding '" + std::string(name) + "'; known are " + Known(EncodingTable()));
}

Result<Activations> ActivationsFromString(std::string_view name) {
  for (size_t i = 0; i < kActivationNames.size(); ++i) {
    if (kActivationNames[i] == name) return static_cast<Activations>(i);
  }
  return Bad("unknown activations '" + std::string(name) + "'; known are float, dynamic, static");
}

std::string_view ToString(Encoding encoding) { return RowOf(encoding).name; }
std::string_view ToString(Activations activations) { return kActivationNames[static_cast<size_t>(activations)]; }

Status CheckEncoding(const Node& node) {
  const EncodingRow& row = RowOf(node.attributes.encoding);
  if (row.encoding != Encoding::kDense && std::find(row.operators.begin(), row.operators.end(), node.op) == row.operators.end()) {
    return Bad("cannot hold its weight as " + std::string(row.name));
  }
  int64_t block = node.attributes.block_size;
  if (row.encoding == Encoding::kNf4 && (block < 2 || block % 2 != 0)) return Bad("block_size is " + std::to_string(block) + "; nf4 takes an even number from 2 on");
  Activations activations = node.attributes.activations;
  bool allowed = std::find(row.activations.begin(), row.activations.end(), activations) != row.activations.end();
  if (node.attributes.bits < 1 || node.attributes.bits > 8) return Bad("bits must be 1 to 8");
  // Only linears have a kernel that multiplies integers.
  if (!allowed || (activations != Activations::kFloat && node.op != OpType::kLinear)) {
    return Bad("does not take " + std::string(ToString(activations)) + " activations with encoding " + std::string(row.name));
  }
  return Ok();
}

void EncodeSpecs(const Node& node, std::vector<TensorSpec>& specs, size_t first) {
  const EncodingRow& row = RowOf(node.attributes.encoding);
  std::vector<TensorSpec> more;
  for (size_t i = first; i < specs.size(); ++i) {
    if (!specs[i].layer) continue;
    row.tensors(node, specs[i], more);
  }
  specs.insert(specs.end(), more.begin(), more.end());
}

Shape WeightShape(const Node& node) {
  std::vector<TensorSpec> specs;
  if (RowOf(node.op).tensors != nullptr) RowOf(node.op).tensors(node, specs);
  for (TensorSpec& spec : specs) {
    if (spec.layer) return std::move(spec.shape);
  }
  return {};
}

Result<Tensor> DecodeWeight(const Node& node, const TensorMap& tensors) {
  if (WeightShape(node).empty()) return Bad("node '" + node.name + "' has no weight");
  return RowOf(node.attributes.encoding).decode(node, tensors);
}

void MakeDense(Attributes& attributes) {
  const Attributes defaults;
  attributes.encoding = defaults.encoding;
  attributes.activations = defaults.activations;
  attributes.bits = defaults.bits;
  attributes.block_size = defaults.block_size;
  attributes.double_quantization = defaults.double_quantization;
}

Result<DenseModel> DecodeModel(const Graph& graph, const TensorMap& tensors) {
  DenseModel dense{graph, {}};
  for (Node& node : dense.graph.nodes) {
    if (WeightShape(node).empty()) continue;
    ASSIGN_OR_RETURN(Tensor weight, DecodeWeight(node, tensors));
    MakeDense(node.attributes);
    dense.tensors.emplace(node.name + ".weight", std::move(weight));
  }
  ASSIGN_OR_RETURN(GraphInfo info, Analyze(dense.graph));
  for (const TensorSpec& spec : info.tensors) {
    if (dense.tensors.count(spec.name)) continue;
    auto it = tensors.find(spec.name);
    if (it == tensors.end()) return Bad("tensor '" + spec.name + "' is missing");
    dense.tensors.emplace(it->first, it->second);
  }
  return dense;
}

Status CheckTrainable(const Graph& graph) {
  for (const Node& node : graph.nodes) {
    const EncodingRow& row = RowOf(node.attributes.encoding);
    if (row.trains) continue;
    return Bad("layer '" + node.name + "' is " + std::string(row.name) + ", which cannot be trained: train before the step that made it " +
               std::string(row.name) + ", or use quantize with scheme qat");
  }
  return Ok();
}

int64_t NonZeroWeights(const Node& node, const TensorSpec& spec, const Tensor& tensor) {
  auto count = [](auto values) { return static_cast<int64_t>(values.size()) - std::count(values.begin(), values.end(), 0); };
  if (tensor.dtype() == DType::kF32) return count(tensor.values<float>());
  if (tensor.dtype() == DType::kI8) return count(tensor.values<int8_t>());
  if (node.attributes.encoding == Encoding::kNf4 && tensor.dtype() == DType::kU8) {
    int64_t nonzero = 0;
    auto codes = tensor.values<uint8_t>();
    for (int64_t i = 0; i < spec.parameters; ++i) {
      uint8_t byte = codes[static_cast<size_t>(i / 2)];
      nonzero += (i % 2 == 0 ? byte >> 4 : byte & 15) != kNf4Zero;
    }
    return nonzero;
  }
  if (tensor.dtype() == DType::kU8) return count(tensor.values<uint8_t>());
  return spec.parameters;
}

InputCodes ChooseCodes(float low, float high) {
  low = std::min(low, 0.0f);
  high = std::max(high, 0.0f);
  double scale = (static_cast<double>(high) - low) / kActivationLevels;
  // No range, or one whose inverse is not finite.
  if (static_cast<float>(scale) == 0.0f || std::isinf(1.0f / static_cast<float>(scale))) scale = 0.1;
  if (scale < kSmallestScale) {
    float before = static_cast<float>(scale);
    scale = kSmallestScale;
    // Zero stays at the same fraction of the range.
    if (low != 0.0f && high != 0.0f) low *= kSmallestScale / before;
    else if (high == 0.0f) low = -kSmallestScale * kActivationLevels;
  }
  double zero = std::nearbyint(std::clamp(-static_cast<double>(low) / scale, 0.0, static_cast<double>(kActivationLevels)));
  return {static_cast<float>(scale), static_cast<int32_t>(zero)};
}

}  // namespace pare::model
