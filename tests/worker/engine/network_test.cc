// Whole networks: gradients against PyTorch, the same bits for any number of threads, weights in and out.
#include "worker/engine/network.h"

#include <gtest/gtest.h>

#include "model/architectures.h"
#include "model/initialize.h"
#include "tests/worker/engine/reference_values.h"
#include "worker/engine/optimizer.h"

namespace pare::engine {
namespace {

using model::Attributes;
using model::Graph;
using model::OpType;

class Builder {
 public:
  Builder& Add(const std::string& name, OpType op, Attributes a = {}, std::vector<std::string> inputs = {}) {
    if (inputs.empty() && !graph.nodes.empty()) inputs = {graph.nodes.back().name};
    graph.nodes.push_back({name, op, std::move(inputs), std::move(a)});
    graph.output = name;
    return *this;
  }
  Builder& Input(model::Shape shape) { return Add("input", OpType::kInput, {.shape = std::move(shape)}); }
  Builder& Linear(const std::string& name, int64_t in, int64_t out, std::vector<std::string> inputs = {}) {
    return Add(name, OpType::kLinear, {.in_features = in, .out_features = out}, std::move(inputs));
  }
  Builder& Conv(const std::string& name, int64_t in, int64_t out) {
    return Add(name, OpType::kConv2d, {.bias = false, .in_channels = in, .out_channels = out, .kernel_h = 3, .kernel_w = 3, .padding_h = 1, .padding_w = 1});
  }
  Graph graph;
};

Graph SmallResnet() {
  Builder b;
  b.Input({1, 8, 8}).Conv("conv1", 1, 4).Add("bn1", OpType::kBatchNorm2d, {.features = 4}).Add("relu1", OpType::kRelu);
  b.Conv("conv2", 4, 4).Add("bn2", OpType::kBatchNorm2d, {.features = 4}).Add("add", OpType::kAdd, {}, {"bn2", "relu1"});
  b.Add("relu2", OpType::kRelu).Add("pool", OpType::kGlobalAvgPool2d).Add("flatten", OpType::kFlatten).Linear("fc", 4, 3);
  return b.graph;
}

Graph AttentionBlock() {
  Builder b;
  b.Add("input", OpType::kInput, {.shape = {6}, .dtype = model::DType::kI64});
  b.Add("embedding", OpType::kEmbedding, {.vocabulary = 11, .dimension = 8});
  b.Linear("query", 8, 8, {"embedding"}).Linear("key", 8, 8, {"embedding"}).Linear("value", 8, 8, {"embedding"});
  b.Add("attention", OpType::kAttention, {.heads = 2}, {"query", "key", "value"}).Linear("out", 8, 8);
  b.Add("add1", OpType::kAdd, {}, {"embedding", "out"}).Add("norm1", OpType::kLayerNorm, {.features = 8});
  b.Linear("up", 8, 16).Add("gelu", OpType::kGelu).Linear("down", 16, 8);
  b.Add("add2", OpType::kAdd, {}, {"norm1", "down"}).Add("norm2", OpType::kLayerNorm, {.features = 8});
  b.Add("flatten", OpType::kFlatten).Linear("head", 48, 3);
  return b.graph;
}

Graph GraphOf(const std::string& name) {
  if (name == "resnet") return SmallResnet();
  if (name == "attention") return AttentionBlock();
  if (name == "mlp") return *model::BuildArchitecture("mlp", Json{{"hidden", {9, 7}}}, {12}, 3);
  return *model::BuildArchitecture("lenet5", Json::object(), {1, 28, 28}, 10);
}

std::unique_ptr<Network> Make(const Graph& graph, const model::TensorMap& weights, int shards = 1, int threads = 1) {
  NetworkOptions options;
  options.shards = shards;
  options.threads = threads;
  options.seed = 7;
  auto network = Network::Create(graph, weights, options);
  EXPECT_TRUE(network.ok()) << (network.ok() ? "" : network.error().message);
  return std::move(*network);
}

Json ReferenceOf(const std::string& name) {
  for (const Json& entry : Reference().value("networks", Json::array())) {
    if (entry["name"] == name) return entry;
  }
  return Json();
}

class NetworkReferenceTest : public testing::TestWithParam<std::string> {};

TEST_P(NetworkReferenceTest, LossAndGradientsEqualPyTorch) {
  Json entry = ReferenceOf(GetParam());
  ASSERT_FALSE(entry.is_null());
  Graph graph = GraphOf(GetParam());
  auto info = *model::Analyze(graph);
  model::TensorMap weights = model::InitializeWeights(graph, info, 1);
  int ordinal = 0;
  for (const std::string name : entry["order"]) {
    ASSERT_TRUE(weights.count(name)) << name;
    weights[name] = Fill(weights[name].shape(), ordinal++);
  }
  auto network = Make(graph, weights);
  bool ids = GetParam() == "attention";
  int64_t sample = model::ElementCount(info.shapes[0]);
  std::vector<float> x(static_cast<size_t>(6 * sample));
  for (size_t i = 0; i < x.size(); ++i) x[i] = ids ? static_cast<float>(i * 7 % 11) : static_cast<float>(std::sin(0.23 * static_cast<double>(i)));
  std::vector<int64_t> labels;
  for (int64_t i = 0; i < 6; ++i) labels.push_back(i % network->classes());
  // Twice: reused workspaces must not change anything.
  for (int repeat = 0; repeat < 2; ++repeat) {
    ASSERT_TRUE(network->SetWeights(weights).ok());
    BatchResult result = network->TrainBatch(x, labels, {}, {});
    EXPECT_NEAR(result.loss, entry["loss"].get<double>(), 2e-5);
    for (const ParameterSlice& slice : network->layout()) {
      std::vector<double> expected = entry["gradients"][slice.name];
      auto stride = static_cast<size_t>(slice.size > 500 ? 17 : 1);
      for (size_t i = 0; i < expected.size(); ++i) {
        float found = network->gradients()[static_cast<size_t>(slice.offset) + i * stride];
        ASSERT_NEAR(found, expected[i], 2e-5 + 2e-4 * std::abs(expected[i])) << slice.name << " element " << i * stride;
      }
    }
    model::TensorMap after = network->Weights();
    for (const auto& [name, values] : entry["buffers"].items()) {
      auto found = after.at(name).values<float>();
      for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], values[i].get<double>(), 1e-5) << name;
    }
  }
}
INSTANTIATE_TEST_SUITE_P(All, NetworkReferenceTest, testing::Values("mlp", "lenet5", "resnet", "attention"), [](const auto& p) { return p.param; });

TEST(NetworkTest, LossEqualsPyTorchWithAndWithoutLabelSmoothing) {
  // A linear layer whose weight is the identity: its inputs are the logits, its bias gradient the sum of the logits' gradients.
  Builder b;
  b.Input({5}).Linear("fc", 5, 5);
  std::vector<float> identity(25, 0.0f);
  for (size_t i = 0; i < 5; ++i) identity[i * 6] = 1.0f;
  model::TensorMap weights{{"fc.weight", model::Tensor::Of<float>(model::DType::kF32, {5, 5}, identity)},
                           {"fc.bias", model::Tensor(model::DType::kF32, {5})}};
  auto network = Make(b.graph, weights);
  ASSERT_EQ(Reference().value("losses", Json::array()).size(), 2u);
  for (const Json& entry : Reference()["losses"]) {
    auto logits = entry["logits"].get<std::vector<float>>();
    auto labels = entry["labels"].get<std::vector<int64_t>>();
    auto result = network->TrainBatch(logits, labels, {}, {entry["label_smoothing"].get<double>()});
    EXPECT_NEAR(result.loss, entry["loss"].get<double>(), 1e-6);
    for (const ParameterSlice& slice : network->layout()) {
      if (slice.name != "fc.bias") continue;
      for (size_t i = 0; i < 5; ++i) {
        EXPECT_NEAR(network->gradients()[static_cast<size_t>(slice.offset) + i], entry["bias_gradient"][i].get<double>(), 1e-6);
      }
    }
  }
}

// Everything that training leaves behind after a few batches of unequal sizes.
std::string TrainedBits(const Graph& graph, int shards, int threads) {
  auto info = *model::Analyze(graph);
  auto network = Make(graph, model::InitializeWeights(graph, info, 3), shards, threads);
  auto optimizer = Optimizer::Create({.kind = "adam"}, static_cast<int64_t>(network->parameters().size()));
  int64_t sample = model::ElementCount(info.shapes[0]);
  double losses = 0;
  for (int64_t batch = 0; batch < 4; ++batch) {
    size_t n = batch == 3 ? 3 : 30;
    // An odd offset moves the samples off every alignment.
    std::vector<float> x(n * static_cast<size_t>(sample) + 1);
    bool ids = graph.nodes[0].attributes.dtype == model::DType::kI64;
    for (size_t i = 0; i < x.size(); ++i) {
      x[i] = ids ? static_cast<float>(i * 7 % 11) : static_cast<float>(std::sin(0.37 * static_cast<double>(i + static_cast<size_t>(batch))));
    }
    std::vector<int64_t> labels(n);
    for (size_t i = 0; i < n; ++i) labels[i] = static_cast<int64_t>(i) % network->classes();
    losses += network->TrainBatch(std::span(x).subspan(1), labels, {1, batch}, {}).loss;
    optimizer->Step(network->parameters(), network->gradients(), {}, 0.01, 1.0);
  }
  std::string bits(reinterpret_cast<const char*>(&losses), sizeof losses);
  for (const auto& [name, tensor] : network->Weights()) bits += name + tensor.digest().hex();
  return bits;
}

Graph WithDropout() {
  Graph graph = *model::BuildArchitecture("resnet8", Json{{"width", 4}}, {1, 8, 8}, 3);
  model::Node dropout{"dropout", OpType::kDropout, {"flatten"}, {.probability = 0.3}};
  graph.nodes.back().inputs = {"dropout"};
  graph.nodes.insert(graph.nodes.end() - 1, dropout);
  return graph;
}

TEST(NetworkTest, GivesTheSameBitsForAnyNumberOfThreads) {
  for (const Graph& graph : {GraphOf("mlp"), GraphOf("lenet5"), WithDropout(), AttentionBlock()}) {
    std::string one = TrainedBits(graph, 4, 1);
    EXPECT_EQ(one, TrainedBits(graph, 4, 1)) << "repeated";
    EXPECT_EQ(one, TrainedBits(graph, 4, 2));
    EXPECT_EQ(one, TrainedBits(graph, 4, 4));
  }
}

TEST(NetworkTest, DropoutDependsOnThePositionAndIsOffInEvaluation) {
  Builder b;
  b.Input({64}).Add("drop", OpType::kDropout, {.probability = 0.5}).Linear("fc", 64, 2);
  auto network = Make(b.graph, model::InitializeWeights(b.graph, *model::Analyze(b.graph), 3));
  std::vector<float> x(64, 1.0f);
  std::vector<int64_t> label = {0};
  double first = network->TrainBatch(x, label, {0, 0}, {}).loss;
  EXPECT_NE(first, network->TrainBatch(x, label, {0, 1}, {}).loss);
  EXPECT_NE(first, network->TrainBatch(x, label, {1, 0}, {}).loss);
  EXPECT_EQ(first, network->TrainBatch(x, label, {0, 0}, {}).loss);
  EXPECT_EQ(network->EvaluateBatch(x, label, {}).loss, network->EvaluateBatch(x, label, {}).loss);
}

TEST(NetworkTest, EvaluatesWithRunningStatistics) {
  Graph graph = SmallResnet();
  auto info = *model::Analyze(graph);
  auto network = Make(graph, model::InitializeWeights(graph, info, 3));
  std::vector<float> x(2 * 64), pair_logits(6), single_logits(3);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(std::cos(0.19 * static_cast<double>(i)));
  std::vector<int64_t> labels = {0, 1};
  network->EvaluateBatch(x, labels, pair_logits);
  network->EvaluateBatch(std::span(x).first(64), std::span(labels).first(1), single_logits);
  // A sample's logits do not depend on its neighbours.
  for (size_t c = 0; c < 3; ++c) EXPECT_NEAR(pair_logits[c], single_logits[c], 1e-6);
}

TEST(NetworkTest, FrozenTensorsHaveNoGradientAndTheOthersTheirOwn) {
  for (const char* name : {"mlp", "lenet5", "attention"}) {
    Graph graph = GraphOf(name);
    auto info = *model::Analyze(graph);
    auto weights = model::InitializeWeights(graph, info, 9);
    NetworkOptions options;
    options.shards = 2;
    auto whole = *Network::Create(graph, weights, options);
    for (size_t t = 0; t < info.tensors.size(); t += 2) options.frozen.insert(info.tensors[t].name);
    auto part = *Network::Create(graph, weights, options);
    std::vector<float> x(static_cast<size_t>(5 * model::ElementCount(info.shapes[0])));
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(std::cos(0.23 * static_cast<double>(i)));
    std::vector<int64_t> labels = {0, 1, 2, 1, 0};
    EXPECT_EQ(whole->TrainBatch(x, labels, {}, {}).loss, part->TrainBatch(x, labels, {}, {}).loss);
    ASSERT_LT(part->layout().size(), whole->layout().size());
    for (const ParameterSlice& slice : part->layout()) {
      EXPECT_FALSE(options.frozen.contains(slice.name));
      auto same = std::find_if(whole->layout().begin(), whole->layout().end(), [&](const auto& s) { return s.name == slice.name; });
      auto expected = whole->gradients().subspan(static_cast<size_t>(same->offset), static_cast<size_t>(same->size));
      auto found = part->gradients().subspan(static_cast<size_t>(slice.offset), static_cast<size_t>(slice.size));
      for (size_t i = 0; i < found.size(); ++i) ASSERT_NEAR(found[i], expected[i], 1e-6) << name << " " << slice.name << " " << i;
    }
    for (const auto& [tensor, value] : part->Weights()) EXPECT_EQ(value.digest(), weights.at(tensor).digest()) << tensor;
  }
}

TEST(NetworkTest, AFrozenBatchNormUsesItsStatisticsAndKeepsThem) {
  Builder b;
  b.Input({3, 4, 4}).Add("conv", OpType::kConv2d, {.in_channels = 3, .out_channels = 4}).Add("bn", OpType::kBatchNorm2d, {.features = 4});
  b.Add("flat", OpType::kFlatten, {}).Linear("fc", 64, 3);
  auto weights = model::InitializeWeights(b.graph, *model::Analyze(b.graph), 3);
  for (const char* name : {"bn.running_mean", "bn.running_var"}) {
    model::Tensor values(model::DType::kF32, {4});
    for (size_t i = 0; i < 4; ++i) values.mutable_values<float>()[i] = 0.5f + 0.25f * static_cast<float>(i);
    weights[name] = values;
  }
  NetworkOptions options;
  options.frozen = {"bn.weight", "bn.bias"};
  auto network = *Network::Create(b.graph, weights, options);
  std::vector<float> x(3 * 48);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(std::sin(1.3 * static_cast<double>(i)));
  std::vector<int64_t> labels = {0, 2, 1};
  // The same function as in evaluation, so its gradient is that of the evaluated loss.
  EXPECT_NEAR(network->TrainBatch(x, labels, {}, {}).loss, network->EvaluateBatch(x, labels, {}).loss, 1e-6);
  network->TrainBatch(x, labels, {}, {});
  for (size_t i = 0; i < 16; ++i) {
    float gradient = network->gradients()[i], &w = network->parameters()[i], kept = w;
    auto loss = [&](float step) { w = kept + step; return network->EvaluateBatch(x, labels, {}).loss; };
    EXPECT_NEAR(gradient, (loss(0.01f) - loss(-0.01f)) / 0.02, 2e-3) << i;
    w = kept;
  }
  EXPECT_EQ(network->Weights().at("bn.running_mean").digest(), weights.at("bn.running_mean").digest());
  EXPECT_EQ(network->Weights().at("bn.running_var").digest(), weights.at("bn.running_var").digest());
}

TEST(NetworkTest, WeightsComeBackAsGiven) {
  for (const char* name : {"mlp", "lenet5", "resnet", "attention"}) {
    Graph graph = GraphOf(name);
    auto weights = model::InitializeWeights(graph, *model::Analyze(graph), 9);
    auto back = Make(graph, weights)->Weights();
    ASSERT_EQ(back.size(), weights.size());
    for (const auto& [tensor, value] : weights) EXPECT_EQ(back.at(tensor).digest(), value.digest()) << tensor;
  }
}

TEST(NetworkTest, RefusesWhatItCannotRun) {
  Graph graph = GraphOf("mlp");
  auto weights = model::InitializeWeights(graph, *model::Analyze(graph), 9);
  auto message = [&](const model::TensorMap& w, const std::string& device) {
    NetworkOptions options;
    options.device = device;
    auto network = Network::Create(graph, w, options);
    EXPECT_FALSE(network.ok());
    return network.ok() ? std::string() : network.error().message;
  };
  EXPECT_NE(message(weights, "tpu").find("device 'tpu'"), std::string::npos);
  EXPECT_NE(message(weights, "cuda:x").find("allowed are cpu, cuda and cuda:N"), std::string::npos);
  // No machine has a hundredth GPU; without the CUDA libraries the message says what could not be loaded.
  EXPECT_NE(message(weights, "cuda:99").find("device 'cuda:99'"), std::string::npos);
  model::TensorMap missing = weights, shape = weights;
  missing.erase("fc1.weight");
  EXPECT_NE(message(missing, "cpu").find("fc1.weight"), std::string::npos);
  shape["fc2.bias"] = model::Tensor(model::DType::kF32, {2});
  EXPECT_NE(message(shape, "cpu").find("fc2.bias"), std::string::npos);
}

}  // namespace
}  // namespace pare::engine
