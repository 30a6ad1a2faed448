// The recipes of the studies under bench/methods: taken and planned, so that a study does not rot.
#include <filesystem>
#include <set>
#include <sstream>

#include "tests/recipes/fixture.h"

namespace pare::recipes {
namespace {

TEST(EvidenceRecipeTest, TheRetrainingRulesPlanEveryColumnOfTheTable) {
  ResolvedRecipe recipe = Resolved(ReadText(PARE_SOURCE_DIR "/bench/methods/evidence/retraining_rules.yaml"));
  PlannedSteps plan = FullPlan(recipe);
  std::map<std::string, int> candidates;
  for (const PlannedStep& step : plan) {
    if (step.candidate) ++candidates[step.variant];
  }
  for (const char* rounds : {"3", "5", "8", "10"}) {
    for (const char* rule : {"none-", "tuned-", "replayed-", "cubic-"}) EXPECT_EQ(candidates[std::string(rule) + rounds], 1) << rule << rounds;
  }
  for (const char* rule : {"iterative-tuned", "iterative-replayed", "lottery-epoch-1", "lottery-init"}) EXPECT_EQ(candidates[rule], 10) << rule;
  // The ticket's rounds are the lottery's own steps; only the last training differs.
  EXPECT_EQ(StepOf(recipe, "ticket-new-init-10/19-prune").key, StepOf(recipe, "lottery-init/19-prune").key);
  EXPECT_NE(StepOf(recipe, "ticket-new-init-10/20-retrain").key, StepOf(recipe, "lottery-init/20-retrain").key);
}

TEST(EvidenceRecipeTest, HansShapeKeepsATwelfth) {
  for (const char* file : {"han_lenet_300_100.yaml", "han_lenet5.yaml"}) {
    ResolvedRecipe recipe = Resolved(ReadText(std::string(PARE_SOURCE_DIR "/bench/methods/evidence/") + file));
    auto last = Predict(StepOf(recipe, "rounds/08-retrain"), recipe);
    EXPECT_LT(static_cast<double>(last->parameters_nonzero), 1.02 / 12 * static_cast<double>(last->parameters)) << file;
  }
}

// A line `#| label | step` of a study is a row of its table.
TEST(EvidenceRecipeTest, EveryRowOfATableIsTheBaselineOrACandidate) {
  int rows = 0;
  for (const auto& entry : std::filesystem::directory_iterator(PARE_SOURCE_DIR "/bench/methods/evidence")) {
    if (entry.path().extension() != ".yaml") continue;
    std::string text = ReadText(entry.path().string());
    std::set<std::string> names = {"baseline"};
    for (const PlannedStep& step : FullPlan(Resolved(text))) {
      if (step.candidate) names.insert(step.name.substr(0, step.name.rfind("/evaluate")));
    }
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      if (line.rfind("#| ", 0) != 0) continue;
      EXPECT_TRUE(names.count(line.substr(line.rfind('|') + 2)) == 1) << entry.path() << ": " << line;
      ++rows;
    }
  }
  EXPECT_GT(rows, 20);
}

}  // namespace
}  // namespace pare::recipes
