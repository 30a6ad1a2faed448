#include "methods/coupling.h"

#include <algorithm>
#include <map>
#include <numeric>

namespace pare::methods {
namespace {

using model::Node;
using model::OpType;
using model::Shape;

class Walk {
 public:
  Walk(const model::Graph& graph, const model::GraphInfo& info) : graph_(graph), info_(info) {}

  Coupling Run() {
    for (size_t i = 0; i < graph_.nodes.size(); ++i) Visit(i);
    Fix(graph_.IndexOf(graph_.output), "the model's output is made of it");
    return Finish();
  }

 private:
  struct Element {
    std::vector<Slice> weights, own;
    bool head = false;
    std::string fixed;
  };
  using Features = std::vector<int>;

  const Shape& shape(size_t node) const { return info_.shapes[node]; }
  size_t input(size_t node, size_t i) const { return static_cast<size_t>(graph_.IndexOf(graph_.nodes[node].inputs[i])); }

  int NewElement() {
    parents_.push_back(static_cast<int>(parents_.size()));
    elements_.emplace_back();
    return parents_.back();
  }
  Features NewFeatures(int64_t n) {
    Features f(static_cast<size_t>(n));
    for (int& e : f) e = NewElement();
    return f;
  }
  int Find(int e) {
    while (parents_[static_cast<size_t>(e)] != e) {
      int& parent = parents_[static_cast<size_t>(e)];
      parent = parents_[static_cast<size_t>(parent)];
      e = parent;
    }
    return e;
  }
  void Unite(int a, int b) {
    a = Find(a), b = Find(b);
    if (a == b) return;
    if (a > b) std::swap(a, b);  // the older one names the set
    Element &to = elements_[static_cast<size_t>(a)], &from = elements_[static_cast<size_t>(b)];
    to.weights.insert(to.weights.end(), from.weights.begin(), from.weights.end());
    to.own.insert(to.own.end(), from.own.begin(), from.own.end());
    to.head = to.head || from.head;
    if (to.fixed.empty()) to.fixed = std::move(from.fixed);
    from = {};
    parents_[static_cast<size_t>(b)] = a;
  }
  void Unite(const Features& a, const Features& b) {
    for (size_t i = 0; i < a.size(); ++i) Unite(a[i], b[i]);
  }
  void Fix(int node, const std::string& why) {
    for (int e : features_[static_cast<size_t>(node)]) {
      std::string& fixed = elements_[static_cast<size_t>(Find(e))].fixed;
      if (fixed.empty()) fixed = why;
    }
  }
  static int LastAxis(const Shape& s) { return static_cast<int>(s.size()) - 1; }
  void Set(int axis, Features features) {
    axes_.push_back(axis);
    features_.push_back(std::move(features));
  }

  void Visit(size_t i) {
    const Node& node = graph_.nodes[i];
    if (node.attributes.encoding != model::Encoding::kDense) return Opaque(i, "the weights of '" + node.name + "' are not float32 any more");
    switch (node.op) {
      case OpType::kInput: {
        int axis = shape(i).size() == 3 ? 0 : LastAxis(shape(i));
        Set(axis, NewFeatures(shape(i)[static_cast<size_t>(axis)]));
        return Fix(static_cast<int>(i), "it is the model's input");
      }
      case OpType::kLinear: return Linear(i);
      case OpType::kConv2d: return Convolution(i);
      case OpType::kEmbedding: return Embedding(i);
      case OpType::kBatchNorm2d: return BatchNorm(i);
      case OpType::kFlatten:
      case OpType::kReshape: return Reshape(i);
      case OpType::kAdd: return Add(i);
      case OpType::kConcat: return Concat(i);
      case OpType::kAttention: return Attention(i);
      case OpType::kRelu: case OpType::kGelu: case OpType::kTanh: case OpType::kSigmoid: case OpType::kSilu: case OpType::kDropout:
        return Set(axes_[input(i, 0)], features_[input(i, 0)]);
      case OpType::kMaxPool2d: case OpType::kAvgPool2d: case OpType::kGlobalAvgPool2d:
        if (axes_[input(i, 0)] == 0) return Set(0, features_[input(i, 0)]);
        return Opaque(i, "node '" + node.name + "' does not take its features as channels");
      case OpType::kFirst: case OpType::kSequenceMean:
        if (axes_[input(i, 0)] == 1) return Set(0, features_[input(i, 0)]);
        return Opaque(i, "node '" + node.name + "' does not take its features last");
      case OpType::kLayerNorm: return Opaque(i, "layer norm '" + node.name + "' takes mean and deviation over it");
      default: return Opaque(i, "operator '" + node.name + "' (" + std::string(model::ToString(node.op)) + ") needs all of it");
    }
  }

  // All inputs and the value keep their features.
  void Opaque(size_t i, const std::string& why) {
    for (size_t k = 0; k < graph_.nodes[i].inputs.size(); ++k) Fix(static_cast<int>(input(i, k)), why);
    int axis = shape(i).size() == 3 && axes_[input(i, 0)] == 0 ? 0 : LastAxis(shape(i));
    Set(axis, NewFeatures(shape(i)[static_cast<size_t>(axis)]));
    Fix(static_cast<int>(i), why);
  }

  void AddRow(int element, const std::string& node, bool bias, int64_t row) {
    Element& e = elements_[static_cast<size_t>(Find(element))];
    e.weights.push_back({node + ".weight", 0, row});
    if (bias) e.own.push_back({node + ".bias", 0, row});
  }

  void Linear(size_t i) {
    const Node& node = graph_.nodes[i];
    size_t in = input(i, 0);
    if (axes_[in] != LastAxis(shape(in))) return Opaque(i, "linear '" + node.name + "' works on another dimension of it");
    Set(LastAxis(shape(i)), NewFeatures(node.attributes.out_features));
    for (int64_t o = 0; o < node.attributes.out_features; ++o) AddRow(features_[i][static_cast<size_t>(o)], node.name, node.attributes.bias, o);
  }

  void Convolution(size_t i) {
    const Node& node = graph_.nodes[i];
    const model::Attributes& a = node.attributes;
    size_t in = input(i, 0);
    if (axes_[in] != 0) return Opaque(i, "convolution '" + node.name + "' works on another dimension of it");
    Set(0, NewFeatures(a.out_channels));
    for (int64_t o = 0; o < a.out_channels; ++o) AddRow(features_[i][static_cast<size_t>(o)], node.name, a.bias, o);
    if (a.groups == 1) return;
    int64_t per_in = a.in_channels / a.groups, per_out = a.out_channels / a.groups;
    for (int64_t g = 0; g < a.groups; ++g) {
      int first = features_[in][static_cast<size_t>(g * per_in)];
      for (int64_t c = 0; c < per_in; ++c) Unite(first, features_[in][static_cast<size_t>(g * per_in + c)]);
      for (int64_t o = 0; o < per_out; ++o) Unite(first, features_[i][static_cast<size_t>(g * per_out + o)]);
    }
  }

  void Embedding(size_t i) {
    const Node& node = graph_.nodes[i];
    Fix(static_cast<int>(input(i, 0)), "it is looked up in '" + node.name + "'");
    Set(LastAxis(shape(i)), NewFeatures(node.attributes.dimension));
    for (int64_t d = 0; d < node.attributes.dimension; ++d) {
      elements_[static_cast<size_t>(features_[i][static_cast<size_t>(d)])].weights.push_back({node.name + ".weight", 1, d});
    }
  }

  void BatchNorm(size_t i) {
    const Node& node = graph_.nodes[i];
    if (axes_[input(i, 0)] != 0) return Opaque(i, "batch norm '" + node.name + "' works on another dimension of it");
    Set(0, features_[input(i, 0)]);
    for (size_t c = 0; c < features_[i].size(); ++c) {
      Element& e = elements_[static_cast<size_t>(Find(features_[i][c]))];
      for (const char* role : {".weight", ".bias"}) e.own.push_back({node.name + role, 0, static_cast<int64_t>(c)});
    }
  }

  // Position p of the value is position p of the input: features of the value that hold the same ones go together.
  void Reshape(size_t i) {
    size_t in = input(i, 0);
    const Shape &from = shape(in), &to = shape(i);
    int axis = to.size() == 3 ? 0 : LastAxis(to);
    auto stride = [](const Shape& s, int a) { return model::ElementCount(Shape(s.begin() + a + 1, s.end())); };
    int64_t from_stride = stride(from, axes_[in]), to_stride = stride(to, axis);
    int64_t from_size = from[static_cast<size_t>(axes_[in])], to_size = to[static_cast<size_t>(axis)];
    Features out(static_cast<size_t>(to_size), -1);
    for (int64_t p = 0; p < model::ElementCount(to); ++p) {
      int e = features_[in][static_cast<size_t>(p / from_stride % from_size)];
      int& target = out[static_cast<size_t>(p / to_stride % to_size)];
      if (target < 0) target = e;
      else if (target != e) Unite(target, e);
    }
    Set(axis, std::move(out));
  }

  void Add(size_t i) {
    size_t first = input(i, 0);
    for (size_t k = 1; k < graph_.nodes[i].inputs.size(); ++k) {
      if (axes_[input(i, k)] != axes_[first]) return Opaque(i, "'" + graph_.nodes[i].name + "' adds it to another dimension");
      Unite(features_[first], features_[input(i, k)]);
    }
    Set(axes_[first], features_[first]);
  }

  void Concat(size_t i) {
    const Node& node = graph_.nodes[i];
    int axis = axes_[input(i, 0)];
    Features all;
    for (size_t k = 0; k < node.inputs.size(); ++k) {
      const Features& f = features_[input(i, k)];
      if (axes_[input(i, k)] != axis) return Opaque(i, "'" + node.name + "' joins it with another dimension");
      if (node.attributes.axis == axis) all.insert(all.end(), f.begin(), f.end());
      else if (k > 0) Unite(features_[input(i, 0)], f);
    }
    Set(axis, node.attributes.axis == axis ? all : features_[input(i, 0)]);
  }

  void Attention(size_t i) {
    const Node& node = graph_.nodes[i];
    for (size_t k = 0; k < node.inputs.size(); ++k) {
      bool last = axes_[input(i, k)] == LastAxis(shape(input(i, k)));
      if (k < 3 && !last) return Opaque(i, "attention '" + node.name + "' works on another dimension of it");
      if (k == 3) Fix(static_cast<int>(input(i, k)), "it is the key mask of '" + node.name + "'");
    }
    for (int64_t h = 0; h < node.attributes.heads; ++h) {
      int first = -1;
      for (size_t k = 0; k < 3; ++k) {
        const Features& f = features_[input(i, k)];
        size_t width = f.size() / static_cast<size_t>(node.attributes.heads), begin = static_cast<size_t>(h) * width;
        if (first < 0) first = f[begin];
        for (size_t c = begin; c < begin + width; ++c) Unite(first, f[c]);
      }
      elements_[static_cast<size_t>(Find(first))].head = true;
    }
    Set(LastAxis(shape(i)), features_[input(i, 2)]);
  }

  Coupling Finish() {
    std::map<std::string, size_t> order;
    for (size_t t = 0; t < info_.tensors.size(); ++t) order[info_.tensors[t].name] = t;
    auto before = [&](const Slice& a, const Slice& b) {
      size_t x = order.at(a.tensor), y = order.at(b.tensor);
      return x != y ? x < y : a.index < b.index;
    };
    Coupling result;
    std::vector<int> ids(parents_.size(), -1);
    for (size_t e = 0; e < parents_.size(); ++e) {
      if (Find(static_cast<int>(e)) != static_cast<int>(e)) continue;
      ids[e] = static_cast<int>(result.units.size());
      Element& from = elements_[e];
      for (auto* slices : {&from.weights, &from.own}) {
        std::sort(slices->begin(), slices->end(), before);
        slices->erase(std::unique(slices->begin(), slices->end()), slices->end());
      }
      result.units.push_back({ids[e], std::move(from.weights), std::move(from.own), from.head, std::move(from.fixed)});
    }
    for (Features& f : features_) {
      for (int& e : f) e = ids[static_cast<size_t>(Find(e))];
    }
    result.features = std::move(features_);
    result.axes = std::move(axes_);
    return result;
  }

  const model::Graph& graph_;
  const model::GraphInfo& info_;
  std::vector<int> parents_;
  std::vector<Element> elements_;
  std::vector<Features> features_;
  std::vector<int> axes_;
};

}  // namespace

Coupling CoupledUnits(const model::Graph& graph, const model::GraphInfo& info) { return Walk(graph, info).Run(); }

std::vector<UnitClass> ClassesOf(const Coupling& coupling, bool heads) {
  std::vector<UnitClass> classes;
  std::map<std::vector<std::string>, size_t> known;
  for (const Unit& unit : coupling.units) {
    if (unit.weights.empty() || !unit.fixed.empty() || unit.head != heads) continue;
    std::vector<std::string> tensors;
    for (const Slice& slice : unit.weights) {
      if (tensors.empty() || tensors.back() != slice.tensor) tensors.push_back(slice.tensor);
    }
    auto [it, fresh] = known.try_emplace(tensors, classes.size());
    if (fresh) classes.push_back({tensors, {}});
    classes[it->second].units.push_back(&unit);
  }
  return classes;
}

std::vector<Branch> ResidualBranches(const model::Graph& graph, const model::GraphInfo& info) {
  std::vector<std::vector<int>> readers(graph.nodes.size());  // one entry per use
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    for (const std::string& name : graph.nodes[i].inputs) readers[static_cast<size_t>(graph.IndexOf(name))].push_back(static_cast<int>(i));
  }
  const int output = graph.IndexOf(graph.output);
  std::vector<Branch> branches;
  for (size_t add = 0; add < graph.nodes.size(); ++add) {
    const Node& node = graph.nodes[add];
    if (node.op != OpType::kAdd) continue;
    std::vector<Branch> here;
    std::vector<int64_t> sizes;
    for (size_t k = 0; k < node.inputs.size(); ++k) {
      Branch branch{static_cast<int>(add), k, {}, {}, {}};
      int top = graph.IndexOf(node.inputs[k]);
      std::vector<bool> inside(add, false);
      for (int n = top; n >= 0; --n) {
        const std::vector<int>& uses = readers[static_cast<size_t>(n)];
        bool exclusive = n == top ? uses.size() == 1
                                  : !uses.empty() && std::all_of(uses.begin(), uses.end(), [&](int u) { return u < static_cast<int>(add) && inside[static_cast<size_t>(u)]; });
        if (!exclusive || n == output || graph.nodes[static_cast<size_t>(n)].op == OpType::kInput) {
          if (n == top) break;
          continue;
        }
        inside[static_cast<size_t>(n)] = true;
        branch.nodes.insert(branch.nodes.begin(), n);
      }
      int64_t size = 0;
      for (const model::TensorSpec& spec : info.tensors) {
        auto owner = static_cast<size_t>(graph.IndexOf(spec.node));
        if (owner >= add || !inside[owner] || !spec.trainable) continue;
        (spec.prunable ? branch.weights : branch.own).push_back(spec.name);
        size += spec.prunable ? model::ElementCount(spec.shape) : 0;
      }
      if (branch.weights.empty()) continue;
      here.push_back(std::move(branch));
      sizes.push_back(size);
    }
    if (here.size() == node.inputs.size()) here.erase(here.begin() + (std::min_element(sizes.rbegin(), sizes.rend()).base() - 1 - sizes.begin()));
    branches.insert(branches.end(), std::make_move_iterator(here.begin()), std::make_move_iterator(here.end()));
  }
  return branches;
}

}  // namespace pare::methods
