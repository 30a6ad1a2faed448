// The one table of encodings: how a linear, conv2d or embedding holds its weight, and which tensors that takes. Adding an
// encoding means adding an Encoding (model/graph.h), a row here and a row per operator in the engine's table
// (worker/engine/encodings.h); tests fail if either is forgotten. Pure functions, no thread rule.
//
// An encoded node owns, in this order: "<node>.weight" in the encoding's type and shape, the other tensors of its operator
// (bias), then what the encoding adds ("<node>.weight_scale", …). "Rows" below are the weight's first dimension: output
// features, output channels, entries of a vocabulary.
//
//   dense      weight F32
//   int8       weight I8 of the same shape, weight_scale F32 [rows]: w = code · scale of its row. A zero weight is code 0.
//              activations dynamic: the input is quantized by its range in the slice of a batch that one shard runs
//              activations static: by input_scale F32 [1] and input_zero_point I32 [1], from calibration
//              activations float (conv2d, embedding; linear if wanted): the weight is only stored so, execution is float32
//   nf4        linear only: weight U8, two codes a byte, weight_scale I8 and weight_steps F32 (or weight_scale F32 alone without
//              double_quantization), in blocks of block_size values: model/nf4.h
//   int8_fake  weight F32, trained so that it can become int8: execution sees weight and input rounded to what int8 can
//              say, gradients pass as if it did not (straight-through). Activations as in int8.
//   codebook   weight U8 of the same shape, weight_values F32 [2^bits]: w = value of its code. Code 0 is the value 0 and stays
//              so. Training moves the values, not the codes
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "model/graph.h"

namespace pare::model {

struct EncodingRow {
  Encoding encoding;
  std::string_view name;
  std::string_view help;
  std::string_view export_note;  // how to get the weight from an export, for somebody with a tensor library
  std::vector<OpType> operators;         // that may hold their weight so
  std::vector<Activations> activations;  // that go with it
  bool trains;                           // false: training a model with such a node is refused
  // Turns the weight's float32 spec into this encoding's; adds the tensors that go with it to `more`.
  void (*tensors)(const Node& node, TensorSpec& weight, std::vector<TensorSpec>& more);
  // The weight as float32 in the operator's own shape; `weight` and the node's other tensors are as in tensors().
  // kInvalid: a tensor is missing.
  Result<Tensor> (*decode)(const Node& node, const TensorMap& tensors);
};

// REQUIRES: a valid Encoding. Rows are in Encoding order.
const EncodingRow& RowOf(Encoding encoding);
std::span<const EncodingRow> EncodingTable();
// "int8"; kInvalid names the known ones. Likewise for "dynamic".
Result<Encoding> EncodingFromString(std::string_view name);
Result<Activations> ActivationsFromString(std::string_view name);
std::string_view ToString(Encoding encoding);
std::string_view ToString(Activations activations);

// kInvalid: the node's operator does not take its encoding, or the encoding not its activations. Without the node's name.
Status CheckEncoding(const Node& node);
// Changes the specs of one node, as its operator lists them, into what its encoding takes.
void EncodeSpecs(const Node& node, std::vector<TensorSpec>& specs, size_t first);

// The shape of the node's weight as its operator defines it, whatever the encoding; empty if it has none.
Shape WeightShape(const Node& node);
// The weight of a node as float32, whatever its encoding. kInvalid: a tensor is missing, or the node has no weight.
Result<Tensor> DecodeWeight(const Node& node, const TensorMap& tensors);
// The attributes of a node whose weight is float32 from now on.
void MakeDense(Attributes& attributes);
// The model with every weight float32: what exporters and tools without our encodings run. Attributes become dense.
struct DenseModel {
  Graph graph;
  TensorMap tensors;
};
Result<DenseModel> DecodeModel(const Graph& graph, const TensorMap& tensors);

// kInvalid names the first node whose encoding cannot be trained, and what to do.
Status CheckTrainable(const Graph& graph);
// How many of the weights that an encoded tensor stands for are not zero.
int64_t NonZeroWeights(const Node& node, const TensorSpec& spec, const Tensor& tensor);

// Codes of int8. Weights use all of them; an input uses those from 0 to kActivationLevels: products of two neighbours then
// fit 16 bits, which x86 processors without VNNI need to be exact, and the result is the same on all of them.
inline constexpr int kWeightCodeMin = -128, kWeightCodeMax = 127, kActivationLevels = 127;
// A row's scale is max |w| / 127.5, at least 2⁻²³ (torch.ao's PerChannelMinMaxObserver): the largest weight is off by half a
// step, as any other may be.
inline constexpr float kWeightScaleLevels = 127.5f, kSmallestWeightScale = 1.1920929e-7f;

// An input as integers: x ≈ (code − zero_point) · scale with codes 0 … kActivationLevels.
struct InputCodes {
  float scale = 1.0f;
  int32_t zero_point = 0;
};
// For values in [low, high], widened to hold zero, which has a code of its own (Jacob 2018, section 2.1; to the bit the rule
// of FBGEMM's ChooseQuantizationParams). REQUIRES: finite.
InputCodes ChooseCodes(float low, float high);

}  // namespace pare::model
