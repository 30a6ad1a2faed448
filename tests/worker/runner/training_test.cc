#include "worker/runner/training.h"

#include <cmath>
#include <thread>

#include "tests/worker/runner/fixture.h"

namespace pare::runner {
namespace {

class TrainingTest : public RunnerTest {};

TEST_F(TrainingTest, ContinuesBitForBitFromEveryBatch) {
  Digest pruned = Artifact(Run(Make("prune", PruneParams(0.5), {{"model", init_}})));
  ExpectExactResume(Make("retrain", Range(TrainParams(3), 1, 3, 7), {{"model", pruned}}), 2 * kBatches);
}

TEST_F(TrainingTest, ContinuesBitForBitWithGradualPruningAdamAndAugmentation) {
  data_.flip = true;
  data_.shift = 1;
  Json params = GradualParams(3);
  params["train"]["optimizer"]["kind"] = "adamw";
  ExpectExactResume(Make("prune", params, {{"model", init_}}), 3 * kBatches);
}

TEST_F(TrainingTest, GivesTheSameBitsForAnyNumberOfThreads) {
  worker::Assignment assignment = Make("train", Range(TrainParams(3), 0, 3, 0), {{"model", init_}});
  Digest one = Artifact(Run(assignment, 1));
  EXPECT_EQ(Artifact(Run(assignment, 2)), one);
  EXPECT_EQ(Artifact(Run(assignment, 3)), one);
  EXPECT_NE(Artifact(Run(Make("train", Range(TrainParams(3), 0, 3, 0), {{"model", init_}}, 12))), one);
}

TEST_F(TrainingTest, StopEpochGivesTheWeightsOfTheLongRunAtThatEpoch) {
  worker::Assignment whole = Make("train", Range(TrainParams(4), 0, 4, 0), {{"model", init_}});
  RecordingHooks hooks;
  hooks.stop_after = 2 * kBatches;
  worker::RunnerEvent event = Run(whole, 1, hooks);
  auto blob = blobs_->Get(std::get<worker::StepStopped>(event).snapshot);
  auto snapshot = DecodeSnapshot(blob->bytes, blob->keep_alive, whole.key);
  ASSERT_TRUE(snapshot.ok());
  Digest part = Artifact(Run(Make("train", Range(TrainParams(4), 0, 2, 0), {{"model", init_}})));
  EXPECT_EQ(Digests(CheckpointOf(part).tensors), Digests(snapshot->weights));
  EXPECT_NE(Digests(CheckpointOf(part).tensors), Digests(CheckpointOf(init_).tensors));
}

TEST_F(TrainingTest, TwoHalvesWithoutOptimizerStateAreTheWhole) {
  Json train = TrainParams(4);
  train["optimizer"]["momentum"] = 0.0;
  train["optimizer"]["nesterov"] = false;
  Digest whole = Artifact(Run(Make("train", Range(train, 0, 4, 5), {{"model", init_}})));
  Digest first = Artifact(Run(Make("train", Range(train, 0, 2, 5), {{"model", init_}})));
  Digest second = Artifact(Run(Make("retrain", Range(train, 2, 4, 7), {{"model", first}})));
  EXPECT_EQ(Digests(CheckpointOf(second).tensors), Digests(CheckpointOf(whole).tensors));
  Digest other = Artifact(Run(Make("retrain", Range(train, 2, 4, 8), {{"model", first}})));
  EXPECT_NE(Digests(CheckpointOf(other).tensors), Digests(CheckpointOf(whole).tensors)) << "draw_epoch has no effect";
}

TEST_F(TrainingTest, LearningRateRewindReplaysTheSchedule) {
  auto rates = [&](int64_t start) {
    Artifact(Run(Make("retrain", Range(TrainParams(4), start, 4, 0), {{"model", init_}})));
    std::vector<double> list;
    for (const Json& values : hooks_.progress) list.push_back(values.at("learning_rate").get<double>());
    return list;
  };
  std::vector<double> whole = rates(0), replay = rates(1);
  ASSERT_EQ(whole.size(), static_cast<size_t>(4 * kBatches));
  EXPECT_EQ(replay, std::vector<double>(whole.begin() + kBatches, whole.end()));
  EXPECT_NEAR(whole[0], 0.05 / 3, 1e-12);  // warm-up over three batches
  EXPECT_NEAR(whole.back(), 0.005, 1e-12);
}

TEST_F(TrainingTest, WeightRewindStartsFromEarlierWeightsUnderPresentMasks) {
  Digest trained = Artifact(Run(Make("train", Range(TrainParams(2), 0, 2, 0), {{"model", init_}})));
  Digest pruned = Artifact(Run(Make("prune", PruneParams(0.6), {{"model", trained}})));
  Digest rewound = Artifact(Run(Make("retrain", Range(TrainParams(2), 0, 0, 0), {{"model", pruned}, {"rewind", init_}})));
  storage::Checkpoint ticket = CheckpointOf(rewound), init = CheckpointOf(init_), mask = CheckpointOf(pruned);
  EXPECT_EQ(ticket.masks, mask.masks);
  for (const auto& [name, tensor] : init.tensors) {
    auto before = tensor.values<float>(), after = ticket.tensors.at(name).values<float>();
    for (size_t i = 0; i < before.size(); ++i) {
      bool keep = !ticket.masks.contains(name) || ticket.masks.at(name).keeps(static_cast<int64_t>(i));
      ASSERT_EQ(after[i], keep ? before[i] : 0.0f) << name << " " << i;
    }
  }
}

TEST_F(TrainingTest, RemovedWeightsStayZeroAndHistoryHasEveryEpoch) {
  Digest pruned = Artifact(Run(Make("prune", PruneParams(0.7), {{"model", init_}})));
  Digest tuned = Artifact(Run(Make("retrain", Range(TrainParams(3), 0, 3, 0), {{"model", pruned}})));
  storage::Checkpoint checkpoint = CheckpointOf(tuned);
  EXPECT_EQ(checkpoint.masks, CheckpointOf(pruned).masks);
  for (const auto& [name, mask] : checkpoint.masks) {
    auto values = checkpoint.tensors.at(name).values<float>();
    for (int64_t i = 0; i < mask.size(); ++i) {
      float w = values[static_cast<size_t>(i)];
      ASSERT_TRUE(mask.keeps(i) || (w == 0.0f && !std::signbit(w))) << name << " " << i;
    }
  }
  Json results = ResultsOf(tuned);
  EXPECT_NEAR(results["sparsity"]["pruned_layers"].get<double>(), 0.7, 0.003);
  ASSERT_EQ(results["training"]["history"].size(), 3u);
  EXPECT_EQ(results["training"]["history"][2]["epoch"], 3);
  EXPECT_EQ(hooks_.progress.back().at("epoch"), 3.0);
  EXPECT_EQ(hooks_.progress.back().at("accuracy"), results["training"]["history"][2]["validation_accuracy"]);
  EXPECT_EQ(hooks_.progress.back().at("eta_s"), 0.0);
}

TEST_F(TrainingTest, LearnsTheToyProblem) {
  Json train = TrainParams(30);
  train["schedule"]["kind"] = "constant";
  Digest trained = Artifact(Run(Make("train", Range(train, 0, 30, 0), {{"model", init_}})));
  Digest evaluation = Artifact(Run(Make("evaluate", {{"split", "test"}}, {{"model", trained}})));
  EXPECT_GE(ResultsOf(evaluation)["accuracy"].get<double>(), 90.0);
}

TEST_F(TrainingTest, DivergenceNamesEpochBatchRateAndARemedy) {
  Json train = TrainParams(3);
  train["schedule"]["learning_rate"] = 1e6;
  train["schedule"]["warmup_epochs"] = 0.0;
  train["clip_norm"] = 0.0;
  train["optimizer"]["weight_decay"] = 10.0;  // makes growth certain
  worker::StepFailed failed = Failure(Run(Make("train", Range(train, 0, 3, 0), {{"model", init_}})));
  EXPECT_EQ(failed.error_class, "diverged");
  for (const char* part : {"epoch", "batch", "learning rate 1000000", "clip_norm"}) {
    EXPECT_TRUE(Contains(failed.message, part)) << failed.message;
  }
}

TEST_F(TrainingTest, StopWithoutKeepLeavesNoSnapshot) {
  RecordingHooks hooks;
  hooks.stop_after = 3;
  hooks.keep = false;
  worker::RunnerEvent event = Run(Make("train", Range(TrainParams(2), 0, 2, 0), {{"model", init_}}), 1, hooks);
  EXPECT_TRUE(std::get<worker::StepStopped>(event).snapshot.is_none());
}

TEST_F(TrainingTest, ASnapshotOfAnotherStepOrDamagedIsIgnored) {
  worker::Assignment a = Make("train", Range(TrainParams(2), 0, 2, 0), {{"model", init_}});
  worker::Assignment b = Make("train", Range(TrainParams(3), 0, 3, 0), {{"model", init_}});
  Digest whole = Artifact(Run(a));
  RecordingHooks hooks;
  hooks.stop_after = 3;
  a.snapshot = std::get<worker::StepStopped>(Run(b, 1, hooks)).snapshot;
  EXPECT_EQ(Artifact(Run(a)), whole);
  a.snapshot = *blobs_->Put(std::string_view("rubbish"));
  EXPECT_EQ(Artifact(Run(a)), whole);
  a.snapshot = DigestOf(std::string_view("not stored"));
  EXPECT_EQ(Artifact(Run(a)), whole);
}

TEST_F(TrainingTest, SnapshotsAtEpochEndsChangeNothing) {
  worker::Assignment a = Make("train", Range(TrainParams(3), 0, 3, 0), {{"model", init_}});
  Digest whole = Artifact(Run(a));
  a.hints = {{"snapshot_every_epochs", 1}, {"snapshot_every_seconds", 0.001}};
  EXPECT_EQ(Artifact(Run(a)), whole);
}

TEST(SnapshotWriterTest, ReportsASnapshotOnceItIsStored) {
  auto blobs = storage::NewMemoryBlobStore();
  SnapshotWriter writer(*blobs);
  EXPECT_FALSE(writer.Poll().has_value());
  writer.Start("bytes", {{"epoch", 1}});
  std::optional<StoredSnapshot> stored;
  while (!stored) {
    stored = writer.Poll();
    std::this_thread::yield();
  }
  EXPECT_EQ(stored->position, Json({{"epoch", 1}}));
  EXPECT_TRUE(*blobs->Contains(stored->blob));
  EXPECT_FALSE(writer.busy());
  EXPECT_EQ(writer.WriteNow("more", Json::object())->blob, DigestOf(std::string_view("more")));
}

TEST(MaskRefreshTest, FallsOnExactBatchesAndEndsAtTheFinalSparsity) {
  GradualPruning p;
  p.initial = 0.2, p.final = 0.9, p.start_epoch = 0.0, p.end_epoch = 2.0, p.update_frequency = 0.5;
  std::vector<MaskRefresh> got = MaskRefreshes(p, 5);
  std::vector<int64_t> batches;
  for (const MaskRefresh& r : got) batches.push_back(r.batch);
  EXPECT_EQ(batches, (std::vector<int64_t>{0, 3, 5, 8, 10}));  // 2.5 and 7.5 round up
  EXPECT_NEAR(got[1].sparsity, 0.9 - 0.7 * 0.75 * 0.75 * 0.75, 1e-12);
  EXPECT_EQ(got.back().sparsity, 0.9);
  p.update_frequency = 0.7;  // does not divide the interval: the end is a refresh all the same
  EXPECT_EQ(MaskRefreshes(p, 100).back(), (MaskRefresh{200, 0.9}));
  EXPECT_EQ(MaskRefreshes(p, 100).size(), 4u);
  p.update_frequency = 1e-6;  // finer than batches: one per batch
  EXPECT_EQ(MaskRefreshes(p, 5).size(), 11u);
}

TEST_F(TrainingTest, GradualPruningFollowsTheScheduleAndFreezes) {
  Digest pruned = Artifact(Run(Make("prune", GradualParams(3), {{"model", init_}})));
  std::vector<double> seen;
  for (const Json& values : hooks_.progress) {
    double s = values.value("sparsity", 0.0);
    if (seen.empty() || s != seen.back()) seen.push_back(s);
  }
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
  EXPECT_GE(seen.size(), 6u);
  storage::Checkpoint checkpoint = CheckpointOf(pruned);
  int64_t kept = checkpoint.masks.at("fc1.weight").kept() + checkpoint.masks.at("fc2.weight").kept();
  EXPECT_EQ(kept, 230 - std::llround(0.8 * 230));
}

}  // namespace
}  // namespace pare::runner
