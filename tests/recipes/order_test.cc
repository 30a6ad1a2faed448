// Orders of steps: what makes sense is planned, what makes none is refused at its place, with the layer or step that is in the
// way and what to do instead.
#include "tests/recipes/fixture.h"

namespace pare::recipes {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

std::string OrderError(const std::string& steps) { return ErrorOf(WithVariants("\n  v:\n" + steps)); }

TEST(OrderTest, AQuantizedNetworkIsNotTrained) {
  for (const char* training : {"retrain: {epochs: 1}", "prune: {schedule: cubic, final_sparsity: 0.5, milestones: [1]}", "distill: {teacher: baseline}",
                               "self_distill: {epochs: 1}", "lora: {}", "qlora: {}"}) {
    EXPECT_THAT(OrderError("    - quantize:\n    - " + std::string(training)), AllOf(StartsWith("r.yaml:10:"), HasSubstr("quantize"), HasSubstr("before"))) << training;
  }
}

TEST(OrderTest, AQuantizedLayerIsNotPrunedFactoredRemovedOrRounded) {
  for (const char* rewrite : {"prune: {sparsity: 0.5}", "prune: {granularity: channel, scope: layer, sparsity: 0.5}", "low_rank: {energy: 0.9}", "cast:"}) {
    EXPECT_THAT(OrderError("    - quantize:\n    - " + std::string(rewrite)), AllOf(StartsWith("r.yaml:10:"), HasSubstr("fc1"), HasSubstr("int8"), HasSubstr("before"))) << rewrite;
  }
  EXPECT_THAT(OrderError("    - prune: {granularity: channel, scope: layer, sparsity: 0.5}\n    - quantize:\n    - remove:"), StartsWith("r.yaml:11:"));
}

TEST(OrderTest, AdaptersAreMergedBeforeAnythingElseChangesTheNetwork) {
  for (const char* step : {"prune: {sparsity: 0.5}", "retrain: {epochs: 1}", "low_rank: {energy: 0.9}", "quantize:", "cast:"}) {
    EXPECT_THAT(OrderError("    - lora: {epochs: 1}\n    - " + std::string(step)), AllOf(StartsWith("r.yaml:10:"), HasSubstr("adapters"), HasSubstr("merge"))) << step;
    EXPECT_EQ(OrderError("    - lora: {epochs: 1, merge: true}\n    - " + std::string(step)), "") << step;
  }
  EXPECT_THAT(OrderError("    - qlora: {epochs: 1}\n    - lora: {epochs: 1}"), AllOf(StartsWith("r.yaml:10:"), HasSubstr("qlora")));
}

TEST(OrderTest, EarlierWeightsDoNotFitAGraphThatHasChanged) {
  EXPECT_THAT(OrderError("    - low_rank: {energy: 0.9}\n    - retrain: {rewind: weights}"), AllOf(StartsWith("r.yaml:10:"), HasSubstr("network has changed"), HasSubstr("learning_rate")));
  EXPECT_THAT(OrderError("    - prune: {granularity: channel, scope: layer, sparsity: 0.5}\n    - remove:\n    - retrain: {rewind: weights}"),
              AllOf(StartsWith("r.yaml:11:"), HasSubstr("network has changed")));
  EXPECT_EQ(OrderError("    - low_rank: {energy: 0.9}\n    - retrain: {rewind: learning_rate}"), "");
}

TEST(OrderTest, EarlierOrNewWeightsDoNotFitAClusteredNetwork) {
  std::string cluster = "    - quantize: {scheme: cluster}\n";
  for (const char* step : {"retrain: {rewind: weights}", "distill: {teacher: baseline, rewind: weights}"}) {
    EXPECT_THAT(OrderError(cluster + "    - " + step), AllOf(StartsWith("r.yaml:10:"), HasSubstr("network has changed"), HasSubstr("before that step"))) << step;
  }
  EXPECT_THAT(OrderError(cluster + "    - self_distill: {start: new}"), AllOf(StartsWith("r.yaml:10:"), HasSubstr("fc1 is codebook"), HasSubstr("start: continue")));
  EXPECT_EQ(OrderError(cluster + "    - self_distill: {epochs: 1}"), "");
}

TEST(OrderTest, AdaptersNeedLayersThatPassGradientsAndCarryNoneYet) {
  EXPECT_THAT(OrderError("    - quantize: {scheme: cluster}\n    - lora: {epochs: 1}"), AllOf(StartsWith("r.yaml:10:"), HasSubstr("fc1 is codebook"), HasSubstr("put lora before")));
  EXPECT_THAT(OrderError("    - lora: {epochs: 1, targets: fc1}\n    - lora: {epochs: 1, targets: fc1}"), AllOf(StartsWith("r.yaml:10:"), HasSubstr("fc1 has an adapter already"), HasSubstr("merge")));
  EXPECT_EQ(OrderError("    - lora: {epochs: 1, merge: true}\n    - lora: {epochs: 1}"), "");
}

// What an earlier step did to some layers stands in the way of steps on the others, too.
TEST(OrderTest, AQuantizedLayerStopsTrainingOfItsNeighbours) {
  std::string int8 = "    - quantize: {targets: fc2}\n";
  for (const char* step : {"prune: {sparsity: 0.5, criterion: taylor, targets: fc1}", "prune: {sparsity: 0.5, criterion: fisher, targets: fc1}",
                           "prune: {granularity: channel, scope: layer, sparsity: 0.5, criterion: taylor, targets: fc1}", "quantize: {scheme: qat, targets: fc1, epochs: 1}"}) {
    EXPECT_THAT(OrderError(int8 + "    - " + step), AllOf(StartsWith("r.yaml:10:"), HasSubstr("fc2"), HasSubstr("int8"), HasSubstr("before"))) << step;
  }
  EXPECT_EQ(OrderError(int8 + "    - quantize: {scheme: qat, targets: [fc1, fc2], epochs: 1}"), "");
  EXPECT_EQ(OrderError(int8 + "    - prune: {sparsity: 0.5, targets: fc1}"), "");
}

TEST(OrderTest, UnitsNextToAnEncodedLayerStay) {
  for (const char* encode : {"quantize: {targets: fc2}", "quantize: {scheme: cluster, targets: fc2}"}) {
    EXPECT_THAT(OrderError("    - " + std::string(encode) + "\n    - prune: {granularity: channel, scope: layer, sparsity: 0.5, targets: fc1}"),
                AllOf(StartsWith("r.yaml:10:"), HasSubstr("fc1"), HasSubstr("'fc2' are not float32"))) << encode;
  }
}

TEST(OrderTest, OneStepMergesItsOwnAdapters) {
  EXPECT_THAT(OrderError("    - lora: {epochs: 1, targets: fc1}\n    - lora: {epochs: 1, targets: fc2, merge: true}"), AllOf(StartsWith("r.yaml:10:"), HasSubstr("merge step before it")));
  EXPECT_EQ(OrderError("    - lora: {epochs: 1, targets: fc1}\n    - merge:\n    - lora: {epochs: 1, targets: fc2, merge: true}\n    - retrain: {epochs: 1}"), "");
}

// A layer that is too small stays float32, and so does what follows.
TEST(OrderTest, LayersThatAreLeftAloneDoNotStandInTheWay) {
  EXPECT_EQ(OrderError("    - student: {model: {architecture: mlp, hidden: [20]}}\n    - quantize: {targets: fc2}\n    - retrain: {epochs: 1}"), "");
  EXPECT_EQ(OrderError("    - low_rank: {energy: 0.9}\n    - distill: {teacher: baseline, match: {fc3: fc3}}"), "");
}

TEST(OrderTest, HeadsAndBranchesDoNotComeWithAnotherRank) {
  for (const char* unit : {"head", "layer"}) {
    EXPECT_THAT(OrderError("    - low_rank: {energy: 0.9}\n    - prune: {granularity: " + std::string(unit) + ", sparsity: 0.5}"), StartsWith("r.yaml:10:")) << unit;
  }
}

TEST(OrderTest, OnlyWhatWasMaskedIsRemovedAndOnlyOnce) {
  std::string units = "    - prune: {granularity: channel, scope: layer, sparsity: 0.5}\n    - remove:\n";
  EXPECT_THAT(OrderError(units + "    - remove:"), AllOf(StartsWith("r.yaml:11:"), HasSubstr("no step before it masks")));
  EXPECT_THAT(OrderError("    - low_rank: {energy: 0.9}\n    - remove:"), AllOf(StartsWith("r.yaml:10:"), HasSubstr("no step before it masks")));
}

TEST(OrderTest, WhatDoesLittleIsSaid) {
  auto warnings = [](const std::string& steps) { return WarningsOf(WithVariants("\n  v:\n" + steps)); };
  EXPECT_THAT(warnings("    - prune: {sparsity: 0.5}\n    - remove:"), Contains(HasSubstr("no step before it prunes whole units")));
  EXPECT_THAT(warnings("    - prune: {granularity: channel, scope: layer, sparsity: 0.5}\n    - remove:"), Not(Contains(HasSubstr("whole units"))));
  EXPECT_THAT(warnings("    - prune: {sparsity: 0.5}\n    - prune: {sparsity: 0.3}"), Contains(HasSubstr("at least that sparse already")));
  EXPECT_THAT(warnings("    - prune: {sparsity: 0.3}\n    - prune: {sparsity: 0.5}"), Not(Contains(HasSubstr("sparse already"))));
  for (const char* first : {"prune: {sparsity: 0.9}", "low_rank: {rank: 20, targets: fc1}"}) {
    EXPECT_THAT(warnings("    - " + std::string(first) + "\n    - low_rank: {rank: 60, targets: fc1}"), Contains(HasSubstr("rank 60 of fc1 has more weights than the layer has left"))) << first;
  }
  EXPECT_THAT(warnings("    - prune: {sparsity: 0.5}\n    - student: {}"), Contains(HasSubstr("nothing is left of the steps before it")));
  EXPECT_THAT(warnings("    - student: {}"), Not(Contains(HasSubstr("nothing is left"))));
  EXPECT_THAT(warnings("    - distill: {teacher: baseline, temperature: 8}"), Contains(HasSubstr("clip_norm: 1")));
  EXPECT_THAT(warnings("    - distill: {teacher: baseline, temperature: 8, clip_norm: 1}"), Not(Contains(HasSubstr("temperature"))));
}

TEST(OrderTest, ARefusedStepIsToldOnceAlsoInALoop) {
  std::string error = OrderError("    - repeat: {times: 3}\n      steps: [{quantize: }, {retrain: {epochs: 1}}]");
  EXPECT_THAT(error, AllOf(StartsWith("r.yaml:10:"), HasSubstr("before"), Not(HasSubstr("\n"))));
}

TEST(OrderTest, WhatMakesSenseIsPlanned) {
  for (const char* steps : {"    - prune: {sparsity: 0.5}\n    - low_rank: {energy: 0.9}\n    - retrain: {epochs: 1}\n    - quantize:",
                            "    - low_rank: {energy: 0.9}\n    - prune: {sparsity: 0.5}\n    - retrain: {epochs: 1}\n    - quantize:",
                            "    - prune: {granularity: channel, scope: layer, sparsity: 0.5}\n    - remove:\n    - low_rank: {energy: 0.9}\n    - distill: {teacher: baseline}\n    - quantize: {scheme: qat}",
                            "    - qlora: {merge: true, epochs: 1}\n    - prune: {sparsity: 0.5}\n    - retrain: {epochs: 1}\n    - quantize: {scheme: cluster}",
                            "    - cast:\n    - quantize:"}) {
    EXPECT_EQ(OrderError(steps), "") << steps;
  }
}

}  // namespace
}  // namespace pare::recipes
