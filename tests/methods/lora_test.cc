#include "methods/lora.h"

#include <gtest/gtest.h>

#include <cmath>

#include "model/architectures.h"
#include "model/initialize.h"

namespace pare::methods {
namespace {

Model Mlp() {
  Model m;
  m.graph = *model::BuildArchitecture("mlp", {{"hidden", {8, 6}}}, {1, 4, 4}, 5);
  m.tensors = model::InitializeWeights(m.graph, *model::Analyze(m.graph), 5);
  return m;
}

template <typename T>
std::string MessageOf(const Result<T>& result) { return result.ok() ? "accepted" : result.error().message; }

Result<Model> Adapt(Model model, const LoraOptions& options, uint64_t seed) {
  ASSIGN_OR_RETURN(Adapted adapted, AddAdapters(std::move(model), options, seed));
  return std::move(adapted.model);
}

TEST(LoraTest, AdaptersAreOrdinaryNodesAndStartAtZero) {
  auto adapted = Adapt(Mlp(), {{"fc2.weight"}, 2, 6.0}, 1);
  ASSERT_TRUE(adapted.ok()) << MessageOf(adapted);
  auto info = model::Analyze(adapted->graph);
  ASSERT_TRUE(info.ok()) << info.error().message;
  EXPECT_TRUE(model::CheckWeights(*info, adapted->tensors).ok());
  EXPECT_EQ(adapted->graph.Find("fc2.lora_scale")->attributes.factor, 3.0);
  EXPECT_EQ(adapted->graph.Find("fc2.lora_sum")->inputs, (std::vector<std::string>{"fc2", "fc2.lora_scale"}));
  for (float b : adapted->tensors.at("fc2.lora_b.weight").values<float>()) EXPECT_EQ(b, 0.0f);
  auto a = adapted->tensors.at("fc2.lora_a.weight");
  EXPECT_EQ(a.shape(), (model::Shape{2, 8}));
  float largest = 0;
  for (float v : a.values<float>()) largest = std::max(largest, std::abs(v));
  EXPECT_LE(largest, 1 / std::sqrt(8.0f));
  EXPECT_GT(largest, 0.5f / std::sqrt(8.0f));
  int readers = 0;
  for (const auto& node : adapted->graph.nodes) {
    for (const auto& input : node.inputs) readers += input == "fc2" && node.name != "fc2.lora_sum";
  }
  EXPECT_EQ(readers, 0) << "everything behind fc2 reads the sum";
}

TEST(LoraTest, OnlyAdaptersTrain) {
  auto adapted = *Adapt(Mlp(), {{"fc1.weight", "fc3.weight"}, 2, 4.0}, 1);
  EXPECT_EQ(AdaptedNodes(adapted.graph), (std::vector<std::string>{"fc1", "fc3"}));
  std::set<std::string> adapters = {"fc1.lora_a.weight", "fc1.lora_b.weight", "fc3.lora_a.weight", "fc3.lora_b.weight"};
  EXPECT_EQ(AdapterTensors(adapted.graph), adapters);
  std::set<std::string> frozen = {"fc1.bias", "fc1.weight", "fc2.bias", "fc2.weight", "fc3.bias", "fc3.weight"};
  EXPECT_EQ(FrozenUnderAdapters(adapted.graph, *model::Analyze(adapted.graph)), frozen);
}

TEST(LoraTest, MergingEqualsTheFormulaAndRestoresTheGraph) {
  Model base = Mlp();
  auto adapted = *Adapt(base, {{"fc1.weight", "fc3.weight"}, 2, 3.0}, 1);
  double i = 0;
  for (const char* name : {"fc1.lora_b.weight", "fc3.lora_b.weight"}) {
    model::Tensor b(model::DType::kF32, adapted.tensors.at(name).shape());
    for (float& v : b.mutable_values<float>()) v = static_cast<float>(std::sin(1 + i++));
    adapted.tensors[name] = b;
  }
  auto merged = *MergeAdapters(adapted);
  EXPECT_EQ(merged.graph, base.graph);
  ASSERT_EQ(merged.tensors.size(), base.tensors.size());
  EXPECT_EQ(merged.tensors.at("fc2.weight").digest(), base.tensors.at("fc2.weight").digest());
  for (const char* node : {"fc1", "fc3"}) {
    std::string name = std::string(node) + ".weight";
    auto w = base.tensors.at(name).values<float>(), m = merged.tensors.at(name).values<float>();
    auto a = adapted.tensors.at(std::string(node) + ".lora_a.weight"), b = adapted.tensors.at(std::string(node) + ".lora_b.weight");
    auto in = static_cast<size_t>(a.shape()[1]);
    for (size_t at = 0; at < w.size(); ++at) {
      double sum = 0;
      for (size_t r = 0; r < 2; ++r) sum += static_cast<double>(b.values<float>()[at / in * 2 + r]) * a.values<float>()[r * in + at % in];
      EXPECT_NEAR(m[at], w[at] + 1.5 * sum, 1e-6);
    }
  }
}

TEST(LoraTest, NamesWhatCannotBeAdaptedOrMerged) {
  EXPECT_NE(MessageOf(Adapt(Mlp(), {{"fc3.weight"}, 5, 1.0}, 1)).find("fc3: it is 5x6, where rank 5"), std::string::npos);
  auto adapted = *Adapt(Mlp(), {{"fc1.weight"}, 2, 1.0}, 1);
  EXPECT_NE(MessageOf(Adapt(adapted, {{"fc1.weight"}, 2, 1.0}, 1)).find("fc1 has an adapter already"), std::string::npos);
  EXPECT_NE(MessageOf(MergeAdapters(Mlp())).find("no adapters"), std::string::npos);
  adapted.masks.emplace("fc1.weight", model::Mask({8, 16}));
  EXPECT_NE(MessageOf(MergeAdapters(adapted)).find("fc1 is pruned"), std::string::npos);
  Model lenet;
  lenet.graph = *model::BuildArchitecture("lenet5", Json::object(), {1, 28, 28}, 10);
  lenet.tensors = model::InitializeWeights(lenet.graph, *model::Analyze(lenet.graph), 5);
  EXPECT_NE(MessageOf(Adapt(lenet, {{"conv1.weight"}, 2, 1.0}, 1)).find("conv1: it is conv2d"), std::string::npos);
  EXPECT_NE(MessageOf(Adapt(lenet, {{}, 2, 1.0}, 1)).find("none of its targets"), std::string::npos);
}

TEST(LoraTest, LayersThatCannotCarryOneAreReported) {
  auto adapted = *AddAdapters(Mlp(), {{"fc1.weight", "fc3.weight"}, 5, 1.0}, 1);
  EXPECT_EQ(adapted.report[0], (Json{{"layer", "fc1"}, {"rank", 5}}));
  EXPECT_EQ(adapted.report[1]["layer"], "fc3");
  EXPECT_NE(adapted.report[1]["left_alone"].get<std::string>().find("5x6"), std::string::npos);
  EXPECT_EQ(AdaptedNodes(adapted.model.graph), std::vector<std::string>{"fc1"});
}

TEST(LoraTest, AdaptersOfOneLayerDifferFromThoseOfAnotherSeedOrLayer) {
  auto one = *Adapt(Mlp(), {{"fc1.weight", "fc2.weight"}, 2, 1.0}, 1), two = *Adapt(Mlp(), {{"fc1.weight"}, 2, 1.0}, 2);
  EXPECT_NE(one.tensors.at("fc1.lora_a.weight").digest(), two.tensors.at("fc1.lora_a.weight").digest());
  EXPECT_EQ(one.tensors.at("fc1.lora_a.weight").digest(),
            Adapt(Mlp(), {{"fc1.weight"}, 2, 9.0}, 1)->tensors.at("fc1.lora_a.weight").digest()) << "does not depend on the other targets";
}

}  // namespace
}  // namespace pare::methods
