#include "model/counts.h"

#include "model/encoding.h"

namespace pare::model {
namespace {

double Removed(int64_t kept, int64_t size) {
  return size == 0 ? 0.0 : 1.0 - static_cast<double>(kept) / static_cast<double>(size);
}

}  // namespace

ModelSummary Summarize(const Graph& graph, const GraphInfo& info, const TensorMap& tensors, const MaskMap& masks) {
  ModelSummary summary;
  int64_t pruned_size = 0, pruned_kept = 0, prunable_size = 0, prunable_kept = 0;
  summary.weight_bytes = info.bytes;
  summary.multiply_adds_nonzero = summary.multiply_adds = info.multiply_adds;
  for (const TensorSpec& spec : info.tensors) {
    if (spec.parameters == 0) continue;
    int64_t size = spec.parameters, kept = size;
    auto mask = masks.find(spec.name);
    if (mask != masks.end()) kept = mask->second.kept();
    auto tensor = tensors.find(spec.name);
    summary.parameters += size;
    auto node = static_cast<size_t>(graph.IndexOf(spec.node));
    summary.parameters_nonzero += tensor == tensors.end() ? kept : NonZeroWeights(graph.nodes[node], spec, tensor->second);
    if (!spec.layer) continue;
    LayerSummary layer{spec.name, WeightShape(graph.nodes[node]), graph.nodes[node].attributes.encoding, size, kept, mask != masks.end(), {}};
    prunable_size += size;
    prunable_kept += kept;
    if (layer.masked) {
      layer.mask = mask->second.digest();
      pruned_size += size;
      pruned_kept += kept;
      // Every weight of a linear or convolution is used equally often, so work falls in proportion.
      int64_t dense = info.counts[node].multiply_adds;
      summary.multiply_adds_nonzero -= dense / size * (size - kept);
    }
    summary.layers.push_back(std::move(layer));
  }
  summary.sparsity_pruned_layers = Removed(pruned_kept, pruned_size);
  summary.sparsity_weights = Removed(prunable_kept, prunable_size);
  summary.sparsity_parameters = Removed(summary.parameters_nonzero, summary.parameters);
  return summary;
}

Json ToJson(const ModelSummary& summary) {
  Json layers = Json::array();
  for (const LayerSummary& layer : summary.layers) {
    Json json = {{"tensor", layer.tensor}, {"shape", layer.shape}, {"size", layer.size}, {"kept", layer.kept},
                 {"sparsity", Removed(layer.kept, layer.size)}};
    if (layer.masked) json["mask"] = layer.mask.hex();
    if (layer.encoding != Encoding::kDense) json["encoding"] = std::string(ToString(layer.encoding));
    layers.push_back(std::move(json));
  }
  return {{"parameters", summary.parameters},
          {"parameters_nonzero", summary.parameters_nonzero},
          {"weight_bytes", summary.weight_bytes},
          {"multiply_adds", summary.multiply_adds},
          {"multiply_adds_nonzero", summary.multiply_adds_nonzero},
          {"sparsity",
           {{"pruned_layers", summary.sparsity_pruned_layers},
            {"weights", summary.sparsity_weights},
            {"parameters", summary.sparsity_parameters}}},
          {"layers", std::move(layers)}};
}

}  // namespace pare::model
