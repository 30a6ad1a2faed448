// Pruning steps: criteria that need gradients, granularities, removal; each resumes bit for bit.
#include <algorithm>
#include <cmath>

#include "model/initialize.h"
#include "tests/worker/runner/fixture.h"
#include "worker/runner/evaluation.h"
#include "worker/runner/calibration.h"
#include "worker/runner/importance.h"

namespace pare::runner {
namespace {

class PruneTest : public RunnerTest {
 protected:
  static Json Scheduled(const std::string& criterion) {
    Json params = GradualParams(2);
    params["criterion"] = criterion;
    params["calibration_samples"] = 20;
    params["init_sparsity"] = 0.0;
    params["start_epoch"] = 0.0;
    params["end_epoch"] = 1.5;
    return params;
  }
  static Json OneShot(const std::string& criterion, double sparsity) {
    Json params = PruneParams(sparsity);
    params["criterion"] = criterion;
    params["calibration_samples"] = 20;
    return params;
  }
  // Scores by hand: the network's gradients for one sample at a time, in double.
  std::vector<double> Scores(const storage::Checkpoint& c, bool fisher) {
    auto rows = *CalibrationSamples(data::CutValidation(kTrain, kValidation, 3).train, 20, 11);
    auto network = *engine::Network::Create(c.graph, c.tensors, {});
    engine::LossOptions loss;
    loss.evaluation_mode = true;
    std::vector<double> sums(network->parameters().size(), 0.0);
    for (uint32_t row : rows) {
      std::vector<float> x(16);
      data::Gather(dataset_.train, data_, std::span(&row, 1), x);
      int64_t label = dataset_.train.labels.values<int64_t>()[row];
      network->TrainBatch(x, std::span(&label, 1), {}, loss);
      for (size_t i = 0; i < sums.size(); ++i) {
        double g = network->gradients()[i];
        sums[i] += (fisher ? g * g : g) / 20;
      }
    }
    std::vector<double> scores;
    for (const char* name : {"fc1.weight", "fc2.weight"}) {
      for (const engine::ParameterSlice& slice : network->layout()) {
        for (int64_t i = 0; slice.name == name && i < slice.size; ++i) {
          auto at = static_cast<size_t>(slice.offset + i);
          double w = network->parameters()[at];
          scores.push_back(fisher ? w * w * sums[at] : std::abs(w * sums[at]));
        }
      }
    }
    return scores;
  }
};

TEST_F(PruneTest, ScheduledTaylorResumesBitForBit) { ExpectExactResume(Make("prune", Scheduled("taylor"), {{"model", init_}}), 2 * kBatches); }
TEST_F(PruneTest, ScheduledFisherResumesBitForBit) { ExpectExactResume(Make("prune", Scheduled("fisher"), {{"model", init_}}), 2 * kBatches); }
TEST_F(PruneTest, ScheduledMovementResumesBitForBitWithItsSum) { ExpectExactResume(Make("prune", Scheduled("movement"), {{"model", init_}}), 2 * kBatches); }

TEST_F(PruneTest, ScheduledUnitsResumeBitForBit) {
  Json params = Scheduled("magnitude_l1");
  params["granularity"] = {{"kind", "structured"}, {"unit", "channel"}, {"round_to", 2}};
  ExpectExactResume(Make("prune", params, {{"model", init_}}), 2 * kBatches);
}

TEST_F(PruneTest, OneShotTaylorAndFisherRemoveTheLowestScores) {
  Digest trained = Artifact(Run(Make("train", Range(TrainParams(2), 0, 2, 0), {{"model", init_}})));
  for (bool fisher : {false, true}) {
    worker::Assignment assignment = Make("prune", OneShot(fisher ? "fisher" : "taylor", 0.6), {{"model", trained}});
    Digest pruned = Artifact(Run(assignment));
    EXPECT_EQ(Artifact(Run(assignment, 3)), pruned) << "threads changed the result";
    storage::Checkpoint c = CheckpointOf(pruned);
    std::vector<double> scores = Scores(CheckpointOf(trained), fisher), removed, kept;
    for (size_t i = 0; i < scores.size(); ++i) {
      bool first = i < 160;
      bool keeps = c.masks.at(first ? "fc1.weight" : "fc2.weight").keeps(static_cast<int64_t>(first ? i : i - 160));
      (keeps ? kept : removed).push_back(scores[i]);
    }
    EXPECT_EQ(removed.size(), 138u);  // 0.6 · 230
    EXPECT_LE(*std::max_element(removed.begin(), removed.end()), *std::min_element(kept.begin(), kept.end()) * 1.001 + 1e-12);
  }
}

TEST_F(PruneTest, MovementNeedsAScheduleAndABeginning) {
  worker::StepFailed failed = Failure(Run(Make("prune", OneShot("movement", 0.5), {{"model", init_}})));
  EXPECT_TRUE(Contains(failed.message, "schedule")) << failed.message;
  Json params = Scheduled("movement");
  params["init_sparsity"] = 0.2;
  failed = Failure(Run(Make("prune", params, {{"model", init_}})));
  EXPECT_TRUE(Contains(failed.message, "init_sparsity")) << failed.message;
}

TEST_F(PruneTest, TooFewSamplesToCalibrateAreNamed) {
  Json params = OneShot("taylor", 0.5);
  params["calibration_samples"] = 47;
  worker::StepFailed failed = Failure(Run(Make("prune", params, {{"model", init_}})));
  EXPECT_TRUE(Contains(failed.message, "46 training samples")) << failed.message;
}

TEST_F(PruneTest, MaskedUnitsStayGoneThroughTrainingAndRemovalChangesNothing) {
  Json params = Scheduled("taylor");
  params["granularity"] = {{"kind", "structured"}, {"unit", "channel"}, {"round_to", 1}};
  Digest pruned = Artifact(Run(Make("prune", params, {{"model", init_}})));
  Digest tuned = Artifact(Run(Make("retrain", Range(TrainParams(2), 0, 2, 0), {{"model", pruned}})));
  Digest removed = Artifact(Run(Make("remove", {{"tensors", {"fc1.weight", "fc2.weight", "fc3.weight"}}}, {{"model", tuned}})));
  EXPECT_EQ(CheckpointOf(removed).tensors.at("fc1.weight").shape()[0] + CheckpointOf(removed).tensors.at("fc2.weight").shape()[0], 3) << "0.8 of 17";
  Json before = ResultsOf(Artifact(Run(Make("evaluate", {{"split", "test"}}, {{"model", tuned}}))));
  Json after = ResultsOf(Artifact(Run(Make("evaluate", {{"split", "test"}}, {{"model", removed}}))));
  EXPECT_EQ(before["correct"], after["correct"]);
  EXPECT_NEAR(before["loss"].get<double>(), after["loss"].get<double>(), 1e-5);
  EXPECT_LT(after["summary"]["checkpoint_bytes"].get<int64_t>(), before["summary"]["checkpoint_bytes"].get<int64_t>());
  EXPECT_LT(after["summary"]["multiply_adds"].get<int64_t>(), before["summary"]["multiply_adds"].get<int64_t>() / 3);
}

// Logits of a batch of random images.
std::vector<float> Logits(const storage::Checkpoint& c, int64_t n) {
  const model::Shape& shape = c.graph.nodes[0].attributes.shape;
  std::vector<float> x(static_cast<size_t>(n * model::ElementCount(shape)));
  RandomStream stream(5, RandomPurpose::kTest);
  for (float& v : x) v = static_cast<float>(stream.Normal());
  engine::NetworkOptions options;
  auto network = *engine::Network::Create(c.graph, c.tensors, options);
  std::vector<float> logits(static_cast<size_t>(n * network->classes()));
  network->EvaluateBatch(x, std::vector<int64_t>(static_cast<size_t>(n), 0), logits);
  return logits;
}

TEST_F(PruneTest, TheRemovedModelEqualsTheMaskedModelInTheEngine) {
  struct Setting {
    const char* architecture;
    Json parameters;
    const char* unit;
  };
  for (const Setting& s : {Setting{"mlp", {{"hidden", {300, 100}}}, "channel"}, {"lenet5", Json::object(), "channel"},
                           {"resnet20", {{"width", 16}}, "channel"}, {"resnet20", {{"width", 16}}, "layer"}}) {
    model::Graph graph = *model::BuildArchitecture(s.architecture, s.parameters, {1, 28, 28}, 10);
    Digest dense = Artifact(Run(Make("initialize", {{"graph", model::ToJson(graph)}}, {})));
    const model::GraphInfo info = *model::Analyze(graph);
    Json names = Json::array();
    for (const model::TensorSpec& spec : info.tensors) {
      if (spec.prunable) names.push_back(spec.name);
    }
    Json params = {{"schedule", "one_shot"}, {"criterion", "magnitude_l2"}, {"scope", "global"}, {"sparsity", 0.5}, {"tensors", names}, {"min_density", 0.1},
                   {"max_density", 1.0}, {"granularity", {{"kind", "structured"}, {"unit", s.unit}, {"round_to", 1}}}};
    Digest masked = Artifact(Run(Make("prune", params, {{"model", dense}})));
    Digest removed = Artifact(Run(Make("remove", {{"tensors", names}}, {{"model", masked}})));
    std::vector<float> a = Logits(CheckpointOf(masked), 8), b = Logits(CheckpointOf(removed), 8);
    for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 1e-5) << s.architecture;
    // The weakest blocks are the narrowest.
    double left = std::string(s.unit) == "layer" ? 0.95 : 0.75;
    EXPECT_LT(ResultsOf(removed)["parameters"].get<double>(), left * ResultsOf(dense)["parameters"].get<double>()) << s.architecture;
  }
}

TEST_F(PruneTest, TheFileShrinksInProportionToWhatWasRemoved) {
  graph_ = *model::BuildArchitecture("mlp", {{"hidden", {300, 100}}}, {1, 28, 28}, 10);
  Digest dense = Artifact(Run(Make("initialize", {{"graph", model::ToJson(graph_)}}, {})));
  auto bytes = ResultsOf(dense)["checkpoint_bytes"].get<double>();
  for (double sparsity : {0.5, 0.9}) {
    Json params = PruneParams(sparsity);
    params["tensors"] = {"fc1.weight", "fc2.weight", "fc3.weight"};
    Digest pruned = Artifact(Run(Make("prune", params, {{"model", dense}})));
    double entropy = -(sparsity * std::log2(sparsity) + (1 - sparsity) * std::log2(1 - sparsity));
    double expected = (1 - sparsity) + entropy / 32;  // surviving values, and the coded mask
    EXPECT_NEAR(ResultsOf(pruned)["checkpoint_bytes"].get<double>() / bytes, expected, 0.1 * expected + 0.01) << sparsity;
  }
}

TEST_F(PruneTest, TheSensitivityTableHoldsEveryLayerAndSetting) {
  Digest trained = Artifact(Run(Make("train", Range(TrainParams(10), 0, 10, 0), {{"model", init_}})));
  Json params = {{"tensors", {"fc1.weight", "fc2.weight"}}, {"sparsities", {0.0, 0.9}}, {"energies", {1.0}}, {"bits", {16, 2}}, {"samples", 0}};
  worker::Assignment scan = Make("sensitivity", params, {{"model", trained}});
  Digest table = Artifact(Run(scan));
  EXPECT_EQ(Artifact(Run(scan, 3)), table);
  Json results = ResultsOf(table), evaluation = ResultsOf(Artifact(Run(Make("evaluate", {{"split", "validation"}}, {{"model", trained}}))));
  EXPECT_EQ(results["accuracy"], evaluation["accuracy"]);
  ASSERT_EQ(results["rows"].size(), 10u);
  for (const Json& row : results["rows"]) {
    bool harmless = row["value"] == 0.0 || row["what"] == "energy" || row["value"] == 16;
    if (harmless) EXPECT_NEAR(row["loss"].get<double>(), evaluation["loss"].get<double>(), 1e-3) << row;
    else EXPECT_GT(std::abs(row["loss"].get<double>() - evaluation["loss"].get<double>()), 1e-3) << row;
  }
}

}  // namespace
}  // namespace pare::runner
