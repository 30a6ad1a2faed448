// Students, teachers and generations in the language and the plan.
#include "model/architectures.h"
#include "recipes/outside.h"
#include "recipes/plan.h"
#include "recipes/resolve_context.h"
#include "recipes/teaching.h"
#include "tests/recipes/fixture.h"

namespace pare::recipes {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;

Json ParamsOf(const ResolvedRecipe& recipe, const std::string& step) { return StepOf(recipe, step).spec.params; }

TEST(DistillTest, TheTeachersLogitsAreOneStepSharedByAllStudentsAndEpochs) {
  ResolvedRecipe recipe = Resolved(WithVariants(R"(
  a: [{prune: {sparsity: 0.9}}, {distill: {teacher: baseline}}]
  b: [{prune: {sparsity: 0.8}}, {distill: {teacher: baseline, temperature: 4, hardness: 0.9}}])"));
  PlannedSteps plan = FullPlan(recipe);
  EXPECT_EQ(std::count_if(plan.begin(), plan.end(), [](const PlannedStep& s) { return s.spec.kind == "logits"; }), 1);
  PlannedStep logits = StepOf(recipe, "logits"), a = StepOf(recipe, "a/02-distill");
  EXPECT_EQ(logits.spec.inputs.at("model"), StepOf(recipe, "baseline").key);
  EXPECT_EQ(logits.hints.Tree()["teacher"], "baseline");
  EXPECT_EQ(a.spec.inputs.at("logits"), logits.key);
  EXPECT_EQ(a.spec.inputs.at("model"), StepOf(recipe, "a/01-prune").key);
  EXPECT_EQ(a.spec.params["temperature"], 2.0);
  EXPECT_EQ(a.spec.params["hardness"], 0.5);
  EXPECT_EQ(a.spec.params["train"]["epochs"], 3);
  EXPECT_EQ(a.spec.params["train"]["schedule"]["learning_rate"], 0.0005) << "fine-tuning: the last rate of train";
  EXPECT_EQ(StepOf(recipe, "b/02-distill").spec.inputs.at("logits"), logits.key);
}

TEST(DistillTest, WithAugmentationOrMatchingTheTeacherRunsInTheLoop) {
  std::string plain = WithVariants(" {a: [{distill: {teacher: baseline}}]}"), augmented = plain;
  augmented.replace(augmented.find("validation: 5000"), 16, "validation: 5000, augment: {flip: true}");
  for (const std::string& text : {augmented, WithVariants(" {a: [{distill: {teacher: baseline, match: {fc1: fc1}}}]}")}) {
    ResolvedRecipe recipe = Resolved(text);
    PlannedStep step = StepOf(recipe, "a/01-distill");
    EXPECT_EQ(step.spec.inputs.count("logits"), 0u);
    EXPECT_EQ(step.spec.inputs.at("teacher"), StepOf(recipe, "baseline").key);
    EXPECT_EQ(FindStep(FullPlan(recipe), "logits"), nullptr);
  }
}

TEST(DistillTest, TheTeacherMayBeAStepOrTheEndOfAnotherVariant) {
  ResolvedRecipe recipe = Resolved(WithVariants(R"(
  pupil: [{prune: {sparsity: 0.9}}, {distill: {teacher: zebra}}]
  other: [{distill: {teacher: zebra/01-student}}]
  zebra: [{student: {model: {architecture: lenet5}}}, {retrain: {epochs: 2}}])"));
  // Variants are planned by name: other needs logits first.
  EXPECT_EQ(StepOf(recipe, "logits").spec.inputs.at("model"), StepOf(recipe, "zebra/01-student").key);
  EXPECT_EQ(StepOf(recipe, "logits-2").spec.inputs.at("model"), StepOf(recipe, "zebra/02-retrain").key);
  EXPECT_EQ(StepOf(recipe, "other/01-distill").spec.inputs.at("logits"), StepOf(recipe, "logits").key);
  EXPECT_EQ(StepOf(recipe, "pupil/02-distill").spec.inputs.at("logits"), StepOf(recipe, "logits-2").key);
}

TEST(DistillTest, TheBestSoFarIsChosenByResultsUnderKeysKnownBefore) {
  ResolvedRecipe recipe = Resolved(WithVariants(R"(
  a: [{prune: {sparsity: 0.5}}, {retrain: {}}, {prune: {sparsity: 0.9}}, {distill: {teacher: best}}])"));
  PlannedStep best = StepOf(recipe, "best-a");
  EXPECT_EQ(best.spec.kind, "choose");
  EXPECT_EQ(best.spec.inputs.at("first"), StepOf(recipe, "baseline").key);
  EXPECT_EQ(best.spec.inputs.at("first_evaluation"), StepOf(recipe, "baseline/evaluate").key);
  EXPECT_EQ(best.spec.inputs.at("second"), StepOf(recipe, "a/02-retrain").key);
  EXPECT_EQ(best.spec.inputs.at("second_evaluation"), StepOf(recipe, "a/02-retrain/evaluate").key);
  EXPECT_EQ(StepOf(recipe, "logits").spec.inputs.at("model"), best.key);
}

TEST(DistillTest, RefusesATeacherThatIsNotThereOrNeedsItsPupil) {
  EXPECT_THAT(ErrorOf(WithVariants(" {a: [{distill: {teacher: baselin}}]}")), testing::AllOf(HasSubstr("there is no step 'baselin'"), HasSubstr("; did you mean 'baseline'? Name baseline, init")));
  EXPECT_THAT(ErrorOf(WithVariants(" {a: [{distill: {teacher: large}}], larger: [{retrain: {}}]}")), HasSubstr("did you mean 'larger'?")) << "a variant that is planned later";
  EXPECT_THAT(ErrorOf(WithVariants(" {a: [{distill: {teacher: exported}}]}")), testing::AllOf(HasSubstr("leaves a network. Name baseline"), HasSubstr("./DIRECTORY of an export")));
  EXPECT_THAT(ErrorOf(WithVariants(" {a: [{distill: {teacher: b}}], b: [{distill: {teacher: a}}]}")), HasSubstr("neither can come first"));
  EXPECT_THAT(ErrorOf(WithVariants(" {a: [{distill: {}}]}")), HasSubstr("'teacher' is missing"));
  EXPECT_THAT(ErrorOf(WithVariants(" {a: [{distill: {teacher: lenet@3}}]}")), HasSubstr("was not looked up"));
}

TEST(DistillTest, RefusesContradictions) {
  EXPECT_THAT(ErrorOf(WithVariants(" {a: [{distill: {teacher: baseline, match_weight: 2}}]}")), HasSubstr("match_weight: only with match"));
  EXPECT_THAT(ErrorOf(WithVariants(" {a: [{distill: {teacher: baseline, to: init}}]}")), HasSubstr("to: only with rewind"));
  EXPECT_THAT(ErrorOf(WithVariants(" {a: [{distill: {teacher: baseline, hardness: 1.5}}]}")), HasSubstr("hardness: expected a number from 0 to 1"));
  EXPECT_THAT(ErrorOf(WithVariants(" {a: [{distill: {teacher: baseline, match: {fc7: fc1}}}]}")), HasSubstr("the student has no node 'fc7'"));
  EXPECT_THAT(ErrorOf(WithVariants(" {a: [{distill: {teacher: baseline, match: fc1}}]}")), HasSubstr("names, each with a name behind it"));
  EXPECT_THAT(ErrorOf(WithVariants(" {a: [{distill: {teacher: baseline, teacher_model: {architecture: mlp}}}]}")), HasSubstr("only with a teacher that is a .safetensors file"));
}

TEST(DistillTest, RefusesToMatchALayerThatAnEarlierStepReplaced) {
  std::string error = ErrorOf(WithVariants(" {a: [{low_rank: {rank: 8, targets: fc1}}, {distill: {teacher: baseline, match: {fc1: fc1}}}]}"));
  EXPECT_THAT(error, testing::AllOf(testing::StartsWith("r.yaml:7:"), HasSubstr("match: fc1 is no longer in the network"), HasSubstr("put distill before that step")));
  EXPECT_EQ(ErrorOf(WithVariants(" {a: [{low_rank: {rank: 8, targets: fc1}}, {distill: {teacher: baseline, match: {fc2: fc2}}}]}")), "");
  std::string teacher = " {t: [{low_rank: {rank: 8, targets: fc1}}, {retrain: {epochs: 1}}], a: [{distill: {teacher: t, match: {";
  EXPECT_THAT(ErrorOf(WithVariants(teacher + "fc1: fc1}}}]}")), HasSubstr("the teacher has no node fc1 any more"));
  EXPECT_EQ(ErrorOf(WithVariants(teacher + "fc1: fc2}}}]}")), "");
}

TEST(DistillTest, WhatIsMatchedIsKnownBefore) {
  EXPECT_THAT(ErrorOf(WithVariants(" {a: [{student: {model: {architecture: mlp, hidden: [50]}}}, {retrain: {epochs: 1}}, {distill: {teacher: best, match: {fc1: fc1}}}]}")), HasSubstr("name the teacher"));
  EXPECT_EQ(ErrorOf(WithVariants(" {a: [{prune: {sparsity: 0.5}}, {distill: {teacher: best, match: {fc1: fc1}}}]}")), "");
}

TEST(DistillTest, OneFileOfTensorsIsOneNetwork) {
  std::string first = " {a: [{distill: {teacher: big.safetensors, teacher_model: {architecture: lenet5}}}], b: [{distill: {teacher: big.safetensors";
  for (const char* second : {", teacher_model: {architecture: mlp}", ""}) {
    auto recipe = Recipe::Parse(WithVariants(first + second + "}}]}"), "r.yaml");
    ASSERT_FALSE(recipe.ok());
    EXPECT_THAT(recipe.error().message, testing::AllOf(testing::StartsWith("r.yaml:7:"), HasSubstr("big.safetensors holds one network"), HasSubstr("at /variants/a/0/distill"),
                                                       HasSubstr("give both the same teacher_model, or name another file")));
  }
  for (const char* same : {", teacher_model: {architecture: lenet5}", ", teacher_model: {architecture: lenet5, activation: relu}"}) {
    EXPECT_TRUE(Recipe::Parse(WithVariants(first + same + "}}]}"), "r.yaml").ok()) << same;
  }
}

TEST(DistillTest, EncodersAreTaughtWithAdamWAtASmallRateUnlessTheStepSaysOtherwise) {
  std::string yaml = WithVariants(" {a: [{distill: {teacher: baseline}}]}");
  Recipe recipe = *Recipe::Parse(yaml, "r.yaml");
  ResolvedRecipe resolved = Resolved(yaml);
  Errors errors("r.yaml", recipe.positions());
  std::vector<Finding> warnings;
  model::GraphInfo info = *model::Analyze(resolved.graph);
  ResolveContext context(recipe, resolved.tree, resolved, info, errors, warnings);
  auto taught = [&](Json section) {
    ResolveTeaching(context, section, "distill", "/variants/a/0/distill");
    return Json{section["optimizer"], section["learning_rate"]};
  };
  EXPECT_EQ(taught({{"teacher", "baseline"}}), (Json{"sgd", 0.0005}));
  model::Graph encoder = resolved.graph;
  encoder.nodes.push_back({"attention", model::OpType::kAttention, {"fc1", "fc1", "fc1"}, {}});
  context.UseModel(encoder, info);
  EXPECT_EQ(taught({{"teacher", "baseline"}}), (Json{"adamw", 1e-5}));
  EXPECT_EQ(taught({{"teacher", "baseline"}, {"learning_rate", 0.01}}), (Json{"sgd", 0.01}));
}

TEST(DistillTest, WarnsOfATeacherFarLargerThanItsStudent) {
  std::vector<std::string> warnings = WarningsOf(WithVariants(R"(
  a: [{student: {model: {architecture: mlp, hidden: [4]}}}, {distill: {teacher: baseline}}])"));
  EXPECT_THAT(warnings, Contains(HasSubstr("teacher baseline has 84 times the student's parameters")));
  EXPECT_THAT(WarningsOf(WithVariants(" {a: [{student: {model: {architecture: mlp, hidden: [900]}}}, {distill: {teacher: baseline}}]}")),
              Contains(HasSubstr("teacher baseline has less than half of the student's parameters and multiply-adds")));
  EXPECT_THAT(WarningsOf(WithVariants(" {t: [{student: {model: {architecture: lenet5}}}, {retrain: {}}], a: [{distill: {teacher: t}}]}")),
              Each(testing::Not(HasSubstr("less than half")))) << "few parameters, but convolutions";
  EXPECT_THAT(WarningsOf(WithVariants(" {a: [{distill: {teacher: baseline}}]}")), Each(testing::Not(HasSubstr("teacher"))));
}

TEST(LabelsTest, ANumberOfSamplesIsAFractionOfTheTrainingSplit) {
  ResolvedRecipe recipe = Resolved(WithVariants(" {a: [{distill: {teacher: baseline, labels: 3000}}], b: [{retrain: {labels: 0.5}}]}"));
  EXPECT_EQ(std::llround(ParamsOf(recipe, "a/01-distill")["train"]["labels"].get<double>() * 55000), 3000);
  EXPECT_EQ(ParamsOf(recipe, "b/01-retrain")["train"]["labels"], 0.5);
  EXPECT_FALSE(ParamsOf(recipe, "baseline")["train"].contains("labels")) << "keys of recipes without it stay";
  EXPECT_THAT(ErrorOf(WithVariants(" {a: [{retrain: {labels: 70000}}]}")), HasSubstr("labels: the training split has only 55000 samples"));
}

TEST(LabelsTest, NoneAreEnoughWithATeacherOnly) {
  for (const char* step : {"retrain: {labels: 0}", "retrain: {labels: 1e-6}", "distill: {teacher: baseline, labels: 0, hardness: 0}"}) {
    EXPECT_THAT(ErrorOf(WithVariants(" {a: [{" + std::string(step) + "}]}")), HasSubstr("labels: none is left to train on")) << step;
  }
  EXPECT_EQ(ErrorOf(WithVariants(" {a: [{distill: {teacher: baseline, labels: 0}}]}")), "");
  EXPECT_THAT(ErrorOf(WithVariants(" {a: [{self_distill: {labels: 0}}]}")), HasSubstr("set control: false"));
}

TEST(LabelsTest, AControlTakesAsManyStepsAsTheTaught) {
  ResolvedRecipe recipe = Resolved(WithVariants(" {a: [{distill: {teacher: baseline, labels: 0.05, epochs: 3, schedule: multi_step, milestones: [2], control: true}}]}"));
  Json train = ParamsOf(recipe, "control-a")["train"];
  EXPECT_EQ(train["epochs"], 60);
  EXPECT_EQ(train["schedule"]["milestones"], Json({40.0}));
}

TEST(StudentTest, StartsAnotherNetworkWhoseLayersTheNextStepsName) {
  ResolvedRecipe recipe = Resolved(WithVariants(R"(
  a: [{student: {model: {architecture: lenet5}, seed: 7}}, {retrain: {}}, {prune: {sparsity: 0.5, targets: conv2}}])"));
  PlannedStep student = StepOf(recipe, "a/01-student");
  EXPECT_EQ(student.spec.kind, "initialize");
  EXPECT_EQ(student.spec.seed, 7u);
  EXPECT_TRUE(student.spec.inputs.empty());
  EXPECT_EQ(ParamsOf(recipe, "a/03-prune")["tensors"], Json::array({"conv2.weight"}));
  auto predicted = Predict(StepOf(recipe, "a/03-prune"), recipe);
  EXPECT_EQ(predicted->parameters, 61706);
  EXPECT_THAT(ErrorOf(WithVariants(" {a: [{student: {model: {architecture: lenet5}}}, {prune: {sparsity: 0.5, targets: fc9}}]}")), HasSubstr("matches no layer"));
}

TEST(StudentTest, GoesThroughTheWholeScheduleOfTrain) {
  ResolvedRecipe recipe = Resolved(WithVariants(R"(
  a: [{student: {}}, {retrain: {}}, {retrain: {}}]
  b: [{student: {}}, {distill: {teacher: baseline, epochs: 10}}])"));
  Json train = ParamsOf(recipe, "a/02-retrain")["train"];
  EXPECT_EQ(train["epochs"], 20);
  EXPECT_EQ(train["schedule"]["learning_rate"], 0.05);
  EXPECT_EQ(train["schedule"]["milestones"], Json({10.0, 15.0}));
  EXPECT_EQ(ParamsOf(recipe, "a/02-retrain")["draw_epoch"], 0);
  EXPECT_EQ(ParamsOf(recipe, "a/03-retrain")["train"]["epochs"], 3) << "what follows is fine-tuning";
  Json squeezed = ParamsOf(recipe, "b/02-distill")["train"];
  EXPECT_EQ(squeezed["epochs"], 10);
  EXPECT_EQ(squeezed["schedule"]["milestones"], Json({5.0, 7.0}));
}

TEST(StudentTest, HasNoWeightsOfTheBaselinesEpochs) {
  EXPECT_THAT(ErrorOf(WithVariants(" {a: [{student: {model: {architecture: lenet5}}}, {retrain: {rewind: weights, to: 3}}]}")), HasSubstr("a student has no weights of epoch 3"));
  ResolvedRecipe recipe = Resolved(WithVariants(" {a: [{student: {}}, {retrain: {}}, {retrain: {rewind: weights, to: init}}]}"));
  EXPECT_EQ(StepOf(recipe, "a/03-retrain").spec.inputs.at("rewind"), StepOf(recipe, "a/01-student").key);
  EXPECT_THAT(ErrorOf(WithVariants(" {a: [{student: {model: {architecture: lenet9}}}]}")), HasSubstr("unknown architecture"));
  EXPECT_THAT(ErrorOf(WithVariants(" {a: [{student: {model: {architecture: lenet5, weights: x}}}]}")), HasSubstr("a student starts from new weights"));
}

TEST(SelfDistillTest, EveryGenerationIsACandidateAndTheBetterOneGoesOn) {
  ResolvedRecipe recipe = Resolved(WithVariants(R"(
  a: [{prune: {sparsity: 0.9}}, {retrain: {}}, {self_distill: {generations: 2, epochs: 4}}, {retrain: {epochs: 1}}])"));
  PlannedStep first = StepOf(recipe, "a/03-distill"), kept = StepOf(recipe, "a/04-choose"), second = StepOf(recipe, "a/05-distill"), last = StepOf(recipe, "a/06-choose");
  StepKey start = StepOf(recipe, "a/02-retrain").key;
  EXPECT_EQ(first.spec.inputs.at("model"), start);
  EXPECT_EQ(StepOf(recipe, "logits").spec.inputs.at("model"), start);
  EXPECT_EQ(kept.spec.inputs, (std::map<std::string, StepKey>{{"first", start},
                                                              {"second", first.key},
                                                              {"first_evaluation", StepOf(recipe, "a/02-retrain/evaluate").key},
                                                              {"second_evaluation", StepOf(recipe, "a/03-distill/evaluate").key}}));
  EXPECT_EQ(second.spec.inputs.at("model"), kept.key);
  EXPECT_EQ(second.spec.inputs.at("logits"), StepOf(recipe, "logits-2").key);
  EXPECT_EQ(last.spec.inputs.at("first_evaluation"), StepOf(recipe, "a/04-choose/evaluate").key);
  EXPECT_EQ(StepOf(recipe, "a/07-retrain").spec.inputs.at("model"), last.key);
  EXPECT_EQ(second.spec.params["draw_epoch"].get<int>(), first.spec.params["draw_epoch"].get<int>() + 4);
  std::vector<std::string> candidates;
  for (const PlannedStep& step : FullPlan(recipe)) {
    if (step.candidate) candidates.push_back(step.model_step);
  }
  EXPECT_THAT(candidates, ElementsAre("a/02-retrain", "a/03-distill", "a/05-distill", "a/07-retrain"));
}

TEST(SelfDistillTest, IsComparedWithTheSameTrainingWithoutATeacherAfterTheDecision) {
  ResolvedRecipe recipe = Resolved(WithVariants(" {a: [{self_distill: {generations: 2, epochs: 4}}]}"));
  PlannedStep control = StepOf(recipe, "control-a"), compare = StepOf(recipe, "a/04-choose/against-control");
  EXPECT_EQ(control.spec.kind, "retrain");
  EXPECT_EQ(control.spec.inputs.at("model"), StepOf(recipe, "baseline").key);
  EXPECT_EQ(control.spec.params["train"]["epochs"], 8);
  EXPECT_EQ(control.spec.params["draw_epoch"], ParamsOf(recipe, "a/01-distill")["draw_epoch"]);
  EXPECT_EQ(compare.spec.inputs.at("first"), StepOf(recipe, "control-a/test").key);
  EXPECT_EQ(compare.spec.inputs.at("second"), StepOf(recipe, "a/04-choose/test").key);
  std::vector<std::string> names = NamesOf(FullPlan(recipe));
  auto place = [&](const char* name) { return std::find(names.begin(), names.end(), name) - names.begin(); };
  EXPECT_LT(place("promote"), place("control-a/test"));
  EXPECT_LT(place("control-a/test"), place("a/04-choose/against-control"));
  EXPECT_EQ(FindStep(FullPlan(Resolved(WithVariants(" {a: [{self_distill: {control: false}}]}"))), "control-a"), nullptr);
}

TEST(SelfDistillTest, NewGenerationsStartFromOtherWeightsAndTheWholeSchedule) {
  ResolvedRecipe recipe = Resolved(WithVariants(" {a: [{self_distill: {generations: 2, start: new}}]}"));
  PlannedStep first = StepOf(recipe, "a/01-distill"), second = StepOf(recipe, "a/03-distill");
  EXPECT_NE(first.spec.inputs.at("rewind"), second.spec.inputs.at("rewind"));
  EXPECT_EQ(first.spec.inputs.at("rewind"), StepOf(recipe, "new-weights").key);
  EXPECT_NE(StepOf(recipe, "new-weights").spec.seed, StepOf(recipe, "new-weights-2").spec.seed);
  EXPECT_EQ(first.spec.params["train"]["epochs"], 20);
  EXPECT_EQ(StepOf(recipe, "control-a").spec.inputs.at("rewind"), first.spec.inputs.at("rewind"));
}

TEST(SelfDistillTest, AComparisonWhoseMeasurementFailedIsNotWanted) {
  ResolvedRecipe recipe = Resolved(WithVariants(" {a: [{self_distill: {generations: 1}}]}"));
  Outcomes outcomes;
  StepKey control = StepOf(recipe, "control-a").key;
  for (int round = 0; round < 20; ++round) {
    for (const PlannedStep& step : Next(recipe, outcomes)) outcomes[step.key].done = step.key != control;
  }
  std::vector<std::string> names = NamesOf(Next(recipe, outcomes));
  EXPECT_THAT(names, Contains("promote"));
  EXPECT_THAT(names, Contains("a/01-distill/test"));
  EXPECT_THAT(names, testing::Not(Contains("a/02-choose/against-control")));
}

TEST(AdviceTest, ATeacherNoBetterThanItsStudentIsToldOnceBothAreMeasured) {
  ResolvedRecipe recipe = Resolved(WithVariants(R"(
  big: [{student: {model: {architecture: lenet5}}}, {retrain: {}}]
  a: [{distill: {teacher: big}}])"));
  Outcomes outcomes;
  EXPECT_TRUE(Advice(recipe, outcomes).empty());
  auto evaluated = [&](const char* step, double accuracy) { outcomes[StepOf(recipe, step).key] = {.done = true, .artifact = {}, .results = {{"accuracy", accuracy}}}; };
  evaluated("big/02-retrain/evaluate", 88.5);
  evaluated("baseline/evaluate", 89.25);
  EXPECT_THAT(Advice(recipe, outcomes), ElementsAre(HasSubstr("a/01-distill: teacher big (88.50 % on validation) is no better than the student was before it (89.25 %)")));
  evaluated("big/02-retrain/evaluate", 91);
  EXPECT_TRUE(Advice(recipe, outcomes).empty());
}

class OutsideTest : public testing::Test {
 protected:
  Result<ResolvedRecipe> ResolveWith(const std::string& yaml, const OutsideModels& models) {
    auto recipe = Recipe::Parse(yaml, "r.yaml");
    EXPECT_TRUE(recipe.ok());
    return Resolve(*recipe, FashionInfo(), Digest(), models);
  }
  OutsideModel ModelOf(const char* architecture, int64_t classes = 10) {
    return {*model::BuildArchitecture(architecture, Json::object(), {1, 28, 28}, classes), pare::DigestOf(std::string_view("artifact")), {}};
  }
};

TEST_F(OutsideTest, TextsLeadToTheRegistryToFilesOrIntoTheRecipe) {
  EXPECT_EQ(PlaceOf("lenet@3"), ModelPlace::kRegistry);
  EXPECT_EQ(PlaceOf("lenet@champion"), ModelPlace::kRegistry);
  EXPECT_EQ(PlaceOf("./exported"), ModelPlace::kDirectory);
  EXPECT_EQ(PlaceOf("exported/"), ModelPlace::kDirectory);
  EXPECT_EQ(PlaceOf("teachers/big.safetensors"), ModelPlace::kFile);
  for (const char* inside : {"baseline", "best", "a/02-retrain", "baseline@3"}) EXPECT_EQ(PlaceOf(inside), ModelPlace::kRecipe) << inside;
}

TEST_F(OutsideTest, AreCollectedOnceWithTheirPlaceInTheRecipe) {
  auto recipe = Recipe::Parse(WithVariants(R"(
  a:
    - distill: {teacher: lenet@3}
    - repeat: {times: 2}
      steps:
        - distill: {teacher: ./x.safetensors, teacher_model: {architecture: lenet5}}
        - distill: {teacher: lenet@3}
        - distill: {teacher: baseline})"), "r.yaml");
  ASSERT_TRUE(recipe.ok()) << recipe.error().message;
  std::vector<OutsideReference> found = OutsideReferences(recipe->tree());
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].pointer, "/variants/a/0/distill/teacher");
  EXPECT_EQ(found[1].model["architecture"], "lenet5");
}

TEST_F(OutsideTest, AVersionOfTheRegistryIsAdoptedMeasuredAndPartOfTheStoredRecipe) {
  OutsideModels models = {{"lenet@3", ModelOf("lenet5")}};
  auto recipe = ResolveWith(WithVariants(" {a: [{distill: {teacher: lenet@3}}]}"), models);
  ASSERT_TRUE(recipe.ok()) << recipe.error().message;
  PlannedStep adopt = StepOf(*recipe, "teacher");
  EXPECT_EQ(adopt.spec.kind, "adopt");
  EXPECT_EQ(adopt.spec.params, (Json{{"artifact", models["lenet@3"].artifact.hex()}}));
  EXPECT_EQ(StepOf(*recipe, "logits").spec.inputs.at("model"), adopt.key);
  EXPECT_EQ(StepOf(*recipe, "teacher-evaluate").spec.inputs.at("model"), adopt.key);
  auto stored = ResolvedRecipeFromJson(ToJson(*recipe));
  ASSERT_TRUE(stored.ok()) << stored.error().message;
  EXPECT_EQ(stored->outside, models);
  EXPECT_EQ(StepOf(*stored, "a/01-distill").key, StepOf(*recipe, "a/01-distill").key);
}

TEST_F(OutsideTest, ATeacherWithOtherClassesIsAPlanningError) {
  auto recipe = ResolveWith(WithVariants(" {a: [{distill: {teacher: lenet@3}}]}"), {{"lenet@3", ModelOf("lenet5", 12)}});
  ASSERT_FALSE(recipe.ok());
  EXPECT_THAT(recipe.error().message, HasSubstr("teacher lenet@3 and student disagree in the classes: [12] and [10]; name a teacher made for the same data"));
  EXPECT_THAT(recipe.error().message, testing::StartsWith("r.yaml:")) << "says where";
}

}  // namespace
}  // namespace pare::recipes
