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
std::vector<double> Iterate(std::span<const float> sorted, std::span<const double> sums, std::vector<double> values) {
  for (int iteration = 0; iteration < kMaxIterations; ++iteration) {
    std::vector<double> moved;
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
      first = last;
    }
    bool same = moved == values;
    values = std::move(moved);
    if (same) break;
  }
  return values;
}

// The best runs of sorted weights, found over all ways to cut them at `edges` (Wang & Song 2011, Ckmeans.1d.dp; the best
// first cut moves only up with the end, so each row of the table is found by halving).
class BestRuns {
 public:
  BestRuns(std::span<const double> sums, std::vector<size_t> edges) : sums_(sums), edges_(std::move(edges)) {}

  // Their means. REQUIRES: 1 ≤ count < edges.
  std::vector<double> Means(size_t count) {
    const size_t ends = edges_.size();
    std::vector<std::vector<uint32_t>> cuts;
    below_.assign(ends, kImpossible);
    below_[0] = 0.0;
    for (size_t run = 0; run < count; ++run) {
      row_.assign(ends, kImpossible);
      cut_.assign(ends, 0);
      Fill(run + 1, ends - 1, run, ends - 2);
      below_ = row_;
      cuts.push_back(cut_);
    }
    std::vector<double> means(count);
    for (size_t run = count, end = ends - 1; run-- > 0; end = cuts[run][end]) {
      size_t first = edges_[cuts[run][end]], last = edges_[end];
      means[run] = (sums_[last] - sums_[first]) / static_cast<double>(last - first);
    }
    return means;
  }

 private:
  static constexpr double kImpossible = 1e300;

  // Squared error of one run, less the sum of squares that every way to cut has.
  double Cost(size_t from, size_t to) const {
    double sum = sums_[edges_[to]] - sums_[edges_[from]];
    return -sum * sum / static_cast<double>(edges_[to] - edges_[from]);
  }
  void Fill(size_t low, size_t high, size_t least, size_t most) {
    if (low > high) return;
    size_t middle = low + (high - low) / 2;
    for (size_t cut = least; cut <= std::min(most, middle - 1); ++cut) {
      if (below_[cut] >= kImpossible) continue;
      double cost = below_[cut] + Cost(cut, middle);
      if (cost < row_[middle]) row_[middle] = cost, cut_[middle] = static_cast<uint32_t>(cut);
    }
    if (middle > low) Fill(low, middle - 1, least, cut_[middle]);
    Fill(middle + 1, high, cut_[middle], most);
  }

  std::span<const double> sums_;
  std::vector<size_t> edges_;
  std::vector<double> below_, row_;
  std::vector<uint32_t> cut_;
};

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
  // Exact for up to kMaxCuts weights; of more, runs of equal numbers are kept together at first.
  size_t n = sorted.size(), pieces = std::min(n, kMaxCuts);
  std::vector<size_t> edges;
  for (size_t i = 0; i <= pieces; ++i) edges.push_back(i * n / pieces);
  std::vector<double> best = BestRuns(sums, std::move(edges)).Means(std::min(static_cast<size_t>(count), pieces));
  std::vector<float> rounded;
  for (double v : Iterate(sorted, sums, std::move(best))) rounded.push_back(static_cast<float>(v));
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
