#include "methods/outline.h"

#include <gtest/gtest.h>

#include "methods/registry.h"
#include "model/architectures.h"

namespace pare::methods {
namespace {

Outline MlpOutline() {
  model::Graph graph = *model::BuildArchitecture("mlp", {{"hidden", {8, 6}}}, {1, 4, 4}, 3);
  return OutlineOf(graph, *model::Analyze(graph));
}

TEST(OutlineTest, CountsWhatTheDenseNetworkHas) {
  Outline outline = MlpOutline();
  EXPECT_EQ(outline.layers.size(), 3u);
  EXPECT_EQ(outline.layers.at("fc1.weight").weights, 16 * 8);
  EXPECT_EQ(outline.layers.at("fc1.weight").multiply_adds, 16 * 8);
  EXPECT_EQ(outline.other_parameters, 8 + 6 + 3);
}

TEST(OutlineTest, QuantizedWeightsCannotBeTrainedOrRewritten) {
  Outline outline = MlpOutline();
  EXPECT_TRUE(CheckTrainable(outline, "retrain").ok());
  outline.layers.at("fc2.weight").encoding = model::Encoding::kInt8;
  outline.encoder = "quantize";
  EXPECT_EQ(CheckTrainable(outline, "retrain").error().message,
            "retrain cannot train what quantize has left (fc2.weight is int8): its weights are no longer float32; put retrain before quantize");
  auto refused = FindMethod("prune")->outline(outline, {{"tensors", {"fc2.weight"}}, {"sparsity", 0.5}, {"min_density", 0.0}, {"max_density", 1.0}, {"scope", "layer"}});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().message, "prune needs float32 weights, those of fc2 are int8 after quantize; put prune before it, or leave the layer out with ignore");
}

TEST(OutlineTest, AdaptersThatWaitToBeMergedAllowOnlyTheirOwnTraining) {
  Outline outline = MlpOutline();
  outline.adapters = "lora";
  EXPECT_TRUE(CheckTrainable(outline, "lora").ok());
  EXPECT_EQ(CheckTrainable(outline, "retrain").error().message, "retrain cannot train a network with unmerged lora adapters; set merge: true in that step");
}

TEST(PresentTensorsTest, FactorsStandForTheLayerTheyReplacedAndRemovedOnesAreSkipped) {
  model::Graph graph = *model::BuildArchitecture("mlp", {{"hidden", {8, 6}}}, {1, 4, 4}, 3);
  model::GraphInfo info = *model::Analyze(graph);
  for (model::TensorSpec& spec : info.tensors) {
    if (spec.node == "fc1") spec.node = "fc0.down", spec.name = "fc0.down." + spec.role;
    if (spec.node == "fc2") spec.node = "fc0.up", spec.name = "fc0.up." + spec.role;
  }
  auto present = PresentTensors({{"tensors", {"fc0.weight", "fc3.weight", "gone.weight"}}}, info);
  ASSERT_TRUE(present.ok());
  std::vector<std::string> names;
  for (const auto& spec : *present) names.push_back(spec.name);
  EXPECT_EQ(names, (std::vector<std::string>{"fc0.down.weight", "fc0.up.weight", "fc3.weight"}));
  EXPECT_FALSE(PresentTensors({{"tensors", 3}}, info).ok());
}

}  // namespace
}  // namespace pare::methods
