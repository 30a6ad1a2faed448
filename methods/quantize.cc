#include "methods/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace pare::methods {
namespace {

using model::Activations;
using model::DType;
using model::Encoding;
using model::Node;
using model::OpType;
using model::Tensor;

struct Fit {
  double error = 0.0, range_sigma = 0.0, erased = 0.0;  // LayerQuantization
};

double RangeSigma(std::span<const float> row) {
  double sum = 0.0, largest = 0.0;
  int64_t count = 0;
  for (float w : row) {
    if (w == 0.0f) continue;
    sum += static_cast<double>(w) * w;
    largest = std::max(largest, std::abs(static_cast<double>(w)));
    ++count;
  }
  // Around zero, which is where the codes lie.
  return count == 0 ? 0.0 : largest / std::sqrt(sum / static_cast<double>(count));
}

Fit FitOf(const Tensor& weight, const RowCodes& codes) {
  auto values = weight.values<float>();
  auto q = codes.codes.values<int8_t>();
  auto scales = codes.scales.values<float>();
  size_t row = scales.empty() ? 0 : values.size() / scales.size();
  double wrong = 0.0, all = 0.0;
  int64_t there = 0, gone = 0;
  Fit fit;
  for (size_t r = 0; r < scales.size(); ++r) {
    for (size_t i = r * row; i < (r + 1) * row; ++i) {
      double w = values[i], off = w - static_cast<double>(static_cast<float>(q[i]) * scales[r]);
      wrong += off * off;
      all += w * w;
      there += values[i] != 0.0f;
      gone += values[i] != 0.0f && q[i] == 0;
    }
    fit.range_sigma = std::max(fit.range_sigma, RangeSigma(values.subspan(r * row, row)));
  }
  fit.error = all > 0.0 ? std::sqrt(wrong / all) : 0.0;
  fit.erased = there > 0 ? static_cast<double>(gone) / static_cast<double>(there) : 0.0;
  return fit;
}

constexpr double kBitsPerInt8 = 7.0;  // entropy of a code of normally distributed weights

std::string Text(const char* format, double value) {
  char text[160];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

int64_t BytesOf(const Node& node, const model::GraphInfo& info) {
  int64_t bytes = 0;
  for (const model::TensorSpec& spec : info.tensors) {
    if (spec.node != node.name || spec.role == "bias") continue;
    bytes += model::ElementCount(spec.shape) * static_cast<int64_t>(model::SizeOf(spec.dtype));
  }
  return bytes;
}

// Only linears multiply integers.
Activations ActivationsOf(const Node& node, Activations wanted) { return node.op == OpType::kLinear ? wanted : Activations::kFloat; }

Result<LayerQuantization> DiagnoseNode(const Model& model, const model::GraphInfo& info, const Node& node, const QuantizeOptions& options) {
  LayerQuantization layer;
  layer.layer = node.name;
  layer.bytes_before = layer.bytes_after = BytesOf(node, info);
  Encoding encoding = node.attributes.encoding;
  if (encoding != Encoding::kDense && encoding != Encoding::kInt8 && encoding != Encoding::kInt8Fake) {
    layer.reason = "it is " + std::string(model::ToString(encoding)) + " already";
    return layer;
  }
  ASSIGN_OR_RETURN(Tensor weight, model::DecodeWeight(node, model.tensors));
  int64_t rows = weight.shape()[0], row = weight.size() / rows;
  ASSIGN_OR_RETURN(RowCodes codes, QuantizeRows(weight));
  Fit fit = FitOf(weight, codes);
  layer.range_sigma = fit.range_sigma;
  if (row < kMinRow || weight.size() < kMinWeights) {
    layer.reason = "too small: " + std::to_string(rows) + " rows of " + std::to_string(row) + " weights, worth it from " +
                   std::to_string(kMinWeights) + " weights in rows of " + std::to_string(kMinRow);
    return layer;
  }
  // Codes that are there already are kept, whatever they cost.
  if (encoding == Encoding::kDense && (fit.error > kMaxError || fit.erased > kMaxErased)) {
    layer.reason = Text("too sensitive: with outliers of %.1f standard deviations", fit.range_sigma) +
                   Text(" 8 bits would round %.1f %% of the other weights to zero", 100.0 * fit.erased) +
                   Text(" (error %.1f %%); clip the outliers, or leave it in float32", 100.0 * fit.error);
    return layer;
  }
  layer.quantized = true;
  if (encoding != Encoding::kInt8) layer.error = fit.error, layer.erased = fit.erased;
  layer.bytes_after = weight.size() + 4 * rows;
  if (node.op == OpType::kLinear && options.activations == Activations::kStatic) layer.bytes_after += 8;
  if (node.op != OpType::kLinear) layer.reason = "weights only: stored as integers, computed in float32";
  return layer;
}

Status SetInputs(Model& model, const Node& node, const QuantizeOptions& options) {
  if (node.attributes.activations != Activations::kStatic) return Ok();
  std::string scale = node.name + ".input_scale", zero = node.name + ".input_zero_point";
  auto codes = options.inputs.find(node.name);
  if (codes == options.inputs.end()) {
    // As it was trained or calibrated before.
    if (model.tensors.count(scale) && model.tensors.count(zero)) return Ok();
    return Error{ErrorCode::kInvalid, "layer '" + node.name + "' has no calibrated input range"};
  }
  model.tensors[scale] = Tensor::Of<float>(DType::kF32, {1}, std::span(&codes->second.scale, 1));
  model.tensors[zero] = Tensor::Of<int32_t>(DType::kI32, {1}, std::span(&codes->second.zero_point, 1));
  return Ok();
}

// What the encoding before brought and the one after does not need.
void DropExtras(Model& model, const Node& node) {
  if (node.attributes.activations == Activations::kStatic) return;
  model.tensors.erase(node.name + ".input_scale");
  model.tensors.erase(node.name + ".input_zero_point");
}

template <typename Rewrite>
Result<Model> RewriteNodes(Model model, const QuantizeOptions& options, Encoding encoding, Rewrite&& rewrite) {
  ASSIGN_OR_RETURN(std::vector<LayerQuantization> layers, Diagnose(model, options));
  for (const LayerQuantization& layer : layers) {
    if (!layer.quantized) continue;
    auto index = static_cast<size_t>(model.graph.IndexOf(layer.layer));
    Node& node = model.graph.nodes[index];
    TRY(rewrite(model, node));
    node.attributes.encoding = encoding;
    node.attributes.activations = ActivationsOf(node, options.activations);
    DropExtras(model, node);
    TRY(SetInputs(model, node, options));
  }
  return model;
}

}  // namespace

Json ToJson(const LayerQuantization& layer) {
  Json json = {{"layer", layer.layer}, {"quantized", layer.quantized}, {"range_sigma", layer.range_sigma}, {"error", layer.error},
               {"erased", layer.erased}, {"bytes_before", layer.bytes_before}, {"bytes_after", layer.bytes_after}};
  if (!layer.reason.empty()) json["reason"] = layer.reason;
  return json;
}

Result<RowCodes> QuantizeRows(const Tensor& weight) {
  CHECK(weight.dtype() == DType::kF32 && !weight.shape().empty());
  int64_t rows = weight.shape()[0];
  RowCodes out{Tensor(DType::kI8, weight.shape()), Tensor(DType::kF32, {rows})};
  auto values = weight.values<float>();
  auto codes = out.codes.mutable_values<int8_t>();
  auto scales = out.scales.mutable_values<float>();
  size_t row = values.size() / static_cast<size_t>(rows);
  for (size_t r = 0; r < static_cast<size_t>(rows); ++r) {
    float largest = 0.0f;
    for (float w : values.subspan(r * row, row)) {
      if (!std::isfinite(w)) return Error{ErrorCode::kDiverged, "a weight is not finite"};
      largest = std::max(largest, std::abs(w));
    }
    scales[r] = std::max(largest / model::kWeightScaleLevels, model::kSmallestWeightScale);
    float inverse = 1.0f / scales[r];
    for (size_t i = r * row; i < (r + 1) * row; ++i) {
      float code = std::nearbyint(values[i] * inverse);
      codes[i] = static_cast<int8_t>(std::clamp(code, static_cast<float>(model::kWeightCodeMin), static_cast<float>(model::kWeightCodeMax)));
    }
  }
  return out;
}

std::vector<std::string> NodesOf(const model::Graph& graph, const std::vector<std::string>& tensors) {
  std::vector<std::string> nodes;
  for (const Node& node : graph.nodes) {
    if (model::WeightShape(node).empty()) continue;
    bool wanted = std::any_of(tensors.begin(), tensors.end(), [&](const std::string& tensor) {
      std::string dense = tensor.substr(0, tensor.rfind('.'));
      return node.name == dense || (graph.IndexOf(dense) < 0 && node.name.starts_with(dense + "."));
    });
    if (wanted) nodes.push_back(node.name);
  }
  return nodes;
}

Result<Outline> OutlineQuantize(Outline outline, const Json& params) {
  std::string scheme = params.at("scheme").get<std::string>();
  bool int8 = scheme != "cluster";
  if (!outline.adapters.empty()) {
    return Error{ErrorCode::kInvalid, "quantize cannot rewrite a network with unmerged " + outline.adapters + " adapters; set merge: true in that step"};
  }
  ASSIGN_OR_RETURN(std::vector<LayerOutline*> layers, LayersOf(outline, params.at("tensors")));
  if (scheme == "qat") {
    for (auto& [name, layer] : outline.layers) {
      if (model::RowOf(layer.encoding).trains || std::find(layers.begin(), layers.end(), &layer) != layers.end()) continue;
      return Error{ErrorCode::kInvalid, "quantize with scheme qat trains the network, and " + layer.node + " is " + std::string(model::ToString(layer.encoding)) +
                                            ", which cannot be trained; add it to targets, or put this step before the one that made it so"};
    }
  }
  for (LayerOutline* layer : layers) {
    if (layer->encoding != Encoding::kDense && !(int8 && layer->encoding == Encoding::kInt8)) {
      return Error{ErrorCode::kInvalid, "quantize needs float32 weights" + std::string(int8 ? " or int8 ones" : "") + ", those of " + layer->node + " are " +
                                            std::string(model::ToString(layer->encoding)) + " already; leave the layer out with ignore"};
    }
    int64_t size = model::ElementCount(layer->shape), row = layer->shape.empty() ? 0 : size / layer->shape[0];
    if (int8 && !layer->factored && (size < kMinWeights || row < kMinRow)) continue;  // left alone
    if (int8) outline.encoder = "quantize";
    layer->encoding = int8 ? Encoding::kInt8 : Encoding::kCodebook;
    // The entropy of a code: a little less than its bits.
    layer->bits = int8 ? kBitsPerInt8 : 0.9 * params.at("bits").get<double>();
  }
  return outline;
}

Result<std::vector<LayerQuantization>> Diagnose(const Model& model, const QuantizeOptions& options) {
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(model.graph));
  std::vector<LayerQuantization> layers;
  for (const std::string& name : NodesOf(model.graph, options.tensors)) {
    auto layer = DiagnoseNode(model, info, *model.graph.Find(name), options);
    if (!layer.ok()) return layer.error().With("layer '" + name + "'");
    layers.push_back(*std::move(layer));
  }
  return layers;
}

Result<Model> QuantizeInt8(Model model, const QuantizeOptions& options) {
  return RewriteNodes(std::move(model), options, Encoding::kInt8, [](Model& m, const Node& node) -> Status {
    if (node.attributes.encoding == Encoding::kInt8) return Ok();
    ASSIGN_OR_RETURN(RowCodes codes, QuantizeRows(m.tensors.at(node.name + ".weight")));
    m.tensors[node.name + ".weight"] = std::move(codes.codes);
    m.tensors[node.name + ".weight_scale"] = std::move(codes.scales);
    return Ok();
  });
}

Result<Model> FakeInt8(Model model, const QuantizeOptions& options) {
  return RewriteNodes(std::move(model), options, Encoding::kInt8Fake, [](Model& m, const Node& node) -> Status {
    ASSIGN_OR_RETURN(Tensor weight, model::DecodeWeight(node, m.tensors));
    m.tensors[node.name + ".weight"] = std::move(weight);
    m.tensors.erase(node.name + ".weight_scale");
    return Ok();
  });
}

}  // namespace pare::methods
