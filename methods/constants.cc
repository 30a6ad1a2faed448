#include "methods/constants.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "methods/units.h"

namespace pare::methods {
namespace {

using model::Node;
using model::OpType;
using Values = std::vector<double>;

constexpr double kNotConstant = std::numeric_limits<double>::quiet_NaN();

double Activation(const Node& node, double x) {
  switch (node.op) {
    case OpType::kRelu: return std::max(x, 0.0);
    case OpType::kGelu:
      if (node.attributes.approximate_tanh) return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
      return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case OpType::kTanh: return std::tanh(x);
    case OpType::kSigmoid: return 1 / (1 + std::exp(-x));
    case OpType::kSilu: return x / (1 + std::exp(-x));
    default: return x;
  }
}

class Analysis {
 public:
  Analysis(const model::Graph& graph, const model::GraphInfo& info, const Coupling& coupling, const model::TensorMap& tensors,
           const model::MaskMap& masks)
      : graph_(graph), info_(info), coupling_(coupling), tensors_(tensors), masks_(masks) {}

  std::vector<Values> Run() {
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      values_.emplace_back(coupling_.features[i].size(), kNotConstant);
      Visit(i);
    }
    return std::move(values_);
  }

 private:
  const Values& In(size_t i, size_t k) const { return values_[Index(i, k)]; }
  size_t Index(size_t i, size_t k) const { return static_cast<size_t>(graph_.IndexOf(graph_.nodes[i].inputs[k])); }
  std::span<const float> Floats(const std::string& name) const { return tensors_.at(name).values<float>(); }
  // The features of node i are the channels, or last dimension, that its operator works on.
  bool Aligned(size_t i) const { return !graph_.nodes[i].inputs.empty() && In(i, 0).size() == values_[i].size(); }

  void Visit(size_t i) {
    const Node& node = graph_.nodes[i];
    Values& out = values_[i];
    switch (node.op) {
      case OpType::kLinear:
      case OpType::kConv2d: return Rows(node, out);
      case OpType::kBatchNorm2d: return BatchNorm(i);
      case OpType::kEmbedding:
        for (size_t d = 0; d < out.size(); ++d) {
          if (IsMasked(masks_, {node.name + ".weight", 1, static_cast<int64_t>(d)})) out[d] = 0.0;
        }
        return;
      case OpType::kRelu: case OpType::kGelu: case OpType::kTanh: case OpType::kSigmoid: case OpType::kSilu: case OpType::kDropout:
        for (size_t f = 0; f < out.size(); ++f) out[f] = Activation(node, In(i, 0)[f]);
        return;
      case OpType::kMaxPool2d: case OpType::kGlobalAvgPool2d:
        if (Aligned(i)) out = In(i, 0);
        return;
      case OpType::kAvgPool2d: return AveragePool(i);
      case OpType::kFirst: case OpType::kSequenceMean:
        if (!Aligned(i)) return;
        for (size_t f = 0; f < out.size(); ++f) out[f] = node.inputs.size() == 2 && In(i, 0)[f] != 0.0 ? kNotConstant : In(i, 0)[f];
        return;
      case OpType::kFlatten: case OpType::kReshape: return Reshape(i);
      case OpType::kAdd:
        out = In(i, 0);
        for (size_t k = 1; k < node.inputs.size(); ++k) {
          for (size_t f = 0; f < out.size(); ++f) out[f] += In(i, k).size() == out.size() ? In(i, k)[f] : kNotConstant;
        }
        return;
      case OpType::kConcat: return Concat(i);
      case OpType::kAttention:
        if (In(i, 2).size() == out.size()) out = In(i, 2);
        return;
      default: return;
    }
  }

  void Rows(const Node& node, Values& out) {
    std::span<const float> bias = node.attributes.bias ? Floats(node.name + ".bias") : std::span<const float>();
    auto rows = static_cast<size_t>(node.op == OpType::kLinear ? node.attributes.out_features : node.attributes.out_channels);
    if (rows != out.size() || !masks_.contains(node.name + ".weight")) return;
    for (size_t o = 0; o < rows; ++o) {
      if (IsMasked(masks_, {node.name + ".weight", 0, static_cast<int64_t>(o)})) out[o] = bias.empty() ? 0.0 : bias[o];
    }
  }

  void BatchNorm(size_t i) {
    const Node& node = graph_.nodes[i];
    if (!Aligned(i)) return;
    auto weight = Floats(node.name + ".weight"), bias = Floats(node.name + ".bias");
    auto mean = Floats(node.name + ".running_mean"), variance = Floats(node.name + ".running_var");
    for (size_t c = 0; c < values_[i].size(); ++c) {
      double x = (In(i, 0)[c] - mean[c]) / std::sqrt(variance[c] + node.attributes.epsilon);
      bool off = IsMasked(masks_, {node.name + ".weight", 0, static_cast<int64_t>(c)});
      values_[i][c] = off ? bias[c] : x * weight[c] + bias[c];
    }
  }

  void AveragePool(size_t i) {
    const model::Attributes& a = graph_.nodes[i].attributes;
    if (!Aligned(i)) return;
    bool padded = a.padding_h > 0 || a.padding_w > 0;
    for (size_t c = 0; c < values_[i].size(); ++c) {
      double x = In(i, 0)[c];
      values_[i][c] = padded && x != 0.0 ? kNotConstant : x;
    }
  }

  // Position p of the value is position p of the input; a feature is constant if all its positions are one number.
  void Reshape(size_t i) {
    auto stride = [](const model::Shape& s, int a) { return model::ElementCount(model::Shape(s.begin() + a + 1, s.end())); };
    size_t in = Index(i, 0);
    int64_t from_stride = stride(info_.shapes[in], coupling_.axes[in]), to_stride = stride(info_.shapes[i], coupling_.axes[i]);
    Values& out = values_[i];
    std::vector<bool> seen(out.size(), false);
    for (int64_t p = 0; p < model::ElementCount(info_.shapes[i]); ++p) {
      double x = values_[in][static_cast<size_t>(p / from_stride) % values_[in].size()];
      size_t f = static_cast<size_t>(p / to_stride) % out.size();
      if (seen[f] && x != out[f]) x = kNotConstant;
      out[f] = x;
      seen[f] = true;
    }
  }

  void Concat(size_t i) {
    const Node& node = graph_.nodes[i];
    if (node.attributes.axis != coupling_.axes[i]) {
      Values all = In(i, 0);
      for (size_t k = 1; k < node.inputs.size(); ++k) {
        for (size_t f = 0; f < all.size(); ++f) {
          if (In(i, k).size() != all.size() || In(i, k)[f] != all[f]) all[f] = kNotConstant;
        }
      }
      values_[i] = std::move(all);
      return;
    }
    Values all;
    for (size_t k = 0; k < node.inputs.size(); ++k) all.insert(all.end(), In(i, k).begin(), In(i, k).end());
    if (all.size() == values_[i].size()) values_[i] = std::move(all);
  }

  const model::Graph& graph_;
  const model::GraphInfo& info_;
  const Coupling& coupling_;
  const model::TensorMap& tensors_;
  const model::MaskMap& masks_;
  std::vector<Values> values_;
};

}  // namespace

bool IsMasked(const model::MaskMap& masks, const Slice& slice) {
  auto mask = masks.find(slice.tensor);
  if (mask == masks.end()) return false;
  bool kept = false;
  ForEachIndex(mask->second.shape(), slice, [&](int64_t i) { kept = kept || mask->second.keeps(i); });
  return !kept;
}

std::vector<std::vector<double>> ConstantFeatures(const model::Graph& graph, const model::GraphInfo& info, const Coupling& coupling,
                                                  const model::TensorMap& tensors, const model::MaskMap& masks) {
  return Analysis(graph, info, coupling, tensors, masks).Run();
}

}  // namespace pare::methods
