// The shipped recipes: what each plans, to the key, and that each is the method its comment names.
#include <set>

#include "common/version.h"
#include "recipes/kinds.h"
#include "recipes/schema.h"
#include "tests/recipes/fixture.h"

namespace pare::recipes {
namespace {

const std::string kGolden = PARE_SOURCE_DIR "/tests/recipes/golden/";

std::string PlanText(const ResolvedRecipe& recipe) {
  std::string text;
  for (const PlannedStep& step : FullPlan(recipe)) {
    text += step.key.hex() + " " + step.spec.kind + std::string(step.spec.kind.size() < 10 ? 10 - step.spec.kind.size() : 0, ' ') + " " + step.name +
            (step.candidate ? " (candidate)" : "") + (step.local ? " (decided by the coordinator)" : "") + "\n";
  }
  return text;
}

class ShippedRecipeTest : public testing::TestWithParam<std::string> {};

TEST_P(ShippedRecipeTest, PlansTheSameStepsUnderTheSameKeys) {
  std::string text = "# Plan of recipes/" + GetParam() + ", engine version " + std::string(kEngineVersion) + ": step key, kind, name.\n" +
                     PlanText(Resolved(ShippedText(GetParam())));
  ExpectGolden(kGolden + GetParam() + ".plan", text);
}

TEST_P(ShippedRecipeTest, OpensWithACommentThatNamesWhatToExpect) {
  std::string text = ShippedText(GetParam());
  EXPECT_EQ(text.rfind("# ", 0), 0u);
  // How long it takes, in seconds or minutes.
  std::string comment = text.substr(0, text.find("\nversion:"));
  EXPECT_THAT(comment, testing::ContainsRegex("seconds|minute"));
}

TEST_P(ShippedRecipeTest, IsNamedAfterItsFile) {
  EXPECT_EQ(Resolved(ShippedText(GetParam())).name + ".yaml", GetParam());
}

INSTANTIATE_TEST_SUITE_P(Recipes, ShippedRecipeTest, testing::ValuesIn(ShippedRecipes()), [](const auto& test) {
  std::string name = test.param.substr(0, test.param.find('.'));
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

TEST(ShippedRecipesTest, EveryGoldenPlanBelongsToARecipe) {
  std::set<std::string> plans, expected;
  for (const auto& entry : std::filesystem::directory_iterator(kGolden)) plans.insert(entry.path().filename().string());
  for (const std::string& name : ShippedRecipes()) expected.insert(name + ".plan");
  EXPECT_EQ(plans, expected);
}

TEST(ShippedRecipesTest, ThereIsOnePerMethodAndArchitecture) {
  EXPECT_THAT(ShippedRecipes(), testing::IsSupersetOf({"fashion-lenet.yaml", "fashion-lottery.yaml", "fashion-iterative.yaml", "fashion-gradual.yaml", "fashion-oneshot.yaml",
                                                       "fashion-lenet5.yaml", "fashion-resnet8.yaml", "bert-per-layer.yaml", "tiny.yaml"}));
}

// "prune", "prune.criterion=taylor", … of all steps in a list.
void CollectUses(const Json& steps, std::set<std::string>& uses) {
  for (const Json& item : steps) {
    if (item.contains("steps")) {
      CollectUses(item["steps"], uses);
      continue;
    }
    for (const auto& [kind, section] : item.items()) {
      uses.insert(kind);
      for (const auto& [field, value] : section.items()) {
        if (value.is_string()) uses.insert(kind + "." + field + "=" + value.get<std::string>());
      }
    }
  }
}

TEST(ShippedRecipesTest, EveryStepKindAndEveryChoiceThatItOffersIsInARecipe) {
  // As written, and with the defaults written out.
  std::set<std::string> uses;
  for (const std::string& name : ShippedRecipes()) {
    auto recipe = Recipe::Parse(ShippedText(name), name);
    ASSERT_TRUE(recipe.ok()) << recipe.error().message;
    for (const Json& tree : {recipe->tree(), Resolved(ShippedText(name)).tree}) {
      for (const auto& [variant, steps] : tree.at("variants").items()) CollectUses(steps, uses);
    }
  }
  std::vector<std::string> expected = {"prune.granularity=2:4", "prune.granularity=4x1", "prune.granularity=channel", "prune.granularity=head", "prune.granularity=layer",
                                       "distill.teacher=baseline", "distill.teacher=tiny@champion", "distill.teacher=./tiny-export", "distill.teacher=tiny-export/model.safetensors"};
  for (const Kind& kind : Kinds()) {
    expected.emplace_back(kind.name);
    for (const Field* field : FieldsOf(kind.name)) {
      std::istringstream words{std::string(field->type == "name" ? field->allowed : "")};
      for (std::string word; std::getline(words, word, ',');) expected.push_back(std::string(kind.name) + "." + std::string(field->name) + "=" + word);
    }
  }
  for (const std::string& use : expected) EXPECT_TRUE(uses.contains(use)) << use;
}

// Prune and retrain steps of a variant, in order.
PlannedSteps StepsOf(const std::string& file, const std::string& variant, const std::string& kind) {
  PlannedSteps found;
  for (const PlannedStep& step : FullPlan(Resolved(ShippedText(file)))) {
    if (step.variant == variant && step.spec.kind == kind) found.Add(step);
  }
  return found;
}

TEST(ShippedRecipesTest, IterativeIsTenCyclesOfThreeEpochs) {
  EXPECT_EQ(StepsOf("fashion-iterative.yaml", "iterative", "prune").size(), 10u);
  auto retrained = StepsOf("fashion-iterative.yaml", "iterative", "retrain");
  ASSERT_EQ(retrained.size(), 10u);
  for (const PlannedStep& step : retrained) {
    EXPECT_EQ(step.spec.params["stop_epoch"].get<int>() - step.spec.params["start_epoch"].get<int>(), 3);
    EXPECT_EQ(step.spec.params["rule"], "fine_tune");
  }
}

TEST(ShippedRecipesTest, LotteryTicketRewindsToTheInitialWeightsAndSparesTheOutputLayer) {
  auto pruned = StepsOf("fashion-lottery.yaml", "lottery", "prune"), retrained = StepsOf("fashion-lottery.yaml", "lottery", "retrain");
  ASSERT_EQ(pruned.size(), 24u);
  ASSERT_EQ(retrained.size(), 12u);
  // Frankle & Carbin 2019, figure 2: 20 % per round and layer, half of that in the output layer.
  EXPECT_EQ(pruned[0].spec.params["tensors"], Json({"fc1.weight", "fc2.weight"}));
  EXPECT_EQ(pruned[0].spec.params["fraction_of_remaining"], 0.2);
  EXPECT_EQ(pruned[1].spec.params["tensors"], Json::array({"fc3.weight"}));
  EXPECT_EQ(pruned[1].spec.params["fraction_of_remaining"], 0.1);
  for (const PlannedStep& step : pruned) EXPECT_EQ(step.spec.params["scope"], "layer");
  StepKey init = StepOf(Resolved(ShippedText("fashion-lottery.yaml")), "init").key;
  for (const PlannedStep& step : retrained) {
    EXPECT_EQ(step.spec.inputs.at("rewind"), init);
    EXPECT_EQ(step.spec.params["start_epoch"], 0);
    EXPECT_EQ(step.spec.params["stop_epoch"], 20);
  }
}

TEST(ShippedRecipesTest, GradualFollowsACubicCurveInOneRun) {
  auto pruned = StepsOf("fashion-gradual.yaml", "gradual", "prune");
  ASSERT_EQ(pruned.size(), 1u);
  EXPECT_EQ(pruned[0].spec.params["schedule"], "cubic");
  EXPECT_EQ(pruned[0].spec.params["init_sparsity"], 0.0);
  EXPECT_EQ(pruned[0].spec.params["final_sparsity"], 0.95);
}

TEST(ShippedRecipesTest, OneShotComparesRepairRules) {
  std::set<std::string> rules;
  for (const char* variant : {"tuned-90", "replayed-90"}) rules.insert(StepsOf("fashion-oneshot.yaml", variant, "retrain")[0].spec.params["rule"].get<std::string>());
  EXPECT_EQ(rules, (std::set<std::string>{"fine_tune", "learning_rate"}));
  EXPECT_TRUE(StepsOf("fashion-oneshot.yaml", "raw-90", "retrain").empty());
  // One baseline, and one pruned network that two of the variants repair.
  EXPECT_EQ(StepsOf("fashion-oneshot.yaml", "tuned-90", "prune")[0].key, StepsOf("fashion-oneshot.yaml", "raw-90", "prune")[0].key);
}

TEST(ShippedRecipesTest, MainJobReachesNinetyAndNinetySevenPercent) {
  ResolvedRecipe recipe = Resolved(ShippedText("fashion-lenet.yaml"));
  auto sparsity = [&](const std::string& name) {
    auto p = Predict(StepOf(recipe, name), recipe);
    EXPECT_TRUE(p.ok());
    // Biases are never pruned: 410 of 266,610 parameters.
    return 1 - static_cast<double>(p->parameters_nonzero - 410) / static_cast<double>(p->parameters - 410);
  };
  EXPECT_GE(sparsity("iterative/14-retrain"), 0.90);
  EXPECT_GE(sparsity("iterative/20-retrain"), 0.97);
  EXPECT_NEAR(sparsity("gradual-90/01-prune"), 0.90, 1e-4);
  EXPECT_NEAR(sparsity("gradual-97/01-prune"), 0.97, 1e-4);
  EXPECT_GE(sparsity("lottery/16-retrain"), 0.97);
}

// METHODS.md, section 1: word, position and type embeddings; query, key, value, attention output; intermediate; output; pooler.
TEST(ShippedRecipesTest, BertLosesNinetyPercentOfEveryTableAndLinearButTheClassifier) {
  auto pruned = StepsOf("bert-per-layer.yaml", "per-layer", "prune");
  ASSERT_EQ(pruned.size(), 1u);
  const Json& params = pruned[0].spec.params;
  EXPECT_EQ(params["schedule"], "one_shot");
  EXPECT_EQ(params["criterion"], "magnitude_l1");
  EXPECT_EQ(params["scope"], "layer");
  EXPECT_EQ(params["sparsity"], 0.9);
  std::vector<std::string> expected = {"embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight", "embeddings.token_type_embeddings.weight"};
  for (const char* layer : {"encoder.layer.0.", "encoder.layer.1."}) {
    for (const char* part : {"attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense", "intermediate.dense", "output.dense"}) {
      expected.push_back(std::string(layer) + part + ".weight");
    }
  }
  expected.emplace_back("pooler.dense.weight");
  EXPECT_EQ(params["tensors"].get<std::vector<std::string>>(), expected);
  EXPECT_EQ(StepsOf("bert-per-layer.yaml", "per-layer", "retrain").size(), 1u);
}

TEST(ShippedRecipesTest, MainJobTrainsOneBaselineForAllVariants) {
  ResolvedRecipe recipe = Resolved(ShippedText("fashion-lenet.yaml"));
  PlannedSteps plan = FullPlan(recipe);
  StepKey baseline = StepOf(recipe, "baseline").key;
  std::set<std::string> starting;
  for (const PlannedStep& step : plan) {
    auto model = step.spec.inputs.find("model");
    if (step.spec.kind == "prune" && model != step.spec.inputs.end() && model->second == baseline) starting.insert(step.variant);
  }
  EXPECT_EQ(starting, (std::set<std::string>{"iterative", "gradual-90", "gradual-97", "lottery"}));
  EXPECT_EQ(std::count_if(plan.begin(), plan.end(), [](const PlannedStep& s) { return s.spec.kind == "train"; }), 1);
}

}  // namespace
}  // namespace pare::recipes
