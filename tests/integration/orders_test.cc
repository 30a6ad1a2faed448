// Orders of steps: whatever two steps the planner takes, one behind the other, run to their end on real data. A pair that
// fails there, after training perhaps, belongs among the orders that planning refuses (tests/recipes/order_test.cc).
#include <gmock/gmock.h>

#include <algorithm>
#include <set>

#include "recipes/planner.h"
#include "recipes/recipe.h"
#include "tests/cli/fixture.h"

namespace pare::cli {
namespace {

// Of every step kind each form that leaves another sort of network, or asks for one.
constexpr const char* kSteps[] = {"prune: {sparsity: 0.5}",
                                  "prune: {schedule: cubic, final_sparsity: 0.6, epochs: 1}",
                                  "prune: {granularity: \"2:4\"}",
                                  "prune: {granularity: channel, scope: layer, sparsity: 0.5}",
                                  "prune: {sparsity: 0.6, criterion: taylor}",
                                  "remove: ",
                                  "retrain: {epochs: 1}",
                                  "retrain: {rewind: weights, to: init}",
                                  "retrain: {rewind: learning_rate, epochs: 1}",
                                  "low_rank: {budget: 0.6}",
                                  "low_rank: {rank: 4}",
                                  "low_rank: {budget: 0.5, whitened: true}",
                                  "lora: {rank: 2, epochs: 1}",
                                  "lora: {rank: 2, epochs: 1, merge: true}",
                                  "qlora: {rank: 2, epochs: 1}",
                                  "qlora: {rank: 2, epochs: 1, merge: true}",
                                  "merge: ",
                                  "quantize: {scheme: int8_dynamic}",
                                  "quantize: {scheme: int8_static, calibration_samples: 64}",
                                  "quantize: {scheme: qat, epochs: 1}",
                                  "quantize: {scheme: cluster, bits: 4}",
                                  "student: {model: {architecture: mlp, hidden: [32]}}",
                                  "distill: {teacher: baseline, epochs: 1, control: true}",
                                  "distill: {teacher: baseline, epochs: 1, rewind: weights}",
                                  "distill: {teacher: baseline, epochs: 1, match: {fc1: fc1}}",
                                  "self_distill: {generations: 1, epochs: 1}",
                                  "self_distill: {generations: 1, start: new, epochs: 1, control: false}",
                                  "sensitivity: {samples: 50}",
                                  "measure: {batch: 8, runs: 2, seconds: 0.02}",
                                  "cast: "};

const std::string kHead =
    "version: 1\nname: orders\nseed: 1\n" + std::string(kSmallData) +
    "model: {architecture: mlp, hidden: [64, 32]}\ntrain: {epochs: 2, batch_size: 100, optimizer: sgd, learning_rate: 0.01}\n"
    "goal: {max_accuracy_drop: 100.0, minimize: bytes}\nvariants:\n";
constexpr size_t kVariantsOfARecipe = 100;

// What the planner needs to know of the fixture's data.
data::DataInfo Info() {
  data::DataInfo info;
  info.fingerprint = DigestOf(std::string_view("orders"));
  info.sample_shape = {1, 8, 8};
  info.dtype = "U8";
  info.classes = 4;
  info.train_count = 600;
  info.test_count = 200;
  info.mean = {0.3};
  info.deviation = {0.3};
  return info;
}

bool IsPlanned(const std::string& variant) {
  auto recipe = recipes::Recipe::Parse(kHead + ("  v: " + variant + "\n"), "orders.yaml");
  if (!recipe.ok()) return false;
  auto resolved = recipes::Resolve(*recipe, Info(), Digest());
  // Some fit only certain widths, which are not known yet: planning says so.
  auto may_fail = [](const auto& warning) { return warning.text.find("only known once") != std::string::npos; };
  return resolved.ok() && std::none_of(resolved->warnings.begin(), resolved->warnings.end(), may_fail);
}

TEST_F(CliTest, EveryPairOfStepsThatIsPlannedRuns) {
  if (!RunnerIsBuilt()) GTEST_SKIP() << "needs pare-runner (libtorch)";
  WriteData();
  std::vector<std::string> variants;
  for (const char* first : kSteps) {
    for (const char* then : kSteps) {
      std::string variant = "[{" + std::string(first) + "}, {" + then + "}]";
      if (IsPlanned(variant)) variants.push_back(variant);
    }
  }
  EXPECT_GT(variants.size(), 400u);
  for (size_t begin = 0; begin < variants.size(); begin += kVariantsOfARecipe) {
    std::string text = kHead;
    for (size_t i = begin; i < std::min(begin + kVariantsOfARecipe, variants.size()); ++i) text += "  v" + std::to_string(i) + ": " + variants[i] + "\n";
    Outcome run = Pare({"run", Write("orders.yaml", text), "--workers", "2", "--threads", "1"}, Path("store"));
    Json report = Ask({"report"}, Path("store"));
    EXPECT_TRUE(report["failed"].empty()) << run.code << run.err;
    for (const Json& failed : report["failed"]) {
      size_t number = std::stoul(failed["variant"].get<std::string>().substr(1));
      ADD_FAILURE() << variants[number] << ": " << failed["step"] << ": " << failed["message"];
    }
  }
}

}  // namespace
}  // namespace pare::cli
