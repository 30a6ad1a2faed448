// LoRA (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1): beside a frozen linear W [out, in]
// an adapter adds (α/r) · B · A to it, A [r, in] and B [out, r]. A starts as PyTorch's linear does (uniform ±1/√in, PEFT's
// Kaiming uniform with a = √5), B as zero, so that the model starts as it was.
//
// The adapter of node n is four ordinary nodes, so that everything that reads a graph reads it too:
//   n.lora_a  linear in → r, n.lora_b  linear r → out (both without bias), n.lora_scale  scale by α/r,
//   n.lora_sum  n + n.lora_scale: what n's readers read now.
// Only lora_a and lora_b train. Merging undoes all that: W + (α/r) · B · A.
//
// Pure functions, no thread rule. Errors: kInvalid names the layer and a remedy.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "methods/registry.h"

namespace pare::methods {

struct LoraOptions {
  std::vector<std::string> tensors;  // weights of linears of the present graph, float32 or quantized
  int64_t rank = 8;
  double alpha = 16.0;
};
// Nodes with an adapter, in order.
std::vector<std::string> AdaptedNodes(const model::Graph& graph);
// Names of the tensors of all adapters.
std::set<std::string> AdapterTensors(const model::Graph& graph);
// Every tensor that belongs to no adapter, buffers too: what training adapters leaves as it is.
std::set<std::string> FrozenUnderAdapters(const model::Graph& graph, const model::GraphInfo& info);

// A layer that is no linear or not larger than the rank stays without; `report` has one entry per layer: {"layer", "rank"} or
// {"layer", "left_alone": the reason}. kInvalid: none is left to adapt, or one has an adapter already.
struct Adapted {
  Model model;
  Json report = Json::array();
};
Result<Adapted> AddAdapters(Model model, const LoraOptions& options, uint64_t seed);

// Folds every adapter into its base, in float32: w + scale · (b_0·a_0 + b_1·a_1 + …), the sum from left to right, each
// operation rounded once. The names of nodes and tensors are again those from before AddAdapters. kInvalid: none to merge; a
// base with a mask, whose removed weights the product would fill.
Result<Model> MergeAdapters(Model model);
// The method "merge".
Result<Model> Merge(Model model, const Json& params, Toolbox& toolbox);

// At planning time. `kind`: lora, or qlora, whose layers are NF4 until they are merged. kInvalid: layers that cannot be
// trained beside, merging into a pruned layer, nothing to merge.
Result<Outline> OutlineLora(Outline outline, const Json& params, const std::string& kind);
Result<Outline> OutlineMerge(Outline outline, const Json& params);

}  // namespace pare::methods
