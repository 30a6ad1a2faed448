// Removed = masked, held against a forward pass in double; over graphs made by hand and at random.
#include "methods/remove.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "methods/pruning.h"
#include "model/architectures.h"
#include "model/counts.h"
#include "tests/methods/graph_builder.h"

namespace pare::methods {
namespace {

using model::OpType;

std::vector<std::string> Prunable(const model::Graph& graph) {
  std::vector<std::string> names;
  const model::GraphInfo info = *model::Analyze(graph);
  for (const model::TensorSpec& spec : info.tensors) {
    if (spec.prunable) names.push_back(spec.name);
  }
  return names;
}

Json Structured(const model::Graph& graph, const std::string& unit, double sparsity, int64_t round_to = 1) {
  return {{"criterion", "magnitude_l1"}, {"scope", unit == "layer" ? "global" : "layer"}, {"tensors", Prunable(graph)}, {"min_density", 0.0},
          {"max_density", 1.0}, {"sparsity", sparsity}, {"granularity", {{"kind", "structured"}, {"unit", unit}, {"round_to", round_to}}}};
}

// Masks by the parameters, applied to the tensors.
Result<Model> Masked(Model m, const Json& params) {
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(m.graph));
  ASSIGN_OR_RETURN(PruneOptions options, PruneOptionsFromJson(params, m.graph, info));
  ASSIGN_OR_RETURN(auto views, ViewWeights(options, info, m.tensors));
  ASSIGN_OR_RETURN(m.masks, Prune(options, {params["sparsity"].get<double>(), {}}, views, m.masks, {3, 0}));
  ApplyMasks(m.masks, m.tensors);
  return m;
}

std::vector<Removal> RemoveAll(Model& m) {
  std::vector<std::string> names = Prunable(m.graph);
  auto report = RemoveMaskedUnits(m, {names.begin(), names.end()});
  EXPECT_TRUE(report.ok()) << report.error().message;
  return report.ok() ? *report : std::vector<Removal>();
}

double Difference(const Model& a, const Model& b, uint64_t seed) {
  auto inputs = RandomInputs(a.graph, seed);
  Vector x = ReferenceForward(a.graph, a.tensors).Run(inputs), y = ReferenceForward(b.graph, b.tensors).Run(inputs);
  EXPECT_EQ(x.size(), y.size());
  double worst = 0;
  for (size_t i = 0; i < x.size() && i < y.size(); ++i) worst = std::max(worst, std::abs(x[i] - y[i]) / std::max(1.0, std::abs(x[i])));
  return worst;
}

Model Random(const model::Graph& graph, uint64_t seed) { return {graph, RandomTensors(graph, seed), {}}; }

// Folded biases are float32.
constexpr double kRounding = 1e-5;

TEST(RemoveTest, HalvesAnMlpAndItsCounts) {
  Model dense = Random(*model::BuildArchitecture("mlp", {{"hidden", {30, 20}}}, {1, 4, 4}, 5), 1);
  Model masked = *Masked(dense, Structured(dense.graph, "channel", 0.5)), removed = masked;
  auto report = RemoveAll(removed);
  auto info = *model::Analyze(removed.graph);
  EXPECT_EQ(info.parameters, 16 * 15 + 15 + 15 * 10 + 10 + 10 * 5 + 5);
  EXPECT_TRUE(removed.masks.empty());
  EXPECT_LT(Difference(masked, removed, 2), kRounding);
  EXPECT_GT(Difference(dense, removed, 2), 0.01);
  ASSERT_EQ(report.size(), 3u);
  EXPECT_EQ(report[0].before, 30);
  EXPECT_EQ(report[0].after, 15);
  EXPECT_EQ(report[2].after, 5) << "classes stay";
}

TEST(RemoveTest, SaysWhyUnitsNextToAnEncodedLayerStay) {
  Model masked = *Masked(Random(*model::BuildArchitecture("mlp", {{"hidden", {30, 20}}}, {1, 4, 4}, 5), 1), {{"criterion", "magnitude_l1"}, {"scope", "layer"},
      {"tensors", {"fc1.weight"}}, {"min_density", 0.0}, {"max_density", 1.0}, {"sparsity", 0.5}, {"granularity", {{"kind", "structured"}, {"unit", "channel"}, {"round_to", 1}}}});
  for (model::Node& node : masked.graph.nodes) {
    if (node.name != "fc2") continue;
    node.attributes.encoding = model::Encoding::kInt8;
    masked.tensors["fc2.weight_scale"] = model::Tensor(model::DType::kF32, {20});
    masked.tensors["fc2.weight"] = model::Tensor(model::DType::kI8, {20, 30});
  }
  auto report = RemoveMaskedUnits(masked, {"fc1.weight"});
  ASSERT_TRUE(report.ok()) << report.error().message;
  ASSERT_EQ(report->size(), 1u);
  EXPECT_EQ(report->at(0).after, 30);
  EXPECT_THAT(report->at(0).stayed, testing::HasSubstr("'fc2' are not float32"));
}

TEST(RemoveTest, FollowsChannelsThroughPoolingAndFlatten) {
  Model dense = Random(*model::BuildArchitecture("lenet5", Json::object(), {1, 28, 28}, 10), 1);
  Model masked = *Masked(dense, Structured(dense.graph, "channel", 0.5)), removed = masked;
  RemoveAll(removed);
  EXPECT_EQ(removed.tensors.at("conv1.weight").shape(), (model::Shape{3, 1, 5, 5}));
  EXPECT_EQ(removed.tensors.at("conv2.weight").shape(), (model::Shape{8, 3, 5, 5}));
  EXPECT_EQ(removed.tensors.at("fc1.weight").shape(), (model::Shape{60, 200}));
  EXPECT_LT(Difference(masked, removed, 2), kRounding);
}

TEST(RemoveTest, FollowsResidualAdditionsAndBatchNorm) {
  Model dense = Random(*model::BuildArchitecture("resnet14", {{"width", 4}}, {1, 8, 8}, 3), 1);
  Model masked = *Masked(dense, Structured(dense.graph, "channel", 0.5)), removed = masked;
  RemoveAll(removed);
  EXPECT_EQ(removed.tensors.at("stem.conv.weight").shape()[0], 2);
  EXPECT_EQ(removed.tensors.at("stage1.1.conv2.weight").shape()[0], 2) << "coupled with the stem by the additions";
  EXPECT_EQ(removed.tensors.at("fc.weight").shape(), (model::Shape{3, 8}));
  EXPECT_LT(Difference(masked, removed, 2), kRounding);
}

TEST(RemoveTest, DropsWholeResidualBranches) {
  Model dense = Random(*model::BuildArchitecture("resnet20", {{"width", 4}}, {1, 8, 8}, 3), 1);
  Model masked = *Masked(dense, Structured(dense.graph, "layer", 0.34)), removed = masked;
  auto report = RemoveAll(removed);
  EXPECT_EQ(std::count_if(report.begin(), report.end(), [](const Removal& r) { return r.after == 0; }), 6) << "three blocks of two convolutions";
  EXPECT_EQ(removed.graph.nodes.size() + 3 * 6, masked.graph.nodes.size()) << "two convolutions, two norms, one activation and the addition each";
  EXPECT_LT(Difference(masked, removed, 2), kRounding);
}

// Two layers of a transformer's encoder, pre-norm and post-norm.
model::Graph Encoder() {
  GraphBuilder b;
  model::Attributes embedding;
  embedding.vocabulary = 11, embedding.dimension = 8;
  std::string ids = b.Input({5}, "ids"), x = b.Add("embedding", OpType::kEmbedding, {ids}, embedding);
  for (std::string layer : {"layer1", "layer2"}) {
    std::string n = b.Norm(layer + ".norm1", x);
    std::string q = b.Linear(layer + ".q", n, 12), k = b.Linear(layer + ".k", n, 12), v = b.Linear(layer + ".v", n, 8);
    std::string a = b.Attention(layer + ".attention", q, k, v, 4), o = b.Linear(layer + ".out", a, 8);
    x = b.Add(layer + ".add1", OpType::kAdd, {x, o});
    std::string f = b.Add(layer + ".gelu", OpType::kGelu, {b.Linear(layer + ".up", b.Norm(layer + ".norm2", x), 24)});
    x = b.Add(layer + ".add2", OpType::kAdd, {x, b.Linear(layer + ".down", f, 8)});
  }
  b.Linear("classifier", b.Add("flatten", OpType::kFlatten, {b.Norm("norm", x)}), 3);
  return b.graph;
}

TEST(RemoveTest, TakesHeadsFfnColumnsAndLayersOutOfAnEncoder) {
  Model dense = Random(Encoder(), 1);
  Model masked = *Masked(*Masked(dense, Structured(dense.graph, "head", 0.5)), Structured(dense.graph, "channel", 0.5)), removed = masked;
  RemoveAll(removed);
  EXPECT_EQ(removed.graph.Find("layer1.attention")->attributes.heads, 2);
  EXPECT_EQ(removed.tensors.at("layer1.q.weight").shape(), (model::Shape{6, 8}));
  EXPECT_EQ(removed.tensors.at("layer1.v.weight").shape(), (model::Shape{4, 8}));
  EXPECT_EQ(removed.tensors.at("layer2.up.weight").shape(), (model::Shape{12, 8})) << "FFN columns";
  EXPECT_EQ(removed.tensors.at("layer2.down.weight").shape(), (model::Shape{8, 12})) << "layer norm fixes the stream";
  EXPECT_EQ(removed.tensors.at("embedding.weight").shape(), (model::Shape{11, 8}));
  EXPECT_LT(Difference(masked, removed, 2), kRounding);
  Model layers = *Masked(dense, Structured(dense.graph, "layer", 0.5)), gone = layers;
  RemoveAll(gone);
  EXPECT_EQ(model::Analyze(gone.graph)->shapes.size(), gone.graph.nodes.size());
  EXPECT_LT(gone.graph.nodes.size(), layers.graph.nodes.size() - 6);
  EXPECT_LT(Difference(layers, gone, 2), kRounding);
}

// With padding and two segments among the random ids.
TEST(RemoveTest, TakesHeadsFfnColumnsAndLayersOutOfTheBuiltInEncoder) {
  for (const char* pooling : {"first", "mean"}) {
    model::Graph graph = *model::BuildArchitecture(
        "encoder", {{"vocabulary", 5}, {"length", 12}, {"hidden", 8}, {"heads", 4}, {"intermediate", 12}, {"separator", 2}, {"pooling", pooling}}, {10}, 3);
    Model dense = Random(graph, 1);
    Model masked = *Masked(*Masked(dense, Structured(graph, "head", 0.5)), Structured(graph, "channel", 0.5)), removed = masked;
    RemoveAll(removed);
    EXPECT_EQ(removed.graph.Find("encoder.layer.1.attention.self")->attributes.heads, 2);
    EXPECT_EQ(removed.tensors.at("encoder.layer.0.attention.self.key.weight").shape(), (model::Shape{4, 8}));
    EXPECT_EQ(removed.tensors.at("encoder.layer.0.output.dense.weight").shape(), (model::Shape{8, 6}));
    EXPECT_EQ(removed.tensors.at("embeddings.word_embeddings.weight").shape(), (model::Shape{5, 8})) << "layer norm fixes the stream";
    EXPECT_EQ(removed.tensors.at("classifier.weight").shape(), (model::Shape{3, pooling == std::string("first") ? 4 : 8})) << "the pooler's neurons";
    EXPECT_LT(Difference(masked, removed, 2), kRounding);
    Model layers = *Masked(dense, Structured(graph, "layer", 0.5)), gone = layers;
    RemoveAll(gone);
    EXPECT_LT(gone.graph.nodes.size(), layers.graph.nodes.size());
    EXPECT_LT(Difference(layers, gone, 2), kRounding);
  }
}

TEST(RemoveTest, ShrinksAnEmbeddingWithoutLayerNorm) {
  GraphBuilder b;
  model::Attributes embedding;
  embedding.vocabulary = 7, embedding.dimension = 6;
  std::string e = b.Add("embedding", OpType::kEmbedding, {b.Input({4})}, embedding);
  b.Linear("out", b.Add("flatten", OpType::kFlatten, {e}), 3);
  Model masked = *Masked(Random(b.graph, 1), Structured(b.graph, "channel", 0.5)), removed = masked;
  RemoveAll(removed);
  EXPECT_EQ(removed.tensors.at("embedding.weight").shape(), (model::Shape{7, 3}));
  EXPECT_EQ(removed.tensors.at("out.weight").shape(), (model::Shape{3, 12}));
  EXPECT_LT(Difference(masked, removed, 2), kRounding);
}

// A mask that empties rows but leaves biases: what remains of a unit is a constant.
model::MaskMap EmptyRows(const model::Graph& graph, const std::string& layer, std::vector<int64_t> rows) {
  model::Shape shape;
  const model::GraphInfo info = *model::Analyze(graph);
  for (const auto& spec : info.tensors) if (spec.name == layer + ".weight") shape = spec.shape;
  model::Mask mask(shape);
  for (int64_t row : rows) for (int64_t i = 0; i < mask.size() / shape[0]; ++i) mask.set(row * (mask.size() / shape[0]) + i, false);
  return {{layer + ".weight", mask}};
}

TEST(RemoveTest, FoldsTheConstantOfABiasIntoItsReaders) {
  GraphBuilder b;
  std::string h = b.Add("sigmoid", OpType::kSigmoid, {b.Linear("fc1", b.Input({6}), 5)});
  b.Add("sum", OpType::kAdd, {b.Linear("fc2", h, 3, false), b.Linear("fc3", h, 3)});
  Model masked = Random(b.graph, 1);
  masked.masks = EmptyRows(b.graph, "fc1", {0, 3});
  ApplyMasks(masked.masks, masked.tensors);
  Model removed = masked;
  RemoveAll(removed);
  EXPECT_EQ(removed.tensors.at("fc2.weight").shape(), (model::Shape{3, 3}));
  EXPECT_TRUE(removed.graph.Find("fc2")->attributes.bias) << "got the bias that it had not";
  EXPECT_LT(Difference(masked, removed, 2), kRounding);
}

TEST(RemoveTest, FollowsFeaturesThroughThePoolingOfASequence) {
  for (auto [op, with_mask] : {std::pair(OpType::kFirst, false), std::pair(OpType::kSequenceMean, false), std::pair(OpType::kSequenceMean, true)}) {
    GraphBuilder b;
    model::Attributes embedding;
    embedding.vocabulary = 3, embedding.dimension = 4;
    std::string ids = b.Input({6}, "ids"), l = b.Linear("l", b.Add("embedding", OpType::kEmbedding, {ids}, embedding), 5);
    std::vector<std::string> inputs = {l};
    if (with_mask) inputs.push_back(b.Add("mask", OpType::kKeyMask, {ids}));
    b.Linear("out", b.Add("pool", op, inputs), 3);
    Model masked = Random(b.graph, 1);
    masked.masks = EmptyRows(b.graph, "l", {1, 4});
    ApplyMasks(masked.masks, masked.tensors);
    Model removed = masked;
    auto report = RemoveAll(removed);
    // A sample of padding alone has the mean 0, not the bias.
    EXPECT_EQ(report[0].after, with_mask ? 5 : 3);
    EXPECT_EQ(report[0].stayed, with_mask ? "its value is not constant at 'pool'" : "");
    EXPECT_LT(Difference(masked, removed, 2), kRounding);
  }
}

TEST(RemoveTest, KeepsAUnitWhoseConstantMeetsPadding) {
  for (int64_t padding : {0, 1}) {
    GraphBuilder b;
    std::string h = b.Add("relu", OpType::kRelu, {b.Conv("conv1", b.Input({2, 5, 5}), 4, 3, 1)});
    b.Linear("fc", b.Add("flatten", OpType::kFlatten, {b.Conv("conv2", h, 3, 3, padding)}), 2);
    Model masked = Random(b.graph, 1);
    model::Tensor bias = model::Tensor::Of<float>(model::DType::kF32, {4}, std::vector<float>{0.5f, -0.5f, 0.25f, 1.0f});
    masked.tensors.at("conv1.bias") = bias;
    masked.masks = EmptyRows(b.graph, "conv1", {0, 1});
    ApplyMasks(masked.masks, masked.tensors);
    Model removed = masked;
    auto report = RemoveAll(removed);
    EXPECT_EQ(report[0].after, padding == 0 ? 2 : 3) << "relu(−0.5) is zero in any case";
    EXPECT_EQ(report[0].stayed.find("padding") != std::string::npos, padding == 1) << report[0].stayed;
    EXPECT_LT(Difference(masked, removed, 2), kRounding);
  }
}

TEST(RemoveTest, OneUnitOfEveryLayerStays) {
  GraphBuilder b;
  b.Linear("fc2", b.Add("relu", OpType::kRelu, {b.Linear("fc1", b.Input({6}), 4)}), 3);
  Model masked = Random(b.graph, 1);
  masked.masks = EmptyRows(b.graph, "fc1", {0, 1, 2, 3});
  ApplyMasks(masked.masks, masked.tensors);
  Model removed = masked;
  auto report = RemoveAll(removed);
  EXPECT_EQ(report[0].after, 1);
  EXPECT_NE(report[0].stayed.find("only one"), std::string::npos);
  EXPECT_LT(Difference(masked, removed, 2), kRounding);
}

TEST(RemoveTest, LayersOutsideOfTheTargetsStay) {
  Model dense = Random(*model::BuildArchitecture("mlp", {{"hidden", {30, 20}}}, {1, 4, 4}, 5), 1);
  Model removed = *Masked(dense, Structured(dense.graph, "channel", 0.5));
  ASSERT_TRUE(RemoveMaskedUnits(removed, {"fc2.weight"}).ok());
  EXPECT_EQ(removed.tensors.at("fc1.weight").shape()[0], 30);
  EXPECT_EQ(removed.tensors.at("fc2.weight").shape(), (model::Shape{10, 30}));
  EXPECT_TRUE(removed.masks.contains("fc1.weight"));
}

// --- random graphs ---

class RandomGraph {
 public:
  // Images through a few operators, then vectors through a few more.
  static model::Graph Images() {
    GraphBuilder b;
    std::string x = b.Input({*rc::gen::inRange<int64_t>(1, 4), 6, 6});
    int64_t length = *rc::gen::inRange(2, 8);
    for (int64_t i = 0; i < length; ++i) x = ImageStep(b, x, "n" + std::to_string(i));
    if (*rc::gen::arbitrary<bool>()) x = b.Add("pool", OpType::kGlobalAvgPool2d, {x});
    x = b.Add("flatten", OpType::kFlatten, {x});
    length = *rc::gen::inRange(0, 4);
    for (int64_t i = 0; i < length; ++i) x = VectorStep(b, x, "v" + std::to_string(i));
    b.Linear("classes", x, 3);
    return b.graph;
  }

 private:
  static std::string Activate(GraphBuilder& b, const std::string& x, const std::string& name) {
    OpType op = *rc::gen::element(OpType::kRelu, OpType::kGelu, OpType::kTanh, OpType::kSigmoid, OpType::kSilu);
    return b.Add(name + ".act", op, {x});
  }
  static std::string ImageStep(GraphBuilder& b, const std::string& x, const std::string& name) {
    int64_t channels = b.ShapeOf(x)[0], out = *rc::gen::inRange<int64_t>(1, 7);
    bool bias = *rc::gen::arbitrary<bool>();
    switch (*rc::gen::inRange(0, 9)) {
      case 0: return Activate(b, b.Conv(name, x, out, 3, 1, bias), name);
      case 1: return Activate(b, b.Norm(name + ".bn", b.Conv(name, x, out, 1, 0, bias)), name);
      case 2: return b.Norm(name + ".bn", x);
      case 3: return b.Pool(name, *rc::gen::element(OpType::kMaxPool2d, OpType::kAvgPool2d), x, 3, 1);
      case 4: return b.Conv(name, x, channels * *rc::gen::inRange<int64_t>(1, 3), 3, 1, bias, channels);  // depthwise
      case 5: return channels % 2 == 0 ? b.Conv(name, x, channels, 1, 0, bias, channels / 2) : b.Conv(name, x, 4, 1, 0, bias);
      case 6: return b.Concat(name + ".cat", {x, b.Conv(name, x, out, 3, 1, bias)}, 0);
      case 7: {  // residual
        std::string h = Activate(b, b.Norm(name + ".bn1", b.Conv(name + ".a", x, out, 3, 1, bias)), name);
        return b.Add(name + ".add", OpType::kAdd, {x, b.Norm(name + ".bn2", b.Conv(name + ".b", h, channels, 3, 1, bias))});
      }
      default: return b.Concat(name + ".cat", {b.Conv(name + ".a", x, out, 1, 0), b.Conv(name + ".b", x, out, 1, 0, bias)}, *rc::gen::inRange<int64_t>(0, 3));
    }
  }
  static std::string VectorStep(GraphBuilder& b, const std::string& x, const std::string& name) {
    int64_t width = b.ShapeOf(x)[0], out = *rc::gen::inRange<int64_t>(1, 9);
    bool bias = *rc::gen::arbitrary<bool>();
    switch (*rc::gen::inRange(0, 5)) {
      case 0: return Activate(b, b.Linear(name, x, out, bias), name);
      case 1: return b.Add(name + ".add", OpType::kAdd, {x, b.Linear(name + ".b", Activate(b, b.Linear(name + ".a", x, out, bias), name), width, bias)});
      case 2: return b.Norm(name + ".ln", x);
      case 3: return b.Concat(name + ".cat", {x, b.Linear(name, x, out, bias)}, 0);
      default: {
        std::string h = b.Linear(name, x, 8, bias);
        model::Attributes a;
        a.shape = {2, 4};
        std::string r = b.Add(name + ".heads", OpType::kReshape, {h}, a);
        return b.Add(name + ".flat", OpType::kFlatten, {r});
      }
    }
  }
};

TEST(RemoveTest, AgreesWithTheMaskedModelOnRandomGraphs) {
  int shrunk = 0;
  EXPECT_TRUE(rc::check([&] {
    Model dense = Random(RandomGraph::Images(), *rc::gen::arbitrary<uint64_t>());
    std::string unit = *rc::gen::element<std::string>("channel", "channel", "layer");
    auto masked = Masked(dense, Structured(dense.graph, unit, *rc::gen::inRange(1, 100) / 100.0, *rc::gen::inRange<int64_t>(1, 4)));
    if (!masked.ok()) return RC_ASSERT(masked.error().code == ErrorCode::kInvalid);
    // Half of the time biases and norms come back, as if the mask had been another's: constants have to be folded.
    if (*rc::gen::arbitrary<bool>()) {
      std::erase_if(masked->masks, [](const auto& m) { return !m.first.ends_with(".weight") || m.first.find(".bn") != std::string::npos; });
      for (auto& [name, tensor] : masked->tensors) {
        if (!masked->masks.contains(name)) tensor = dense.tensors.at(name);
      }
    }
    Model removed = *masked;
    auto report = RemoveMaskedUnits(removed, [&] { auto names = Prunable(dense.graph); return std::set<std::string>(names.begin(), names.end()); }());
    RC_ASSERT(report.ok());
    auto before = *model::Analyze(masked->graph), after = *model::Analyze(removed.graph);
    RC_ASSERT(after.parameters <= before.parameters + static_cast<int64_t>(64));
    shrunk += after.parameters < before.parameters;
    auto inputs = RandomInputs(dense.graph, 5);
    Vector x = ReferenceForward(masked->graph, masked->tensors).Run(inputs), y = ReferenceForward(removed.graph, removed.tensors).Run(inputs);
    for (size_t i = 0; i < x.size(); ++i) RC_ASSERT(std::abs(x[i] - y[i]) <= 1e-5 * std::max(1.0, std::abs(x[i])));
  }));
  EXPECT_GT(shrunk, 10) << "hardly anything was removed: the test says little";
}

}  // namespace
}  // namespace pare::methods
