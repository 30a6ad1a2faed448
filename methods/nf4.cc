#include "methods/nf4.h"

#include <algorithm>
#include <cmath>

#include "model/encoding.h"
#include "model/nf4.h"

namespace pare::methods {
namespace {

Error Invalid(std::string message) { return {ErrorCode::kInvalid, std::move(message)}; }

// Root of the mean squared difference over the root mean square of `from`.
double RelativeError(std::span<const float> from, std::span<const float> to) {
  double difference = 0, square = 0;
  for (size_t i = 0; i < from.size(); ++i) {
    difference += std::pow(static_cast<double>(from[i]) - to[i], 2);
    square += static_cast<double>(from[i]) * from[i];
  }
  return square > 0 ? std::sqrt(difference / square) : 0.0;
}

Result<Json> EncodeLayer(Model& model, const std::string& name, const Nf4Options& options) {
  model::Node& node = model.graph.nodes[static_cast<size_t>(model.graph.IndexOf(name))];
  model::Tensor weight = model.tensors.at(name + ".weight");
  auto values = weight.values<float>();
  if (!std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); })) {
    return Error{ErrorCode::kDiverged, "qlora: " + name + " holds a value that is not finite: the training before it diverged"};
  }
  model::Nf4 parts = model::EncodeNf4(values, options.block_size, options.double_quantization);
  auto bytes = static_cast<int64_t>(parts.codes.bytes().size() + parts.scales.bytes().size());
  if (options.double_quantization) bytes += static_cast<int64_t>(parts.steps.bytes().size());
  node.attributes.encoding = model::Encoding::kNf4;
  node.attributes.block_size = options.block_size;
  node.attributes.double_quantization = options.double_quantization;
  model.masks.erase(name + ".weight");
  model.tensors[name + ".weight"] = std::move(parts.codes);
  model.tensors[name + ".weight_scale"] = std::move(parts.scales);
  if (options.double_quantization) model.tensors[name + ".weight_steps"] = std::move(parts.steps);
  ASSIGN_OR_RETURN(model::Tensor decoded, model::DecodeWeight(node, model.tensors));
  return Json{{"layer", name}, {"bytes", bytes}, {"bytes_float32", weight.bytes().size()}, {"error", RelativeError(values, decoded.values<float>())}};
}

}  // namespace

Result<Nf4Options> Nf4OptionsFromJson(const Json& params) {
  Nf4Options options;
  ASSIGN_OR_RETURN(options.block_size, IntField(params, "block_size"));
  ASSIGN_OR_RETURN(options.double_quantization, BoolField(params, "double_quantization"));
  if (options.block_size < 2 || options.block_size > 4096 || options.block_size % 2 != 0) {
    return Invalid("qlora: block_size: " + std::to_string(options.block_size) + " is not an even number from 2 to 4096");
  }
  return options;
}

Result<Nf4Result> EncodeLayers(Model model, const std::vector<std::string>& tensors, const Nf4Options& options) {
  Nf4Result result{std::move(model)};
  for (const std::string& tensor : tensors) {
    std::string name = tensor.substr(0, tensor.rfind('.'));
    const model::Node* node = result.model.graph.Find(name);
    if (node == nullptr) return Invalid("qlora: the model has no weight " + tensor);
    if (node->op != model::OpType::kLinear) continue;  // it gets no adapter either, which says why
    if (node->attributes.encoding != model::Encoding::kDense) {
      return Invalid("qlora: " + name + " is " + std::string(model::ToString(node->attributes.encoding)) + " already; put qlora before that step, or use lora");
    }
    ASSIGN_OR_RETURN(Json report, EncodeLayer(result.model, name, options));
    result.report.push_back(std::move(report));
  }
  return result;
}

Status DecodeLayer(Model& model, const std::string& name) {
  model::Node& node = model.graph.nodes[static_cast<size_t>(model.graph.IndexOf(name))];
  if (node.attributes.encoding == model::Encoding::kDense) return Ok();
  ASSIGN_OR_RETURN(model::Tensor weight, model::DecodeWeight(node, model.tensors));
  model::MakeDense(node.attributes);
  model.tensors[name + ".weight"] = std::move(weight);
  for (const char* role : {".weight_scale", ".weight_steps", ".weight_values", ".input_scale", ".input_zero_point"}) model.tensors.erase(name + role);
  return Ok();
}

}  // namespace pare::methods
