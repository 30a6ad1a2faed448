// The engine's table of operators: one row per model::OpType with its forward and backward on ATen, below autograd. A test
// fails if a row is missing. Inside worker/engine only (torch types).
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "model/graph.h"

namespace pare::engine {

// A weight in the layout that a kernel reads, made once after weights are set and shared by all shards. Immutable.
struct PackedWeight {
  virtual ~PackedWeight() = default;
};

struct NodeState;
struct ShardState;
// How a node runs: a row of one of the engine's tables.
struct NodeKernel {
  std::shared_ptr<const PackedWeight> (*pack)(const NodeState& node) = nullptr;  // null: nothing to prepare
  void (*forward)(ShardState& shard, NodeState& node) = nullptr;   // fills node.value
  void (*backward)(ShardState& shard, NodeState& node) = nullptr;  // reads node.gradient; null: cannot be trained through
};

// One node of one shard. `inputs[i]` are the values of its inputs; a backward adds to the inputs' gradients with AddGrad.
struct NodeState {
  const model::Node* node = nullptr;
  int ordinal = 0;
  std::vector<int> inputs;
  std::vector<std::string> roles;      // of the parameters: "weight", "bias", …
  std::vector<at::Tensor> parameters;  // views into the flat buffer, in TensorSpec order; buffers (running_mean) too
  std::vector<at::Tensor> gradients;   // views into the shard's flat gradient; undefined for buffers and frozen tensors
  NodeKernel kernel;
  std::shared_ptr<const PackedWeight> packed;
  at::Tensor value, gradient;
  at::Tensor workspace;                // reused for the gradient handed to the first input
  bool has_gradient = false;
  bool in_place = false;               // may overwrite its first input's value: nobody else reads it
  bool wants_gradient = false;         // some tensor that trains lies at or before this node
  bool trains = false;                 // some tensor of this node trains
  std::vector<at::Tensor> saved;
};

struct ShardState {
  std::vector<NodeState> nodes;
  bool training = false;
  uint64_t seed = 0;
  int64_t epoch = 0, batch = 0;
  int shard = 0;

  const at::Tensor& Input(const NodeState& n, size_t i) const { return nodes[static_cast<size_t>(n.inputs[i])].value; }
  bool Wants(const NodeState& n, size_t i) const { return nodes[static_cast<size_t>(n.inputs[i])].wants_gradient; }
  // gradient of input i += g.
  void AddGrad(const NodeState& n, size_t i, const at::Tensor& g);
};

struct Kernel {
  model::OpType type;
  void (*forward)(ShardState& shard, NodeState& node);   // fills node.value
  void (*backward)(ShardState& shard, NodeState& node);  // reads node.gradient
};
const Kernel& KernelOf(model::OpType type);
// By operator and encoding (worker/engine/encodings.h): a null forward if there is none.
NodeKernel KernelOf(const model::Node& node);

// The rows, by family, and what those of linears and convolutions in any encoding share.
namespace kernels {
// [n, …, f] as [rows, f].
at::Tensor Rows(const at::Tensor& t);
// Undefined if the node has none.
at::Tensor BiasOf(const NodeState& n);
// x · weightᵀ + bias.
at::Tensor Affine(const NodeState& n, const at::Tensor& x, const at::Tensor& weight);
// node.value: `out` [rows, out_features] in the form of the input.
void SetLinearValue(ShardState& shard, NodeState& n, const at::Tensor& out);
// From the gradient of the output, [rows, out_features].
void BiasBackward(NodeState& n, const at::Tensor& dy);
void LinearForward(ShardState&, NodeState&);
void LinearBackward(ShardState&, NodeState&);
void ConvForward(ShardState&, NodeState&);
void ConvBackward(ShardState&, NodeState&);
// With another weight than the node's own: one that was decoded or rounded. The backward returns that weight's gradient.
void ConvWith(ShardState&, NodeState&, const at::Tensor& weight);
// The gradient of that weight; undefined where nothing of it trains.
at::Tensor ConvBackwardWith(ShardState&, NodeState&, const at::Tensor& weight);
// The gradient of `weight` is that of the node's own.
void ConvBackwardThrough(ShardState&, NodeState&, const at::Tensor& weight);
void BatchNormForward(ShardState&, NodeState&);
void BatchNormBackward(ShardState&, NodeState&);
void LayerNormForward(ShardState&, NodeState&);
void LayerNormBackward(ShardState&, NodeState&);
void EmbeddingForward(ShardState&, NodeState&);
void EmbeddingBackward(ShardState&, NodeState&);
void AttentionForward(ShardState&, NodeState&);
void AttentionBackward(ShardState&, NodeState&);
void AttentionScoresForward(ShardState&, NodeState&);
void AttentionScoresBackward(ShardState&, NodeState&);
// Sequences: worker/engine/kernels_sequence.cc.
void PositionsForward(ShardState&, NodeState&);
void SegmentsForward(ShardState&, NodeState&);
void KeyMaskForward(ShardState&, NodeState&);
void FirstForward(ShardState&, NodeState&);
void FirstBackward(ShardState&, NodeState&);
void SequenceMeanForward(ShardState&, NodeState&);
void SequenceMeanBackward(ShardState&, NodeState&);
}  // namespace kernels

}  // namespace pare::engine
