// What users of other tools complain about (docs/architecture.md, "Mistakes that have a test"), as whole runs. Two of the ten
// are tested where they live: MeasureTest and GlobalRankingTest.
#include <gmock/gmock.h>
#include <signal.h>

#include <cmath>
#include <map>

#include "tests/integration/process_tree.h"
#include "tests/integration/run_fixture.h"

namespace pare {
namespace {

using testing::HasSubstr;

class MistakeTest : public RunFixture {
 protected:
  static std::string Recipe(const std::string& variants, const std::string& rest = "goal: {max_accuracy_drop: 2.0, minimize: bytes}\npromote: {as: net}\n", int epochs = 2) {
    return "version: 1\nname: mistakes\nseed: 5\nmodel: {architecture: mlp, hidden: [64, 32]}\ndata: {dataset: fashion-mnist, validation: 5000}\n"
           "train: {epochs: " + std::to_string(epochs) + ", batch_size: 128, optimizer: adam, learning_rate: 0.002}\nsnapshot: {every_epochs: 1}\n" + rest + "variants:\n" + variants;
  }
  Json RunReport(const std::string& recipe, const std::string& store) {
    WriteRecipe(recipe);
    Outcome outcome = Run(store);
    EXPECT_EQ(outcome.code, 0) << outcome.out;
    return Report(store);
  }
  static std::map<std::string, Json> Candidates(const Json& report) {
    std::map<std::string, Json> found;
    for (const Json& candidate : report["candidates"]) found[candidate["step"]] = candidate;
    return found;
  }
};

TEST_F(MistakeTest, FileSizeFallsInProportionToWhatWasRemoved) {
  Json report = RunReport(Recipe("  half: [{prune: {sparsity: 0.5}}]\n  most: [{prune: {sparsity: 0.8}}]\n  nearly-all: [{prune: {sparsity: 0.95}}]\n"), "sizes");
  double dense = report["baseline"]["bytes"], weights = 784 * 64 + 64 * 32 + 32 * 10;
  double bits = 8 * dense / weights;
  for (auto [step, sparsity] : {std::pair("half/01-prune", 0.5), std::pair("most/01-prune", 0.8), std::pair("nearly-all/01-prune", 0.95)}) {
    double entropy = -sparsity * std::log2(sparsity) - (1 - sparsity) * std::log2(1 - sparsity);
    double bytes = Candidates(report)[step]["bytes"];
    // Biases, graph and lineage stay.
    EXPECT_LT(bytes, 1.05 * weights / 8 * (entropy + (1 - sparsity) * bits) + 0.02 * dense) << step;
    EXPECT_GT(bytes, (1 - sparsity) * dense * 0.9) << step;
  }
}

TEST_F(MistakeTest, TheRemovedModelEqualsTheMaskedModel) {
  auto candidates = Candidates(RunReport(Recipe("  narrow:\n    - prune: {granularity: channel, scope: layer, sparsity: 0.5}\n    - evaluate: {}\n    - remove: {}\n"), "removed"));
  Json masked = candidates["narrow/01-prune"], removed = candidates["narrow/02-remove"];
  ASSERT_TRUE(masked.is_object() && removed.is_object()) << Json(candidates).dump();
  EXPECT_EQ(removed["parameters"], 784 * 32 + 32 + 32 * 16 + 16 + 16 * 10 + 10);
  EXPECT_EQ(masked["parameters"], 784 * 64 + 64 + 64 * 32 + 32 + 32 * 10 + 10);
  // Sums of another length round differently: one of 5,000 images may change sides.
  EXPECT_NEAR(removed["validation_accuracy"].get<double>(), masked["validation_accuracy"].get<double>(), 0.021);
}

TEST_F(MistakeTest, SavedLoadedInAFreshProcessAndContinuedItTakesTheSamePath) {
  WriteRecipe(Recipe("  iterative:\n    - repeat: {times: 2}\n      steps: [{prune: {criterion: taylor, fraction_of_remaining: 0.5}}, {retrain: {epochs: 2}}]\n"));
  std::string reference = Reference();
  int interrupted = 0;
  for (int64_t wait : {600, 900, 1200, 1500}) {
    auto run = Start(RunArguments("continued"), Path("continued.log"));
    if (run->Wait(Millis(wait))) break;
    run->Signal(SIGINT);
    ASSERT_TRUE(run->Wait(Millis(60'000))) << ReadFile(Path("continued.log")).value();
    interrupted += run->code() == 130;
  }
  EXPECT_GT(interrupted, 0);
  EXPECT_EQ(Run("continued").code, 0);
  EXPECT_EQ(DigestOfRun("continued"), reference);
}

TEST_F(MistakeTest, AWorkerKilledInsideAStepIsReplacedAndNothingIsLostOrDoneTwice) {
  WriteRecipe(Recipe("  one: [{prune: {sparsity: 0.8}}, {retrain: {epochs: 3}}]\n  two: [{prune: {sparsity: 0.9}}, {retrain: {epochs: 3}}]\n"));
  std::string reference = Reference();
  Json undisturbed = Report("reference");
  auto run = Start(RunArguments("killed"), Path("killed.log"));
  int kills = 0;
  while (kills < 3 && !run->Wait(Millis(400))) {
    std::vector<int> runners = Descendants(run->pid(), kills == 1 ? "pare-worker" : "pare-runner");
    if (!runners.empty()) kills += ::kill(runners[0], SIGKILL) == 0;
  }
  ASSERT_TRUE(run->Wait(Millis(120'000)));
  EXPECT_GT(kills, 0);
  EXPECT_EQ(DigestOfRun("killed"), reference);
  Json report = Report("killed");
  EXPECT_EQ(report["work"]["steps_run"], undisturbed["work"]["steps_run"]) << "each step has one result";
  EXPECT_EQ(report["candidates"].size(), undisturbed["candidates"].size());
}

TEST_F(MistakeTest, MasksAreTheSameWhoeverComputesThemWithHoweverManyThreads) {
  WriteRecipe(Recipe("  global: [{prune: {criterion: taylor, scope: global, sparsity: 0.9}}]\n  fisher: [{prune: {criterion: fisher, scope: layer, sparsity: 0.9}}]\n", "goal: {max_accuracy_drop: 2.0, minimize: bytes}\npromote: {as: net}\n", 1));
  std::string reference = Reference();
  EXPECT_THAT(reference, HasSubstr("global/01-prune"));  // by hash, step for step
  for (auto [workers, threads] : {std::pair(1, 2), std::pair(3, 1)}) {
    std::string store = "w" + std::to_string(workers);
    EXPECT_EQ(Call(RunArguments(store, workers, threads)).code, 0);
    EXPECT_EQ(DigestOfRun(store), reference) << workers << " workers with " << threads << " threads";
  }
}

// Scoring for longer than a lease lasts: the scorer stays alive, and so does the worker that waits for it.
TEST_F(MistakeTest, NobodyTimesOutWhileAnotherScores) {
  WriteRecipe(Recipe("  scored:\n    - sensitivity: {sparsities: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], energies: [0.99, 0.95, 0.9, 0.8, 0.5], bits: [8, 6, 5, 4, 3, 2]}\n"
                     "    - prune: {criterion: fisher, sparsity: 0.9, calibration_samples: 20000}\n"));
  auto coordinator = Start({"pare-coordinator", "--store", Path("scored"), "--lease-timeout-ms", "1000", "--heartbeat-ms", "100"}, Path("coordinator.log"));
  while (!coordinator->Wait(Millis(20)) && ReadFile(Path("coordinator.log")).value().find("ready {") == std::string::npos) {
  }
  std::vector<std::unique_ptr<Process>> workers;
  for (const char* name : {"first", "second"}) {
    workers.push_back(Start({"pare-worker", "--coordinator", "ipc://" + Path("scored/coordinator.sock"), "--name", name}, Path(std::string(name) + ".log")));
  }
  Outcome outcome = On("scored", {"submit", "--wait", Path("recipe.yaml")});
  EXPECT_EQ(outcome.code, 0) << outcome.out;
  EXPECT_EQ(Report("scored")["work"]["attempts_lost"], 0);
}

TEST_F(MistakeTest, APatternThatMatchesNothingIsAnErrorAndAModulePrefixIsHarmless) {
  WriteRecipe(Recipe("  a: [{prune: {sparsity: 0.5, targets: fc9}}]\n"));
  Outcome nothing = On("plans", {"plan", Path("recipe.yaml")});
  EXPECT_EQ(nothing.code, 2);
  for (const char* part : {"recipe.yaml:", "fc9", "fc1"}) EXPECT_THAT(nothing.out, HasSubstr(part));
  std::string plans[2];
  for (int prefixed : {0, 1}) {
    WriteRecipe(Recipe(std::string("  a: [{prune: {sparsity: 0.5, targets: ") + (prefixed ? "module.fc1" : "fc1") + "}}]\n"));
    Outcome planned = On("plans", {"plan", Path("recipe.yaml"), "--json"});
    EXPECT_EQ(planned.code, 0) << planned.out;
    plans[prefixed] = ParseJson(planned.out, "plan").value()["steps"].dump();
  }
  EXPECT_EQ(plans[0], plans[1]);
}

TEST_F(MistakeTest, AGoalMissedByAHairStillLeavesTheBestCandidatesRanked) {
  Json report = RunReport(Recipe("  a: [{prune: {sparsity: 0.97}}]\n  b: [{prune: {sparsity: 0.99}}]\n", "goal: {max_accuracy_drop: 0.01, minimize: bytes}\npromote: {as: net, keep_best_effort: true}\n"), "missed");
  ASSERT_EQ(report["candidates"].size(), 2u);
  auto candidates = Candidates(report);
  EXPECT_EQ(candidates["a/01-prune"]["rank"], 1);
  EXPECT_EQ(candidates["b/01-prune"]["rank"], 2);
  EXPECT_EQ(report["promoted"]["step"], "a/01-prune") << report["promoted"].dump();
  EXPECT_EQ(On("missed", {"export", "net", Path("exported")}).code, 0);
  // Without best effort nothing is promoted, and nothing is thrown away.
  report = RunReport(Recipe("  a: [{prune: {sparsity: 0.97}}]\n  b: [{prune: {sparsity: 0.99}}]\n", "goal: {max_accuracy_drop: 0.01, minimize: bytes}\npromote: {as: strict}\n"), "missed");
  EXPECT_EQ(report["candidates"].size(), 2u);
  EXPECT_EQ(On("missed", {"promote", "by-hand", "--step", "b/01-prune"}).code, 0);
}

}  // namespace
}  // namespace pare
