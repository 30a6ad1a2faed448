// The table of step kinds, and what a method of methods/registry.h becomes in it.
#include "recipes/kinds.h"

#include <set>

#include "tests/recipes/fixture.h"

namespace pare::recipes {
namespace {

using testing::HasSubstr;

TEST(KindsTest, EveryKindHasItsOwnSectionAndNamesAreUnique) {
  std::set<std::string> names;
  for (const Kind& kind : Kinds()) {
    EXPECT_TRUE(names.insert(std::string(kind.name)).second) << kind.name;
    EXPECT_TRUE(kind.resolve) << kind.name;
    for (const Field& field : kind.fields) EXPECT_EQ(field.section, kind.name) << field.name;
  }
}

TEST(KindsTest, EveryMethodCanBeWrittenInARecipe) {
  for (const methods::Method& method : methods::Methods()) {
    if (method.fields.empty()) continue;
    EXPECT_NE(FindKind(method.name), nullptr) << method.name;
    EXPECT_THAT(RenderReference(), HasSubstr("\n### " + std::string(method.name) + "\n\n" + std::string(method.help))) << method.name;
  }
}

TEST(KindsTest, AMethodsSectionIsCheckedLikeAnyOther) {
  EXPECT_EQ(StepError("cast: {format: bf61}"), "r.yaml:6:32: format: expected one of bf16, f16, found \"bf61\"; did you mean 'bf16'?");
  EXPECT_EQ(StepError("cast: {formt: f16}"), "r.yaml:6:24: unknown field 'formt' in cast; did you mean 'format'? Allowed: format, targets, ignore");
  EXPECT_EQ(StepError("cast: 3"), "r.yaml:6:23: cast: expected a section with fields, found 3");
  EXPECT_THAT(ErrorOf(WithVariants(" {v: [{cast: {targets: fc9}}]}")), HasSubstr("pattern 'fc9' matches no layer with weights"));
}

TEST(KindsTest, AMethodIsPlannedWithItsDefaultsAndItsLayers) {
  ResolvedRecipe recipe = Resolved(WithVariants(" {v: [{cast: }, {cast: {format: f16, targets: \"fc*\", ignore: fc3}}]}"));
  PlannedStep first = StepOf(recipe, "v/01-cast"), second = StepOf(recipe, "v/02-cast");
  EXPECT_EQ(first.spec.kind, "cast");
  EXPECT_EQ(first.spec.params, Json({{"format", "bf16"}, {"tensors", {"fc1.weight", "fc2.weight", "fc3.weight"}}}));
  EXPECT_EQ(first.spec.inputs.at("model"), StepOf(recipe, "baseline").key);
  EXPECT_TRUE(first.spec.data.is_null());
  EXPECT_EQ(second.spec.params, Json({{"format", "f16"}, {"tensors", {"fc1.weight", "fc2.weight"}}}));
  EXPECT_EQ(second.spec.inputs.at("model"), first.key);
  PlannedSteps plan = FullPlan(recipe);
  EXPECT_EQ(FindStep(plan, "v/01-cast/evaluate"), nullptr);
  EXPECT_NE(FindStep(plan, "v/02-cast/evaluate"), nullptr);
}

TEST(KindsTest, WhatAMethodSavesIsPredictedAndEndsWithTheNextTraining) {
  ResolvedRecipe recipe = Resolved(WithVariants(" {v: [{cast: }, {retrain: {epochs: 1}}]}"));
  auto bytes = [&](const char* step) { return static_cast<double>(Predict(StepOf(recipe, step), recipe)->checkpoint_bytes); };
  EXPECT_NEAR(bytes("v/01-cast") / bytes("baseline"), 12.8 / 28.8, 0.01);
  EXPECT_EQ(bytes("v/02-retrain"), bytes("baseline"));
}

class KeepTest : public testing::Test {
 protected:
  static std::string Recipe(const std::string& keep) { return WithVariants(" {v: [{prune: {sparsity: 0.5}}, {retrain: {epochs: 1}}]}") + "keep: " + keep + "\n"; }
};

TEST_F(KeepTest, WithoutASectionEverythingStays) {
  ResolvedRecipe recipe = Resolved(WithVariants(" {v: [{prune: {sparsity: 0.5}}]}"));
  EXPECT_EQ(recipe.tree["keep"], Json({{"policy", "all"}, {"count", 1}, {"pinned", Json::array()}}));
}

TEST_F(KeepTest, ARuleIsResolvedAndStored) {
  ResolvedRecipe recipe = Resolved(Recipe("{policy: best, count: 3, pinned: baseline}"));
  EXPECT_EQ(recipe.tree["keep"], Json({{"policy", "best"}, {"count", 3}, {"pinned", {"baseline"}}}));
  EXPECT_EQ(ResolvedRecipeFromJson(ToJson(recipe))->tree["keep"], recipe.tree["keep"]);
  EXPECT_EQ(Resolved(Recipe("{policy: promoted}")).tree["keep"]["policy"], "promoted");
}

TEST_F(KeepTest, ItChangesNoStepKey) {
  PlannedSteps plain = FullPlan(Resolved(Recipe("{}"))), ruled = FullPlan(Resolved(Recipe("{policy: last, count: 2, pinned: [\"v/*\"]}")));
  ASSERT_EQ(plain.size(), ruled.size());
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_EQ(plain[i].key, ruled[i].key) << plain[i].name;
}

TEST_F(KeepTest, MistakesAreNamedWithTheirPlace) {
  auto error = [](const std::string& keep) { return ErrorOf(Recipe(keep)); };
  EXPECT_THAT(error("{policy: bets}"), HasSubstr(":8:16: policy: expected one of all, best, last, promoted, found \"bets\"; did you mean 'best'?"));
  EXPECT_THAT(error("{count: 3}"), HasSubstr(":8:15: count: only with policy: best or last, here it is all"));
  EXPECT_THAT(error("{policy: best, count: 0}"), HasSubstr(":8:29: count: expected an integer from 1 to 1000000, found 0"));
  EXPECT_THAT(error("{pinned: [baseline, \"w/*\"]}"), HasSubstr(":8:27: pinned: pattern 'w/*' matches no step; pare plan lists their names"));
  EXPECT_THAT(error("{pinned: \"re:(\"}"), HasSubstr("is not a regular expression"));
  EXPECT_THAT(error("{pinned: [baseline, \"re:base.*\"]}"), HasSubstr(":8:27: pinned: expected names of steps, with * for any text, found 're:base.*'"));
}

}  // namespace
}  // namespace pare::recipes
