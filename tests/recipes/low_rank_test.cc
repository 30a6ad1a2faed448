// low_rank, lora, qlora and merge as written: what they plan, and what is refused with which words.
#include "tests/recipes/fixture.h"

namespace pare::recipes {
namespace {

using testing::HasSubstr;

std::string Variant(const std::string& steps) { return WithVariants(" {v: [" + steps + "]}"); }
std::string ErrorOfSteps(const std::string& steps) { return ErrorOf(Variant(steps)); }

TEST(LowRankKindTest, OneSpectrumIsSharedByAllThresholds) {
  ResolvedRecipe recipe = Resolved(WithVariants(" {a: [{low_rank: {energy: 0.9}}], b: [{low_rank: {rank: 4, ignore: fc3}}], c: [{low_rank: {budget: 0.5}}], d: [{low_rank: }]}"));
  PlannedStep spectrum = StepOf(recipe, "baseline/spectrum");
  EXPECT_EQ(spectrum.spec.kind, "spectrum");
  EXPECT_EQ(spectrum.spec.params, Json({{"conv", "channel"}, {"whitened", false}, {"tensors", {"fc1.weight", "fc2.weight", "fc3.weight"}}}));
  EXPECT_TRUE(spectrum.spec.data.is_null());
  EXPECT_EQ(StepOf(recipe, "a/01-low_rank").spec.inputs.at("spectrum"), spectrum.key);
  EXPECT_EQ(StepOf(recipe, "c/01-low_rank").spec.inputs.at("spectrum"), spectrum.key);
  EXPECT_NE(StepOf(recipe, "b/01-low_rank").spec.inputs.at("spectrum"), spectrum.key) << "other layers";
  EXPECT_EQ(StepOf(recipe, "a/01-low_rank").spec.params["energy"], 0.9);
  EXPECT_EQ(StepOf(recipe, "c/01-low_rank").spec.params["budget_of"], "parameters");
  EXPECT_EQ(StepOf(recipe, "d/01-low_rank").spec.params["energy"], 0.95) << "the default";
}

TEST(LowRankKindTest, EnergyLeavesTheOutputLayerWholeUnlessItIsAskedFor) {
  for (auto [section, whole] : {std::pair("{energy: 0.9}", true), {"", true}, {"{energy: 0.9, output_layer: true}", false}, {"{energy: 0.9, targets: linear}", false},
                                {"{budget: 0.5}", false}, {"{budget: 0.5, output_layer: false}", true}, {"{rank: 4, ignore: fc3}", false}}) {
    ResolvedRecipe recipe = Resolved(Variant("{low_rank: " + std::string(section) + "}"));
    EXPECT_EQ(StepOf(recipe, "v/01-low_rank").spec.params.contains("output_layer"), whole) << section;
  }
}

TEST(LowRankKindTest, AWhitenedSpectrumReadsTheData) {
  ResolvedRecipe recipe = Resolved(Variant("{low_rank: {energy: 0.9, whitened: true}}"));
  PlannedStep spectrum = StepOf(recipe, "baseline/spectrum");
  EXPECT_EQ(spectrum.spec.params["calibration_samples"], 1024);
  EXPECT_FALSE(spectrum.spec.data.is_null());
}

TEST(LowRankKindTest, ARankAboveBreakEvenNamesTheLayerAndARemedy) {
  EXPECT_THAT(ErrorOfSteps("{low_rank: {rank: 16}}"), HasSubstr("rank 16 saves nothing in fc3: of 10x100 only ranks up to 9 are below break-even; lower rank or add fc3 to ignore"));
  EXPECT_EQ(ErrorOfSteps("{low_rank: {rank: 16, ignore: fc3}}"), "");
}

TEST(LowRankKindTest, CalibrationThatIsTooSmallNamesTheLayerAndARemedy) {
  EXPECT_THAT(ErrorOfSteps("{low_rank: {whitened: true, calibration_samples: 500}}"),
              HasSubstr("calibration_samples: 500 samples are too few for the 784 input features of fc1; give at least 784, or whitened: false"));
  EXPECT_THAT(ErrorOfSteps("{low_rank: {whitened: true, calibration_samples: 56000}}"), HasSubstr("only 55000 training samples; lower it"));
}

TEST(LowRankKindTest, FieldsThatContradictEachOther) {
  EXPECT_THAT(ErrorOfSteps("{low_rank: {rank: 4, energy: 0.9}}"), HasSubstr("energy, budget and rank exclude each other"));
  EXPECT_THAT(ErrorOfSteps("{low_rank: {energy: 0.9, budget_of: parameters}}"), HasSubstr("budget_of: only with budget"));
  EXPECT_THAT(ErrorOfSteps("{low_rank: {calibration_samples: 2000}}"), HasSubstr("calibration_samples: only with whitened: true"));
  EXPECT_THAT(ErrorOfSteps("{low_rank: {energy: 1.5}}"), HasSubstr("energy"));
  EXPECT_THAT(ErrorOfSteps("{low_rank: {budget: 0.002}}"), HasSubstr("rank 1 in every layer keeps 0.006 of the parameters already"));
}

TEST(LowRankKindTest, ABudgetOfLatencyTakesTheBatchOfTheGoal) {
  std::string recipe = Variant("{low_rank: {budget: 0.5, budget_of: latency}}");
  EXPECT_EQ(StepOf(Resolved(recipe), "v/01-low_rank").spec.params["batch"], 1);
  Json params = StepOf(Resolved(Variant("{low_rank: {budget: 0.5, budget_of: latency, batch: 32, machine_balance: 4}}")), "v/01-low_rank").spec.params;
  EXPECT_EQ(params["batch"], 32);
  EXPECT_EQ(params["machine_balance"], 4);
  EXPECT_FALSE(StepOf(Resolved(Variant("{low_rank: {budget: 0.5}}")), "v/01-low_rank").spec.params.contains("batch"));
  EXPECT_THAT(ErrorOfSteps("{low_rank: {budget: 0.5, batch: 3}}"), HasSubstr("batch: only with budget_of: latency"));
}

TEST(LowRankKindTest, EarlierWeightsDoNotFitAfterwards) {
  EXPECT_THAT(ErrorOfSteps("{low_rank: }, {retrain: {rewind: weights, to: init}}"), HasSubstr("the network has changed"));
  EXPECT_EQ(ErrorOfSteps("{low_rank: }, {prune: {sparsity: 0.5}}, {retrain: {epochs: 1}}, {low_rank: {energy: 0.9}}"), "");
}

TEST(LoraKindTest, PlansTrainingWithItsOwnSettings) {
  ResolvedRecipe recipe = Resolved(Variant("{lora: {rank: 4, targets: [fc1, fc2], epochs: 2, learning_rate: 0.01}}"));
  Json params = StepOf(recipe, "v/01-lora").spec.params;
  EXPECT_EQ(params["tensors"], Json({"fc1.weight", "fc2.weight"}));
  EXPECT_EQ(params["rank"], 4);
  EXPECT_EQ(params["alpha"], 16);
  EXPECT_EQ(params["merge"], false);
  EXPECT_EQ(params["train"]["epochs"], 2);
  EXPECT_EQ(params["train"]["schedule"]["learning_rate"], 0.01);
  EXPECT_EQ(params["stop_epoch"], 2);
  EXPECT_FALSE(StepOf(recipe, "v/01-lora").spec.data.is_null());
  params = StepOf(Resolved(Variant("{qlora: }")), "v/01-qlora").spec.params;
  EXPECT_EQ(params["block_size"], 64);
  EXPECT_EQ(params["double_quantization"], true);
}

TEST(LoraKindTest, DefaultTargetsAreLinearsLargerThanTheRank) {
  EXPECT_EQ(StepOf(Resolved(Variant("{lora: {rank: 8}}")), "v/01-lora").spec.params["tensors"], Json({"fc1.weight", "fc2.weight", "fc3.weight"}));
  EXPECT_EQ(StepOf(Resolved(Variant("{lora: {rank: 10}}")), "v/01-lora").spec.params["tensors"], Json({"fc1.weight", "fc2.weight"}));
  EXPECT_THAT(ErrorOfSteps("{lora: {rank: 400}}"), HasSubstr("no linear is larger than rank 400"));
}

TEST(LoraKindTest, TargetsThatCannotCarryAnAdapterAreNamed) {
  EXPECT_THAT(ErrorOfSteps("{lora: {rank: 16, targets: fc3}}"), HasSubstr("fc3 is 10x100, where rank 16 is no low rank; lower rank or add fc3 to ignore"));
  std::string conv = Variant("{lora: {targets: conv2d, rank: 2}}");
  conv.replace(conv.find("{architecture: mlp, hidden: [300, 100]}"), 39, "{architecture: lenet5}");
  EXPECT_THAT(ErrorOf(conv), HasSubstr("conv1 is conv2d; adapters are for linear layers. Add it to ignore"));
  EXPECT_THAT(ErrorOfSteps("{qlora: {block_size: 63}}"), HasSubstr("give an even number"));
}

TEST(LoraKindTest, WhatMayFollowUnmergedAdapters) {
  EXPECT_EQ(ErrorOfSteps("{lora: {epochs: 1}}, {evaluate: {}}, {merge: }, {prune: {sparsity: 0.5}}, {retrain: {epochs: 1}}"), "");
  EXPECT_EQ(ErrorOfSteps("{lora: {epochs: 1, merge: true}}, {low_rank: {energy: 0.9}}, {lora: {epochs: 1, targets: fc1, rank: 2}}, {merge: {}}"), "");
  EXPECT_THAT(ErrorOfSteps("{lora: {epochs: 1}}, {retrain: {epochs: 1}}"), HasSubstr("unmerged lora adapters"));
  EXPECT_THAT(ErrorOfSteps("{lora: {epochs: 1}}, {low_rank: }"), HasSubstr("unmerged lora adapters"));
  EXPECT_THAT(ErrorOfSteps("{merge: }"), HasSubstr("there are no adapters here"));
  EXPECT_THAT(ErrorOfSteps("{qlora: {epochs: 1}}, {retrain: {epochs: 1}}"), HasSubstr("qlora"));
  EXPECT_THAT(ErrorOfSteps("{prune: {sparsity: 0.5}}, {lora: {epochs: 1, merge: true}}"), HasSubstr("fc1 is pruned"));
  EXPECT_THAT(ErrorOfSteps("{prune: {sparsity: 0.5}}, {lora: {epochs: 1}}, {merge: }"), HasSubstr("is pruned"));
}

}  // namespace
}  // namespace pare::recipes
