// Quantization: float32 weights become 8-bit integers (METHODS, section 4). Rewrites of graph and tensors; what runs them is
// the engine's business, what the numbers mean is model/encoding.h's.
//
//  - Weights: symmetric, a scale per row (output feature, output channel, entry of a vocabulary). Zero stays exactly zero, so
//    a pruned or factored model keeps its zeros, and its masks.
//  - Inputs of linears: asymmetric, dynamic (by the range that is there) or static (by calibration, methods/calibrate.h).
//    Inputs of convolutions and embeddings stay float32: their weights are only stored as integers.
//  - A layer is left alone, with the reason, if it would not gain (kMinRow, kMinWeights), if its weights do not fit 8 bits
//    (kMaxError, kMaxErased: a few outliers take the whole range), or if it is encoded in another way already.
// Errors: kInvalid names the tensor; kDiverged: a weight is not finite. Pure, no thread rule.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "methods/outline.h"
#include "methods/registry.h"
#include "model/encoding.h"

namespace pare::methods {

inline constexpr int64_t kMinRow = 4;        // weights per row: with fewer the scales weigh more than is saved
inline constexpr int64_t kMinWeights = 256;  // of a layer
// ‖w − ŵ‖ / ‖w‖. Normally distributed rows have 0.01; a row whose largest weight is twenty times its deviation 0.045.
inline constexpr double kMaxError = 0.05;
// Of the weights that are not zero, the fraction that would become zero. Normally distributed rows have 0.01; where one weight
// is 60 times as large as the others deviate, 0.2.
inline constexpr double kMaxErased = 0.2;

// A layer and what becomes of it.
struct LayerQuantization {
  std::string layer;           // node
  bool quantized = false;
  std::string reason;          // why not; or what is special: "weights only: …"
  double range_sigma = 0.0;    // largest |w| / standard deviation over its rows, weights that are zero left out
  double error = 0.0;          // ‖w − ŵ‖ / ‖w‖ if it is quantized
  double erased = 0.0;         // fraction of weights that are not zero but round to it
  int64_t bytes_before = 0, bytes_after = 0;  // of weight and scales
};
Json ToJson(const LayerQuantization& layer);

// Codes and scales of a float32 weight: scale = max |w| / 127.5 (kWeightScaleLevels), code = w / scale rounded half to even.
struct RowCodes {
  model::Tensor codes;   // I8, the weight's shape
  model::Tensor scales;  // F32 [rows]
};
Result<RowCodes> QuantizeRows(const model::Tensor& weight);

struct QuantizeOptions {
  std::vector<std::string> tensors;               // names in the dense graph: "fc1.weight"
  model::Activations activations = model::Activations::kDynamic;
  std::map<std::string, model::InputCodes> inputs;  // static: by node
};
// Nodes of `graph` that the tensors stand for: the node itself, or those that replaced it, "<node>.*".
std::vector<std::string> NodesOf(const model::Graph& graph, const std::vector<std::string>& tensors);

// quantize of any scheme (docs/formats.md) at planning time. Refused: pruned, factored and dense networks can be quantized, but
// not what is encoded in another way already, and nothing under adapters; qat takes int8 as well.
Result<Outline> OutlineQuantize(Outline outline, const Json& params);

// What each node would become. Used for both rewrites below, so that they agree.
Result<std::vector<LayerQuantization>> Diagnose(const Model& model, const QuantizeOptions& options);
// Nodes that Diagnose marks become int8. A node that is int8_fake becomes int8 with the inputs it was trained for.
Result<Model> QuantizeInt8(Model model, const QuantizeOptions& options);
// The same nodes become int8_fake, for training; weights of nodes that are int8 are decoded.
Result<Model> FakeInt8(Model model, const QuantizeOptions& options);

}  // namespace pare::methods
