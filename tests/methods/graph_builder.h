// Small graphs for tests, node by node, with weights that leave nothing at its default: norms and running statistics too.
#pragma once

#include "common/random.h"
#include "model/initialize.h"
#include "tests/methods/reference_forward.h"

namespace pare::methods {

class GraphBuilder {
 public:
  std::string Input(model::Shape shape, const std::string& name = "input") {
    model::Attributes a;
    a.shape = std::move(shape);
    return Add(name, model::OpType::kInput, {}, a);
  }
  std::string Add(const std::string& name, model::OpType op, std::vector<std::string> inputs, const model::Attributes& a = {}) {
    graph.nodes.push_back({name, op, std::move(inputs), a});
    graph.output = name;
    return name;
  }
  std::string Linear(const std::string& name, const std::string& from, int64_t out, bool bias = true) {
    model::Attributes a;
    a.in_features = ShapeOf(from).back();
    a.out_features = out;
    a.bias = bias;
    return Add(name, model::OpType::kLinear, {from}, a);
  }
  std::string Conv(const std::string& name, const std::string& from, int64_t out, int64_t kernel, int64_t padding, bool bias = true, int64_t groups = 1) {
    model::Attributes a;
    a.in_channels = ShapeOf(from)[0];
    a.out_channels = out;
    a.kernel_h = a.kernel_w = kernel;
    a.padding_h = a.padding_w = padding;
    a.bias = bias;
    a.groups = groups;
    return Add(name, model::OpType::kConv2d, {from}, a);
  }
  std::string Norm(const std::string& name, const std::string& from) {
    model::Attributes a;
    bool image = ShapeOf(from).size() == 3;
    a.features = image ? ShapeOf(from)[0] : ShapeOf(from).back();
    return Add(name, image ? model::OpType::kBatchNorm2d : model::OpType::kLayerNorm, {from}, a);
  }
  std::string Pool(const std::string& name, model::OpType op, const std::string& from, int64_t kernel, int64_t padding) {
    model::Attributes a;
    a.kernel_h = a.kernel_w = kernel;
    a.stride_h = a.stride_w = 1;
    a.padding_h = a.padding_w = padding;
    return Add(name, op, {from}, a);
  }
  std::string Concat(const std::string& name, std::vector<std::string> from, int64_t axis) {
    model::Attributes a;
    a.axis = axis;
    return Add(name, model::OpType::kConcat, std::move(from), a);
  }
  std::string Attention(const std::string& name, const std::string& q, const std::string& k, const std::string& v, int64_t heads) {
    model::Attributes a;
    a.heads = heads;
    return Add(name, model::OpType::kAttention, {q, k, v}, a);
  }
  model::Shape ShapeOf(const std::string& node) const {
    model::Graph so_far = graph;
    so_far.output = node;
    return (*model::Analyze(so_far)).shapes[static_cast<size_t>(graph.IndexOf(node))];
  }

  model::Graph graph;
};

// Every tensor random: uniform in (−1, 1), variances in (0.5, 1.5).
inline model::TensorMap RandomTensors(const model::Graph& graph, uint64_t seed) {
  model::TensorMap tensors;
  uint64_t ordinal = 0;
  const model::GraphInfo info = *model::Analyze(graph);
  for (const model::TensorSpec& spec : info.tensors) {
    RandomStream stream(seed, RandomPurpose::kTest, ordinal++);
    model::Tensor tensor(model::DType::kF32, spec.shape);
    for (float& v : tensor.mutable_values<float>()) v = static_cast<float>(spec.role == "running_var" ? 0.5 + stream.Uniform() : 2 * stream.Uniform() - 1);
    tensors.emplace(spec.name, std::move(tensor));
  }
  return tensors;
}

// A random sample for every input; ids below `vocabulary` for inputs that feed an embedding.
inline std::map<std::string, Vector> RandomInputs(const model::Graph& graph, uint64_t seed) {
  std::map<std::string, Vector> inputs;
  RandomStream stream(seed, RandomPurpose::kTest, 1000);
  for (const model::Node& node : graph.nodes) {
    if (node.op != model::OpType::kInput) continue;
    int64_t vocabulary = 0;
    for (const model::Node& reader : graph.nodes) {
      bool reads = std::count(reader.inputs.begin(), reader.inputs.end(), node.name) > 0;
      if (reads && reader.op == model::OpType::kEmbedding) vocabulary = reader.attributes.vocabulary;
    }
    Vector& values = inputs[node.name];
    for (int64_t i = 0; i < model::ElementCount(node.attributes.shape); ++i) {
      values.push_back(vocabulary > 0 ? static_cast<double>(stream.Below(static_cast<uint64_t>(vocabulary))) : 2 * stream.Uniform() - 1);
    }
  }
  return inputs;
}

}  // namespace pare::methods
