// spectrum, low_rank: shared spectra, composition with other steps, messages.
#include <set>

#include "methods/spectrum.h"
#include "tests/worker/runner/fixture.h"

namespace pare::runner {
namespace {

class LowRankStepTest : public RunnerTest {
 protected:
  static Json Tensors() { return {"fc1.weight", "fc2.weight", "fc3.weight"}; }
  static Json SpectrumParams(bool whitened, const char* conv = "channel") {
    Json params = {{"tensors", Tensors()}, {"conv", conv}, {"whitened", whitened}};
    if (whitened) params["calibration_samples"] = 40;
    return params;
  }
  static Json RankParams(const char* field, double value) {
    Json params = {{"tensors", Tensors()}, {"conv", "channel"}, {field, value}};
    if (std::string(field) == "rank") params[field] = static_cast<int>(value);
    if (std::string(field) == "budget") params["budget_of"] = "parameters";
    return params;
  }
  Digest Trained() {
    if (trained_.is_none()) trained_ = Artifact(Run(Make("train", Range(TrainParams(4), 0, 4, 0), {{"model", init_}})));
    return trained_;
  }
  Digest SpectrumOf(const Digest& model, bool whitened = false) { return Artifact(Run(Make("spectrum", SpectrumParams(whitened), {{"model", model}}))); }
  Digest LowRankOf(const Digest& model, Json params, bool whitened = false) {
    return Artifact(Run(Make("low_rank", std::move(params), {{"model", model}, {"spectrum", SpectrumOf(model, whitened)}})));
  }
  double LossOf(const Digest& model) { return ResultsOf(Artifact(Run(Make("evaluate", {{"split", "validation"}}, {{"model", model}}))))["loss"]; }
  Digest trained_;
};

TEST_F(LowRankStepTest, OneSpectrumServesEveryThreshold) {
  Digest spectrum = SpectrumOf(Trained());
  std::set<int64_t> sizes;
  for (double energy : {0.5, 0.7, 0.9}) {
    Digest low = Artifact(Run(Make("low_rank", RankParams("energy", energy), {{"model", Trained()}, {"spectrum", spectrum}})));
    Json results = ResultsOf(low);
    sizes.insert(results["parameters"].get<int64_t>());
    ASSERT_EQ(results["report"].size(), 3u);
    for (const Json& layer : results["report"]) {
      EXPECT_TRUE(layer.contains("left_alone") || layer["energy"].get<double>() >= energy) << layer.dump();
    }
  }
  EXPECT_GE(sizes.size(), 2u);
  EXPECT_LT(*sizes.begin(), ResultsOf(Trained())["parameters"].get<int64_t>());
  Json results = ResultsOf(spectrum);
  EXPECT_EQ(results["layers"][0]["of"], Json({10, 16}));
  EXPECT_EQ(results["layers"][0]["largest_rank"], 6);
  EXPECT_EQ(results["frontier"].size(), 7u);
}

TEST_F(LowRankStepTest, AFullRankLosesNothing) {
  // Rank 6 of 10x16 is not full, but what is left out is small: the loss stays near; at rank 1 it does not.
  double whole = LossOf(Trained());
  Json params = RankParams("rank", 6);
  params["tensors"] = {"fc1.weight"};
  double six = LossOf(LowRankOf(Trained(), params));
  params["rank"] = 1;
  double one = LossOf(LowRankOf(Trained(), params));
  EXPECT_LT(std::abs(six - whole), std::abs(one - whole));
}

TEST_F(LowRankStepTest, SpectraHaveTheSameBitsForAnyNumberOfThreads) {
  for (bool whitened : {false, true}) {
    worker::Assignment assignment = Make("spectrum", SpectrumParams(whitened), {{"model", Trained()}});
    Digest one = Artifact(Run(assignment, 1));
    EXPECT_EQ(Artifact(Run(assignment, 2)), one) << whitened;
    EXPECT_EQ(Artifact(Run(assignment, 3)), one) << whitened;
  }
}

TEST_F(LowRankStepTest, AStoppedSpectrumStartsAfreshAndEndsTheSame) {
  worker::Assignment assignment = Make("spectrum", SpectrumParams(true), {{"model", Trained()}});
  Digest whole = Artifact(Run(assignment));
  for (int64_t after : {0, 1}) {
    RecordingHooks hooks;
    hooks.stop_after = after;
    worker::RunnerEvent event = Run(assignment, 1, hooks);
    EXPECT_TRUE(std::holds_alternative<worker::StepStopped>(event)) << Canonical(worker::ToJson(event));
  }
  EXPECT_EQ(Artifact(Run(assignment)), whole);
}

TEST_F(LowRankStepTest, WhitenedLosesLessOfTheOutputsAtTheSameRank) {
  double whole = LossOf(Trained());
  double plain = LossOf(LowRankOf(Trained(), RankParams("rank", 2))), whitened = LossOf(LowRankOf(Trained(), RankParams("rank", 2), true));
  EXPECT_LE(whitened - whole, plain - whole + 1e-3);
}

TEST_F(LowRankStepTest, LayersAboveBreakEvenAreNamedWithTheReason) {
  Digest low = LowRankOf(Trained(), RankParams("energy", 0.999));
  Json report = ResultsOf(low)["report"];
  bool any = false;
  for (const Json& layer : report) {
    if (!layer.contains("left_alone")) continue;
    any = true;
    EXPECT_TRUE(Contains(layer["left_alone"], "save parameters")) << layer.dump();
    EXPECT_TRUE(CheckpointOf(low).tensors.contains(layer["tensor"].get<std::string>()));
  }
  EXPECT_TRUE(any) << report.dump();
}

TEST_F(LowRankStepTest, TheLayerThatMakesTheOutputsStaysWholeUnlessAskedFor) {
  Json params = RankParams("energy", 0.3);
  Json all = ResultsOf(LowRankOf(Trained(), params))["report"];
  EXPECT_GT(all[2]["rank"], 0) << all.dump();
  params["output_layer"] = false;
  Json report = ResultsOf(LowRankOf(Trained(), params))["report"];
  EXPECT_EQ(report[0], all[0]);
  EXPECT_EQ(report[2]["rank"], 0);
  EXPECT_EQ(report[2]["largest_rank"], all[2]["largest_rank"]);
  EXPECT_EQ(report[2]["left_alone"], "it makes the 3 outputs, which fewer directions cannot all tell apart; output_layer: true factors it too");
}

TEST_F(LowRankStepTest, ABudgetIsKept) {
  Digest low = LowRankOf(Trained(), RankParams("budget", 0.6));
  int64_t kept = 0;
  Json results = ResultsOf(low);
  for (const Json& layer : results["layers"]) kept += layer["size"].get<int64_t>();
  EXPECT_LE(kept, static_cast<int64_t>(0.6 * (160 + 70 + 21)));
  EXPECT_GE(kept, static_cast<int64_t>(0.4 * (160 + 70 + 21)));
}

TEST_F(LowRankStepTest, CalibrationThatIsTooSmallNamesLayerAndRemedy) {
  Json params = SpectrumParams(true);
  params["calibration_samples"] = 12;
  worker::StepFailed failed = Failure(Run(Make("spectrum", params, {{"model", Trained()}})));
  EXPECT_EQ(failed.error_class, "bad_input");
  EXPECT_TRUE(Contains(failed.message, "inputs of fc1") && Contains(failed.message, "at least 16")) << failed.message;
  params["calibration_samples"] = 47;  // 46 are left of 58 after validation
  EXPECT_TRUE(Contains(Failure(Run(Make("spectrum", params, {{"model", Trained()}}))).message, "46 training samples"));
}

TEST_F(LowRankStepTest, ASpectrumOfOtherWeightsIsRefused) {
  Digest spectrum = SpectrumOf(init_);
  worker::StepFailed failed = Failure(Run(Make("low_rank", RankParams("energy", 0.5), {{"model", Trained()}, {"spectrum", spectrum}})));
  EXPECT_TRUE(Contains(failed.message, "fc1.weight has other weights")) << failed.message;
  failed = Failure(Run(Make("low_rank", RankParams("energy", 0.5), {{"model", Trained()}, {"spectrum", Trained()}})));
  EXPECT_TRUE(Contains(failed.message, "a spectrum is needed")) << failed.message;
}

TEST_F(LowRankStepTest, FactorsArePrunedAndRetrained) {
  Digest low = LowRankOf(Trained(), RankParams("rank", 2));
  Digest pruned = Artifact(Run(Make("prune", PruneParams(0.5), {{"model", low}})));
  storage::Checkpoint checkpoint = CheckpointOf(pruned);
  std::set<std::string> masked;
  for (const auto& [name, mask] : checkpoint.masks) masked.insert(name);
  EXPECT_EQ(masked, (std::set<std::string>{"fc1.down.weight", "fc1.up.weight", "fc2.down.weight", "fc2.up.weight"})) << "tensors of the dense graph stand for their factors";
  Digest tuned = Artifact(Run(Make("retrain", Range(TrainParams(2), 0, 2, 0), {{"model", pruned}})));
  EXPECT_EQ(CheckpointOf(tuned).masks, checkpoint.masks);
  EXPECT_LT(LossOf(tuned), LossOf(pruned));
  // And once more: the factors of factors.
  Digest again = Artifact(Run(Make("spectrum", SpectrumParams(false), {{"model", low}})));
  EXPECT_EQ(ResultsOf(again)["layers"].size(), 6u);
}

TEST_F(LowRankStepTest, APrunedLayerIsReplacedOnlyByLessAndItsMaskEnds) {
  Digest little = Artifact(Run(Make("prune", PruneParams(0.1), {{"model", Trained()}})));
  Json report = ResultsOf(LowRankOf(little, RankParams("rank", 2)))["report"];
  EXPECT_EQ(report[0]["mask"], "ended");
  Digest most = Artifact(Run(Make("prune", PruneParams(0.9), {{"model", Trained()}})));
  Digest low = LowRankOf(most, RankParams("rank", 2));
  EXPECT_TRUE(Contains(ResultsOf(low)["report"][0]["left_alone"], "pruned to")) << ResultsOf(low)["report"].dump();
  EXPECT_TRUE(CheckpointOf(low).masks.contains("fc1.weight"));
}

}  // namespace
}  // namespace pare::runner
