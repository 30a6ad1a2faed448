// Compiled with -ffp-contract=off: a merged weight has the same bits everywhere.
#include "methods/lora.h"

#include <algorithm>
#include <cmath>

#include "common/random.h"
#include "methods/nf4.h"
#include "model/encoding.h"

namespace pare::methods {
namespace {

using model::Node;
using model::OpType;
using model::Tensor;

constexpr const char* kA = ".lora_a";
constexpr const char* kB = ".lora_b";
constexpr const char* kScale = ".lora_scale";
constexpr const char* kSum = ".lora_sum";
// Of one weight in NF4 with double quantization, before a checkpoint's coding.
constexpr double kNf4Bits = 4.127;

Error Invalid(std::string message) { return {ErrorCode::kInvalid, std::move(message)}; }

// Why a node stays without an adapter; empty: it gets one.
std::string WhyNot(const Node& base, int64_t rank) {
  if (base.op != OpType::kLinear) return "it is " + std::string(model::ToString(base.op)) + ", and adapters are for linear layers";
  int64_t in = base.attributes.in_features, out = base.attributes.out_features;
  if (rank < std::min(in, out)) return "";
  return "it is " + std::to_string(out) + "x" + std::to_string(in) + ", where rank " + std::to_string(rank) + " is no low rank (below " +
         std::to_string(std::min(in, out)) + " is)";
}

void AddAdapter(Model& model, const std::string& name, uint64_t ordinal, const LoraOptions& options, uint64_t seed) {
  int index = model.graph.IndexOf(name);
  const Node base = model.graph.nodes[static_cast<size_t>(index)];
  int64_t in = base.attributes.in_features, out = base.attributes.out_features, r = options.rank;
  for (Node& reader : model.graph.nodes) std::replace(reader.inputs.begin(), reader.inputs.end(), name, name + kSum);
  if (model.graph.output == name) model.graph.output = name + kSum;
  std::vector<Node> made = {
      {name + kA, OpType::kLinear, base.inputs, {.in_features = in, .out_features = r, .bias = false}},
      {name + kB, OpType::kLinear, {name + kA}, {.in_features = r, .out_features = out, .bias = false}},
      {name + kScale, OpType::kScale, {name + kB}, {.factor = options.alpha / static_cast<double>(r)}},
      {name + kSum, OpType::kAdd, {name, name + kScale}, {}},
  };
  model.graph.nodes.insert(model.graph.nodes.begin() + index + 1, made.begin(), made.end());
  Tensor a(model::DType::kF32, {r, in});
  // The second index keeps these draws apart from those of the weights the model started from.
  RandomStream stream(seed, RandomPurpose::kInitialize, ordinal, 1);
  double bound = 1.0 / std::sqrt(static_cast<double>(in));
  for (float& v : a.mutable_values<float>()) v = static_cast<float>((2.0 * stream.Uniform() - 1.0) * bound);
  model.tensors.insert_or_assign(name + kA + ".weight", std::move(a));
  model.tensors.insert_or_assign(name + kB + ".weight", Tensor(model::DType::kF32, {out, r}));
}

Tensor Merged(const Tensor& weight, const Tensor& a, const Tensor& b, float scale) {
  int64_t out = weight.shape()[0], in = weight.shape()[1], r = a.shape()[0];
  Tensor merged(model::DType::kF32, weight.shape());
  auto w = weight.values<float>(), av = a.values<float>(), bv = b.values<float>();
  auto m = merged.mutable_values<float>();
  std::vector<float> product(static_cast<size_t>(in));
  for (int64_t o = 0; o < out; ++o) {
    std::fill(product.begin(), product.end(), 0.0f);
    for (int64_t k = 0; k < r; ++k) {
      float factor = bv[static_cast<size_t>(o * r + k)];
      const float* row = av.data() + k * in;
      for (size_t i = 0; i < product.size(); ++i) product[i] += factor * row[i];
    }
    for (size_t i = 0; i < product.size(); ++i) {
      auto at = static_cast<size_t>(o * in) + i;
      m[at] = w[at] + scale * product[i];
    }
  }
  return merged;
}

}  // namespace

std::vector<std::string> AdaptedNodes(const model::Graph& graph) {
  std::vector<std::string> nodes;
  for (const Node& node : graph.nodes) {
    if (graph.Find(node.name + kSum) != nullptr && graph.Find(node.name + kA) != nullptr) nodes.push_back(node.name);
  }
  return nodes;
}

std::set<std::string> AdapterTensors(const model::Graph& graph) {
  std::set<std::string> names;
  for (const std::string& node : AdaptedNodes(graph)) {
    names.insert(node + kA + ".weight");
    names.insert(node + kB + ".weight");
  }
  return names;
}

std::set<std::string> FrozenUnderAdapters(const model::Graph& graph, const model::GraphInfo& info) {
  std::set<std::string> adapters = AdapterTensors(graph), frozen;
  for (const model::TensorSpec& spec : info.tensors) {
    if (!adapters.contains(spec.name)) frozen.insert(spec.name);
  }
  return frozen;
}

Result<Adapted> AddAdapters(Model model, const LoraOptions& options, uint64_t seed) {
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(model.graph));
  Adapted adapted{std::move(model)};
  std::string reasons;
  bool any = false;
  for (size_t t = 0; t < info.tensors.size(); ++t) {
    const model::TensorSpec& spec = info.tensors[t];
    if (std::find(options.tensors.begin(), options.tensors.end(), spec.name) == options.tensors.end()) continue;
    const std::string& name = spec.node;
    if (adapted.model.graph.Find(name + kSum) != nullptr) return Invalid("lora: " + name + " has an adapter already; merge it first (a merge step)");
    std::string reason = WhyNot(*adapted.model.graph.Find(name), options.rank);
    if (reason.empty()) {
      AddAdapter(adapted.model, name, t, options, seed);
      adapted.report.push_back({{"layer", name}, {"rank", options.rank}});
      any = true;
    } else {
      adapted.report.push_back({{"layer", name}, {"left_alone", reason}});
      reasons += "; " + name + ": " + reason;
    }
  }
  if (!any) return Invalid("lora: none of its targets can carry an adapter" + reasons + ". Lower rank or choose other targets");
  return adapted;
}

Result<Model> MergeAdapters(Model model) {
  std::vector<std::string> adapted = AdaptedNodes(model.graph);
  if (adapted.empty()) return Invalid("merge: the model has no adapters; put it behind a lora or qlora step with merge: false");
  for (const std::string& name : adapted) {
    if (model.masks.contains(name + ".weight")) {
      return Invalid("merge: " + name + " is pruned, and its adapter would fill the removed weights; leave it unmerged, or use retrain instead of lora");
    }
    TRY(DecodeLayer(model, name));
    Tensor merged = Merged(model.tensors.at(name + ".weight"), model.tensors.at(name + kA + ".weight"), model.tensors.at(name + kB + ".weight"),
                           static_cast<float>(model.graph.Find(name + kScale)->attributes.factor));
    model.tensors[name + ".weight"] = std::move(merged);
    for (const char* part : {kA, kB}) {
      model.tensors.erase(name + part + ".weight");
      model.masks.erase(name + part + ".weight");
    }
    std::erase_if(model.graph.nodes, [&](const Node& n) {
      return n.name == name + kA || n.name == name + kB || n.name == name + kScale || n.name == name + kSum;
    });
    for (Node& reader : model.graph.nodes) std::replace(reader.inputs.begin(), reader.inputs.end(), name + kSum, name);
    if (model.graph.output == name + kSum) model.graph.output = name;
  }
  return model;
}

Result<Model> Merge(Model model, const Json&, Toolbox&) { return MergeAdapters(std::move(model)); }

Result<Outline> OutlineLora(Outline outline, const Json& params, const std::string& kind) {
  ASSIGN_OR_RETURN(std::vector<LayerOutline*> layers, LayersOf(outline, params.at("tensors")));
  TRY(CheckTrainable(outline, kind));
  if (kind == "qlora") TRY(CheckFloat(outline, layers, kind));
  // Frozen layers pass gradients to the adapters: float32 and 4-bit ones do.
  for (const auto& [name, layer] : outline.layers) {
    if (layer.encoding == model::Encoding::kDense || layer.encoding == model::Encoding::kNf4) continue;
    return Invalid(kind + ": " + layer.node + " is " + std::string(model::ToString(layer.encoding)) +
                   ", and adapters cannot be trained in a network with such a layer; put " + kind + " before the step that made it so");
  }
  bool merge = params.at("merge").get<bool>();
  if (merge && !outline.adapters.empty()) {
    return Invalid(kind + ": merge: true would merge the adapters of an earlier step as well; put a merge step before it, or set merge: false");
  }
  double rank = params.at("rank").get<double>();
  for (LayerOutline* layer : layers) {
    if (layer->adapted) return Invalid(kind + ": " + layer->node + " has an adapter already; merge it first (a merge step, or merge: true in the step that trained it)");
    if (merge && layer->masked) {
      return Invalid(kind + ": " + layer->node + " is pruned, and its merged adapter would fill the removed weights; set merge: false, or use retrain instead");
    }
    if (merge) {
      layer->bits = kBitsPerFloat;
      continue;
    }
    double out = static_cast<double>(layer->shape[0]), in = static_cast<double>(model::ElementCount(layer->shape)) / out;
    outline.other_parameters += rank * (in + out);
    outline.other_multiply_adds += layer->weights > 0 ? layer->multiply_adds / layer->weights * rank * (in + out) : 0;
    layer->adapted = true;
    if (kind != "qlora") continue;
    layer->encoding = model::Encoding::kNf4;
    layer->bits = kNf4Bits;
    layer->weights *= layer->density;
    layer->density = 1;
  }
  if (!merge) outline.adapters = kind;
  if (!merge && kind == "qlora") outline.encoder = kind;
  return outline;
}

Result<Outline> OutlineMerge(Outline outline, const Json&) {
  if (outline.adapters.empty()) return Invalid("merge: there are no adapters here; put it behind a lora or qlora step with merge: false");
  for (auto& [name, layer] : outline.layers) {
    if (!layer.adapted) continue;
    if (layer.masked) return Invalid("merge: " + layer.node + " is pruned, and its adapter would fill the removed weights; leave it unmerged, or use retrain instead of " + outline.adapters);
    layer.adapted = false;
    layer.encoding = model::Encoding::kDense;
    layer.bits = kBitsPerFloat;
  }
  if (outline.encoder == outline.adapters) outline.encoder.clear();
  outline.adapters.clear();
  return outline;
}

}  // namespace pare::methods
