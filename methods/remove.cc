#include "methods/remove.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "methods/constants.h"
#include "methods/coupling.h"
#include "methods/units.h"

namespace pare::methods {
namespace {

using model::Node;
using model::OpType;
using Indices = std::vector<int64_t>;

// The entries of `indices` along `axis`; both for tensors and, as bits, for masks.
model::Tensor Select(const model::Tensor& from, int axis, const Indices& indices) {
  model::Shape shape = from.shape();
  shape[static_cast<size_t>(axis)] = static_cast<int64_t>(indices.size());
  model::Tensor to(from.dtype(), shape);
  std::span<const float> in = from.values<float>();
  std::span<float> out = to.mutable_values<float>();
  for (size_t k = 0; k < indices.size(); ++k) {
    std::vector<size_t> targets;
    ForEachIndex(shape, {"", axis, static_cast<int64_t>(k)}, [&](int64_t i) { targets.push_back(static_cast<size_t>(i)); });
    size_t next = 0;
    ForEachIndex(from.shape(), {"", axis, indices[k]}, [&](int64_t i) { out[targets[next++]] = in[static_cast<size_t>(i)]; });
  }
  return to;
}

model::Mask Select(const model::Mask& from, int axis, const Indices& indices) {
  model::Shape shape = from.shape();
  shape[static_cast<size_t>(axis)] = static_cast<int64_t>(indices.size());
  model::Mask to(shape);
  for (size_t k = 0; k < indices.size(); ++k) {
    Indices targets;
    ForEachIndex(shape, {"", axis, static_cast<int64_t>(k)}, [&](int64_t i) { targets.push_back(i); });
    size_t next = 0;
    ForEachIndex(from.shape(), {"", axis, indices[k]}, [&](int64_t i) { to.set(targets[next++], from.keeps(i)); });
  }
  return to;
}

class Remover {
 public:
  Remover(Model& model, const std::set<std::string>& tensors) : model_(model), tensors_(tensors) {}

  Result<std::vector<Removal>> Run() {
    for (const Node& node : model_.graph.nodes) {
      if (tensors_.contains(node.name + ".weight")) order_.push_back(node.name);
    }
    ASSIGN_OR_RETURN(bool dropped, DropBranch());
    while (dropped) {
      ASSIGN_OR_RETURN(dropped, DropBranch());
    }
    TRY(Look());
    ChooseUnits();
    Rewrite();
    std::erase_if(model_.masks, [](const auto& entry) { return entry.second.kept() == entry.second.size(); });
    TRY(model::Analyze(model_.graph));
    return Report();
  }

 private:
  Status Look() {
    ASSIGN_OR_RETURN(info_, model::Analyze(model_.graph));
    coupling_ = CoupledUnits(model_.graph, info_);
    constants_ = ConstantFeatures(model_.graph, info_, coupling_, model_.tensors, model_.masks);
    return Ok();
  }

  // Drops one residual branch whose value is zero everywhere. False: there is none (more).
  Result<bool> DropBranch() {
    TRY(Look());
    for (const Branch& branch : ResidualBranches(model_.graph, info_)) {
      bool ours = std::all_of(branch.weights.begin(), branch.weights.end(), [&](const auto& t) { return tensors_.contains(t); });
      const auto& value = constants_[static_cast<size_t>(branch.nodes.back())];
      if (!ours || !std::all_of(value.begin(), value.end(), [](double c) { return c == 0.0; })) continue;
      Drop(branch);
      return true;
    }
    return false;
  }

  void Drop(const Branch& branch) {
    for (const auto* names : {&branch.weights, &branch.own}) {
      for (const std::string& name : *names) model_.masks.erase(name);
    }
    for (const model::TensorSpec& spec : info_.tensors) {
      int owner = model_.graph.IndexOf(spec.node);
      if (!std::binary_search(branch.nodes.begin(), branch.nodes.end(), owner)) continue;
      model_.tensors.erase(spec.name);
      if (tensors_.contains(spec.name)) removals_[spec.node] = {spec.node, spec.shape[0], 0, ""};
    }
    Node& add = model_.graph.nodes[static_cast<size_t>(branch.add)];
    add.inputs.erase(add.inputs.begin() + static_cast<std::ptrdiff_t>(branch.input));
    std::set<int> gone(branch.nodes.begin(), branch.nodes.end());
    if (add.inputs.size() == 1) {
      gone.insert(branch.add);
      for (Node& node : model_.graph.nodes) std::replace(node.inputs.begin(), node.inputs.end(), add.name, add.inputs[0]);
      if (model_.graph.output == add.name) model_.graph.output = add.inputs[0];
    }
    std::vector<Node> left;
    for (size_t i = 0; i < model_.graph.nodes.size(); ++i) {
      if (!gone.contains(static_cast<int>(i))) left.push_back(std::move(model_.graph.nodes[i]));
    }
    model_.graph.nodes = std::move(left);
  }

  // Why a masked unit has to stay, by the nodes that it passes; empty: it can go.
  void FindObstacles(std::vector<std::string>& obstacles) const {
    for (size_t i = 0; i < model_.graph.nodes.size(); ++i) {
      for (size_t f = 0; f < constants_[i].size(); ++f) {
        auto unit = static_cast<size_t>(coupling_.features[i][f]);
        if (std::isnan(constants_[i][f]) && obstacles[unit].empty()) {
          obstacles[unit] = "its value is not constant at '" + model_.graph.nodes[i].name + "'";
        }
      }
      const Node& node = model_.graph.nodes[i];
      if (node.op != OpType::kConv2d || node.attributes.groups != 1) continue;
      if (node.attributes.padding_h == 0 && node.attributes.padding_w == 0) continue;
      auto in = static_cast<size_t>(model_.graph.IndexOf(node.inputs[0]));
      for (size_t f = 0; f < constants_[in].size(); ++f) {
        auto unit = static_cast<size_t>(coupling_.features[in][f]);
        if (!std::isnan(constants_[in][f]) && constants_[in][f] != 0.0 && obstacles[unit].empty()) {
          obstacles[unit] = "its value is " + std::to_string(constants_[in][f]) + ", and convolution '" + node.name + "' reads it with padding";
        }
      }
    }
  }

  void ChooseUnits() {
    gone_.assign(coupling_.units.size(), false);
    std::vector<std::string> obstacles(coupling_.units.size());
    FindObstacles(obstacles);
    std::map<std::string, int64_t> width;
    for (const Unit& unit : coupling_.units) {
      for (const Slice& slice : unit.weights) ++width[slice.tensor];
    }
    // From the last one, so that it is the first that stays of a layer that is masked as a whole.
    for (size_t u = coupling_.units.size(); u-- > 0;) {
      const Unit& unit = coupling_.units[u];
      if (unit.weights.empty()) continue;
      if (!unit.fixed.empty()) obstacles[u] = unit.fixed;
      bool masked = std::all_of(unit.weights.begin(), unit.weights.end(), [&](const Slice& s) { return tensors_.contains(s.tensor) && IsMasked(model_.masks, s); });
      if (!masked) continue;
      std::map<std::string, int64_t> slices;
      for (const Slice& slice : unit.weights) ++slices[slice.tensor];
      bool last = std::any_of(slices.begin(), slices.end(), [&](const auto& s) { return s.second >= width.at(s.first); });
      if (last && obstacles[u].empty()) obstacles[u] = "it is the only one left";
      if (!obstacles[u].empty()) {
        for (const auto& [tensor, count] : slices) stayed_[tensor] = obstacles[u];
        continue;
      }
      gone_[u] = true;
      for (const auto& [tensor, count] : slices) width[tensor] -= count;
    }
  }

  Indices KeptOf(size_t node) const {
    Indices kept;
    for (size_t f = 0; f < coupling_.features[node].size(); ++f) {
      if (!gone_[static_cast<size_t>(coupling_.features[node][f])]) kept.push_back(static_cast<int64_t>(f));
    }
    return kept;
  }

  void SelectOf(const std::string& name, int axis, const Indices& indices) {
    auto tensor = model_.tensors.find(name);
    if (tensor == model_.tensors.end() || tensor->second.shape()[static_cast<size_t>(axis)] == static_cast<int64_t>(indices.size())) return;
    tensor->second = Select(tensor->second, axis, indices);
    if (auto mask = model_.masks.find(name); mask != model_.masks.end()) mask->second = Select(mask->second, axis, indices);
  }

  // Adds to the bias what the removed inputs contributed. Before the weight shrinks.
  void FoldConstants(Node& node, size_t in) {
    const model::Tensor& weight = model_.tensors.at(node.name + ".weight");
    int64_t rows = weight.shape()[0], inputs = weight.shape()[1], each = weight.size() / (rows * inputs);
    std::vector<double> sums(static_cast<size_t>(rows), 0.0);
    for (int64_t o = 0; o < rows; ++o) {
      for (int64_t j = 0; j < inputs; ++j) {
        if (!gone_[static_cast<size_t>(coupling_.features[in][static_cast<size_t>(j)])]) continue;
        double c = constants_[in][static_cast<size_t>(j)];
        for (int64_t k = 0; k < each && c != 0.0; ++k) sums[static_cast<size_t>(o)] += c * weight.values<float>()[static_cast<size_t>((o * inputs + j) * each + k)];
      }
    }
    if (std::all_of(sums.begin(), sums.end(), [](double s) { return s == 0.0; })) return;
    model::Tensor bias(model::DType::kF32, {rows});
    for (int64_t o = 0; o < rows; ++o) {
      double before = node.attributes.bias ? model_.tensors.at(node.name + ".bias").values<float>()[static_cast<size_t>(o)] : 0.0;
      bias.mutable_values<float>()[static_cast<size_t>(o)] = static_cast<float>(before + sums[static_cast<size_t>(o)]);
    }
    node.attributes.bias = true;
    model_.tensors.insert_or_assign(node.name + ".bias", std::move(bias));
    // A bias that a mask holds at zero is one no longer where the readers of a removed unit put its constant.
    if (auto mask = model_.masks.find(node.name + ".bias"); mask != model_.masks.end()) {
      for (int64_t o = 0; o < rows; ++o) {
        if (sums[static_cast<size_t>(o)] != 0.0) mask->second.set(o, true);
      }
    }
  }

  void Rewrite() {
    for (size_t i = 0; i < model_.graph.nodes.size(); ++i) {
      Node& node = model_.graph.nodes[i];
      Indices out = KeptOf(i);
      auto width = static_cast<int64_t>(out.size());
      model::Attributes& a = node.attributes;
      size_t in = node.inputs.empty() ? 0 : static_cast<size_t>(model_.graph.IndexOf(node.inputs[0]));
      switch (node.op) {
        case OpType::kLinear:
        case OpType::kConv2d: RewriteWeights(node, in, out); break;
        case OpType::kBatchNorm2d:
          a.features = width;
          for (const char* role : {".weight", ".bias", ".running_mean", ".running_var"}) SelectOf(node.name + role, 0, out);
          break;
        case OpType::kEmbedding:
          a.dimension = width;
          SelectOf(node.name + ".weight", 1, out);
          break;
        case OpType::kReshape: a.shape[static_cast<size_t>(coupling_.axes[i])] = width; break;
        case OpType::kAttention:
          a.heads = a.heads * width / static_cast<int64_t>(coupling_.features[i].size());
          break;
        default: break;
      }
    }
  }

  void RewriteWeights(Node& node, size_t in, const Indices& out) {
    model::Attributes& a = node.attributes;
    Indices inputs = KeptOf(in);
    bool linear = node.op == OpType::kLinear;
    if (!linear && a.groups > 1) {
      a.groups = a.groups * static_cast<int64_t>(inputs.size()) / a.in_channels;  // whole groups go
    } else if (static_cast<int64_t>(inputs.size()) != (linear ? a.in_features : a.in_channels)) {
      FoldConstants(node, in);
      SelectOf(node.name + ".weight", 1, inputs);
    }
    int64_t before = linear ? a.out_features : a.out_channels;
    (linear ? a.in_features : a.in_channels) = static_cast<int64_t>(inputs.size());
    (linear ? a.out_features : a.out_channels) = static_cast<int64_t>(out.size());
    SelectOf(node.name + ".weight", 0, out);
    SelectOf(node.name + ".bias", 0, out);
    if (tensors_.contains(node.name + ".weight")) removals_[node.name] = {node.name, before, static_cast<int64_t>(out.size()), ""};
  }

  std::vector<Removal> Report() {
    std::vector<Removal> report;
    for (const std::string& node : order_) {
      auto removal = removals_.find(node);
      if (removal == removals_.end()) continue;
      if (auto stayed = stayed_.find(node + ".weight"); stayed != stayed_.end()) removal->second.stayed = stayed->second;
      report.push_back(removal->second);
    }
    return report;
  }

  Model& model_;
  const std::set<std::string>& tensors_;
  std::vector<std::string> order_;
  model::GraphInfo info_;
  Coupling coupling_;
  std::vector<std::vector<double>> constants_;
  std::vector<bool> gone_;                      // by unit
  std::map<std::string, std::string> stayed_;   // by tensor: why masked units stay
  std::map<std::string, Removal> removals_;     // by layer
};

}  // namespace

Result<std::vector<Removal>> RemoveMaskedUnits(Model& model, const std::set<std::string>& tensors) { return Remover(model, tensors).Run(); }

Result<Model> Remove(Model model, const Json& params, Toolbox& toolbox) {
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(model.graph));
  Result<std::vector<model::TensorSpec>> specs = PresentTensors(params, info);
  if (!specs.ok()) return specs.error().With("remove");
  std::set<std::string> tensors;
  for (const model::TensorSpec& spec : *specs) tensors.insert(spec.name);
  ASSIGN_OR_RETURN(std::vector<Removal> removals, RemoveMaskedUnits(model, tensors));
  for (const Removal& r : removals) {
    Json what = {{"before", r.before}, {"after", r.after}};
    if (r.after == 0) what["removed"] = true;
    if (!r.stayed.empty()) what["stayed"] = r.stayed;
    toolbox.Report(r.layer, std::move(what));
  }
  return model;
}

Result<Outline> OutlineRemove(Outline outline, const Json& params) {
  ASSIGN_OR_RETURN(std::vector<LayerOutline*> layers, LayersOf(outline, params.at("tensors")));
  TRY(CheckFloat(outline, layers, "remove"));
  bool masked = false, units = false;
  for (LayerOutline* layer : layers) {
    if (!layer->masked) continue;
    masked = true;
    units = units || layer->width < 1 || layer->density == 0;
    outline.reshaped = true;
    if (layer->width >= 1) continue;
    // Rows go, and about as many columns of the layer behind; biases and norms are small.
    layer->weights *= layer->width;
    layer->multiply_adds *= layer->width;
    layer->density = std::min(1.0, layer->density / layer->width);
    layer->width = 1;
    layer->masked = layer->density < 1;
  }
  if (!masked) {
    return Error{ErrorCode::kInvalid, "remove: no step before it masks any of these layers; put prune with granularity: channel, head or layer first"};
  }
  if (!units) {
    outline.doubts.push_back("no step before it prunes whole units, so only those go whose every weight happens to be masked; for more, prune with granularity: channel, head or layer");
  }
  return outline;
}

}  // namespace pare::methods
