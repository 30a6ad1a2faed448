#include "model/graph.h"

#include <algorithm>
#include <map>
#include <span>
#include <type_traits>
#include <utility>

#include "model/encoding.h"
#include "model/op_table.h"

namespace pare::model {
namespace {

constexpr size_t kMaxNodes = 100'000;

bool GoodName(std::string_view name) {
  return !name.empty() && name.size() <= 200 && std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '_' || c == '-' || c == '.';
  });
}

Error NodeError(const Node& node, const std::string& text) {
  return Error{ErrorCode::kInvalid, "node '" + node.name + "' (" + std::string(ToString(node.op)) + "): " + text};
}

// One accessor per attribute, so that reading and writing JSON cannot disagree.
template <typename Visit>
void VisitAttributes(Attributes& a, Visit&& visit) {
  visit("in_features", a.in_features);
  visit("out_features", a.out_features);
  visit("bias", a.bias);
  visit("in_channels", a.in_channels);
  visit("out_channels", a.out_channels);
  visit("kernel_h", a.kernel_h);
  visit("kernel_w", a.kernel_w);
  visit("stride_h", a.stride_h);
  visit("stride_w", a.stride_w);
  visit("padding_h", a.padding_h);
  visit("padding_w", a.padding_w);
  visit("groups", a.groups);
  visit("features", a.features);
  visit("epsilon", a.epsilon);
  visit("momentum", a.momentum);
  visit("approximate_tanh", a.approximate_tanh);
  visit("axis", a.axis);
  visit("shape", a.shape);
  visit("dtype", a.dtype);
  visit("probability", a.probability);
  visit("vocabulary", a.vocabulary);
  visit("dimension", a.dimension);
  visit("deviation", a.deviation);
  visit("id", a.id);
  visit("segments", a.segments);
  visit("heads", a.heads);
  visit("encoding", a.encoding);
  visit("activations", a.activations);
  visit("bits", a.bits);
  visit("block_size", a.block_size);
  visit("double_quantization", a.double_quantization);
  visit("factor", a.factor);
}

// A window attribute or another size: the limits keep every product that the operator table forms within 63 bits.
Status CheckSizes(const Node& node) {
  Attributes a = node.attributes;
  Status status;
  VisitAttributes(a, [&](std::string_view name, auto& field) {
    if constexpr (std::is_same_v<std::decay_t<decltype(field)>, int64_t>) {
      bool window = name.starts_with("kernel") || name.starts_with("stride") || name.starts_with("padding");
      int64_t limit = window ? kMaxWindow : kMaxSize;
      if (status.ok() && (field < 0 || field > limit)) {
        status = NodeError(node, std::string(name) + " is " + std::to_string(field) + ", allowed are 0 to " + std::to_string(limit));
      }
    }
  });
  return status;
}

// Counts of a node whose tensors (`own`) and shapes are known.
Result<NodeCounts> Count(const Node& node, std::span<const TensorSpec> own, std::span<const Shape> inputs, const Shape& shape) {
  NodeCounts counts;
  for (const TensorSpec& spec : own) {
    if (!FitsElements(spec.shape, kMaxTensorElements)) {
      return NodeError(node, "tensor " + spec.name + " " + ToString(spec.shape) + " is empty or has more than 2^32 elements");
    }
    counts.parameters += spec.parameters;
    counts.bytes += ElementCount(spec.shape) * static_cast<int64_t>(SizeOf(spec.dtype));
  }
  counts.multiply_adds = RowOf(node.op).multiply_adds(node.attributes, inputs, shape);
  counts.activation_elements = ElementCount(shape);
  return counts;
}

Json AttributeJson(const DType& v) { return std::string(ToString(v)); }
Json AttributeJson(const Encoding& v) { return std::string(ToString(v)); }
Json AttributeJson(const Activations& v) { return std::string(ToString(v)); }
template <typename T>
Json AttributeJson(const T& v) { return v; }

bool ReadAttribute(const Json& json, int64_t& out) {
  if (!json.is_number_integer()) return false;
  out = json.get<int64_t>();
  return true;
}
bool ReadAttribute(const Json& json, double& out) {
  if (!json.is_number()) return false;
  out = json.get<double>();
  return true;
}
bool ReadAttribute(const Json& json, bool& out) {
  if (!json.is_boolean()) return false;
  out = json.get<bool>();
  return true;
}
template <typename T>
bool ReadName(const Json& json, Result<T> (*parse)(std::string_view), T& out) {
  if (!json.is_string()) return false;
  Result<T> parsed = parse(json.get<std::string>());
  if (parsed.ok()) out = *parsed;
  return parsed.ok();
}
bool ReadAttribute(const Json& json, DType& out) { return ReadName(json, DTypeFromString, out); }
bool ReadAttribute(const Json& json, Encoding& out) { return ReadName(json, EncodingFromString, out); }
bool ReadAttribute(const Json& json, Activations& out) { return ReadName(json, ActivationsFromString, out); }
bool ReadAttribute(const Json& json, Shape& out) {
  if (!json.is_array() || json.size() > 8) return false;
  for (const Json& d : json) {
    int64_t value = 0;
    if (!ReadAttribute(d, value) || value < 1 || value > (int64_t{1} << 40)) return false;
    out.push_back(value);
  }
  return true;
}

Result<Node> NodeFromJson(const Json& json) {
  Node node;
  ASSIGN_OR_RETURN(node.name, StringField(json, "name"));
  ASSIGN_OR_RETURN(std::string op, StringField(json, "op"));
  ASSIGN_OR_RETURN(node.op, OpTypeFromString(op));
  if (auto it = json.find("inputs"); it != json.end()) {
    if (!it->is_array()) return NodeError(node, "'inputs' must be a list of node names");
    for (const Json& input : *it) {
      if (!input.is_string()) return NodeError(node, "'inputs' must be a list of node names");
      node.inputs.push_back(input.get<std::string>());
    }
  }
  const auto& allowed = RowOf(node.op).attributes;
  for (const auto& [key, value] : json.items()) {
    if (key == "name" || key == "op" || key == "inputs") continue;
    bool known = std::find(allowed.begin(), allowed.end(), key) != allowed.end(), good = false;
    VisitAttributes(node.attributes, [&](std::string_view name, auto& field) {
      if (known && name == key) good = ReadAttribute(value, field);
    });
    if (!known) return NodeError(node, "unknown attribute '" + key + "'");
    if (!good) return NodeError(node, "attribute '" + key + "' has a wrong type or range");
  }
  return node;
}

}  // namespace

std::string_view ToString(OpType type) { return RowOf(type).name; }

Result<OpType> OpTypeFromString(std::string_view name) {
  std::string known;
  for (const OpRow& row : OpTable()) {
    if (row.name == name) return row.type;
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  return Error{ErrorCode::kInvalid, "unknown operator '" + std::string(name) + "'; known are " + known};
}

int Graph::IndexOf(std::string_view name) const {
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (nodes[i].name == name) return static_cast<int>(i);
  }
  return -1;
}

const Node* Graph::Find(std::string_view name) const {
  int i = IndexOf(name);
  return i < 0 ? nullptr : &nodes[static_cast<size_t>(i)];
}

Result<GraphInfo> Analyze(const Graph& graph) {
  if (graph.nodes.empty() || graph.nodes[0].op != OpType::kInput) {
    return Error{ErrorCode::kInvalid, "a graph starts with an input node"};
  }
  if (graph.nodes.size() > kMaxNodes) return Error{ErrorCode::kInvalid, "a graph has at most 100000 nodes"};
  GraphInfo info;
  std::map<std::string, size_t, std::less<>> index;
  for (const Node& node : graph.nodes) {
    const OpRow& row = RowOf(node.op);
    if (!GoodName(node.name)) return NodeError(node, "names are letters, digits, '_', '-' and '.'");
    if (index.count(node.name)) return NodeError(node, "the name is used twice");
    int inputs = static_cast<int>(node.inputs.size());
    if (inputs < row.min_inputs || inputs > row.max_inputs) {
      return NodeError(node, "takes " + std::to_string(row.min_inputs) + " to " + std::to_string(row.max_inputs) +
                                 " inputs, found " + std::to_string(inputs));
    }
    std::vector<Shape> shapes;
    for (const std::string& input : node.inputs) {
      auto it = index.find(input);
      if (it == index.end()) return NodeError(node, "its input '" + input + "' is not an earlier node");
      shapes.push_back(info.shapes[it->second]);
    }
    TRY(CheckSizes(node));
    if (Status encoding = CheckEncoding(node); !encoding.ok()) return NodeError(node, encoding.error().message);
    Result<Shape> shape = row.infer(node.attributes, shapes);
    if (!shape.ok()) return NodeError(node, shape.error().message);
    if (!FitsElements(*shape, kMaxActivationElements)) {
      return NodeError(node, "its value " + ToString(*shape) + " has more than 2^30 elements");
    }
    size_t first = info.tensors.size();
    if (row.tensors != nullptr) row.tensors(node, info.tensors);
    EncodeSpecs(node, info.tensors, first);
    ASSIGN_OR_RETURN(NodeCounts counts, Count(node, std::span(info.tensors).subspan(first), shapes, *shape));
    info.parameters += counts.parameters;
    info.bytes += counts.bytes;
    if (__builtin_add_overflow(info.multiply_adds, counts.multiply_adds, &info.multiply_adds)) {
      return NodeError(node, "the model has more than 2^63 multiply-adds");
    }
    info.activation_bytes += 4 * counts.activation_elements;
    info.counts.push_back(counts);
    info.shapes.push_back(*std::move(shape));
    index.emplace(node.name, info.shapes.size() - 1);
  }
  if (!index.count(graph.output)) {
    return Error{ErrorCode::kInvalid, "the graph's output '" + graph.output + "' is not a node"};
  }
  return info;
}

int64_t VocabularyOf(const Graph& graph) {
  int64_t vocabulary = 0;
  for (const Node& node : graph.nodes) {
    bool reads_ids = node.op == OpType::kEmbedding && !node.inputs.empty() && node.inputs[0] == graph.nodes[0].name;
    if (reads_ids) vocabulary = vocabulary == 0 ? node.attributes.vocabulary : std::min(vocabulary, node.attributes.vocabulary);
  }
  return vocabulary;
}

Json ToJson(const Graph& graph) {
  Json nodes = Json::array(), defaults = Json::object();
  Attributes standard;
  VisitAttributes(standard, [&](std::string_view name, auto& field) { defaults[std::string(name)] = AttributeJson(field); });
  for (const Node& node : graph.nodes) {
    Json json = {{"name", node.name}, {"op", ToString(node.op)}};
    if (!node.inputs.empty()) json["inputs"] = node.inputs;
    const auto& allowed = RowOf(node.op).attributes;
    Attributes own = node.attributes;
    VisitAttributes(own, [&](std::string_view name, auto& field) {
      Json value = AttributeJson(field);
      bool written = std::find(allowed.begin(), allowed.end(), name) != allowed.end();
      if (written && value != defaults[std::string(name)]) json[std::string(name)] = std::move(value);
    });
    nodes.push_back(std::move(json));
  }
  return {{"nodes", std::move(nodes)}, {"output", graph.output}};
}

Result<Graph> GraphFromJson(const Json& json) {
  Graph graph;
  ASSIGN_OR_RETURN(graph.output, StringField(json, "output"));
  for (const auto& [key, value] : json.items()) {
    if (key != "nodes" && key != "output") return Error{ErrorCode::kInvalid, "graph: unknown field '" + key + "'"};
  }
  auto nodes = json.find("nodes");
  if (nodes == json.end() || !nodes->is_array()) return Error{ErrorCode::kInvalid, "graph: 'nodes' must be a list"};
  for (const Json& item : *nodes) {
    ASSIGN_OR_RETURN(Node node, NodeFromJson(item));
    graph.nodes.push_back(std::move(node));
  }
  return graph;
}

}  // namespace pare::model
