#include "methods/cluster.h"

#include <algorithm>
#include <cmath>

#include "methods/quantize.h"

namespace pare::methods {
namespace {

using model::DType;
using model::Encoding;
using model::Node;
using model::Tensor;

// Index of the value nearest to w; the lower one of two as near. REQUIRES: values rise.
size_t Nearest(std::span<const float> values, float w) {
  auto above = static_cast<size_t>(std::lower_bound(values.begin(), values.end(), w) - values.begin());
  if (above == 0) return 0;
  if (above == values.size()) return above - 1;
  double down = static_cast<double>(w) - values[above - 1], up = static_cast<double>(values[above]) - w;
  return up < down ? above : above - 1;
}

struct Iterated {
  std::vector<double> values;
  double gain = 0.0;  // Σ n·value² over the clusters: what their squared error is less than that of one value 0
};

// Lloyd's iterations on sorted weights; sums[i] is the sum of the first i.
Iterated Iterate(std::span<const float> sorted, std::span<const double> sums, std::vector<double> values) {
  Iterated result;
  for (int iteration = 0; iteration < kMaxIterations; ++iteration) {
    std::vector<double> moved;
    result.gain = 0.0;
    size_t first = 0;
    for (size_t c = 0; c < values.size(); ++c) {
      // Weights up to the middle between two values belong to the lower one.
      size_t last = sorted.size();
      if (c + 1 < values.size()) {
        auto end = std::upper_bound(sorted.begin() + static_cast<std::ptrdiff_t>(first), sorted.end(), (values[c] + values[c + 1]) / 2,
                                    [](double middle, float w) { return middle < static_cast<double>(w); });
        last = static_cast<size_t>(end - sorted.begin());
      }
      // Without weights it stays where it is: others may come to it.
      moved.push_back(last > first ? (sums[last] - sums[first]) / static_cast<double>(last - first) : values[c]);
      result.gain += static_cast<double>(last - first) * moved.back() * moved.back();
      first = last;
    }
    bool same = moved == values;
    values = std::move(moved);
    if (same) break;
  }
  result.values = std::move(values);
  return result;
}

Status ClusterNode(Model& model, Node& node, int bits, LayerClusters& layer) {
  auto shape = model::WeightShape(node);
  const std::string name = node.name + ".weight";
  Tensor weight = model.tensors.at(name);
  auto values = weight.values<float>();
  std::vector<float> kept;
  for (float w : values) {
    if (!std::isfinite(w)) return Error{ErrorCode::kDiverged, "layer '" + node.name + "': a weight is not finite"};
    if (w != 0.0f) kept.push_back(w);
  }
  int64_t count = (int64_t{1} << bits) - 1;
  if (static_cast<int64_t>(kept.size()) < kMinWeightsPerValue * count) {
    layer.reason = "too small: " + std::to_string(kept.size()) + " weights, worth it from " + std::to_string(kMinWeightsPerValue * count) +
                   " for " + std::to_string(bits) + " bits";
    return Ok();
  }
  std::vector<float> shared = ClusterValues(kept, count);
  Tensor codes(DType::kU8, shape), book(DType::kF32, {int64_t{1} << bits});
  auto out = codes.mutable_values<uint8_t>();
  double wrong = 0.0, all = 0.0;
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] == 0.0f) continue;
    size_t code = Nearest(shared, values[i]);
    out[i] = static_cast<uint8_t>(code + 1);
    double off = static_cast<double>(values[i]) - shared[code];
    wrong += off * off;
    all += static_cast<double>(values[i]) * values[i];
  }
  std::copy(shared.begin(), shared.end(), book.mutable_values<float>().begin() + 1);
  node.attributes.encoding = Encoding::kCodebook;
  node.attributes.bits = bits;
  model.tensors[name] = std::move(codes);
  model.tensors[node.name + ".weight_values"] = std::move(book);
  layer.clustered = true;
  layer.values = static_cast<int64_t>(shared.size());
  layer.error = std::sqrt(wrong / all);
  return Ok();
}

}  // namespace

Json ToJson(const LayerClusters& layer) {
  Json json = {{"layer", layer.layer}, {"clustered", layer.clustered}, {"values", layer.values}, {"error", layer.error}};
  if (!layer.reason.empty()) json["reason"] = layer.reason;
  return json;
}

std::vector<float> ClusterValues(std::span<const float> weights, int64_t count) {
  std::vector<float> sorted(weights.begin(), weights.end());
  std::sort(sorted.begin(), sorted.end());
  std::vector<double> sums = {0.0};  // of the first i
  for (float w : sorted) sums.push_back(sums.back() + w);
  double low = sorted.front(), step = (static_cast<double>(sorted.back()) - low) / static_cast<double>(std::max<int64_t>(count - 1, 1));
  std::vector<double> linear, even;
  for (int64_t i = 0; i < count; ++i) {
    linear.push_back(low + static_cast<double>(i) * step);
    even.push_back(sorted[static_cast<size_t>((2 * i + 1) * static_cast<int64_t>(sorted.size()) / (2 * count))]);
  }
  Iterated a = Iterate(sorted, sums, std::move(linear)), b = Iterate(sorted, sums, std::move(even));
  std::vector<float> rounded;
  for (double v : b.gain > a.gain ? b.values : a.values) rounded.push_back(static_cast<float>(v));
  std::sort(rounded.begin(), rounded.end());
  std::vector<int64_t> used(rounded.size(), 0);
  for (float w : sorted) ++used[Nearest(rounded, w)];
  std::vector<float> out;
  for (size_t i = 0; i < rounded.size(); ++i) {
    if (used[i] > 0) out.push_back(rounded[i]);
  }
  return out;
}

Result<Clustered> ClusterWeights(Model model, const std::vector<std::string>& tensors, int bits) {
  if (bits < 1 || bits > 8) return Error{ErrorCode::kInvalid, "params: field 'bits' is " + std::to_string(bits) + ", allowed are 1 to 8"};
  Clustered out{std::move(model), {}};
  for (const std::string& name : NodesOf(out.model.graph, tensors)) {
    Node& node = out.model.graph.nodes[static_cast<size_t>(out.model.graph.IndexOf(name))];
    LayerClusters layer;
    layer.layer = name;
    if (node.attributes.encoding != Encoding::kDense) {
      layer.reason = "it is " + std::string(model::ToString(node.attributes.encoding)) + " already";
    } else {
      TRY(ClusterNode(out.model, node, bits, layer));
    }
    out.layers.push_back(std::move(layer));
  }
  return out;
}

}  // namespace pare::methods
