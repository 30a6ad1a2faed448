// Graph: a neural network as data (docs/architecture.md, "The model graph"): named, typed operators in topological order,
// and the parameters they own. Everything else is a walk or a rewrite over this structure: shapes, counts, execution,
// pruning, export. Plain values, no thread rule; functions that can meet bad input return Result.
//
// Conventions
//  - An activation's shape excludes the batch dimension: an image is [1, 28, 28] (channels, height, width), a feature
//    vector [784], a token sequence [128] of kI64 ids, a sequence of features [128, 384].
//  - A node's name follows the source model ("encoder.layer.0.attention.self.query"). A parameter is named
//    "<node>.<role>" ("fc1.weight"), a buffer likewise ("bn1.running_mean").
//  - Parameter layouts are PyTorch's: linear weight [out, in], conv2d weight [out, in/groups, kh, kw].
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "common/result.h"
#include "model/tensor.h"

namespace pare::model {

enum class OpType : uint8_t {
  kInput, kLinear, kConv2d, kBatchNorm2d, kLayerNorm,
  kRelu, kGelu, kTanh, kSigmoid, kSilu, kSoftmax,
  kMaxPool2d, kAvgPool2d, kGlobalAvgPool2d,
  kFlatten, kReshape, kAdd, kConcat, kDropout, kEmbedding, kAttention, kScale,
  kPositions, kSegments, kKeyMask, kFirst, kSequenceMean, kAttentionScores,
};
inline constexpr int kOpTypeCount = 28;

std::string_view ToString(OpType type);  // "linear", "conv2d", "batch_norm2d", …
Result<OpType> OpTypeFromString(std::string_view name);

// How a linear, conv2d or embedding holds its weight, and how an integer kernel gets its input: model/encoding.h.
enum class Encoding : uint8_t { kDense, kInt8, kInt8Fake, kCodebook, kNf4 };
inline constexpr int kEncodingCount = 5;
enum class Activations : uint8_t { kFloat, kDynamic, kStatic };

// The attributes of all operators; each operator reads its own and ignores the rest (model/op_table.h lists which).
struct Attributes {
  int64_t in_features = 0, out_features = 0;          // linear
  bool bias = true;                                   // linear, conv2d
  int64_t in_channels = 0, out_channels = 0;          // conv2d
  int64_t kernel_h = 1, kernel_w = 1;                 // conv2d, max/avg pool
  int64_t stride_h = 1, stride_w = 1;                 // conv2d, max/avg pool
  int64_t padding_h = 0, padding_w = 0;               // conv2d, max/avg pool (avg pool counts the padding)
  int64_t groups = 1;                                 // conv2d
  int64_t features = 0;                               // batch_norm2d (channels), layer_norm (last dimension)
  double epsilon = 1e-5;                              // batch_norm2d, layer_norm
  double momentum = 0.1;                              // batch_norm2d
  bool approximate_tanh = false;                      // gelu: the tanh form instead of erf
  int64_t axis = 0;                                   // concat, softmax: dimension without batch
  Shape shape;                                        // input: activation shape; reshape: new shape (without batch)
  DType dtype = DType::kF32;                          // input
  double probability = 0.0;                           // dropout
  int64_t vocabulary = 0, dimension = 0;              // embedding
  double deviation = 1.0;                             // embedding: of the normal distribution that its weight starts from
  int64_t id = 0;                                     // key_mask: of padding; segments: of the separator
  int64_t segments = 1;                               // segments: a position's value is the number of separators before it,
                                                      // at most segments − 1
  double factor = 1.0;                                // scale: the value is factor · input
  int64_t heads = 1;                                  // attention: inputs are query, key, value [, key mask]; each
                                                      // [sequence, width]; softmax(q kᵀ/√(width/heads)) v per head, over
                                                      // keys whose mask is not zero.
                                                      // attention_scores: inputs are query, key [, key mask]; the value,
                                                      // [heads, queries, keys], is q kᵀ/√(width/heads), 0 where the mask is
  Encoding encoding = Encoding::kDense;               // linear, conv2d, embedding: of the weight
  Activations activations = Activations::kFloat;      // linear, conv2d, embedding: of the input, with an encoding
  int64_t bits = 8;                                   // linear, conv2d, embedding: of a code, encoding codebook
  int64_t block_size = 64;                            // linear in nf4: values that share a scale
  bool double_quantization = true;                    // linear in nf4: the scales are 8-bit
  bool operator==(const Attributes&) const = default;
};

struct Node {
  std::string name;                 // unique; letters, digits, '_', '-', '.'
  OpType op = OpType::kInput;
  std::vector<std::string> inputs;  // names of earlier nodes
  Attributes attributes;
  bool operator==(const Node&) const = default;
};

struct Graph {
  std::vector<Node> nodes;  // topological order; nodes[0] is the first input
  std::string output;       // name of the node whose value is the result (logits)
  bool operator==(const Graph&) const = default;

  const Node* Find(std::string_view name) const;
  int IndexOf(std::string_view name) const;  // −1 if absent
};

// A tensor that a node owns.
struct TensorSpec {
  std::string name;  // "<node>.<role>"
  std::string node;
  std::string role;  // weight, bias, running_mean, …
  Shape shape;
  DType dtype = DType::kF32;
  bool trainable = true;  // false: a buffer such as running_mean
  bool prunable = false;  // weights of linear, conv2d and embedding in float32
  int64_t fan_in = 0;     // for initialization
  bool layer = false;     // the weight of a linear, conv2d or embedding, in whatever encoding
  int64_t parameters = 0;  // of the model that it holds: 0 for buffers and for what only describes an encoding (scales)
};

// What one node costs for one sample.
struct NodeCounts {
  int64_t parameters = 0;
  int64_t bytes = 0;              // of its tensors, as the encoding holds them
  int64_t multiply_adds = 0;      // dense
  int64_t activation_elements = 0;
};

struct GraphInfo {
  std::vector<Shape> shapes;        // of each node's value, by node index
  std::vector<TensorSpec> tensors;  // in node order; the order of every flat parameter buffer
  std::vector<NodeCounts> counts;   // by node index
  int64_t parameters = 0;
  int64_t bytes = 0;                // of all tensors
  int64_t multiply_adds = 0;
  int64_t activation_bytes = 0;     // sum over nodes for one sample, float32: what training keeps for backward
};

// Checks the graph (unique names, known inputs in order, attributes in range, shapes that fit) and derives everything
// above. kInvalid names the node, what was found and what is allowed.
Result<GraphInfo> Analyze(const Graph& graph);

// How many ids the embeddings right behind the first input accept, 0 to that less one; 0 if the input is no sequence of ids.
int64_t VocabularyOf(const Graph& graph);

// JSON form, the identity after ToJson ∘ FromJson; attributes at their default are left out. FromJson does not Analyze.
Json ToJson(const Graph& graph);
Result<Graph> GraphFromJson(const Json& json);

}  // namespace pare::model
