// A graph computed in double, in the most direct way, in evaluation mode: the twin that rewrites of a model are held against.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "model/graph.h"

namespace pare::methods {

using Vector = std::vector<double>;

class ReferenceForward {
 public:
  // REQUIRES: graph analyzes; a float32 tensor for every spec.
  ReferenceForward(const model::Graph& graph, const model::TensorMap& tensors)
      : graph_(graph), info_(*model::Analyze(graph)), tensors_(tensors) {}

  // `inputs`: by input node's name. The output node's value.
  Vector Run(const std::map<std::string, Vector>& inputs) {
    values_.clear();
    for (size_t i = 0; i < graph_.nodes.size(); ++i) values_.push_back(Value(i, inputs));
    return values_[static_cast<size_t>(graph_.IndexOf(graph_.output))];
  }

 private:
  size_t Index(size_t i, size_t k) const { return static_cast<size_t>(graph_.IndexOf(graph_.nodes[i].inputs[k])); }
  const Vector& In(size_t i, size_t k) const { return values_[Index(i, k)]; }
  const model::Shape& InShape(size_t i, size_t k) const { return info_.shapes[Index(i, k)]; }
  double Weight(const std::string& name, int64_t i) const { return tensors_.at(name).values<float>()[static_cast<size_t>(i)]; }
  static size_t U(int64_t i) { return static_cast<size_t>(i); }

  Vector Value(size_t i, const std::map<std::string, Vector>& inputs) {
    using enum model::OpType;
    const model::Node& node = graph_.nodes[i];
    switch (node.op) {
      case kInput: return inputs.at(node.name);
      case kLinear: return Linear(i);
      case kConv2d: return Convolution(i);
      case kBatchNorm2d: return BatchNorm(i);
      case kLayerNorm: return LayerNorm(i);
      case kSoftmax: return Softmax(i);
      case kMaxPool2d: case kAvgPool2d: return Pool(i);
      case kGlobalAvgPool2d: return GlobalPool(i);
      case kFlatten: case kReshape: case kDropout: return In(i, 0);
      case kAdd: {
        Vector sum = In(i, 0);
        for (size_t k = 1; k < node.inputs.size(); ++k) std::transform(sum.begin(), sum.end(), In(i, k).begin(), sum.begin(), std::plus<>());
        return sum;
      }
      case kConcat: return Concat(i);
      case kEmbedding: {
        Vector out;
        for (double id : In(i, 0)) {
          for (int64_t d = 0; d < node.attributes.dimension; ++d) out.push_back(Weight(node.name + ".weight", std::llround(id) * node.attributes.dimension + d));
        }
        return out;
      }
      case kAttention: return Attention(i);
      case kPositions: {
        Vector out;
        for (size_t p = 0; p < In(i, 0).size(); ++p) out.push_back(static_cast<double>(p));
        return out;
      }
      case kSegments: return Segments(i);
      case kKeyMask: {
        Vector out;
        for (double id : In(i, 0)) out.push_back(std::llround(id) == node.attributes.id ? 0 : 1);
        return out;
      }
      case kFirst: return Vector(In(i, 0).begin(), In(i, 0).begin() + InShape(i, 0)[1]);
      case kSequenceMean: return SequenceMean(i);
      default: {
        Vector out = In(i, 0);
        for (double& x : out) x = Activation(node, x);
        return out;
      }
    }
  }

  static double Activation(const model::Node& node, double x) {
    using enum model::OpType;
    switch (node.op) {
      case kRelu: return x > 0 ? x : 0;
      case kGelu: return 0.5 * x * std::erfc(-x * M_SQRT1_2);
      case kTanh: return 2 / (1 + std::exp(-2 * x)) - 1;
      case kSigmoid: return 1 / (1 + std::exp(-x));
      case kSilu: return x * (1 / (1 + std::exp(-x)));
      default: CHECK(false); return 0;
    }
  }

  Vector Linear(size_t i) {
    const model::Node& node = graph_.nodes[i];
    int64_t in = node.attributes.in_features, out = node.attributes.out_features;
    Vector y;
    for (size_t row = 0; row < In(i, 0).size() / U(in); ++row) {
      for (int64_t o = 0; o < out; ++o) {
        double sum = node.attributes.bias ? Weight(node.name + ".bias", o) : 0;
        for (int64_t j = 0; j < in; ++j) sum += In(i, 0)[row * U(in) + U(j)] * Weight(node.name + ".weight", o * in + j);
        y.push_back(sum);
      }
    }
    return y;
  }

  Vector Convolution(size_t i) {
    const model::Node& node = graph_.nodes[i];
    const model::Attributes& a = node.attributes;
    const model::Shape &in = InShape(i, 0), &out = info_.shapes[i];
    int64_t per_in = a.in_channels / a.groups, per_out = a.out_channels / a.groups;
    Vector y;
    for (int64_t o = 0; o < out[0]; ++o) {
      for (int64_t r = 0; r < out[1]; ++r) {
        for (int64_t c = 0; c < out[2]; ++c) {
          double sum = a.bias ? Weight(node.name + ".bias", o) : 0;
          for (int64_t j = 0; j < per_in; ++j) {
            for (int64_t kr = 0; kr < a.kernel_h; ++kr) {
              for (int64_t kc = 0; kc < a.kernel_w; ++kc) {
                int64_t y0 = r * a.stride_h - a.padding_h + kr, x0 = c * a.stride_w - a.padding_w + kc;
                if (y0 < 0 || x0 < 0 || y0 >= in[1] || x0 >= in[2]) continue;
                int64_t channel = o / per_out * per_in + j;
                sum += In(i, 0)[U((channel * in[1] + y0) * in[2] + x0)] * Weight(node.name + ".weight", ((o * per_in + j) * a.kernel_h + kr) * a.kernel_w + kc);
              }
            }
          }
          y.push_back(sum);
        }
      }
    }
    return y;
  }

  Vector BatchNorm(size_t i) {
    const std::string& n = graph_.nodes[i].name;
    Vector y = In(i, 0);
    size_t area = U(info_.shapes[i][1] * info_.shapes[i][2]);
    for (size_t p = 0; p < y.size(); ++p) {
      auto c = static_cast<int64_t>(p / area);
      y[p] = (y[p] - Weight(n + ".running_mean", c)) / std::sqrt(Weight(n + ".running_var", c) + graph_.nodes[i].attributes.epsilon) * Weight(n + ".weight", c) + Weight(n + ".bias", c);
    }
    return y;
  }

  Vector LayerNorm(size_t i) {
    const std::string& n = graph_.nodes[i].name;
    auto width = U(graph_.nodes[i].attributes.features);
    Vector y = In(i, 0);
    for (size_t row = 0; row < y.size(); row += width) {
      double mean = 0, variance = 0;
      for (size_t k = 0; k < width; ++k) mean += y[row + k] / static_cast<double>(width);
      for (size_t k = 0; k < width; ++k) variance += (y[row + k] - mean) * (y[row + k] - mean) / static_cast<double>(width);
      for (size_t k = 0; k < width; ++k) {
        y[row + k] = (y[row + k] - mean) / std::sqrt(variance + graph_.nodes[i].attributes.epsilon) * Weight(n + ".weight", static_cast<int64_t>(k)) + Weight(n + ".bias", static_cast<int64_t>(k));
      }
    }
    return y;
  }

  // Outer, axis, inner extents of a dimension.
  static std::array<size_t, 3> Extents(const model::Shape& s, int64_t axis) {
    return {U(model::ElementCount(model::Shape(s.begin(), s.begin() + axis))), U(s[U(axis)]), U(model::ElementCount(model::Shape(s.begin() + axis + 1, s.end())))};
  }

  Vector Softmax(size_t i) {
    auto [outer, n, inner] = Extents(info_.shapes[i], graph_.nodes[i].attributes.axis);
    Vector y = In(i, 0);
    for (size_t o = 0; o < outer; ++o) {
      for (size_t r = 0; r < inner; ++r) {
        double sum = 0;
        for (size_t k = 0; k < n; ++k) sum += std::exp(y[(o * n + k) * inner + r]);
        for (size_t k = 0; k < n; ++k) y[(o * n + k) * inner + r] = std::exp(y[(o * n + k) * inner + r]) / sum;
      }
    }
    return y;
  }

  Vector Pool(size_t i) {
    const model::Attributes& a = graph_.nodes[i].attributes;
    const model::Shape &in = InShape(i, 0), &out = info_.shapes[i];
    bool max = graph_.nodes[i].op == model::OpType::kMaxPool2d;
    Vector y;
    for (int64_t c = 0; c < out[0]; ++c) {
      for (int64_t r = 0; r < out[1]; ++r) {
        for (int64_t s = 0; s < out[2]; ++s) {
          double best = max ? -1e300 : 0;
          for (int64_t kr = 0; kr < a.kernel_h; ++kr) {
            for (int64_t ks = 0; ks < a.kernel_w; ++ks) {
              int64_t y0 = r * a.stride_h - a.padding_h + kr, x0 = s * a.stride_w - a.padding_w + ks;
              if (y0 < 0 || x0 < 0 || y0 >= in[1] || x0 >= in[2]) continue;
              double x = In(i, 0)[U((c * in[1] + y0) * in[2] + x0)];
              best = max ? std::max(best, x) : best + x / static_cast<double>(a.kernel_h * a.kernel_w);
            }
          }
          y.push_back(best);
        }
      }
    }
    return y;
  }

  Vector GlobalPool(size_t i) {
    const model::Shape& in = InShape(i, 0);
    Vector y(U(in[0]), 0.0);
    auto area = U(in[1] * in[2]);
    for (size_t p = 0; p < In(i, 0).size(); ++p) y[p / area] += In(i, 0)[p] / static_cast<double>(area);
    return y;
  }

  Vector Concat(size_t i) {
    int64_t axis = graph_.nodes[i].attributes.axis;
    auto [outer, n, inner] = Extents(info_.shapes[i], axis);
    Vector y;
    for (size_t o = 0; o < outer; ++o) {
      for (size_t k = 0; k < graph_.nodes[i].inputs.size(); ++k) {
        size_t part = U(InShape(i, k)[U(axis)]) * inner;
        y.insert(y.end(), In(i, k).begin() + static_cast<std::ptrdiff_t>(o * part), In(i, k).begin() + static_cast<std::ptrdiff_t>((o + 1) * part));
      }
    }
    return y;
  }

  Vector Attention(size_t i) {
    auto rows = U(InShape(i, 0)[0]), keys = U(InShape(i, 1)[0]), width = U(InShape(i, 0)[1]), values = U(InShape(i, 2)[1]);
    auto heads = U(graph_.nodes[i].attributes.heads);
    Vector y(rows * values, 0.0);
    for (size_t h = 0; h < heads; ++h) {
      size_t dk = width / heads, dv = values / heads;
      for (size_t q = 0; q < rows; ++q) {
        Vector p(keys);
        double sum = 0;
        for (size_t k = 0; k < keys; ++k) {
          double dot = 0;
          for (size_t c = h * dk; c < (h + 1) * dk; ++c) dot += In(i, 0)[q * width + c] * In(i, 1)[k * width + c];
          bool seen = graph_.nodes[i].inputs.size() < 4 || In(i, 3)[k] != 0;
          sum += p[k] = seen ? std::exp(dot / std::sqrt(static_cast<double>(dk))) : 0;
        }
        for (size_t k = 0; k < keys; ++k) {
          for (size_t c = h * dv; c < (h + 1) * dv; ++c) y[q * values + c] += p[k] / sum * In(i, 2)[k * values + c];
        }
      }
    }
    return y;
  }

  Vector Segments(size_t i) {
    const model::Attributes& a = graph_.nodes[i].attributes;
    Vector out;
    int64_t separators = 0;
    for (double id : In(i, 0)) {
      out.push_back(static_cast<double>(std::min(separators, a.segments - 1)));
      separators += std::llround(id) == a.id;
    }
    return out;
  }

  Vector SequenceMean(size_t i) {
    auto rows = U(InShape(i, 0)[0]), width = U(InShape(i, 0)[1]);
    bool masked = graph_.nodes[i].inputs.size() == 2;
    Vector y(width, 0.0);
    double seen = 0;
    for (size_t r = 0; r < rows; ++r) {
      if (masked && In(i, 1)[r] == 0) continue;
      seen += 1;
      for (size_t c = 0; c < width; ++c) y[c] += In(i, 0)[r * width + c];
    }
    for (double& v : y) v /= std::max(seen, 1.0);
    return y;
  }

  model::Graph graph_;
  model::GraphInfo info_;
  const model::TensorMap& tensors_;
  std::vector<Vector> values_;
};

}  // namespace pare::methods
