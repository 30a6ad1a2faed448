// Step keys: what changes them, and what does not.
#include <set>

#include "recipes/schema.h"
#include "tests/recipes/fixture.h"

namespace pare::recipes {
namespace {

// A recipe that uses every section; small enough to be changed field by field.
const std::string kBase = R"(version: 1
name: keys
seed: 3
model: {architecture: mlp, hidden: [64, 32], activation: relu, dropout: 0}
data: {dataset: fashion-mnist, validation: 5000, normalize: standard, augment: {flip: false, shift: 0}}
train:
  epochs: 10
  batch_size: 128
  optimizer: sgd
  learning_rate: 0.1
  momentum: 0.9
  schedule: multi_step
  milestones: [5, 8]
snapshot: {every_epochs: 1}
goal: {max_accuracy_drop: 0.5, minimize: bytes, target: {threads: 1}}
variants:
  shot: [{prune: {sparsity: 0.5}}, {retrain: {epochs: 2}}]
  curve: [{prune: {schedule: cubic, final_sparsity: 0.9, epochs: 3}}, {retrain: {rewind: weights, to: 2}}]
promote: {as: keys}
)";

Json Base() { return Recipe::Parse(kBase, "base.yaml")->tree(); }
std::map<std::string, StepKey> KeysOf(const Json& tree) {
  std::map<std::string, StepKey> keys;
  for (const PlannedStep& step : FullPlan(Resolved(RenderYaml(tree)))) keys[step.name] = step.key;
  return keys;
}
Json With(const char* pointer, const Json& value) {
  Json tree = Base();
  tree[Json::json_pointer(pointer)] = value;
  return tree;
}
std::set<std::string> Changed(const Json& tree) {
  auto before = KeysOf(Base()), after = KeysOf(tree);
  std::set<std::string> names;
  for (const auto& [name, key] : before) {
    if (after.count(name) == 0 || after[name] != key) names.insert(name);
  }
  return names;
}

TEST(KeyTest, CommentsLayoutAndOrderOfFieldsChangeNothing) {
  const std::string other = R"(# Another look of the same recipe.
promote:
  as: "keys"
variants:
  curve:
    - {prune: {epochs: 3, final_sparsity: 0.9, schedule: cubic}}
    # A comment between steps.
    - retrain:
        to: 2
        rewind: weights
  shot:
    - prune: {sparsity: 0.5}
    - retrain: {epochs: 2}
train: {milestones: [5.0, 8.0], schedule: multi_step, momentum: 0.90, learning_rate: 1e-1, optimizer: 'sgd', batch_size: 128, epochs: 10}
goal: {target: {threads: 1}, minimize: bytes, max_accuracy_drop: 5.0e-1}
data: {augment: {shift: 0, flip: false}, normalize: standard, validation: 5000, dataset: fashion-mnist}
model: {dropout: 0.0, activation: relu, hidden: [64, 32], architecture: mlp}
seed: 3
name: keys
)";
  EXPECT_EQ(KeysOf(Recipe::Parse(other, "other.yaml")->tree()), KeysOf(Base()));
  EXPECT_EQ(DigestOf(Resolved(other)), DigestOf(Resolved(kBase)));
}

TEST(KeyTest, WritingADefaultOutChangesNothing) {
  Json tree = Resolved(kBase).tree;
  // Of the resolved recipe, what the language has: no resolved tensors, no train section inside a step.
  Json written = Base();
  for (const char* section : {"data", "train", "goal", "snapshot", "model", "promote"}) written[section] = tree[section];
  written["data"].erase("label_column");
  for (const char* field : {"beta1", "beta2", "epsilon", "final_learning_rate"}) written["train"].erase(field);
  written["variants"]["shot"][0]["prune"].update({{"criterion", "magnitude_l1"}, {"scope", "global"}, {"min_density", 0}, {"max_density", 1}, {"schedule", "one_shot"}});
  written["variants"]["shot"][0]["prune"]["targets"] = {"linear", "fc3"};  // which are all of its layers
  written["variants"]["shot"][1]["retrain"].update({{"rewind", "none"}, {"learning_rate", 0.001}, {"schedule", "constant"}});
  written["variants"]["curve"][0]["prune"].update({{"start_epoch", 0}, {"end_epoch", 2}, {"update_frequency", 0.5}, {"milestones", {1, 2}}});
  written["variants"]["curve"][1]["retrain"]["epochs"] = 8;
  EXPECT_EQ(KeysOf(written), KeysOf(Base()));
}

TEST(KeyTest, WholeNumbersAndFractionsOfOneValueAreOneValue) {
  EXPECT_EQ(KeysOf(With("/train/learning_rate", 1)), KeysOf(With("/train/learning_rate", 1.0)));
  EXPECT_EQ(KeysOf(With("/train/weight_decay", 0)), KeysOf(With("/train/weight_decay", -0.0)));
  EXPECT_EQ(KeysOf(With("/variants/curve/0/prune/end_epoch", 2)), KeysOf(With("/variants/curve/0/prune/end_epoch", 2.0)));
  EXPECT_EQ(KeysOf(With("/variants/curve/1/retrain/to", 0)), KeysOf(With("/variants/curve/1/retrain/to", "init")));
  EXPECT_EQ(KeysOf(With("/variants/shot/0/prune/criterion", "magnitude")), KeysOf(With("/variants/shot/0/prune/criterion", "magnitude_l1")));
}

TEST(KeyTest, NamesAndHintsChangeNoResult) {
  EXPECT_TRUE(Changed(With("/name", "other")).empty());
  EXPECT_TRUE(Changed(With("/snapshot", {{"every_epochs", 3}, {"every_seconds", 9}})).empty());
  Json renamed = Base();
  renamed["variants"]["round"] = renamed["variants"]["shot"];
  renamed["variants"].erase("shot");
  EXPECT_EQ(KeysOf(renamed)["round/02-retrain"], KeysOf(Base())["shot/02-retrain"]);
  // The intervals reach the runner all the same.
  EXPECT_EQ(StepOf(Resolved(RenderYaml(With("/snapshot", {{"every_epochs", 3}, {"every_seconds", 9}}))), "baseline").hints,
            (Json{{"snapshot_every_epochs", 3}, {"snapshot_every_seconds", 9}}));
}

// Only what has shards to share out, and no more workers than those: two of a batch of 128.
TEST(KeyTest, AGangIsForStepsThatTrain) {
  Json recipe = With("/gang", 3);
  EXPECT_TRUE(Changed(recipe).empty());
  ResolvedRecipe resolved = Resolved(RenderYaml(recipe));
  EXPECT_EQ(StepOf(resolved, "baseline").hints.Tree()["gang"], 2);
  EXPECT_EQ(StepOf(resolved, "shot/02-retrain").hints.Tree()["gang"], 2);
  for (const char* name : {"init", "shot/01-prune"}) EXPECT_FALSE(StepOf(resolved, name).hints.Tree().contains("gang")) << name;
  recipe["gang"] = 0;
  EXPECT_NE(ErrorOf(RenderYaml(recipe)).find("gang: expected an integer from 1 to 64"), std::string::npos) << ErrorOf(RenderYaml(recipe));
}

TEST(KeyTest, TheSeedChangesEverything) {
  EXPECT_EQ(Changed(With("/seed", 4)).size(), KeysOf(Base()).size());
}

TEST(KeyTest, GoalAndRegistryNameChangeTheDecisionAlone) {
  const std::set<std::string> decision = {"promote"};
  EXPECT_EQ(Changed(With("/goal/max_accuracy_drop", 1.0)), decision);
  EXPECT_EQ(Changed(With("/goal/minimize", "parameters")), decision);
  EXPECT_EQ(Changed(With("/goal/target/threads", 2)), decision);
  EXPECT_EQ(Changed(With("/promote/as", "other")), decision);
  EXPECT_EQ(Changed(With("/promote/keep_best_effort", false)), decision);
}

TEST(KeyTest, EveryFieldOfTheModelChangesAllSteps) {
  for (const auto& [pointer, value] : std::vector<std::pair<const char*, Json>>{
           {"/model/hidden", {64, 33}}, {"/model/activation", "gelu"}, {"/model/dropout", 0.1}, {"/model/architecture", "lenet5"}}) {
    Json tree = With(pointer, value);
    if (value == "lenet5") tree["model"] = {{"architecture", value}};
    EXPECT_EQ(Changed(tree).size(), KeysOf(Base()).size()) << pointer;
  }
}

TEST(KeyTest, EveryFieldOfTheDataChangesAllStepsThatReadIt) {
  std::set<std::string> reading;
  for (const PlannedStep& step : FullPlan(Resolved(kBase))) {
    if (step.name != "init") reading.insert(step.name);  // the rest reads it, or is built on what does
  }
  for (const auto& [pointer, value] : std::vector<std::pair<const char*, Json>>{
           {"/data/validation", 4000}, {"/data/normalize", "none"}, {"/data/augment/flip", true}, {"/data/augment/shift", 2}}) {
    EXPECT_EQ(Changed(With(pointer, value)), reading) << pointer;
  }
  data::DataInfo other = FashionInfo();
  other.fingerprint = pare::DigestOf(std::string_view("other"));
  EXPECT_NE(StepOf(Resolved(kBase, other), "baseline").key, StepOf(Resolved(kBase), "baseline").key);
  EXPECT_EQ(StepOf(Resolved(kBase, other), "init").key, StepOf(Resolved(kBase), "init").key);
}

// Another value for each field of train, with what must stand beside it.
const std::map<std::string, Json>& OtherTraining() {
  static const std::map<std::string, Json> others = {
      {"epochs", {{"epochs", 9}}}, {"batch_size", {{"batch_size", 64}, {"shards", 2}}}, {"shards", {{"shards", 1}}}, {"optimizer", {{"optimizer", "adam"}, {"learning_rate", 0.1}}},
      {"learning_rate", {{"learning_rate", 0.2}}}, {"momentum", {{"momentum", 0.8}}}, {"nesterov", {{"nesterov", true}}}, {"weight_decay", {{"weight_decay", 1e-4}}},
      {"beta1", {{"optimizer", "adam"}, {"beta1", 0.8}}}, {"beta2", {{"optimizer", "adam"}, {"beta2", 0.99}}}, {"epsilon", {{"optimizer", "adam"}, {"epsilon", 1e-7}}},
      {"schedule", {{"schedule", "cosine"}}}, {"milestones", {{"milestones", {5, 7}}}}, {"gamma", {{"gamma", 0.2}}}, {"final_learning_rate", {{"schedule", "cosine"}, {"final_learning_rate", 0.01}}},
      {"warmup_epochs", {{"warmup_epochs", 1}}}, {"label_smoothing", {{"label_smoothing", 0.1}}}, {"labels", {{"labels", 0.5}}},
      {"clip_norm", {{"clip_norm", 1}}}};
  return others;
}

TEST(KeyTest, EveryFieldOfTrainChangesTheBaseline) {
  for (const Field* field : FieldsOf("train")) {
    auto other = OtherTraining().find(std::string(field->name));
    ASSERT_NE(other, OtherTraining().end()) << "no case for " << field->name;
    // The same companions with and without the change.
    auto baseline = [&](bool changed) {
      Json tree = Base();
      for (const auto& [name, value] : other->second.items()) {
        if (changed || name != field->name) tree["train"][name] = value;
      }
      if (tree["train"]["optimizer"] != "sgd") tree["train"].erase("momentum");
      if (tree["train"]["schedule"] != "multi_step") tree["train"].erase("milestones");
      return KeysOf(tree)["baseline"];
    };
    EXPECT_NE(baseline(true), baseline(false)) << field->name;
  }
}

TEST(KeyTest, EveryTrainingFieldOfAStepChangesThatStepAlone) {
  for (const Field* field : FieldsOf("train")) {
    std::string name(field->name);
    for (const char* pointer : {"/variants/shot/1/retrain", "/variants/curve/0/prune", "/variants/curve/1/retrain"}) {
      bool pruning = std::string(pointer).find("prune") != std::string::npos;
      Json train = OtherTraining().at(name);
      if (name == "epochs") train = {{"epochs", 4}};
      if (pruning && (name == "schedule" || name == "final_learning_rate")) continue;  // the name is taken, the schedule is train's
      if (train.contains("optimizer")) train["learning_rate"] = 0.1;
      if (std::string(pointer) == "/variants/shot/1/retrain" && (name == "milestones" || name == "gamma")) {
        train["schedule"] = "multi_step";
        if (name == "gamma") train["milestones"] = {1};
      }
      Json tree = Base();
      tree[Json::json_pointer(pointer)].update(train);
      std::set<std::string> changed = Changed(tree);
      std::string step = pruning ? "curve/01-prune" : std::string(pointer).find("shot") != std::string::npos ? "shot/02-retrain" : "curve/02-retrain";
      EXPECT_TRUE(changed.count(step)) << pointer << " " << name;
      EXPECT_FALSE(changed.count("baseline")) << pointer << " " << name;
      EXPECT_FALSE(changed.count(pruning || step[0] == 'c' ? "shot/02-retrain" : "curve/02-retrain")) << pointer << " " << name;
    }
  }
}

TEST(KeyTest, EveryFieldOfPruneChangesThatStep) {
  const std::map<std::string, std::pair<Json, Json>> others = {  // for a one-shot step, for a scheduled one; null: not there
      {"criterion", {"random", "random"}}, {"scope", {"layer", "layer"}}, {"schedule", {nullptr, "linear"}}, {"sparsity", {0.6, nullptr}}, {"init_sparsity", {nullptr, 0.1}},
      {"final_sparsity", {nullptr, 0.8}}, {"start_epoch", {nullptr, 1}}, {"end_epoch", {nullptr, 1.5}}, {"update_frequency", {nullptr, 1}}, {"targets", {"fc1", "fc1"}}, {"ignore", {"fc3", "fc3"}},
      {"min_density", {0.01, 0.01}}, {"max_density", {0.9, nullptr}}, {"fraction_of_remaining", {nullptr, nullptr}},
      {"granularity", {"4x1", "4x1"}}, {"round_to", {nullptr, nullptr}}, {"calibration_samples", {nullptr, nullptr}}};  // the last two need another granularity, criterion
  for (const Field* field : FieldsOf("prune")) {
    std::string name(field->name);
    ASSERT_TRUE(others.count(name)) << "no case for " << name;
    auto [one_shot, scheduled] = others.at(name);
    if (!one_shot.is_null()) { EXPECT_EQ(Changed(With(("/variants/shot/0/prune/" + name).c_str(), one_shot)).count("shot/01-prune"), 1u) << name; }
    if (!scheduled.is_null()) { EXPECT_EQ(Changed(With(("/variants/curve/0/prune/" + name).c_str(), scheduled)).count("curve/01-prune"), 1u) << name; }
  }
  Json remaining = With("/variants/shot/0/prune", {{"fraction_of_remaining", 0.5}});
  EXPECT_EQ(Changed(remaining).count("shot/01-prune"), 1u) << "half of what is left is another step than half of all, even where both come out the same";
}

TEST(KeyTest, RewindsChangeTheStepThatRewinds) {
  for (const auto& [value, name] : std::vector<std::pair<Json, std::string>>{
           {{{"rewind", "weights"}, {"to", 3}}, "to"}, {{{"rewind", "learning_rate"}, {"to", 2}}, "rewind"}, {{{"rewind", "weights"}, {"to", 2}, {"epochs", 3}}, "epochs"}}) {
    EXPECT_EQ(Changed(With("/variants/curve/1/retrain", value)).count("curve/02-retrain"), 1u) << name;
  }
}

TEST(KeyTest, AChangedVariantLeavesTheOthersAlone) {
  std::set<std::string> changed = Changed(With("/variants/shot/1/retrain/epochs", 3));
  EXPECT_EQ(changed, (std::set<std::string>{"shot/02-retrain", "shot/02-retrain/evaluate", "shot/02-retrain/test", "promote"}));
}

TEST(KeyTest, WhereTheFilesLieChangesNoKey) {
  data::DataInfo moved = FashionInfo();
  moved.request.directory = "/elsewhere";
  EXPECT_EQ(StepOf(Resolved(kBase, moved), "promote").key, StepOf(Resolved(kBase), "promote").key);
}

}  // namespace
}  // namespace pare::recipes
