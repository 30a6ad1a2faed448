// Masks, and the counts that follow from them.
#include "model/mask.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include "model/architectures.h"
#include "model/counts.h"
#include "model/initialize.h"

namespace pare::model {
namespace {

RC_GTEST_PROP(MaskTest, AgreesWithAListOfBooleans, ()) {
  auto rows = *rc::gen::inRange<int64_t>(0, 20), columns = *rc::gen::inRange<int64_t>(0, 20);
  auto keep = *rc::gen::container<std::vector<uint8_t>>(static_cast<size_t>(rows * columns), rc::gen::inRange<uint8_t>(0, 3));
  Mask mask({rows, columns}, keep);
  Mask one_by_one(Shape{rows, columns});
  RC_ASSERT(one_by_one.kept() == rows * columns);
  int64_t kept = 0;
  auto floats = mask.ToFloats();
  RC_ASSERT(floats.size() == keep.size());
  for (size_t i = 0; i < keep.size(); ++i) {
    kept += keep[i] != 0;
    RC_ASSERT(mask.keeps(static_cast<int64_t>(i)) == (keep[i] != 0));
    RC_ASSERT(floats[i] == (keep[i] != 0 ? 1.0f : 0.0f));
    one_by_one.set(static_cast<int64_t>(i), keep[i] != 0);
  }
  RC_ASSERT(mask.kept() == kept);
  RC_ASSERT(mask == one_by_one);
  RC_ASSERT(mask.digest() == one_by_one.digest());
  auto back = Mask::FromPacked({rows, columns}, mask.packed());
  RC_ASSERT(back.ok());
  RC_ASSERT(*back == mask);
}

TEST(MaskTest, EqualBitsInAnotherShapeAreAnotherMask) {
  EXPECT_NE(Mask(Shape{2, 3}).digest(), Mask(Shape{3, 2}).digest());
  Mask mask(Shape{2, 3});
  Digest before = mask.digest();
  mask.set(4, false);
  EXPECT_NE(mask.digest(), before);
  EXPECT_DOUBLE_EQ(mask.sparsity(), 1.0 / 6.0);
}

TEST(MaskTest, RefusesWordsThatDoNotFitTheShape) {
  std::vector<uint64_t> words = {0x3f};
  EXPECT_TRUE(Mask::FromPacked({2, 3}, words).ok());
  words = {0x40};
  EXPECT_EQ(Mask::FromPacked({2, 3}, words).error().message, "mask: bits beyond the end are set");
  words = {0, 0};
  EXPECT_EQ(Mask::FromPacked({2, 3}, words).error().message, "mask: wrong number of words");
  EXPECT_FALSE(Mask::FromPacked({2, 3}, {}).ok());
}

struct Model {
  Graph graph = *BuildArchitecture("mlp", {{"hidden", {8}}}, {10}, 2);
  GraphInfo info = *Analyze(graph);
};

TEST(CountsTest, SparsitiesCountMaskedTensorsPrunableTensorsAndEverything) {
  Model m;  // fc1 10 → 8 (80 + 8), fc2 8 → 2 (16 + 2)
  MaskMap masks;
  Mask mask(Shape{8, 10});
  for (int64_t i = 0; i < 60; ++i) mask.set(i, false);
  masks["fc1.weight"] = mask;
  ModelSummary s = Summarize(m.graph, m.info, {}, masks);
  EXPECT_EQ(s.parameters, 106);
  EXPECT_EQ(s.parameters_nonzero, 46);
  EXPECT_EQ(s.multiply_adds, 96);
  EXPECT_EQ(s.multiply_adds_nonzero, 36);
  EXPECT_DOUBLE_EQ(s.sparsity_pruned_layers, 60.0 / 80.0);
  EXPECT_DOUBLE_EQ(s.sparsity_weights, 60.0 / 96.0);
  EXPECT_DOUBLE_EQ(s.sparsity_parameters, 60.0 / 106.0);
  Json json = ToJson(s);
  ASSERT_EQ(json["layers"].size(), 2u);
  EXPECT_EQ(json["layers"][0], (Json{{"tensor", "fc1.weight"}, {"shape", {8, 10}}, {"size", 80}, {"kept", 20}, {"sparsity", 0.75},
                                     {"mask", mask.digest().hex()}}));
  EXPECT_FALSE(json["layers"][1].contains("mask"));
}

TEST(CountsTest, AModelWithoutMasksIsDense) {
  Model m;
  ModelSummary s = Summarize(m.graph, m.info, {}, {});
  EXPECT_EQ(s.parameters_nonzero, s.parameters);
  EXPECT_EQ(s.multiply_adds_nonzero, s.multiply_adds);
  EXPECT_EQ(s.sparsity_pruned_layers, 0.0);
  EXPECT_EQ(s.sparsity_parameters, 0.0);
}

TEST(CountsTest, RealWeightsAreCountedExactly) {
  Model m;
  TensorMap weights = InitializeWeights(m.graph, m.info, 3);
  weights["fc2.bias"] = Tensor(DType::kF32, {2});  // two zeros
  EXPECT_EQ(Summarize(m.graph, m.info, weights, {}).parameters_nonzero, 104);
}

TEST(CountsTest, AConvolutionsWorkFallsWithItsWeights) {
  Graph graph = *BuildArchitecture("lenet5", Json::object(), {1, 28, 28}, 10);
  GraphInfo info = *Analyze(graph);
  Mask mask(Shape{6, 1, 5, 5});
  for (int64_t i = 0; i < 100; ++i) mask.set(i, false);
  ModelSummary s = Summarize(graph, info, {}, {{"conv1.weight", mask}});
  EXPECT_EQ(s.multiply_adds - s.multiply_adds_nonzero, 28 * 28 * 100);
}

}  // namespace
}  // namespace pare::model
