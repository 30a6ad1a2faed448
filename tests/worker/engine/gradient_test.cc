// Every operator's backward against central finite differences of the loss (float32 forward, loss in double, step 1/128;
// differences above 2 % of the largest gradient of that tensor are wrong: rounding stays an order below that).
#include <gtest/gtest.h>

#include <set>

#include "model/initialize.h"
#include "tests/worker/engine/reference_values.h"
#include "worker/engine/network.h"

namespace pare::engine {
namespace {

using model::Attributes;
using model::Graph;
using model::Node;
using model::OpType;

struct Case {
  std::string name;
  OpType op;
  Attributes attributes;
  model::Shape shape;  // what the operator gets: [channels, h, w], [sequence, width] or [features]
};

// A function of token ids alone, which gives ids again.
bool ReadsIds(OpType op) { return op == OpType::kPositions || op == OpType::kSegments || op == OpType::kKeyMask; }

// input → (a linear or a convolution, so that the operator's input gradient is needed) → operator → flatten → linear.
Graph GraphOf(const Case& c) {
  Graph g;
  g.nodes.push_back({"input", OpType::kInput, {}, {.shape = c.shape}});
  int64_t last = c.shape.back();
  if (c.op == OpType::kEmbedding) {
    g.nodes[0].attributes.dtype = model::DType::kI64;
    g.nodes.push_back({"op", c.op, {"input"}, c.attributes});
  } else if (ReadsIds(c.op)) {
    g.nodes[0].attributes.dtype = model::DType::kI64;
    g.nodes.push_back({"ids", c.op, {"input"}, c.attributes});
    g.nodes.push_back({"op", OpType::kEmbedding, {"ids"}, {.vocabulary = 7, .dimension = 4}});
  } else {
    auto before = [&](const std::string& name) {
      if (c.shape.size() == 3) {
        g.nodes.push_back({name, OpType::kConv2d, {"input"}, {.in_channels = c.shape[0], .out_channels = c.shape[0]}});
      } else {
        g.nodes.push_back({name, OpType::kLinear, {"input"}, {.in_features = last, .out_features = last}});
      }
    };
    before("a");
    std::vector<std::string> inputs = {"a"};
    size_t count = c.op == OpType::kAttention ? 3 : c.op == OpType::kAttentionScores || c.op == OpType::kAdd || c.op == OpType::kConcat ? 2 : 1;
    for (const char* name : {"b", "c"}) {
      if (inputs.size() == count) break;
      before(name);
      inputs.push_back(name);
    }
    g.nodes.push_back({"op", c.op, inputs, c.attributes});
  }
  g.output = "op";
  model::Shape out = model::Analyze(g)->shapes.back();
  if (out.size() > 1) g.nodes.push_back({"flatten", OpType::kFlatten, {"op"}, {}});
  g.nodes.push_back({"head", OpType::kLinear, {g.nodes.back().name}, {.in_features = model::ElementCount(out), .out_features = 3}});
  g.output = "head";
  return g;
}

std::vector<Case> Cases() {
  return {
      {"linear", OpType::kLinear, {.in_features = 6, .out_features = 4}, {6}},
      {"linear_without_bias", OpType::kLinear, {.in_features = 6, .out_features = 4, .bias = false}, {6}},
      {"linear_on_sequences", OpType::kLinear, {.in_features = 6, .out_features = 4}, {5, 6}},
      {"conv2d", OpType::kConv2d, {.in_channels = 4, .out_channels = 6, .kernel_h = 3, .kernel_w = 3, .padding_h = 1, .padding_w = 1}, {4, 6, 6}},
      {"conv2d_strided_grouped", OpType::kConv2d,
       {.bias = false, .in_channels = 4, .out_channels = 6, .kernel_h = 3, .kernel_w = 2, .stride_h = 2, .stride_w = 1, .padding_h = 1, .groups = 2}, {4, 7, 6}},
      {"batch_norm2d", OpType::kBatchNorm2d, {.features = 3}, {3, 4, 4}},
      {"layer_norm", OpType::kLayerNorm, {.features = 6}, {5, 6}},
      {"relu", OpType::kRelu, {}, {6}},
      {"gelu", OpType::kGelu, {}, {6}},
      {"gelu_tanh", OpType::kGelu, {.approximate_tanh = true}, {6}},
      {"tanh", OpType::kTanh, {}, {6}},
      {"sigmoid", OpType::kSigmoid, {}, {6}},
      {"silu", OpType::kSilu, {}, {6}},
      {"softmax", OpType::kSoftmax, {}, {6}},
      {"softmax_last_axis", OpType::kSoftmax, {.axis = 1}, {5, 6}},
      {"max_pool2d", OpType::kMaxPool2d, {.kernel_h = 2, .kernel_w = 2, .stride_h = 2, .stride_w = 2}, {2, 6, 6}},
      {"max_pool2d_overlapping", OpType::kMaxPool2d, {.kernel_h = 3, .kernel_w = 3, .stride_h = 2, .stride_w = 1, .padding_h = 1, .padding_w = 1}, {2, 7, 5}},
      {"avg_pool2d", OpType::kAvgPool2d, {.kernel_h = 3, .kernel_w = 3, .stride_h = 2, .stride_w = 2, .padding_h = 1, .padding_w = 1}, {2, 6, 6}},
      {"global_avg_pool2d", OpType::kGlobalAvgPool2d, {}, {3, 4, 4}},
      {"flatten", OpType::kFlatten, {}, {2, 3, 3}},
      {"reshape", OpType::kReshape, {.shape = {9, 2}}, {2, 3, 3}},
      {"add", OpType::kAdd, {}, {6}},
      {"concat", OpType::kConcat, {}, {2, 3, 3}},
      {"dropout", OpType::kDropout, {.probability = 0.4}, {8}},
      {"embedding", OpType::kEmbedding, {.vocabulary = 7, .dimension = 4}, {5}},
      {"attention", OpType::kAttention, {.heads = 2}, {5, 6}},
      {"attention_scores", OpType::kAttentionScores, {.heads = 2}, {5, 6}},
      {"scale", OpType::kScale, {.factor = -1.75}, {6}},
      {"positions", OpType::kPositions, {}, {5}},
      {"segments", OpType::kSegments, {.id = 3, .segments = 3}, {5}},
      {"key_mask", OpType::kKeyMask, {.id = 3}, {5}},
      {"first", OpType::kFirst, {}, {5, 6}},
      {"sequence_mean", OpType::kSequenceMean, {}, {5, 6}},
      // From 16 channels on images lie with channels innermost.
      {"wide_conv2d", OpType::kConv2d, {.in_channels = 16, .out_channels = 18, .kernel_h = 3, .kernel_w = 3, .stride_h = 2, .stride_w = 2, .padding_h = 1, .padding_w = 1}, {16, 5, 4}},
      {"wide_batch_norm2d", OpType::kBatchNorm2d, {.features = 16}, {16, 3, 2}},
      {"wide_relu", OpType::kRelu, {}, {16, 3, 2}},
      {"wide_max_pool2d", OpType::kMaxPool2d, {.kernel_h = 2, .kernel_w = 2, .stride_h = 2, .stride_w = 2}, {16, 2, 4}},
      {"wide_avg_pool2d", OpType::kAvgPool2d, {.kernel_h = 2, .kernel_w = 2, .stride_h = 2, .stride_w = 2}, {16, 4, 4}},
      {"wide_global_avg_pool2d", OpType::kGlobalAvgPool2d, {}, {16, 3, 2}},
      {"wide_flatten", OpType::kFlatten, {}, {16, 3, 2}},
      {"wide_reshape", OpType::kReshape, {.shape = {12, 8}}, {16, 3, 2}},
      {"wide_add", OpType::kAdd, {}, {16, 3, 2}},
      {"wide_concat", OpType::kConcat, {}, {16, 3, 2}},
      {"wide_dropout", OpType::kDropout, {.probability = 0.4}, {16, 3, 2}},
  };
}

class GradientTest : public testing::TestWithParam<Case> {};

TEST_P(GradientTest, BackwardEqualsFiniteDifferences) {
  Graph graph = GraphOf(GetParam());
  auto info = model::Analyze(graph);
  ASSERT_TRUE(info.ok()) << info.error().message;
  model::TensorMap weights = model::InitializeWeights(graph, *info, 5);
  NetworkOptions options;
  options.shards = 2;  // ghost batches and the sum over shards are part of what is differentiated
  auto made = Network::Create(graph, weights, options);
  ASSERT_TRUE(made.ok()) << made.error().message;
  Network& network = **made;
  constexpr int64_t kBatch = 7;
  std::vector<float> x(static_cast<size_t>(kBatch * model::ElementCount(GetParam().shape)));
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = GetParam().op == OpType::kEmbedding || ReadsIds(GetParam().op) ? static_cast<float>(i * 5 % 7) : static_cast<float>(2 * std::sin(1.7 * static_cast<double>(i)));
  }
  std::vector<int64_t> labels;
  for (int64_t i = 0; i < kBatch; ++i) labels.push_back(i % 3);
  network.TrainBatch(x, labels, {}, {});
  std::vector<float> gradients(network.gradients().begin(), network.gradients().end());
  for (const ParameterSlice& slice : network.layout()) {
    double largest = 0;
    for (int64_t i = 0; i < slice.size; ++i) largest = std::max(largest, std::abs(static_cast<double>(gradients[static_cast<size_t>(slice.offset + i)])));
    // A bias in front of a normalization or a key bias in attention has no gradient at all; everything else must have one.
    bool invariant = (GetParam().op == OpType::kBatchNorm2d && slice.name == "a.bias") || (GetParam().op == OpType::kAttention && slice.name == "b.bias");
    EXPECT_EQ(largest < 1e-6, invariant) << slice.name;
    for (int64_t i = 0; i < slice.size; i += 1 + slice.size / 40) {
      auto at = static_cast<size_t>(slice.offset + i);
      float kept = network.parameters()[at];
      auto loss = [&](float step) {
        network.parameters()[at] = kept + step;
        return network.TrainBatch(x, labels, {}, {}).loss;
      };
      // A kink (relu, max) between the two points spoils a difference: take the best of two step sizes.
      double error = 1e9;
      for (float step : {1.0f / 128, 1.0f / 1024}) {
        error = std::min(error, std::abs((loss(step) - loss(-step)) / (2.0 * step) - gradients[at]));
      }
      network.parameters()[at] = kept;
      EXPECT_LE(error, 0.02 * largest + 2e-4) << slice.name << " element " << i << ", gradient " << gradients[at];
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Operators, GradientTest, testing::ValuesIn(Cases()), [](const auto& p) { return p.param.name; });

TEST(GradientCoverageTest, EveryOperatorHasACase) {
  std::set<OpType> covered = {OpType::kInput};
  for (const Case& c : Cases()) covered.insert(c.op);
  EXPECT_EQ(covered.size(), static_cast<size_t>(model::kOpTypeCount));
}

}  // namespace
}  // namespace pare::engine
