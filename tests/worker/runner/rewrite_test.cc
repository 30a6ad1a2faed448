// Methods as steps: what is in methods/registry.h runs without another line in the runner.
#include "methods/registry.h"

#include <cmath>

#include "recipes/planner.h"
#include "tests/worker/runner/fixture.h"

namespace pare::runner {
namespace {

class RewriteTest : public RunnerTest {
 protected:
  // Runs the plan of a recipe over the tiny dataset, step by step, as a coordinator would; artifacts by step name.
  std::map<std::string, Digest> RunRecipe(const std::string& yaml) {
    auto recipe = recipes::Recipe::Parse(yaml, "r.yaml");
    EXPECT_TRUE(recipe.ok()) << recipe.error().message;
    auto resolved = recipes::Resolve(*recipe, info_, Digest());
    EXPECT_TRUE(resolved.ok()) << resolved.error().message;
    std::map<std::string, Digest> artifacts;
    std::map<StepKey, Digest> by_key;
    for (const recipes::PlannedStep& step : recipes::FullPlan(*resolved)) {
      if (step.local) continue;
      worker::Assignment assignment;
      assignment.key = step.key;
      assignment.spec = recipes::ToJson(step.spec);
      assignment.data = step.spec.data.is_null() ? Json() : data::ToJson(info_);
      for (const auto& [role, key] : step.spec.inputs) assignment.inputs[role] = by_key.at(key);
      artifacts[step.name] = by_key[step.key] = Artifact(Run(assignment));
    }
    return artifacts;
  }
};

TEST_F(RewriteTest, ARecipeWithTheMethodOfTheArchitectureDocumentRuns) {
  auto artifacts = RunRecipe(
      "version: 1\nname: t\nmodel: {architecture: mlp, hidden: [10, 7]}\ndata: {train: a.npz, test: b.npz, validation: 12}\n"
      "train: {epochs: 2, batch_size: 8, learning_rate: 0.05}\n"
      "variants: {v: [{prune: {sparsity: 0.5}}, {retrain: {epochs: 1}}, {cast: {ignore: fc3}}]}\n");
  storage::Checkpoint before = CheckpointOf(artifacts.at("v/02-retrain")), after = CheckpointOf(artifacts.at("v/03-cast"));
  EXPECT_EQ(after.masks.size(), before.masks.size());
  EXPECT_EQ(after.notes, before.notes);
  EXPECT_EQ(after.tensors.at("fc3.weight").digest(), before.tensors.at("fc3.weight").digest());
  auto weights = after.tensors.at("fc1.weight").values<float>(), exact = before.tensors.at("fc1.weight").values<float>();
  for (size_t i = 0; i < weights.size(); ++i) {
    EXPECT_EQ(std::bit_cast<uint32_t>(weights[i]) & 0xffffu, 0u);
    EXPECT_NEAR(weights[i], exact[i], std::abs(exact[i]) / 256);
  }
  Json results = ResultsOf(artifacts.at("v/03-cast"));
  ASSERT_EQ(results["report"].size(), 2u);
  EXPECT_EQ(results["report"][0]["layer"], "fc1");
  EXPECT_EQ(results["sparsity"], ResultsOf(artifacts.at("v/02-retrain"))["sparsity"]);
  EXPECT_EQ(ResultsOf(artifacts.at("v/03-cast/evaluate"))["model"], artifacts.at("v/03-cast").hex());
}

TEST_F(RewriteTest, AMethodsErrorNamesItsField) {
  worker::StepFailed failed = Failure(Run(Make("cast", {{"format", "f8"}, {"tensors", {"fc1.weight"}}}, {{"model", init_}})));
  EXPECT_EQ(failed.error_class, "bad_input");
  EXPECT_TRUE(Contains(failed.message, "'format'")) << failed.message;
}

TEST_F(RewriteTest, AnUnknownKindIsRefusedWithEveryKnownOne) {
  std::string message = Failure(Run(Make("casts", Json::object(), {{"model", init_}}))).message;
  for (const char* kind : {"initialize", "retrain", "prune", "evaluate", "cast"}) EXPECT_TRUE(Contains(message, kind)) << message;
}

}  // namespace
}  // namespace pare::runner
