// Writes a graph down node by node. Inside model/: what the built-in architectures are made with.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "model/graph.h"

namespace pare::model {

// Appends nodes one after the other; the last one added is the next one's input.
class ArchitectureBuilder {
 public:
  explicit ArchitectureBuilder(const Shape& sample_shape, DType dtype = DType::kF32) {
    Node input{"input", OpType::kInput, {}, {}};
    input.attributes.shape = sample_shape;
    input.attributes.dtype = dtype;
    graph_.nodes.push_back(std::move(input));
    last_ = "input";
  }
  std::string Add(const std::string& name, OpType op, const Attributes& attributes = {}, std::vector<std::string> inputs = {}) {
    if (inputs.empty()) inputs = {last_};
    graph_.nodes.push_back(Node{name, op, std::move(inputs), attributes});
    return last_ = name;
  }
  std::string Linear(const std::string& name, int64_t in, int64_t out, std::vector<std::string> inputs = {}) {
    Attributes a;
    a.in_features = in;
    a.out_features = out;
    return Add(name, OpType::kLinear, a, std::move(inputs));
  }
  std::string Conv(const std::string& name, int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t padding, bool bias,
                   std::vector<std::string> inputs = {}) {
    Attributes a;
    a.in_channels = in;
    a.out_channels = out;
    a.kernel_h = a.kernel_w = kernel;
    a.stride_h = a.stride_w = stride;
    a.padding_h = a.padding_w = padding;
    a.bias = bias;
    return Add(name, OpType::kConv2d, a, std::move(inputs));
  }
  std::string Norm(const std::string& name, int64_t channels) {
    Attributes a;
    a.features = channels;
    return Add(name, OpType::kBatchNorm2d, a);
  }
  std::string Pool(const std::string& name, int64_t kernel) {
    Attributes a;
    a.kernel_h = a.kernel_w = a.stride_h = a.stride_w = kernel;
    return Add(name, OpType::kMaxPool2d, a);
  }
  const std::string& last() const { return last_; }
  Graph Finish() {
    graph_.output = last_;
    return std::move(graph_);
  }

 private:
  Graph graph_;
  std::string last_;
};

}  // namespace pare::model
