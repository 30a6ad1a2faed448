#include "methods/low_rank.h"

#include <algorithm>

namespace pare::methods {
namespace {

using model::Attributes;
using model::Node;
using model::OpType;
using model::Tensor;

Error Invalid(std::string message) { return {ErrorCode::kInvalid, std::move(message)}; }

std::string NodeOf(const std::string& tensor) { return tensor.substr(0, tensor.rfind('.')); }

// Element ((o, x), (c, y)) of the spatial form of weight [out, in, kh, kw].
template <typename Visit>
void ForSpatial(const model::Shape& w, Visit&& visit) {
  for (int64_t o = 0, i = 0; o < w[0]; ++o) {
    for (int64_t c = 0; c < w[1]; ++c) {
      for (int64_t y = 0; y < w[2]; ++y) {
        for (int64_t x = 0; x < w[3]; ++x, ++i) visit(static_cast<size_t>(i), static_cast<size_t>((o * w[3] + x) * w[1] * w[2] + c * w[2] + y));
      }
    }
  }
}

// The two nodes in place of `node`.
std::pair<Node, Node> Split(const Node& node, int64_t rank, ConvForm form) {
  const Attributes& a = node.attributes;
  Node down{node.name + ".down", node.op, node.inputs, a}, up{node.name + ".up", node.op, {node.name + ".down"}, {}};
  down.attributes.bias = false;
  up.attributes.bias = a.bias;
  if (node.op == OpType::kLinear) {
    down.attributes.out_features = up.attributes.in_features = rank;
    up.attributes.out_features = a.out_features;
    return {down, up};
  }
  down.attributes.out_channels = up.attributes.in_channels = rank;
  up.attributes.out_channels = a.out_channels;
  if (form == ConvForm::kSpatial) {
    down.attributes.kernel_w = down.attributes.stride_w = 1;
    down.attributes.padding_w = 0;
    up.attributes.kernel_w = a.kernel_w;
    up.attributes.stride_w = a.stride_w;
    up.attributes.padding_w = a.padding_w;
  }
  return {down, up};
}

// The first `rank` columns of up and rows of down, in the shapes of the two nodes.
std::pair<Tensor, Tensor> Weights(const Node& node, const Factors& f, ConvForm form) {
  const Attributes& a = node.attributes;
  int64_t stored = f.up.shape()[1], rows = f.up.shape()[0], columns = f.down.shape()[1], r = f.rank;
  bool linear = node.op == OpType::kLinear, spatial = !linear && form == ConvForm::kSpatial;
  model::Shape up_shape = {rows, r}, down_shape = {r, columns};
  if (!linear) {
    up_shape = spatial ? model::Shape{a.out_channels, r, 1, a.kernel_w} : model::Shape{a.out_channels, r, 1, 1};
    down_shape = {r, a.in_channels, a.kernel_h, spatial ? 1 : a.kernel_w};
  }
  Tensor up(model::DType::kF32, up_shape), down(model::DType::kF32, down_shape);
  auto from_up = f.up.values<float>(), from_down = f.down.values<float>();
  auto to_up = up.mutable_values<float>(), to_down = down.mutable_values<float>();
  std::copy_n(from_down.begin(), r * columns, to_down.begin());
  int64_t kw = spatial ? a.kernel_w : 1;
  for (int64_t row = 0; row < rows; ++row) {
    int64_t o = row / kw, x = row % kw;
    for (int64_t k = 0; k < r; ++k) to_up[static_cast<size_t>((o * r + k) * kw + x)] = from_up[static_cast<size_t>(row * stored + k)];
  }
  return {up, down};
}

}  // namespace

Result<ConvForm> ConvFormFromString(std::string_view name) {
  if (name == "channel") return ConvForm::kChannel;
  if (name == "spatial") return ConvForm::kSpatial;
  return Invalid("conv: '" + std::string(name) + "' is not one of channel, spatial");
}

std::string_view ToString(ConvForm form) { return form == ConvForm::kChannel ? "channel" : "spatial"; }

Result<MatrixForm> FormOf(const model::Graph& graph, const model::GraphInfo& info, const std::string& name, ConvForm form) {
  auto spec = std::find_if(info.tensors.begin(), info.tensors.end(), [&](const auto& s) { return s.name == name; });
  if (spec == info.tensors.end() || !spec->prunable) return Invalid("low_rank: the model has no weight " + name);
  auto index = static_cast<size_t>(graph.IndexOf(spec->node));
  const Node& node = graph.nodes[index];
  const Attributes& a = node.attributes;
  if (graph.Find(node.name + ".lora_sum") != nullptr) {
    return Invalid("low_rank: " + node.name + " carries an adapter; merge it first (a merge step, or lora with merge: true)");
  }
  const model::Shape& out = info.shapes[index];
  MatrixForm m;
  m.multiply_adds = info.counts[index].multiply_adds;
  if (node.op == OpType::kLinear) {
    m.rows = a.out_features, m.columns = a.in_features;
    m.multiply_adds_per_rank = model::ElementCount(out) / a.out_features * (m.rows + m.columns);
    return m;
  }
  if (node.op != OpType::kConv2d) {
    return Invalid("low_rank: " + name + " belongs to " + std::string(model::ToString(node.op)) + "; linear and conv2d can be factored. Add it to ignore");
  }
  if (a.groups != 1) {
    return Invalid("low_rank: " + node.name + " has " + std::to_string(a.groups) + " groups, each far smaller than its break-even. Add it to ignore");
  }
  int64_t positions = out[1] * out[2];
  if (form == ConvForm::kChannel) {
    m.rows = a.out_channels, m.columns = a.in_channels * a.kernel_h * a.kernel_w;
    m.multiply_adds_per_rank = positions * (m.rows + m.columns);
  } else {
    m.rows = a.out_channels * a.kernel_w, m.columns = a.in_channels * a.kernel_h;
    int64_t width = info.shapes[static_cast<size_t>(graph.IndexOf(node.inputs[0]))][2];
    m.multiply_adds_per_rank = out[1] * width * m.columns + positions * m.rows;
  }
  return m;
}

std::string OutputWeight(const model::Graph& graph, const model::GraphInfo& info) {
  for (const Node* node = graph.Find(graph.output); node != nullptr; node = node->inputs.size() == 1 ? graph.Find(node->inputs[0]) : nullptr) {
    for (const model::TensorSpec& spec : info.tensors) {
      if (spec.node == node->name && spec.prunable) return spec.name;
    }
  }
  return "";
}

Tensor AsMatrix(const Node& node, const Tensor& weight, ConvForm form) {
  const model::Shape& w = weight.shape();
  if (node.op == OpType::kLinear) return weight;
  if (form == ConvForm::kChannel) return Tensor(weight.dtype(), {w[0], w[1] * w[2] * w[3]}, weight.bytes(), weight.keep_alive());
  Tensor matrix(model::DType::kF32, {w[0] * w[3], w[1] * w[2]});
  auto from = weight.values<float>();
  auto to = matrix.mutable_values<float>();
  ForSpatial(w, [&](size_t i, size_t at) { to[at] = from[i]; });
  return matrix;
}

int64_t LargestRank(int64_t rows, int64_t columns, int64_t kept) { return std::max<int64_t>(0, (kept - 1) / (rows + columns)); }

Result<Model> Factor(Model model, const std::vector<Factors>& factors, ConvForm form) {
  for (const Factors& f : factors) {
    std::string name = NodeOf(f.tensor);
    int index = model.graph.IndexOf(name);
    CHECK(index >= 0 && f.rank >= 1 && f.up.shape()[1] >= f.rank && f.down.shape()[0] >= f.rank);
    const Node node = model.graph.nodes[static_cast<size_t>(index)];
    auto [down, up] = Split(node, f.rank, form);
    for (const Node* made : {&down, &up}) {
      if (model.graph.Find(made->name) != nullptr) return Invalid("low_rank: " + name + ": the model has a node " + made->name + " already");
    }
    for (Node& reader : model.graph.nodes) std::replace(reader.inputs.begin(), reader.inputs.end(), name, up.name);
    if (model.graph.output == name) model.graph.output = up.name;
    auto [up_weight, down_weight] = Weights(node, f, form);
    model.tensors.erase(f.tensor);
    // The factors fill what was masked; a bias that stayed masked beside them would hold units at zero that live again.
    model.masks.erase(f.tensor);
    model.masks.erase(name + ".bias");
    if (auto bias = model.tensors.find(name + ".bias"); bias != model.tensors.end()) {
      model.tensors.emplace(up.name + ".bias", bias->second);
      model.tensors.erase(name + ".bias");
    }
    model.tensors.emplace(down.name + ".weight", std::move(down_weight));
    model.tensors.emplace(up.name + ".weight", std::move(up_weight));
    model.graph.nodes[static_cast<size_t>(index)] = std::move(down);
    model.graph.nodes.insert(model.graph.nodes.begin() + index + 1, std::move(up));
  }
  return model;
}

}  // namespace pare::methods
