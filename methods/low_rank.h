// Low rank: a weight read as a matrix W [rows, columns], and the rewrite of its node into two, W ≈ up · down with up
// [rows, rank] and down [rank, columns] (METHODS, section 2).
//
// Forms
//   linear            W as it is. `<node>.down` linear in → rank without bias, `<node>.up` linear rank → out with the bias.
//   conv2d, channel   W [out, in·kh·kw]. down: kh x kw convolution into `rank` channels with the stride and padding of the
//                     node; up: 1x1 (Zhang, Zou, He, Sun 2015, "Accelerating Very Deep Convolutional Networks", section 3.1).
//   conv2d, spatial   W [out·kw, in·kh], entry ((o, x), (c, y)). down: kh x 1, up: 1 x kw (Jaderberg, Vedaldi, Zisserman 2014,
//                     "Speeding up Convolutional Neural Networks with Low Rank Expansions", scheme 2).
// Both nodes are ordinary ones, so training, pruning, quantization and export go on with them.
// A rank r stores r · (rows + columns) weights: it saves as long as that is below what the tensor keeps now (for a tensor
// without a mask r < mn/(m + n), the break-even). A mask ends with its tensor: the factors are dense.
//
// Pure functions, no thread rule. Errors: kInvalid names the layer.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "methods/registry.h"
#include "model/graph.h"

namespace pare::methods {

enum class ConvForm { kChannel, kSpatial };
Result<ConvForm> ConvFormFromString(std::string_view name);  // "channel", "spatial"
std::string_view ToString(ConvForm form);

// One weight as a matrix.
struct MatrixForm {
  int64_t rows = 0, columns = 0;
  int64_t multiply_adds = 0;           // of the node, for one sample
  int64_t multiply_adds_per_rank = 0;  // of the two nodes instead, per unit of rank
};
// The form of prunable tensor `name` of the graph. kInvalid: no such tensor, an operator other than linear and conv2d, a
// convolution with groups, an adapter on the layer that must be merged first.
Result<MatrixForm> FormOf(const model::Graph& graph, const model::GraphInfo& info, const std::string& name, ConvForm form);

// The weight that makes the network's outputs: of the last node that has one, with nothing but functions of single inputs
// behind it. "" where several paths meet at the end.
std::string OutputWeight(const model::Graph& graph, const model::GraphInfo& info);

// The weight as F32 [rows, columns]. REQUIRES: FormOf succeeds; the tensor is F32 of the node's shape.
model::Tensor AsMatrix(const model::Node& node, const model::Tensor& weight, ConvForm form);

// The largest rank that saves something: r · (rows + columns) < kept. 0: none.
int64_t LargestRank(int64_t rows, int64_t columns, int64_t kept);

// One tensor to replace: up F32 [rows, ≥ rank], down F32 [≥ rank, columns]; their first `rank` columns and rows are used.
struct Factors {
  std::string tensor;
  int64_t rank = 0;
  model::Tensor up, down;
};
Result<Model> Factor(Model model, const std::vector<Factors>& factors, ConvForm form);

}  // namespace pare::methods
