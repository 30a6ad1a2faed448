// Resolving: every default written out, schedules inherited, warnings, the stored form.
#include "recipes/plan.h"
#include "recipes/schema.h"
#include "tests/recipes/fixture.h"

namespace pare::recipes {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// The section of the only step of a recipe whose train section is `train`.
Json ResolvedStep(const std::string& train, const std::string& step) {
  ResolvedRecipe r = Resolved("name: t\nmodel: {architecture: mlp}\ndata: {dataset: fashion-mnist, validation: 5000}\n" + (train.empty() ? "" : "train: {" + train + "}\n") +
                              "variants: {v: [{" + step + "}]}\n");
  return r.tree.contains("variants") ? r.tree["variants"]["v"][0].begin().value() : Json();
}

TEST(ResolveTest, EveryDefaultIsWrittenOut) {
  ResolvedRecipe r = Resolved("name: t\nmodel: {architecture: mlp}\ndata: {dataset: fashion-mnist, validation: 5000}\ntrain: {}\nvariants: {v: [{prune: {sparsity: 0.5}}]}\npromote: {as: t}\n");
  for (const auto& [section, pointer] : std::vector<std::pair<std::string, std::string>>{
           {"recipe", ""}, {"data", "/data"}, {"augment", "/data/augment"}, {"train", "/train"}, {"snapshot", "/snapshot"}, {"goal", "/goal"}, {"target", "/goal/target"},
           {"promote", "/promote"}, {"prune", "/variants/v/0/prune"}}) {
    const Json& object = r.tree[Json::json_pointer(pointer)];
    for (const Field* f : FieldsOf(section)) {
      if (f->default_json.empty()) continue;
      std::string at = std::string(f->section) + "." + std::string(f->name);
      ASSERT_TRUE(object.contains(std::string(f->name))) << at;
      if (f->name != "criterion" && f->name != "validation" && f->type != "section") { EXPECT_EQ(object[std::string(f->name)], Json::parse(f->default_json)) << at; }
    }
  }
  EXPECT_EQ(r.tree["model"], (Json{{"architecture", "mlp"}, {"hidden", {300, 100}}, {"activation", "relu"}, {"dropout", 0}}));
  EXPECT_EQ(r.tree["train"]["shards"], 2) << "one per 64 of the 128 samples of a batch";
  EXPECT_EQ(r.tree["variants"]["v"][0]["prune"]["criterion"], "magnitude_l1");
  EXPECT_EQ(r.tree["variants"]["v"][0]["prune"]["tensors"], (Json{"fc1.weight", "fc2.weight", "fc3.weight"}));
}

TEST(ResolveTest, LearningRateDefaultsToWhatTheOptimizerNeeds) {
  auto rate = [](const std::string& train) {
    return Resolved("name: t\nmodel: {architecture: mlp}\ndata: {dataset: fashion-mnist}\ntrain: {" + train + "}\n").tree["train"]["learning_rate"].get<double>();
  };
  EXPECT_EQ(rate(""), 0.05);
  EXPECT_EQ(rate("optimizer: adam"), 0.001);
  EXPECT_EQ(rate("optimizer: adamw"), 0.001);
  EXPECT_EQ(rate("optimizer: adam, learning_rate: 0.01"), 0.01);
}

TEST(ResolveTest, ShardsAreOnePerSixtyFourSamples) {
  auto shards = [](int batch) { return ResolvedStep("batch_size: " + std::to_string(batch), "retrain: {}")["shards"].get<int>(); };
  EXPECT_EQ(shards(1), 1);
  EXPECT_EQ(shards(64), 1);
  EXPECT_EQ(shards(128), 2);
  EXPECT_EQ(shards(300), 5);
  EXPECT_EQ(ResolvedStep("batch_size: 128", "retrain: {batch_size: 256}")["shards"], 4) << "another batch, another default";
  EXPECT_EQ(ResolvedStep("batch_size: 128, shards: 1", "retrain: {}")["shards"], 1);
  EXPECT_EQ(ResolvedStep("batch_size: 128, shards: 1", "retrain: {batch_size: 256, shards: 8}")["shards"], 8);
}

TEST(ResolveTest, FineTuningRunsAtTheLastRateOfTheBaseline) {
  auto rate = [](const std::string& train) {
    Json step = ResolvedStep(train, "retrain: {}");
    EXPECT_EQ(step["schedule"], "constant");
    EXPECT_EQ(step["epochs"], 3);
    EXPECT_THAT(step["milestones"], IsEmpty());
    EXPECT_EQ(step["warmup_epochs"], 0.0);
    return step["learning_rate"].get<double>();
  };
  EXPECT_DOUBLE_EQ(rate("epochs: 20, learning_rate: 0.1"), 0.1);
  EXPECT_DOUBLE_EQ(rate("epochs: 20, learning_rate: 0.1, schedule: multi_step, milestones: [10, 15]"), 0.001);
  EXPECT_DOUBLE_EQ(rate("epochs: 20, learning_rate: 0.1, schedule: multi_step, milestones: [10, 15], gamma: 0.5"), 0.025);
  EXPECT_DOUBLE_EQ(rate("epochs: 20, learning_rate: 0.1, schedule: multi_step, milestones: [10, 25]"), 0.01) << "the second one is never reached";
  // Epoch 20 of 20 starts with one twentieth left: linear 0.005; cosine 0.1 (1 + cos(0.95 π)) / 2.
  EXPECT_DOUBLE_EQ(rate("epochs: 20, learning_rate: 0.1, schedule: linear"), 0.005);
  EXPECT_DOUBLE_EQ(rate("epochs: 20, learning_rate: 0.1, schedule: cosine"), 0.000615582970);
  EXPECT_DOUBLE_EQ(rate("epochs: 20, learning_rate: 0.1, schedule: cosine, final_learning_rate: 0.02"), 0.0204924664);
}

TEST(ResolveTest, FineTuningKeepsOptimizerAndBatchOfTheBaseline) {
  Json step = ResolvedStep("optimizer: adam, learning_rate: 0.01, batch_size: 64, weight_decay: 0.5, label_smoothing: 0.1, clip_norm: 2", "retrain: {epochs: 7, weight_decay: 0}");
  EXPECT_EQ(step["optimizer"], "adam");
  EXPECT_EQ(step["batch_size"], 64);
  EXPECT_EQ(step["label_smoothing"], 0.1);
  EXPECT_EQ(step["clip_norm"], 2.0);
  EXPECT_EQ(step["weight_decay"], 0.0);
  EXPECT_EQ(step["epochs"], 7);
  EXPECT_EQ(step["rewind"], "none");
}

TEST(ResolveTest, RewindsEnterTheScheduleWhereTheyShould) {
  const std::string train = "epochs: 20, learning_rate: 0.1, schedule: cosine";
  auto range = [&](const std::string& step) {
    Json r = ResolvedStep(train, "retrain: {" + step + "}");
    EXPECT_EQ(r["schedule"], "cosine");
    EXPECT_EQ(r["learning_rate"], 0.1);
    return std::pair<int, int>(r["to"].get<int>(), r["epochs"].get<int>());
  };
  using P = std::pair<int, int>;
  EXPECT_EQ(range("rewind: weights"), P(0, 20)) << "the whole schedule again";
  EXPECT_EQ(range("rewind: weights, to: init"), P(0, 20));
  EXPECT_EQ(range("rewind: weights, to: 3"), P(3, 17));
  EXPECT_EQ(range("rewind: weights, to: 3, epochs: 2"), P(3, 2));
  EXPECT_EQ(range("rewind: weights, epochs: 12"), P(0, 12));
  EXPECT_EQ(range("rewind: learning_rate"), P(0, 20));
  EXPECT_EQ(range("rewind: learning_rate, epochs: 3"), P(17, 3)) << "the last epochs of the schedule";
  EXPECT_EQ(range("rewind: learning_rate, to: init, epochs: 3"), P(0, 3));
  EXPECT_EQ(range("rewind: learning_rate, to: 8"), P(8, 12));
}

TEST(ResolveTest, ScheduledPruningSqueezesTheBaselinesSchedule) {
  Json prune = ResolvedStep("epochs: 20, learning_rate: 0.1, warmup_epochs: 4, schedule: multi_step, milestones: [10, 15, 18]", "prune: {schedule: cubic, final_sparsity: 0.9, epochs: 6}");
  EXPECT_EQ(prune["schedule"], "cubic");
  EXPECT_EQ(prune["train"]["schedule"], "multi_step");
  EXPECT_EQ(prune["train"]["milestones"], (Json{3.0, 4.0, 5.0}));
  EXPECT_DOUBLE_EQ(prune["train"]["warmup_epochs"].get<double>(), 1.2);
  EXPECT_EQ(prune["train"]["epochs"], 6);
  EXPECT_EQ(prune["init_sparsity"], 0.0);
  EXPECT_EQ(prune["start_epoch"], 0.0);
  EXPECT_EQ(prune["end_epoch"], 4.0);
  EXPECT_EQ(prune["update_frequency"], 0.5);
  // What the step says itself stays.
  prune = ResolvedStep("epochs: 20, schedule: multi_step, milestones: [10]", "prune: {schedule: linear, final_sparsity: 0.9, epochs: 6, milestones: [1, 2], end_epoch: 5, learning_rate: 0.2}");
  EXPECT_EQ(prune["train"]["milestones"], (Json{1.0, 2.0}));
  EXPECT_EQ(prune["train"]["learning_rate"], 0.2);
  EXPECT_EQ(prune["end_epoch"], 5.0);
  EXPECT_FALSE(prune.contains("learning_rate")) << "training fields are told once";
}

TEST(ResolveTest, AMilestoneNeverFallsBeforeTheFirstEpochEnds) {
  Json prune = ResolvedStep("epochs: 20, schedule: multi_step, milestones: [2, 15]", "prune: {schedule: cubic, final_sparsity: 0.9, epochs: 3}");
  EXPECT_EQ(prune["train"]["milestones"], (Json{1.0, 2.0}));
}

TEST(ResolveTest, RepeatStaysAsItIsWritten) {
  ResolvedRecipe r = Resolved(WithVariants(" {v: [{repeat: {times: 3}, steps: [{prune: {fraction_of_remaining: 0.2}}, {evaluate: }]}]}"));
  const Json& item = r.tree["variants"]["v"][0];
  EXPECT_EQ(item["repeat"], (Json{{"times", 3}}));
  EXPECT_EQ(item["steps"][0]["prune"]["scope"], "global") << "but what is inside is resolved";
  EXPECT_EQ(item["steps"][1]["evaluate"], (Json{{"split", "validation"}}));
}

TEST(ResolveTest, StoredRecipesReadBackAsTheyWere) {
  for (const std::string& name : ShippedRecipes()) {
    ResolvedRecipe recipe = Resolved(ShippedText(name));
    Json json = ToJson(recipe);
    auto parsed = ParseJson(Canonical(json), "stored");
    ASSERT_TRUE(parsed.ok());
    auto back = ResolvedRecipeFromJson(*parsed);
    ASSERT_TRUE(back.ok()) << back.error().message;
    EXPECT_EQ(ToJson(*back), json) << name;
    EXPECT_EQ(DigestOf(*back), DigestOf(recipe)) << name;
    EXPECT_EQ(back->graph, recipe.graph);
    EXPECT_EQ(back->data, recipe.data);
    PlannedSteps a = FullPlan(recipe), b = FullPlan(*back);
    ASSERT_EQ(NamesOf(a), NamesOf(b));
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i].key, b[i].key);
      EXPECT_EQ(a[i].spec, b[i].spec);
    }
  }
}

TEST(ResolveTest, DamagedStoredRecipesAreRefused) {
  const Json good = ToJson(Resolved(ShippedText("tiny.yaml")));
  auto refused = [](const Json& json) { return !ResolvedRecipeFromJson(json).ok(); };
  EXPECT_FALSE(refused(good));
  EXPECT_TRUE(refused(nullptr));
  EXPECT_TRUE(refused(Json::array()));
  for (const auto& [key, value] : good.items()) {
    Json less = good;
    less.erase(key);
    EXPECT_TRUE(refused(less)) << key;
    for (const Json& other : {Json(nullptr), Json(7), Json("x"), Json::array({1})}) {
      // Any text is a name, a recipe may have no weights and no warnings.
      if (value.type() == other.type() && key != "weights") continue;
      Json changed = good;
      changed[key] = other;
      if (key == "warnings" && other.is_null()) continue;
      EXPECT_TRUE(refused(changed)) << key << " = " << other;
    }
  }
  for (const char* pointer : {"/tree/seed", "/tree/train/epochs", "/tree/variants/one-shot/0/prune/tensors", "/tree/variants/iterative/0/repeat/times", "/tree/snapshot"}) {
    Json changed = good;
    changed[Json::json_pointer(pointer)] = "x";
    EXPECT_TRUE(refused(changed)) << pointer;
  }
  Json unknown_tensor = good;
  unknown_tensor["tree"]["variants"]["one-shot"][0]["prune"]["tensors"] = {"fc9.weight"};
  EXPECT_TRUE(refused(unknown_tensor));
}

TEST(ResolveTest, WeightsReplaceTheInitialization) {
  Digest weights = pare::DigestOf(std::string_view("weights"));
  ResolvedRecipe r = Resolved("name: t\nmodel: {architecture: mlp, weights: w.safetensors}\ndata: {dataset: fashion-mnist, validation: 5000}\n", FashionInfo(), weights);
  PlannedSteps plan = FullPlan(r);
  EXPECT_THAT(NamesOf(plan), ElementsAre("init", "init/evaluate", "init/test"));
  EXPECT_EQ(plan[0].spec.kind, "import");
  EXPECT_EQ(plan[0].spec.params["weights"], weights.hex());
  auto back = ResolvedRecipeFromJson(ToJson(r));
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->weights, weights);
}

TEST(ResolveTest, TheDataRequestIsWhatTheDataSectionSays) {
  auto recipe = Recipe::Parse("name: t\nmodel: {architecture: mlp, weights: w.st}\ndata: {format: csv, train: a.csv, test: b.csv, label_column: 3, shape: [1, 2, 2]}\n", "r.yaml");
  ASSERT_TRUE(recipe.ok()) << recipe.error().message;
  data::DataRequest expected;
  expected.format = "csv";
  expected.train = "a.csv";
  expected.test = "b.csv";
  expected.label_column = "3";
  expected.shape = {1, 2, 2};
  EXPECT_EQ(recipe->data_request(), expected);
  EXPECT_EQ(recipe->weights_path(), "w.st");
}

TEST(ResolveTest, DoubtfulRecipesAreWarnedAbout) {
  EXPECT_THAT(WarningsOf(WithVariants(" {v: [{prune: {sparsity: 0.5}}]}")), IsEmpty());
  EXPECT_THAT(WarningsOf(WithVariants(" {v: [{prune: {sparsity: 0.9}}]}")), ElementsAre("7:24: a large part of the weights is removed and nothing is retrained afterwards"));
  EXPECT_THAT(WarningsOf(WithVariants(" {v: [{retrain: {learning_rate: 0.05}}]}")),
              ElementsAre("7:42: fine-tuning at the full rate of train until the end leaves the weights noisy; use a tenth, or schedule: cosine"));
  EXPECT_THAT(WarningsOf(WithVariants(" {}")), ElementsAre("1:1: there are no variants: only the baseline will be made, and nothing promoted"));
  EXPECT_THAT(WarningsOf(WithVariants(" {v: [{repeat: {times: 20}, steps: [{prune: {fraction_of_remaining: 0.5}}, {retrain: {}}]}]}")),
              ElementsAre("7:15: variant v reaches more than 99.9 % sparsity at v/19-prune: hardly anything is left to learn with"));
  EXPECT_THAT(WarningsOf("name: t\nmodel: {architecture: mlp}\ndata: {dataset: fashion-mnist, validation: 100}\ntrain: {epochs: 2, batch_size: 10000, schedule: multi_step, milestones: [1, 2]}\n"
                         "variants: {v: [{evaluate: }]}\n"),
              ElementsAre("4:32: batch_size 10000 leaves only 5 optimizer steps an epoch", "4:73: milestone 2.0 is never reached: training ends after 2 epochs",
                          "3:44: validation: an accuracy over 100 samples is known to about ±5.9 pp, the promised difference is 0.5 pp"));
}

TEST(ResolveTest, StepsThatTheDensityBoundsWillStopAreWarnedAbout) {
  EXPECT_THAT(WarningsOf(WithVariants(" {v: [{repeat: {times: 4}, steps: [{prune: {fraction_of_remaining: 0.5, min_density: 0.2}}, {retrain: {}}]}]}")),
              ElementsAre("7:53: v/05-prune: min_density leaves less to remove than the step asks for, it will fail",
                          "7:53: v/07-prune: min_density leaves less to remove than the step asks for, it will fail"));
  EXPECT_THAT(WarningsOf(WithVariants(" {v: [{prune: {fraction_of_remaining: 0.1, max_density: 0.5}}]}")),
              ElementsAre("7:24: v/01-prune: max_density removes more than the step asks for, it will fail"));
  // Per layer the bounds clamp, nothing fails.
  EXPECT_THAT(WarningsOf(WithVariants(" {v: [{repeat: {times: 4}, steps: [{prune: {fraction_of_remaining: 0.5, min_density: 0.2, scope: layer}}, {retrain: {}}]}]}")), IsEmpty());
}

}  // namespace
}  // namespace pare::recipes
