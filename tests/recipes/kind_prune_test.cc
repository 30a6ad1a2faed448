// prune and remove in the language: granularities, criteria, what makes no sense and what the network refuses.
#include "tests/recipes/fixture.h"

namespace pare::recipes {
namespace {

using testing::HasSubstr;

TEST(KindPruneTest, GranularitiesBecomeParameters) {
  auto granularity = [](const std::string& step) { return StepOf(Steps(step), "v/01-prune").spec.params.value("granularity", Json()); };
  EXPECT_TRUE(granularity("{prune: {sparsity: 0.5}}").is_null()) << "keys of earlier recipes stay";
  EXPECT_EQ(granularity("{prune: {granularity: 4x1, sparsity: 0.5}}"), Json({{"kind", "block"}, {"rows", 4}, {"columns", 1}}));
  EXPECT_EQ(granularity("{prune: {granularity: channel, round_to: 8, sparsity: 0.5}}"), Json({{"kind", "structured"}, {"unit", "channel"}, {"round_to", 8}}));
  PlannedStep groups = StepOf(Steps("{prune: {granularity: \"2:4\"}}"), "v/01-prune");
  EXPECT_EQ(groups.spec.params["granularity"], Json({{"kind", "n_m"}, {"n", 2}, {"m", 4}}));
  EXPECT_EQ(groups.spec.params["sparsity"], 0.5);
  EXPECT_EQ(groups.spec.params["scope"], "layer");
  EXPECT_EQ(StepOf(Steps("{prune: {granularity: \"1:4\", schedule: cubic, epochs: 3}}"), "v/01-prune").spec.params["final_sparsity"], 0.75);
}

TEST(KindPruneTest, CriteriaThatCalibrateReadData) {
  PlannedStep taylor = StepOf(Steps("{prune: {criterion: taylor, sparsity: 0.5}}"), "v/01-prune");
  EXPECT_EQ(taylor.spec.params["calibration_samples"], 512);
  EXPECT_FALSE(taylor.spec.data.is_null());
  PlannedStep magnitude = StepOf(Steps("{prune: {sparsity: 0.5}}"), "v/01-prune");
  EXPECT_FALSE(magnitude.spec.params.contains("calibration_samples"));
  EXPECT_TRUE(magnitude.spec.data.is_null());
}

TEST(KindPruneTest, ContradictionsAreToldWhereTheyStand) {
  EXPECT_THAT(StepsError("{prune: {granularity: 2;4, sparsity: 0.5}}"), HasSubstr("granularity: expected weight, N:M such as 2:4"));
  EXPECT_THAT(StepsError("{prune: {granularity: \"4:4\"}}"), HasSubstr("1 ≤ N < M"));
  EXPECT_THAT(StepsError("{prune: {granularity: \"2:4\", sparsity: 0.7}}"), HasSubstr("2:4 removes 0.5"));
  EXPECT_THAT(StepsError("{prune: {granularity: \"2:4\", scope: global}}"), HasSubstr("keeps as much in every row"));
  EXPECT_THAT(StepsError("{prune: {granularity: \"2:4\", fraction_of_remaining: 0.5}}"), HasSubstr("says itself how much goes"));
  EXPECT_THAT(StepsError("{prune: {sparsity: 0.5, round_to: 8}}"), HasSubstr("only with granularity: channel or head"));
  EXPECT_THAT(StepsError("{prune: {sparsity: 0.5, calibration_samples: 8}}"), HasSubstr("only with criterion: taylor or fisher"));
  EXPECT_THAT(StepsError("{prune: {sparsity: 0.5, criterion: movement}}"), HasSubstr("needs schedule: linear or cubic"));
  EXPECT_THAT(StepsError("{prune: {criterion: movement, schedule: cubic, init_sparsity: 0.1, final_sparsity: 0.5}}"), HasSubstr("before the first batch"));
  EXPECT_THAT(StepsError("{prune: {sparsity: 0.5, criterion: taylor, calibration_samples: 900000}}"), HasSubstr("only 55000 training samples"));
}

TEST(KindPruneTest, TheNetworkRefusesWhatItCannotGive) {
  EXPECT_THAT(StepsError("{prune: {granularity: \"2:8\", targets: fc2}}"), HasSubstr("multiple of 8 weights, those of fc2.weight have 300; ignore"));
  EXPECT_THAT(StepsError("{prune: {granularity: channel, targets: fc3, sparsity: 0.5}}"), HasSubstr("the width of fc3.weight is fixed"));
  EXPECT_THAT(StepsError("{prune: {granularity: head, sparsity: 0.5}}"), HasSubstr("belongs to no attention head"));
  EXPECT_THAT(StepsError("{prune: {granularity: layer, sparsity: 0.5}}"), HasSubstr("no residual branch"));
  EXPECT_THAT(StepsError("{prune: {granularity: channel, scope: layer, sparsity: 0.5, round_to: 512}}"), HasSubstr("round_to: 512 is more than the units of every layer (at most 300)"));
  EXPECT_EQ(StepsError("{prune: {granularity: channel, scope: layer, sparsity: 0.5, round_to: 128}}"), "");
}

TEST(KindPruneTest, RemoveFollowsAMaskAndEndsWeightRewinding) {
  ResolvedRecipe recipe = Steps("{prune: {granularity: channel, scope: layer, sparsity: 0.5}}, {remove: }, {retrain: {epochs: 1}}");
  PlannedStep remove = StepOf(recipe, "v/02-remove");
  EXPECT_EQ(remove.spec.params, Json({{"tensors", {"fc1.weight", "fc2.weight", "fc3.weight"}}}));
  double dense = static_cast<double>(Predict(StepOf(recipe, "baseline"), recipe)->multiply_adds);
  EXPECT_LT(static_cast<double>(Predict(remove, recipe)->multiply_adds), 0.6 * dense);
  EXPECT_THAT(StepsError("{remove: }"), HasSubstr("put prune with granularity: channel, head or layer first"));
  EXPECT_THAT(StepsError("{prune: {granularity: channel, sparsity: 0.5}}, {remove: }, {retrain: {rewind: weights}}"), HasSubstr("the network has changed"));
}

TEST(KindPruneTest, ASensitivityScanStandsBesideTheChain) {
  ResolvedRecipe recipe = Steps("{sensitivity: {energies: [], samples: 100}}, {prune: {sparsity: 0.5}}");
  PlannedStep scan = StepOf(recipe, "sensitivity-of-baseline");
  EXPECT_EQ(scan.spec.params, Json({{"tensors", {"fc1.weight", "fc2.weight", "fc3.weight"}}, {"sparsities", {0.5, 0.8, 0.9, 0.95}}, {"energies", Json::array()}, {"bits", {8, 4, 3}}, {"samples", 100}}));
  EXPECT_EQ(StepOf(recipe, "v/01-prune").spec.inputs.at("model"), StepOf(recipe, "baseline").key) << "the network goes on unchanged";
  EXPECT_THAT(StepsError("{sensitivity: {sparsities: [], energies: [], bits: []}}"), HasSubstr("nothing to scan"));
}

TEST(KindMeasureTest, StandsBesideTheChainTakesTheTargetAndMakesACandidate) {
  ResolvedRecipe recipe = Steps("{prune: {sparsity: 0.5}}, {measure: {runs: 7}}, {retrain: {epochs: 1}}");
  PlannedStep measure = StepOf(recipe, "measure-of-v-01-prune");
  EXPECT_EQ(measure.spec.params, Json({{"threads", 1}, {"batch", 1}, {"runs", 7}, {"seconds", 10}}));
  EXPECT_EQ(measure.spec.inputs.at("model"), StepOf(recipe, "v/01-prune").key);
  EXPECT_EQ(measure.spec.inputs.at("baseline"), StepOf(recipe, "baseline").key);
  EXPECT_TRUE(StepOf(recipe, "v/01-prune/evaluate").candidate);
  EXPECT_EQ(StepOf(recipe, "v/02-retrain").spec.inputs.at("model"), StepOf(recipe, "v/01-prune").key) << "the network goes on unchanged";
  EXPECT_EQ(Predict(measure, recipe)->parameters_nonzero, Predict(StepOf(recipe, "v/01-prune"), recipe)->parameters_nonzero);
}

TEST(KindPruneTest, APatternThatMatchesNothingIsAnErrorAndAModulePrefixIsHarmless) {
  EXPECT_THAT(StepsError("{prune: {sparsity: 0.5, targets: fc4}}"), HasSubstr("matches no layer"));
  EXPECT_THAT(StepsError("{prune: {granularity: channel, sparsity: 0.5}}, {remove: {targets: conv9}}"), HasSubstr("matches no layer"));
  EXPECT_EQ(StepOf(Steps("{prune: {sparsity: 0.5, targets: module.fc1}}"), "v/01-prune").key, StepOf(Steps("{prune: {sparsity: 0.5, targets: fc1}}"), "v/01-prune").key);
}

}  // namespace
}  // namespace pare::recipes
