#include "model/graph.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <functional>
#include <limits>

#include "model/op_table.h"

namespace pare::model {
namespace {

// A graph of inputs i0, i1, … of the given shapes and one operator "x" over all of them.
Graph One(OpType op, const Attributes& attributes, const std::vector<Shape>& inputs) {
  Graph graph;
  Node node{"x", op, {}, attributes};
  for (size_t i = 0; i < inputs.size(); ++i) {
    Node input{"i" + std::to_string(i), OpType::kInput, {}, {}};
    input.attributes.shape = inputs[i];
    node.inputs.push_back(input.name);
    graph.nodes.push_back(input);
  }
  graph.nodes.push_back(node);
  graph.output = "x";
  return graph;
}

Attributes Linear(int64_t in, int64_t out, bool bias = true) {
  Attributes a;
  a.in_features = in, a.out_features = out, a.bias = bias;
  return a;
}

Attributes Conv(int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t padding, int64_t groups = 1, bool bias = true) {
  Attributes a;
  a.in_channels = in, a.out_channels = out, a.kernel_h = a.kernel_w = kernel, a.stride_h = a.stride_w = stride;
  a.padding_h = a.padding_w = padding, a.groups = groups, a.bias = bias;
  return a;
}

Attributes With(const std::function<void(Attributes&)>& set) {
  Attributes a;
  set(a);
  return a;
}

struct Case {
  OpType op;
  Attributes attributes;
  std::vector<Shape> inputs;
  Shape output;
  int64_t parameters, multiply_adds;
};

// Every operator at least once; worked out by hand.
std::vector<Case> Cases() {
  Attributes pool = Conv(0, 0, 3, 2, 1);
  auto features = [](int64_t n) { return With([n](Attributes& a) { a.features = n; }); };
  auto axis = [](int64_t n) { return With([n](Attributes& a) { a.axis = n; }); };
  Attributes heads = With([](Attributes& a) { a.heads = 4; });
  return {
      {OpType::kInput, With([](Attributes& a) { a.shape = {5}; }), {}, {5}, 0, 0},
      {OpType::kLinear, Linear(784, 300), {{784}}, {300}, 784 * 300 + 300, 784 * 300},
      {OpType::kLinear, Linear(8, 3, false), {{10, 8}}, {10, 3}, 24, 240},
      {OpType::kConv2d, Conv(3, 16, 3, 1, 1), {{3, 32, 32}}, {16, 32, 32}, 16 * 27 + 16, 32 * 32 * 16 * 27},
      {OpType::kConv2d, Conv(8, 16, 3, 2, 1, 8, false), {{8, 15, 9}}, {16, 8, 5}, 16 * 9, 8 * 5 * 16 * 9},
      {OpType::kConv2d, Conv(1, 2, 2, 3, 0), {{1, 9, 7}}, {2, 3, 2}, 10, 3 * 2 * 2 * 4},
      {OpType::kBatchNorm2d, features(4), {{4, 3, 2}}, {4, 3, 2}, 8, 24},
      {OpType::kLayerNorm, features(6), {{5, 6}}, {5, 6}, 12, 30},
      {OpType::kRelu, {}, {{3, 2}}, {3, 2}, 0, 0},
      {OpType::kGelu, {}, {{7}}, {7}, 0, 0},
      {OpType::kTanh, {}, {{7}}, {7}, 0, 0},
      {OpType::kSigmoid, {}, {{7}}, {7}, 0, 0},
      {OpType::kSilu, {}, {{7}}, {7}, 0, 0},
      {OpType::kSoftmax, axis(1), {{2, 5}}, {2, 5}, 0, 0},
      {OpType::kMaxPool2d, pool, {{6, 11, 10}}, {6, 6, 5}, 0, 0},
      {OpType::kAvgPool2d, pool, {{6, 11, 10}}, {6, 6, 5}, 0, 6 * 6 * 5 * 9},
      {OpType::kGlobalAvgPool2d, {}, {{64, 8, 8}}, {64, 1, 1}, 0, 0},
      {OpType::kFlatten, {}, {{16, 5, 5}}, {400}, 0, 0},
      {OpType::kReshape, With([](Attributes& a) { a.shape = {2, 6}; }), {{3, 4}}, {2, 6}, 0, 0},
      {OpType::kAdd, {}, {{3, 4}, {3, 4}, {3, 4}}, {3, 4}, 0, 0},
      {OpType::kConcat, axis(0), {{3, 4, 4}, {5, 4, 4}}, {8, 4, 4}, 0, 0},
      {OpType::kConcat, axis(2), {{3, 4, 4}, {3, 4, 1}}, {3, 4, 5}, 0, 0},
      {OpType::kDropout, With([](Attributes& a) { a.probability = 0.5; }), {{9}}, {9}, 0, 0},
      {OpType::kEmbedding, With([](Attributes& a) { a.vocabulary = 100, a.dimension = 8; }), {{12}}, {12, 8}, 800, 0},
      // 12 × 10 scores of 16 products each, then 12 × 10 × 16 for the sums of values.
      {OpType::kAttention, heads, {{12, 16}, {10, 16}, {10, 16}}, {12, 16}, 0, 12 * 10 * 16 * 2},
      {OpType::kAttention, heads, {{12, 16}, {12, 16}, {12, 16}, {12}}, {12, 16}, 0, 12 * 12 * 16 * 2},
      {OpType::kScale, With([](Attributes& a) { a.factor = 2.0; }), {{3, 5}}, {3, 5}, 0, 15},
      {OpType::kPositions, {}, {{7}}, {7}, 0, 0},
      {OpType::kSegments, With([](Attributes& a) { a.id = 2, a.segments = 2; }), {{7}}, {7}, 0, 0},
      {OpType::kKeyMask, {}, {{7}}, {7}, 0, 0},
      {OpType::kFirst, {}, {{7, 4}}, {4}, 0, 0},
      {OpType::kSequenceMean, {}, {{7, 4}}, {4}, 0, 28},
      {OpType::kSequenceMean, {}, {{7, 4}, {7}}, {4}, 0, 28},
      {OpType::kAttentionScores, heads, {{12, 16}, {10, 16}, {10}}, {4, 12, 10}, 0, 12 * 10 * 16},
  };
}

TEST(OpTableTest, EveryOperatorHasItsRowInOrder) {
  ASSERT_EQ(OpTable().size(), static_cast<size_t>(kOpTypeCount));
  std::set<std::string_view> names;
  for (int i = 0; i < kOpTypeCount; ++i) {
    const OpRow& row = OpTable()[static_cast<size_t>(i)];
    EXPECT_EQ(static_cast<int>(row.type), i) << "row " << i << " is missing or out of order";
    EXPECT_TRUE(row.infer != nullptr && row.multiply_adds != nullptr) << row.name;
    EXPECT_FALSE(row.name.empty());
    EXPECT_TRUE(names.insert(row.name).second) << row.name;
    EXPECT_EQ(*OpTypeFromString(row.name), row.type);
  }
  // The last operator of the enumeration: fails when one is added after it and kOpTypeCount is not raised.
  EXPECT_EQ(static_cast<int>(OpType::kAttentionScores) + 1, kOpTypeCount);
}

TEST(OpTableTest, EveryOperatorHasACaseInThisTest) {
  std::set<OpType> seen;
  for (const Case& c : Cases()) seen.insert(c.op);
  for (const OpRow& row : OpTable()) EXPECT_TRUE(seen.count(row.type)) << row.name;
}

TEST(AnalyzeTest, InfersShapesAndCountsOfEveryOperator) {
  for (const Case& c : Cases()) {
    Graph graph = One(c.op, c.attributes, c.inputs);
    auto info = Analyze(graph);
    ASSERT_TRUE(info.ok()) << info.error().message;
    SCOPED_TRACE(std::string(ToString(c.op)) + " " + ToString(c.output));
    EXPECT_EQ(info->shapes.back(), c.output);
    EXPECT_EQ(info->counts.back().parameters, c.parameters);
    EXPECT_EQ(info->parameters, c.parameters);
    EXPECT_EQ(info->counts.back().multiply_adds, c.multiply_adds);
    EXPECT_EQ(info->counts.back().activation_elements, ElementCount(c.output));
    int64_t elements = ElementCount(c.output);
    for (const Shape& input : c.inputs) elements += ElementCount(input);
    EXPECT_EQ(info->activation_bytes, 4 * elements);
  }
}

TEST(AnalyzeTest, TensorsCarryNamesShapesAndRoles) {
  auto conv = Analyze(One(OpType::kConv2d, Conv(4, 6, 3, 1, 0, 2), {{4, 8, 8}}));
  ASSERT_TRUE(conv.ok());
  ASSERT_EQ(conv->tensors.size(), 2u);
  EXPECT_EQ(conv->tensors[0].name, "x.weight");
  EXPECT_EQ(conv->tensors[0].shape, (Shape{6, 2, 3, 3}));
  EXPECT_EQ(conv->tensors[0].fan_in, 18);
  EXPECT_TRUE(conv->tensors[0].prunable);
  EXPECT_EQ(conv->tensors[1].name, "x.bias");
  EXPECT_FALSE(conv->tensors[1].prunable);
  auto norm = Analyze(One(OpType::kBatchNorm2d, With([](Attributes& a) { a.features = 4; }), {{4, 8, 8}}));
  ASSERT_TRUE(norm.ok());
  ASSERT_EQ(norm->tensors.size(), 4u);
  for (const TensorSpec& spec : norm->tensors) {
    EXPECT_EQ(spec.trainable, spec.role == "weight" || spec.role == "bias") << spec.name;
    EXPECT_FALSE(spec.prunable);
  }
}

struct BadCase {
  OpType op;
  Attributes attributes;
  std::vector<Shape> inputs;
  std::string message;  // part of it
};

TEST(AnalyzeTest, WhatDoesNotFitNamesTheNodeAndTheShapes) {
  auto set = With;
  const std::vector<BadCase> cases = {
      {OpType::kLinear, Linear(784, 10), {{783}}, "takes a last dimension of 784, but its input is [783]"},
      {OpType::kLinear, Linear(0, 10), {{1}}, "in_features and out_features must be at least 1"},
      {OpType::kLinear, Linear(int64_t{1} << 30, int64_t{1} << 30), {{int64_t{1} << 30}}, "x.weight"},
      {OpType::kConv2d, Conv(3, 8, 3, 1, 1), {{1, 28, 28}}, "takes 3 channels, but its input is [1, 28, 28]"},
      {OpType::kConv2d, Conv(3, 8, 3, 1, 1), {{784}}, "takes images [channels, height, width], but its input is [784]"},
      {OpType::kConv2d, Conv(3, 8, 5, 1, 0), {{3, 4, 4}}, "window of 5 does not fit in 4"},
      {OpType::kConv2d, Conv(3, 8, 3, 1, 1, 2), {{3, 4, 4}}, "groups (2) must divide"},
      {OpType::kConv2d, Conv(3, 8, 3, 0, 1), {{3, 4, 4}}, "stride must be at least 1"},
      {OpType::kConv2d, Conv(3, 8, 3, 1, std::numeric_limits<int64_t>::max()), {{3, 4, 4}}, "padding_h is 9223372036854775807"},
      {OpType::kMaxPool2d, Conv(0, 0, 2, 2, 2), {{3, 4, 4}}, "padding may be at most half the kernel"},
      {OpType::kBatchNorm2d, set([](Attributes& a) { a.features = 4; }), {{3, 4, 4}}, "takes images of 4 channels"},
      {OpType::kBatchNorm2d, set([](Attributes& a) { a.features = 3, a.epsilon = 0; }), {{3, 4, 4}}, "epsilon must be above 0"},
      {OpType::kBatchNorm2d, set([](Attributes& a) { a.features = 3, a.momentum = 2; }), {{3, 4, 4}}, "momentum must be in [0, 1]"},
      {OpType::kLayerNorm, set([](Attributes& a) { a.features = 4, a.epsilon = std::nan(""); }), {{4}}, "epsilon"},
      {OpType::kLayerNorm, set([](Attributes& a) { a.features = 4; }), {{5}}, "takes a last dimension of 4"},
      {OpType::kSoftmax, set([](Attributes& a) { a.axis = 1; }), {{4}}, "axis 1 is outside [4]"},
      {OpType::kReshape, set([](Attributes& a) { a.shape = {5}; }), {{4}}, "cannot reshape [4] to [5]"},
      {OpType::kReshape, set([](Attributes& a) { a.shape = {int64_t{1} << 40, int64_t{1} << 40}; }), {{4}}, "cannot reshape"},
      {OpType::kAdd, {}, {{4}, {5}}, "cannot add [4] and [5]"},
      {OpType::kAdd, {}, {{4}}, "inputs, found 1"},
      {OpType::kConcat, set([](Attributes& a) { a.axis = 1; }), {{2, 4}, {3, 4}}, "cannot concatenate [2, 4] and [3, 4]"},
      {OpType::kConcat, set([](Attributes& a) { a.axis = 0; }), {{2, 4}, {3}}, "cannot concatenate [2, 4] and [3]"},
      {OpType::kDropout, set([](Attributes& a) { a.probability = 1; }), {{2}}, "probability must be in [0, 1)"},
      {OpType::kEmbedding, {}, {{2}}, "vocabulary and dimension must be at least 1"},
      {OpType::kAttention, set([](Attributes& a) { a.heads = 3; }), {{2, 4}, {2, 4}, {2, 4}}, "heads (3) must divide the width"},
      {OpType::kAttention, {}, {{2, 4}, {3, 4}, {2, 4}}, "do not fit"},
      {OpType::kAttention, {}, {{2, 4}, {3, 4}, {3, 4}, {2}}, "key mask must be [3]"},
      {OpType::kAttentionScores, {}, {{2, 4}, {3, 4}, {2}}, "key mask must be [3]"},
      {OpType::kAttentionScores, {}, {{2, 4}, {3, 5}}, "of one width"},
      {OpType::kEmbedding, set([](Attributes& a) { a.vocabulary = a.dimension = 2, a.deviation = 0; }), {{2}}, "deviation must be above 0"},
      {OpType::kPositions, {}, {{2, 4}}, "takes a sequence of ids, but its input is [2, 4]"},
      {OpType::kSegments, set([](Attributes& a) { a.segments = 0; }), {{4}}, "segments must be at least 1"},
      {OpType::kKeyMask, {}, {{2, 4}}, "takes a sequence of ids"},
      {OpType::kFirst, {}, {{4}}, "takes [sequence, width], but its input is [4]"},
      {OpType::kSequenceMean, {}, {{2, 4}, {4}}, "key mask must be [2]"},
      {OpType::kRelu, {}, {{0}}, "every dimension must be at least 1"},
      {OpType::kRelu, {}, {{int64_t{1} << 29, int64_t{1} << 29}}, "more than 2^30 elements"},
  };
  for (const BadCase& c : cases) {
    auto info = Analyze(One(c.op, c.attributes, c.inputs));
    ASSERT_FALSE(info.ok()) << c.message;
    EXPECT_EQ(info.error().code, ErrorCode::kInvalid);
    EXPECT_NE(info.error().message.find(c.message), std::string::npos) << info.error().message;
    EXPECT_EQ(info.error().message.rfind("node '", 0), 0u) << info.error().message;
  }
}

TEST(AnalyzeTest, NamesAndOrderMustHold) {
  Graph good = One(OpType::kRelu, {}, {{4}});
  auto message = [&](const std::function<void(Graph&)>& damage) {
    Graph graph = good;
    damage(graph);
    auto info = Analyze(graph);
    return info.ok() ? std::string("accepted") : info.error().message;
  };
  EXPECT_EQ(message([](Graph& g) { g.nodes.clear(); }), "a graph starts with an input node");
  EXPECT_EQ(message([](Graph& g) { g.nodes[1].name = "i0"; }), "node 'i0' (relu): the name is used twice");
  EXPECT_EQ(message([](Graph& g) { g.nodes[1].inputs = {"x"}; }), "node 'x' (relu): its input 'x' is not an earlier node");
  EXPECT_EQ(message([](Graph& g) { g.nodes[1].name = "a/b"; }), "node 'a/b' (relu): names are letters, digits, '_', '-' and '.'");
  EXPECT_EQ(message([](Graph& g) { g.output = "y"; }), "the graph's output 'y' is not a node");
}

// Sets the attribute `name` to any value of its type.
void SetAny(Attributes& a, std::string_view name) {
  const std::map<std::string_view, int64_t Attributes::*> integers = {
      {"in_features", &Attributes::in_features}, {"out_features", &Attributes::out_features}, {"in_channels", &Attributes::in_channels},
      {"out_channels", &Attributes::out_channels}, {"kernel_h", &Attributes::kernel_h}, {"kernel_w", &Attributes::kernel_w},
      {"stride_h", &Attributes::stride_h}, {"stride_w", &Attributes::stride_w}, {"padding_h", &Attributes::padding_h},
      {"padding_w", &Attributes::padding_w}, {"groups", &Attributes::groups}, {"features", &Attributes::features},
      {"axis", &Attributes::axis}, {"vocabulary", &Attributes::vocabulary}, {"dimension", &Attributes::dimension},
      {"heads", &Attributes::heads}, {"bits", &Attributes::bits}, {"block_size", &Attributes::block_size},
      {"id", &Attributes::id}, {"segments", &Attributes::segments}};
  if (auto it = integers.find(name); it != integers.end()) {
    a.*(it->second) = *rc::gen::arbitrary<int64_t>();
  } else if (name == "bias") {
    a.bias = *rc::gen::arbitrary<bool>();
  } else if (name == "approximate_tanh") {
    a.approximate_tanh = *rc::gen::arbitrary<bool>();
  } else if (name == "epsilon") {
    a.epsilon = *rc::gen::arbitrary<double>();
  } else if (name == "momentum") {
    a.momentum = *rc::gen::arbitrary<double>();
  } else if (name == "probability") {
    a.probability = *rc::gen::arbitrary<double>();
  } else if (name == "double_quantization") {
    a.double_quantization = *rc::gen::arbitrary<bool>();
  } else if (name == "deviation") {
    a.deviation = *rc::gen::arbitrary<double>();
  } else if (name == "factor") {
    a.factor = *rc::gen::arbitrary<double>();
  } else if (name == "dtype") {
    a.dtype = *rc::gen::element(DType::kF32, DType::kI64);
  } else if (name == "encoding") {
    a.encoding = *rc::gen::element(Encoding::kInt8, Encoding::kInt8Fake, Encoding::kNf4);
  } else if (name == "activations") {
    a.activations = *rc::gen::element(Activations::kDynamic, Activations::kStatic);
  } else if (name == "shape") {
    a.shape.clear();
    for (int n = *rc::gen::inRange(0, 5); n > 0; --n) a.shape.push_back(*rc::gen::inRange<int64_t>(1, 1000));
  } else {
    FAIL() << "this test does not know the attribute " << name;
  }
}

RC_GTEST_PROP(GraphJsonTest, ReadingGivesBackWhatWasWritten, ()) {
  Graph graph;
  int count = *rc::gen::inRange(0, 12);
  for (int i = 0; i < count; ++i) {
    const OpRow& row = OpTable()[static_cast<size_t>(*rc::gen::inRange(0, kOpTypeCount))];
    Node node{"n" + std::to_string(i), row.type, {}, {}};
    for (int inputs = *rc::gen::inRange(0, 3); inputs > 0; --inputs) node.inputs.push_back("n" + std::to_string(inputs));
    for (std::string_view name : row.attributes) {
      if (*rc::gen::arbitrary<bool>()) SetAny(node.attributes, name);
    }
    graph.nodes.push_back(node);
  }
  graph.output = "n0";
  auto parsed = ParseJson(Canonical(ToJson(graph)), "graph");
  RC_ASSERT(parsed.ok());
  auto back = GraphFromJson(*parsed);
  RC_ASSERT(back.ok());
  RC_ASSERT(*back == graph);
}

TEST(GraphJsonTest, EveryAttributeInATableRowIsKnownToReadingAndWriting) {
  for (const OpRow& row : OpTable()) {
    for (std::string_view name : row.attributes) {
      // A value that no attribute accepts: the message tells a wrong value from an unknown name.
      Json json = {{"nodes", {{{"name", "n"}, {"op", row.name}, {std::string(name), Json::object()}}}}, {"output", "n"}};
      auto graph = GraphFromJson(json);
      ASSERT_FALSE(graph.ok());
      EXPECT_NE(graph.error().message.find("attribute '" + std::string(name) + "' has a wrong type"), std::string::npos)
          << graph.error().message;
    }
  }
}

TEST(GraphJsonTest, RefusesWhatItDoesNotKnow) {
  auto message = [](const char* text) {
    auto graph = GraphFromJson(*ParseJson(text, "graph"));
    return graph.ok() ? std::string("accepted") : graph.error().message;
  };
  EXPECT_NE(message(R"({"output":"a","nodes":[{"name":"a","op":"conv9d"}]})").find("unknown operator 'conv9d'; known are input, linear"),
            std::string::npos);
  EXPECT_EQ(message(R"({"output":"a","nodes":[{"name":"a","op":"relu","heads":2}]})"), "node 'a' (relu): unknown attribute 'heads'");
  EXPECT_EQ(message(R"({"output":"a","nodes":[{"name":"a","op":"linear","bias":1}]})"),
            "node 'a' (linear): attribute 'bias' has a wrong type or range");
  EXPECT_EQ(message(R"({"output":"a","nodes":[{"name":"a","op":"relu","inputs":[1]}]})"),
            "node 'a' (relu): 'inputs' must be a list of node names");
  EXPECT_EQ(message(R"({"output":"a","nodes":[],"version":2})"), "graph: unknown field 'version'");
  EXPECT_EQ(message(R"({"output":"a"})"), "graph: 'nodes' must be a list");
  for (const char* bad : {"[]", "3", "null", R"({"output":"a","nodes":[3]})", R"({"output":"a","nodes":[{}]})", R"({"nodes":[]})"}) {
    EXPECT_NE(message(bad), "accepted") << bad;
  }
}

}  // namespace
}  // namespace pare::model
