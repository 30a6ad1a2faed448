// Every kind of step, killed while it runs: the runner alone, or its agent with it. What follows ends with the digest of the
// uninterrupted run. Moments are chosen by killing_runner, not by time.
#include <gmock/gmock.h>

#include <filesystem>
#include <set>

#include "tests/cli/fixture.h"

namespace pare::cli {
namespace {

namespace fs = std::filesystem;

// One variant per method, on 600 images of 8 x 8. 64 pixels and wide layers, so that every layer can be factored and quantized;
// many short epochs, so that the first snapshot is on the disk well before a step ends. Outside teachers are what another job promoted.
constexpr const char* kEveryKind = R"(model: {architecture: mlp, hidden: [64, 32]}
train: {epochs: 200, batch_size: 32, optimizer: sgd, learning_rate: 0.01}
goal: {max_accuracy_drop: 100.0, minimize: bytes}
snapshot: {every_epochs: 1}
variants:
  adapters: [{lora: {rank: 2, epochs: 40}}, {merge: }]
  blocks: [{prune: {granularity: 4x1, sparsity: 0.5}}, {prune: {sparsity: 0.8}}, {retrain: {rewind: weights, to: init, epochs: 40}}]
  four-bits: [{qlora: {rank: 2, epochs: 40, merge: true}}]
  gradual: [{prune: {schedule: cubic, final_sparsity: 0.8, epochs: 40, end_epoch: 20}}]
  moving: [{prune: {criterion: movement, schedule: linear, final_sparsity: 0.8, epochs: 40, end_epoch: 20}}]
  narrow: [{sensitivity: {samples: 50}}, {prune: {granularity: channel, scope: layer, sparsity: 0.5, criterion: taylor}}, {retrain: {epochs: 40}}, {remove: }, {cast: }]
  outside: [{distill: {teacher: small@1, epochs: 40, control: true}}, {prune: {granularity: "2:4"}}, {distill: {teacher: ./exported, epochs: 40}}]
  plain-int8: [{quantize: {scheme: int8_dynamic}}, {measure: {batch: 8, runs: 5, seconds: 0.1}}]
  rounded: [{quantize: {scheme: qat, epochs: 40}}]
  sequel: [{self_distill: {generations: 1, epochs: 40, control: false}}]
  shared: [{quantize: {scheme: cluster, bits: 4}}]
  static-int8: [{quantize: {scheme: int8_static, calibration_samples: 100}}]
  taught: [{student: {model: {architecture: mlp, hidden: [32]}}}, {distill: {teacher: baseline, epochs: 40}}]
  taught-inside: [{distill: {teacher: baseline, match: {fc1: fc1}, epochs: 40}}]
  thin: [{low_rank: {budget: 0.6, whitened: true, calibration_samples: 200}}]
promote: {as: every-kind}
)";
const std::set<std::string> kTraining = {"train", "lora", "qlora", "prune-cubic", "prune-linear-movement", "retrain", "retrain-rewind", "quantize-qat", "distill", "distill-match"};
const std::set<std::string> kOther = {"initialize", "import", "adopt", "evaluate", "compare", "merge", "sensitivity", "prune", "prune-block", "prune-n_m", "prune-structured",
                                      "remove", "cast", "quantize-int8_dynamic", "quantize-cluster", "quantize-int8_static", "logits", "choose", "spectrum-whitened", "low_rank",
                                      "measure"};

class KillEachKindTest : public CliTest, public ::testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    CliTest::SetUp();
    WriteData();
    WriteRecipe("small.yaml");
    Write("every.yaml", "version: 1\nname: every-kind\nseed: 1\n" + std::string(kSmallData) + kEveryKind);
  }
};

TEST_P(KillEachKindTest, DigestSurvivesTheKillOf) {
  for (const char* store : {"whole", "killed"}) ASSERT_EQ(Pare({"run", "small.yaml", "--workers", "1"}, Path(store)).code, 0);
  ASSERT_EQ(Pare({"export", "small", "exported"}, Path("whole")).code, 0);
  Outcome whole = Pare({"run", "every.yaml", "--workers", "1"}, Path("whole"));
  ASSERT_EQ(whole.code, 0) << whole.err << whole.out;
  std::string expected = Pare({"digest"}, Path("whole")).out, endpoint;
  ASSERT_NE(expected.find("total "), std::string::npos);
  fs::create_directory(Path("hits"));
  Started coordinator = StartCoordinator(Path("killed"), &endpoint);
  bool agent = GetParam() == std::string("agent");
  auto start_worker = [&, number = 0]() mutable {
    return Start({"/usr/bin/env", "PARE_KILL=" + std::string(GetParam()), "PARE_KILL_DIRECTORY=" + Path("hits"), PARE_BIN_DIR "/pare-worker", "--coordinator", endpoint, "--runner",
                  PARE_KILLING_RUNNER, "--threads", "1", "--name", "worker-" + std::to_string(++number)});
  };
  // Three, so that the time until a lease runs out is used by others.
  std::vector<Started> workers;
  for (int i = 0; i < 3; ++i) workers.push_back(start_worker());
  Started submit = Start({"pare", "submit", "every.yaml", "--wait", "--coordinator", endpoint});
  while (!submit.process->Wait(Millis(50))) {
    for (Started& worker : workers) {
      if (worker.process->Ended()) worker = start_worker();
    }
  }
  EXPECT_EQ(submit.process->code(), 0) << submit.err() << submit.out();
  EXPECT_EQ(Run({"pare", "digest", "last", "--coordinator", endpoint}).out, expected);
  std::set<std::string> hit;
  for (const auto& entry : fs::directory_iterator(Path("hits"))) {
    std::string kind = entry.path().filename().string();
    hit.insert(kind);
    std::string story = Read(entry.path().string());
    EXPECT_THAT(story, testing::StartsWith(kTraining.contains(kind) ? "training snapshot" : "done")) << kind;
    // An agent may die before it has passed on where the snapshot is; what is done again then has the same bits.
    EXPECT_TRUE(agent || !kTraining.contains(kind) || story.ends_with(" resumed")) << kind << ": " << story;
  }
  std::set<std::string> every = kTraining;
  every.insert(kOther.begin(), kOther.end());
  EXPECT_EQ(hit, every);
  std::string described = Run({"pare", "describe", "last", "--coordinator", endpoint}).out;
  std::string loss = std::string("(") + (agent ? "worker" : "runner") + "_lost: ";
  size_t lost = 0;
  for (size_t at = 0; (at = described.find(loss, at)) != std::string::npos; ++at) ++lost;
  EXPECT_GE(lost, every.size()) << described;  // a busy machine may lose a lease more
}
INSTANTIATE_TEST_SUITE_P(Victims, KillEachKindTest, ::testing::Values("runner", "agent"), [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace pare::cli
