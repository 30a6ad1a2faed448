// NF4 of layers: the rewrite behind qlora's frozen base (model/nf4.h is the format, model/encoding.h the encoding).
//
// Pure functions, no thread rule. Errors: kInvalid names the layer or field.
#pragma once

#include <string>
#include <vector>

#include "methods/registry.h"

namespace pare::methods {

struct Nf4Options {
  int64_t block_size = 64;
  bool double_quantization = true;
};
Result<Nf4Options> Nf4OptionsFromJson(const Json& params);

// The linears among `tensors` (names in the present graph) with their weights in NF4. A mask ends with the float32 tensor;
// its zeros stay exactly zero. `report`: {"layer", "bytes": of the weight, "bytes_float32", "error": root of the mean
// squared difference, in units of the weights' own root mean square} per layer. kInvalid: a weight that is not float32;
// none is linear. kDiverged: a weight that is not finite.
struct Nf4Result {
  Model model;
  Json report = Json::array();
};
Result<Nf4Result> EncodeLayers(Model model, const std::vector<std::string>& tensors, const Nf4Options& options);

// The node's weight float32 again, if it is encoded.
Status DecodeLayer(Model& model, const std::string& node);

}  // namespace pare::methods
