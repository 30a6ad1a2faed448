#include "methods/outline.h"

#include "model/encoding.h"

namespace pare::methods {
namespace {

Error Invalid(std::string message) { return {ErrorCode::kInvalid, std::move(message)}; }

}  // namespace

Outline OutlineOf(const model::Graph& graph, const model::GraphInfo& info) {
  Outline outline;
  outline.other_parameters = static_cast<double>(info.parameters);
  outline.other_multiply_adds = static_cast<double>(info.multiply_adds);
  for (const model::TensorSpec& spec : info.tensors) {
    if (!spec.prunable) continue;
    const model::Node* node = graph.Find(spec.node);
    CHECK(node != nullptr);
    LayerOutline layer;
    layer.node = spec.node;
    layer.op = node->op;
    layer.shape = spec.shape;
    layer.weights = static_cast<double>(model::ElementCount(spec.shape));
    layer.multiply_adds = static_cast<double>(info.counts[static_cast<size_t>(graph.IndexOf(spec.node))].multiply_adds);
    outline.other_parameters -= layer.weights;
    outline.other_multiply_adds -= layer.multiply_adds;
    outline.layers.emplace(spec.name, std::move(layer));
  }
  return outline;
}

void SetEncodings(model::Graph& graph, const Outline& outline) {
  for (const auto& [name, layer] : outline.layers) {
    if (int at = graph.IndexOf(layer.node); at >= 0) graph.nodes[static_cast<size_t>(at)].attributes.encoding = layer.encoding;
  }
}

Result<std::vector<LayerOutline*>> LayersOf(Outline& outline, const Json& tensors) {
  std::vector<LayerOutline*> layers;
  for (const Json& tensor : tensors) {
    auto layer = tensor.is_string() ? outline.layers.find(tensor.get<std::string>()) : outline.layers.end();
    if (layer == outline.layers.end()) return Invalid("the network has no weights " + Canonical(tensor));
    layers.push_back(&layer->second);
  }
  return layers;
}

Status CheckTrainable(const Outline& outline, std::string_view kind) {
  if (!outline.encoder.empty()) {
    std::string layer;
    for (const auto& [name, l] : outline.layers) {
      if (l.encoding != model::Encoding::kDense && layer.empty()) layer = name + " is " + std::string(model::ToString(l.encoding));
    }
    return Invalid(std::string(kind) + " cannot train what " + outline.encoder + " has left" + (layer.empty() ? "" : " (" + layer + ")") +
                   ": its weights are no longer float32; put " + std::string(kind) + " before " + outline.encoder);
  }
  if (!outline.adapters.empty() && kind != outline.adapters) {
    return Invalid(std::string(kind) + " cannot train a network with unmerged " + outline.adapters + " adapters; set merge: true in that step");
  }
  return Ok();
}

Status CheckFloat(const Outline& outline, const std::vector<LayerOutline*>& layers, std::string_view kind) {
  for (const LayerOutline* layer : layers) {
    if (layer->encoding == model::Encoding::kDense) continue;
    return Invalid(std::string(kind) + " needs float32 weights, those of " + layer->node + " are " + std::string(model::ToString(layer->encoding)) + " after " +
                   (outline.encoder.empty() ? "an earlier step" : outline.encoder) + "; put " + std::string(kind) + " before it, or leave the layer out with ignore");
  }
  if (!outline.adapters.empty() && kind != outline.adapters) {
    return Invalid(std::string(kind) + " cannot rewrite a network with unmerged " + outline.adapters + " adapters; set merge: true in that step");
  }
  return Ok();
}

void MarkTrained(Outline& outline) {
  for (auto& [name, layer] : outline.layers) {
    if (layer.encoding == model::Encoding::kDense) layer.bits = kBitsPerFloat;
  }
}

}  // namespace pare::methods
