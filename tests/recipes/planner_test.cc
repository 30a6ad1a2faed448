// The planner: which steps a recipe wants, given what is known; never in which order it became known.
#include "recipes/planner.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <map>
#include <set>

#include "common/random.h"
#include "common/version.h"
#include "tests/recipes/fixture.h"

namespace pare::recipes {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Not;

// Three variants; two share their first step.
ResolvedRecipe ThreeVariants() {
  return Resolved(WithVariants("\n  a: [{prune: {sparsity: 0.5}}, {retrain: {epochs: 1}}]\n"
                               "  b: [{prune: {sparsity: 0.5}}, {retrain: {epochs: 2}}, {prune: {sparsity: 0.9}}]\n"
                               "  c: [{prune: {schedule: cubic, final_sparsity: 0.9}}, {retrain: {rewind: weights, to: 2}}]\n"));
}

// A step that came to its end: evaluations and decisions with results that planning may read.
StepOutcome DoneOutcome(const PlannedStep& step, const ResolvedRecipe& recipe, const Outcomes& outcomes) {
  StepOutcome outcome{true, pare::DigestOf(std::string_view(step.key.hex())), Json::object()};
  if (step.local) {
    outcome.results = RunLocalStep(step, recipe, outcomes);
  } else if (step.spec.kind == "evaluate") {
    outcome.results = {{"accuracy", 90.0}, {"model", "x"}, {"summary", {{"checkpoint_bytes", 1}, {"parameters_nonzero", 1}, {"multiply_adds_nonzero", 1}}}};
  }
  return outcome;
}

// Runs a job as a coordinator would: whatever is ready, in an order drawn by `random`, each step failing if `fails` says so.
struct Played {
  Outcomes outcomes;
  std::set<std::string> ran;    // names; a step that two variants share ran under one of them
  std::set<StepKey> failed;
  PlannedSteps last;
};
template <typename Fails>
Played PlayJob(const ResolvedRecipe& recipe, RandomStream random, Fails fails) {
  Played run;
  for (;;) {
    run.last = Next(recipe, run.outcomes);
    std::vector<const PlannedStep*> ready;
    for (const PlannedStep& step : run.last) {
      if (run.outcomes.count(step.key) != 0) continue;
      bool inputs = std::all_of(step.spec.inputs.begin(), step.spec.inputs.end(), [&](const auto& input) {
        auto it = run.outcomes.find(input.second);
        return it != run.outcomes.end() && it->second.done;
      });
      if (inputs) ready.push_back(&step);
    }
    if (ready.empty()) return run;
    const PlannedStep& step = *ready[random.Below(ready.size())];
    if (fails(step)) {
      run.failed.insert(step.key);
      run.outcomes[step.key] = {};
    } else {
      run.ran.insert(step.name);
      run.outcomes[step.key] = DoneOutcome(step, recipe, run.outcomes);
    }
  }
}
bool Never(const PlannedStep&) { return false; }

TEST(PlannerTest, EverythingStartsFromOneBaseline) {
  ResolvedRecipe recipe = ThreeVariants();
  EXPECT_THAT(NamesOf(Next(recipe, {})),
              ElementsAre("init", "baseline", "baseline/evaluate", "a/01-prune", "a/02-retrain", "a/02-retrain/evaluate", "b/01-prune", "b/02-retrain", "b/02-retrain/evaluate", "b/03-prune",
                          "b/03-prune/evaluate", "c/01-prune", "c/01-prune/evaluate", "baseline@2", "c/02-retrain", "c/02-retrain/evaluate"));
  EXPECT_EQ(StepOf(recipe, "a/01-prune").key, StepOf(recipe, "b/01-prune").key) << "the same step of two variants is one";
  EXPECT_NE(StepOf(recipe, "a/02-retrain").key, StepOf(recipe, "b/02-retrain").key);
}

TEST(PlannerTest, StepsStandBehindTheirInputs) {
  for (const std::string& name : ShippedRecipes()) {
    std::set<StepKey> before;
    for (const PlannedStep& step : FullPlan(Resolved(ShippedText(name)))) {
      for (const auto& [role, key] : step.spec.inputs) EXPECT_TRUE(before.count(key)) << name << ": " << step.name << " needs " << role;
      EXPECT_EQ(step.key, KeyOf(step.spec));
      EXPECT_EQ(step.spec_text.text(), Canonical(ToJson(step.spec)));
      before.insert(step.key);
    }
  }
}

TEST(PlannerTest, NamesAreUnique) {
  for (const std::string& name : ShippedRecipes()) {
    std::vector<std::string> names = NamesOf(FullPlan(Resolved(ShippedText(name))));
    EXPECT_EQ(std::set<std::string>(names.begin(), names.end()).size(), names.size()) << name;
  }
}

TEST(PlannerTest, EveryPrunedStateIsEvaluatedOnceItIsRepaired) {
  auto evaluated = [](const std::string& steps) {
    std::vector<std::string> names;
    for (const PlannedStep& s : Next(Resolved(WithVariants(" {v: [" + steps + "]}")), {})) {
      if (!s.candidate) continue;
      EXPECT_EQ(s.name, s.model_step + "/evaluate");
      names.push_back(s.model_step);
    }
    return names;
  };
  EXPECT_THAT(evaluated("{prune: {sparsity: 0.5}}"), ElementsAre("v/01-prune"));
  EXPECT_THAT(evaluated("{prune: {sparsity: 0.5}}, {retrain: {}}"), ElementsAre("v/02-retrain"));
  EXPECT_THAT(evaluated("{prune: {sparsity: 0.5}}, {evaluate: }, {retrain: {}}"), ElementsAre("v/01-prune", "v/02-retrain"));
  EXPECT_THAT(evaluated("{prune: {sparsity: 0.5, targets: fc1}}, {prune: {sparsity: 0.5, targets: fc2}}, {retrain: {}}"), ElementsAre("v/03-retrain"));
  EXPECT_THAT(evaluated("{retrain: {}}, {retrain: {}}, {evaluate: }, {evaluate: }"), ElementsAre("v/01-retrain", "v/02-retrain")) << "never twice";
  EXPECT_THAT(evaluated("{evaluate: }"), IsEmpty()) << "that is the baseline, which is evaluated already";
  EXPECT_THAT(evaluated("{prune: {schedule: cubic, final_sparsity: 0.5}}, {retrain: {}}"), ElementsAre("v/01-prune", "v/02-retrain"));
}

TEST(PlannerTest, RepeatIsWrittenOut) {
  ResolvedRecipe recipe = Resolved(WithVariants(" {v: [{repeat: {times: 2}, steps: [{prune: {fraction_of_remaining: 0.2}}, {repeat: {times: 2}, steps: [{retrain: {epochs: 1}}]}]}]}"));
  std::vector<std::string> steps;
  StepKey before = StepOf(recipe, "baseline").key;
  for (const PlannedStep& s : FullPlan(recipe)) {
    if (s.variant != "v" || s.spec.kind == "evaluate") continue;
    steps.push_back(s.name);
    EXPECT_EQ(s.spec.inputs.at("model"), before);
    before = s.key;
  }
  EXPECT_THAT(steps, ElementsAre("v/01-prune", "v/02-retrain", "v/03-retrain", "v/04-prune", "v/05-retrain", "v/06-retrain"));
}

TEST(PlannerTest, NumbersGrowSoThatNamesSort) {
  ResolvedRecipe recipe = Resolved(WithVariants(" {v: [{repeat: {times: 100}, steps: [{retrain: {epochs: 1}}]}]}"));
  EXPECT_NO_FATAL_FAILURE(StepOf(recipe, "v/001-retrain"));
  EXPECT_NO_FATAL_FAILURE(StepOf(recipe, "v/100-retrain"));
}

TEST(PlannerTest, DrawsOfAVariantGoOnWhereTheBaselineEnded) {
  ResolvedRecipe recipe = Resolved(WithVariants("\n  v: [{retrain: {epochs: 2}}, {prune: {schedule: cubic, final_sparsity: 0.5, epochs: 4}}, {retrain: {epochs: 1}}, {retrain: {rewind: learning_rate, to: 17}}]\n"));
  auto draw = [&](const std::string& name) { return StepOf(recipe, name).spec.params["draw_epoch"].get<int>(); };
  EXPECT_EQ(draw("baseline"), 0);
  EXPECT_EQ(draw("v/01-retrain"), 20);
  EXPECT_EQ(draw("v/02-prune"), 22);
  EXPECT_EQ(draw("v/03-retrain"), 26);
  EXPECT_EQ(draw("v/04-retrain"), 17) << "a replayed epoch draws as the baseline's did";
}

TEST(PlannerTest, WeightRewindsComeFromTheBaselinesOwnRun) {
  ResolvedRecipe recipe = ThreeVariants();
  PlannedStep earlier = StepOf(recipe, "baseline@2"), baseline = StepOf(recipe, "baseline");
  EXPECT_EQ(StepOf(recipe, "c/02-retrain").spec.inputs.at("rewind"), earlier.key);
  EXPECT_EQ(earlier.spec.kind, "train");
  EXPECT_EQ(earlier.spec.inputs, baseline.spec.inputs);
  Json params = baseline.spec.params;
  params["stop_epoch"] = 2;
  EXPECT_EQ(earlier.spec.params, params);
  // A job that asks for the weights of epoch 2 has the same baseline as one that does not.
  EXPECT_EQ(baseline.key, StepOf(Resolved(WithVariants(" {a: [{evaluate: }]}")), "baseline").key);
}

TEST(PlannerTest, TheDecisionComesWhenEverythingIsKnownAndTheTestSplitAfterIt) {
  ResolvedRecipe recipe = ThreeVariants();
  Outcomes outcomes;
  PlannedSteps chains = Next(recipe, {});
  for (const PlannedStep& step : chains) {
    EXPECT_EQ(NamesOf(Next(recipe, outcomes)), NamesOf(chains)) << "before " << step.name;
    outcomes[step.key] = DoneOutcome(step, recipe, outcomes);
  }
  PlannedSteps decided = Next(recipe, outcomes);
  ASSERT_EQ(decided.size(), chains.size() + 1);
  const PlannedStep& promote = decided.back();
  EXPECT_EQ(promote.name, "promote");
  EXPECT_TRUE(promote.local);
  std::vector<std::string> roles;
  for (const auto& [role, key] : promote.spec.inputs) roles.push_back(role);
  EXPECT_THAT(roles, ElementsAre("baseline", "candidate/a/02-retrain", "candidate/b/02-retrain", "candidate/b/03-prune", "candidate/c/01-prune", "candidate/c/02-retrain"));
  outcomes[promote.key] = DoneOutcome(promote, recipe, outcomes);
  PlannedSteps all = Next(recipe, outcomes);
  EXPECT_EQ(NamesOf(all), NamesOf(FullPlan(recipe)));
  for (size_t i = decided.size(); i < all.size(); ++i) {
    EXPECT_EQ(all[i].spec.params["split"], "test");
    EXPECT_EQ(all[i].name, all[i].model_step + "/test");
  }
  EXPECT_EQ(all.size(), decided.size() + 6);
}

TEST(PlannerTest, WithoutPromoteTheTestSplitIsReadAtTheEnd) {
  ResolvedRecipe recipe = Resolved("name: t\nmodel: {architecture: mlp}\ndata: {dataset: fashion-mnist, validation: 5000}\ntrain: {}\nvariants: {v: [{retrain: {}}]}\n");
  EXPECT_THAT(NamesOf(Next(recipe, {})), Not(Contains("baseline/test")));
  EXPECT_THAT(NamesOf(FullPlan(recipe)), ElementsAre("init", "baseline", "baseline/evaluate", "v/01-retrain", "v/01-retrain/evaluate", "baseline/test", "v/01-retrain/test"));
}

TEST(PlannerTest, WithoutAValidationSplitTheBaselineIsTestedAtOnce) {
  ResolvedRecipe recipe = Resolved("name: t\nmodel: {architecture: mlp}\ndata: {dataset: fashion-mnist}\ntrain: {}\n");
  EXPECT_THAT(NamesOf(Next(recipe, {})), ElementsAre("init", "baseline", "baseline/test"));
  EXPECT_EQ(NamesOf(FullPlan(recipe)), NamesOf(Next(recipe, {})));
}

TEST(PlannerTest, ARunEndsWithExactlyTheFullPlan) {
  for (const std::string& name : ShippedRecipes()) {
    ResolvedRecipe recipe = Resolved(ShippedText(name));
    Played run = PlayJob(recipe, RandomStream(1, RandomPurpose::kTest), Never);
    PlannedSteps full = FullPlan(recipe);
    ASSERT_EQ(NamesOf(run.last), NamesOf(full)) << name;
    for (size_t i = 0; i < full.size(); ++i) {
      EXPECT_EQ(run.last[i].key, full[i].key);
      EXPECT_TRUE(run.outcomes.count(full[i].key));
    }
  }
}

RC_GTEST_PROP(PlannerTest, TheOrderOfArrivalDecidesNothing, ()) {
  static const ResolvedRecipe recipe = ThreeVariants();
  auto seed = *rc::gen::arbitrary<uint64_t>(), other = *rc::gen::arbitrary<uint64_t>(), faults = *rc::gen::arbitrary<uint64_t>();
  // Whether a step fails belongs to the step, as it would with real ones.
  auto fails = [&](const PlannedStep& step) { return !step.local && RandomStream(faults, RandomPurpose::kTest, step.key.bytes()[0], step.key.bytes()[1]).Below(8) == 0; };
  Played a = PlayJob(recipe, RandomStream(seed, RandomPurpose::kTest), fails), b = PlayJob(recipe, RandomStream(other, RandomPurpose::kTest), fails);
  RC_ASSERT(NamesOf(a.last) == NamesOf(b.last));
  RC_ASSERT(a.failed == b.failed);
  RC_ASSERT(a.outcomes.size() == b.outcomes.size());
  for (const auto& [key, outcome] : a.outcomes) RC_ASSERT(b.outcomes.count(key) == 1 && b.outcomes.at(key).done == outcome.done);
  for (size_t i = 0; i < a.last.size(); ++i) RC_ASSERT(a.last[i].key == b.last[i].key);
  for (const PlannedStep& step : a.last) {
    if (step.local && a.outcomes.count(step.key) != 0) RC_ASSERT(a.outcomes.at(step.key).results == b.outcomes.at(step.key).results);
  }
}

// Steps of a full run that are not wanted when `name` fails.
std::set<std::string> LostWith(const ResolvedRecipe& recipe, const std::string& name) {
  Played run = PlayJob(recipe, RandomStream(1, RandomPurpose::kTest), [&](const PlannedStep& s) { return s.name == name; });
  std::set<std::string> lost;
  for (const PlannedStep& s : FullPlan(recipe)) {
    if (run.ran.count(s.name) == 0 && run.outcomes.count(s.key) == 0) lost.insert(s.name);
  }
  return lost;
}

TEST(PlannerTest, AFailedStepTakesOnlyWhatIsBuiltOnIt) {
  ResolvedRecipe recipe = ThreeVariants();
  using S = std::set<std::string>;
  // The decision is taken over the candidates that are left.
  EXPECT_EQ(LostWith(recipe, "a/02-retrain"), (S{"a/02-retrain/evaluate", "a/02-retrain/test"}));
  EXPECT_EQ(LostWith(recipe, "b/02-retrain"), (S{"b/02-retrain/evaluate", "b/02-retrain/test", "b/03-prune", "b/03-prune/evaluate", "b/03-prune/test"}));
  EXPECT_EQ(LostWith(recipe, "baseline@2"), (S{"c/02-retrain", "c/02-retrain/evaluate", "c/02-retrain/test"}));
  EXPECT_EQ(LostWith(recipe, "b/02-retrain/evaluate"), (S{"b/02-retrain/test"})) << "an evaluation that fails loses the candidate, not the chain";
  EXPECT_EQ(LostWith(recipe, "b/03-prune/test"), S{});
}

TEST(PlannerTest, APartlyFailedJobPromotesFromTheRest) {
  ResolvedRecipe recipe = ThreeVariants();
  Played run = PlayJob(recipe, RandomStream(1, RandomPurpose::kTest), [](const PlannedStep& s) { return s.name == "c/01-prune"; });
  const PlannedStep* promote = FindStep(run.last, "promote");
  ASSERT_NE(promote, nullptr);
  std::vector<std::string> roles;
  for (const auto& [role, key] : promote->spec.inputs) roles.push_back(role);
  EXPECT_THAT(roles, ElementsAre("baseline", "candidate/a/02-retrain", "candidate/b/02-retrain", "candidate/b/03-prune"));
  EXPECT_TRUE(run.ran.count("promote"));
  EXPECT_TRUE(run.ran.count("b/03-prune/test"));
}

TEST(PlannerTest, WithoutABaselineNothingIsDecided) {
  ResolvedRecipe recipe = ThreeVariants();
  Played run = PlayJob(recipe, RandomStream(1, RandomPurpose::kTest), [](const PlannedStep& s) { return s.name == "baseline"; });
  EXPECT_EQ(run.ran, (std::set<std::string>{"init", "baseline@2"}));
  EXPECT_EQ(FindStep(run.last, "promote"), nullptr);
  run = PlayJob(recipe, RandomStream(1, RandomPurpose::kTest), [](const PlannedStep& s) { return s.name == "baseline/evaluate"; });
  EXPECT_EQ(FindStep(run.last, "promote"), nullptr);
  EXPECT_TRUE(run.ran.count("a/02-retrain/evaluate"));
}

TEST(PlannerTest, PlanningWithoutAStoredPlanGivesTheSame) {
  ResolvedRecipe recipe = ThreeVariants(), bare = recipe;
  bare.plan = nullptr;
  PlannedSteps a = FullPlan(recipe), b = FullPlan(bare);
  ASSERT_EQ(NamesOf(a), NamesOf(b));
  for (size_t i = 0; i < a.size(); ++i) EXPECT_EQ(a[i].key, b[i].key);
}

TEST(PlannerTest, PredictionsFollowTheSparsitiesOfTheRecipe) {
  ResolvedRecipe recipe = Resolved(WithVariants("\n  v: [{prune: {sparsity: 0.5, targets: fc1}}, {prune: {fraction_of_remaining: 0.5}}, {retrain: {epochs: 2}}]\n"));
  auto predicted = [&](const std::string& name) { return *Predict(StepOf(recipe, name), recipe); };
  // 784·300 + 300·100 + 100·10 weights and 410 biases.
  const int64_t fc1 = 235'200, rest = 31'000, all = fc1 + rest + 410;
  EXPECT_EQ(predicted("baseline").parameters, all);
  EXPECT_EQ(predicted("baseline").parameters_nonzero, all);
  EXPECT_EQ(predicted("v/01-prune").parameters_nonzero, fc1 / 2 + rest + 410);
  EXPECT_EQ(predicted("v/02-prune").parameters_nonzero, fc1 / 4 + rest / 2 + 410);
  EXPECT_EQ(predicted("v/03-retrain").parameters_nonzero, fc1 / 4 + rest / 2 + 410);
  EXPECT_EQ(predicted("v/03-retrain").multiply_adds_nonzero, fc1 / 4 + rest / 2);
  EXPECT_EQ(predicted("v/03-retrain/evaluate").parameters_nonzero, fc1 / 4 + rest / 2 + 410) << "of the evaluated model";
  EXPECT_EQ(predicted("baseline").training_samples, 20 * 55'000);
  EXPECT_EQ(predicted("v/03-retrain").training_samples, 2 * 55'000);
  EXPECT_EQ(predicted("v/01-prune").training_samples, 0);
  // Three passes for training, one for evaluation, two operations per multiply-add.
  EXPECT_DOUBLE_EQ(predicted("v/03-retrain").seconds, 3.0 * 2 * 55'000 * 2 * (fc1 + rest) / kPlanFlopsPerSecond);
  EXPECT_DOUBLE_EQ(predicted("v/03-retrain/test").seconds, 10'000.0 * 2 * (fc1 + rest) / kPlanFlopsPerSecond);
  EXPECT_LT(predicted("v/02-prune").checkpoint_bytes, predicted("v/01-prune").checkpoint_bytes);
  EXPECT_LT(predicted("v/01-prune").checkpoint_bytes, predicted("baseline").checkpoint_bytes);
}

TEST(StepSpecTest, JsonFormReadsBackAsItWas) {
  for (const PlannedStep& step : FullPlan(ThreeVariants())) {
    auto text = ParseJson(Canonical(ToJson(step.spec)), "spec");
    ASSERT_TRUE(text.ok());
    auto back = StepSpecFromJson(*text);
    ASSERT_TRUE(back.ok()) << back.error().message;
    EXPECT_EQ(*back, step.spec);
    EXPECT_EQ(KeyOf(*back), step.key);
  }
}

TEST(StepSpecTest, OfAnotherEngineOrIncompleteIsRefused) {
  Json good = ToJson(StepOf(ThreeVariants(), "baseline").spec);
  Json other = good;
  other["engine"] = std::string(kEngineVersion) + "x";
  EXPECT_EQ(StepSpecFromJson(other).error().code, ErrorCode::kVersion);
  for (const auto& [field, value] : good.items()) {
    Json less = good;
    less.erase(field);
    EXPECT_FALSE(StepSpecFromJson(less).ok()) << field;
  }
  Json inputs = good;
  inputs["inputs"]["model"] = "short";
  EXPECT_FALSE(StepSpecFromJson(inputs).ok());
}

// ---- checkpoints that were collected ----

class MadeAgainTest : public testing::Test {
 protected:
  StepKey KeyOf(const std::string& name) const {
    for (const PlannedStep& step : plan_) if (step.name == name) return step.key;
    ADD_FAILURE() << name;
    return StepKey();
  }
  // Names of the steps that run again when these have no outcome and all checkpoints but theirs are gone.
  std::set<std::string> Again(const std::set<std::string>& open, bool keeps_all = false, std::set<StepKey> needed = {}) const {
    std::set<StepKey> runs;
    for (const std::string& name : open) runs.insert(KeyOf(name));
    std::set<StepKey> again = MadeAgain(
        plan_, keeps_all, [&](const StepKey& key) { return runs.count(key) != 0; },
        [&](const StepKey& key) {
          for (const PlannedStep& step : plan_) if (step.key == key) return step.spec.kind != "evaluate" && !step.local;
          return false;
        },
        std::move(needed));
    std::set<std::string> names;
    for (const PlannedStep& step : plan_) if (again.count(step.key) != 0) names.insert(step.name);
    return names;
  }
  ResolvedRecipe recipe_ = ThreeVariants();
  PlannedSteps plan_ = FullPlan(recipe_);
};

TEST_F(MadeAgainTest, NothingIfNothingRuns) { EXPECT_THAT(Again({}), IsEmpty()); }

TEST_F(MadeAgainTest, WhatAStepReadsAndWhatThatWasMadeFromButNoOtherVariant) {
  std::set<std::string> again = Again({"b/02-retrain/evaluate"});
  EXPECT_THAT(again, Contains("b/02-retrain"));
  EXPECT_THAT(again, Contains("b/01-prune"));
  EXPECT_THAT(again, Contains("baseline"));
  EXPECT_THAT(again, Not(Contains("a/02-retrain")));
  EXPECT_THAT(again, Not(Contains("b/03-prune")));
}

TEST_F(MadeAgainTest, ADecisionReadsResultsOnly) { EXPECT_THAT(Again({"promote"}), IsEmpty()); }

TEST_F(MadeAgainTest, WhatIsNeededOtherwiseIsMadeToo) {
  EXPECT_THAT(Again({}, false, {KeyOf("a/02-retrain")}), Contains("a/02-retrain"));
}

TEST_F(MadeAgainTest, ARecipeThatKeepsAllHasAllMade) {
  EXPECT_TRUE(KeepsAll(recipe_));
  EXPECT_THAT(Again({}, true), Contains("c/02-retrain"));
  ResolvedRecipe best = recipe_;
  best.tree["keep"] = {{"policy", "best"}, {"count", 1}};
  EXPECT_FALSE(KeepsAll(best));
}

}  // namespace
}  // namespace pare::recipes
