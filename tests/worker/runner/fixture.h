// A tiny world for runner tests: a dataset of 4x4 images in three classes, a small MLP, blobs in memory, a clock that
// moves one second at every look (so that every batch reports progress).
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "common/random.h"
#include "model/architectures.h"
#include "storage/store.h"
#include "worker/runner/execute.h"

namespace pare::runner {

class TickingClock : public Clock {
 public:
  Millis Monotonic() const override { return now_ += Millis(1000); }
  WallTime Wall() const override { return {0}; }

 private:
  mutable Millis now_{0};
};

class RecordingHooks : public StepHooks {
 public:
  void Progress(Json values) override { progress.push_back(std::move(values)); }
  void Snapshot(const Digest& blob, const Json&) override { snapshots.push_back(blob); }
  std::optional<StopRequest> StopRequested() override {
    return boundaries++ >= stop_after ? std::optional(StopRequest{keep}) : std::nullopt;
  }
  void Joins(const std::string&) override {}
  std::optional<std::vector<std::string>> Joined(Millis) override { return std::nullopt; }
  int64_t stop_after = INT64_MAX;  // batch boundaries to let pass
  bool keep = true;
  int64_t boundaries = 0;
  std::vector<Json> progress;
  std::vector<Digest> snapshots;
};

inline data::Split RandomSplit(int64_t n, uint64_t seed) {
  RandomStream stream(seed, RandomPurpose::kTest);
  data::Split split{model::Tensor(model::DType::kU8, {n, 1, 4, 4}), model::Tensor(model::DType::kI64, {n})};
  auto pixels = split.samples.mutable_values<uint8_t>();
  auto labels = split.labels.mutable_values<int64_t>();
  for (int64_t i = 0; i < n; ++i) {
    labels[static_cast<size_t>(i)] = i % 3;
    for (int64_t p = 0; p < 16; ++p) {
      uint64_t noise = stream.Below(120);
      pixels[static_cast<size_t>(i * 16 + p)] = static_cast<uint8_t>(noise + (p % 3 == i % 3 ? 100 : 0));
    }
  }
  return split;
}

class RunnerTest : public testing::Test {
 protected:
  static constexpr int64_t kTrain = 58, kValidation = 12, kBatch = 8;  // 46 to train on: 6 batches, the last of 6
  static constexpr int64_t kBatches = 6;

  RunnerTest() {
    dataset_ = {RandomSplit(kTrain, 1), RandomSplit(21, 2), 3};
    info_ = data::Describe(dataset_, {});
    info_.blob = *blobs_->Put(data::EncodeDataset(dataset_));
    data_.fingerprint = info_.fingerprint;
    data_.validation = kValidation;
    data_.split_seed = 3;
    data_.offset = {0.3};
    data_.scale = {2.0};
    graph_ = *model::BuildArchitecture("mlp", {{"hidden", {10, 7}}, {"dropout", 0.1}}, {1, 4, 4}, 3);
    Json params = {{"graph", model::ToJson(graph_)}};
    init_ = Artifact(Run(Make("initialize", params, {})));
  }

  static Json TrainParams(int64_t epochs) {
    return {{"epochs", epochs}, {"batch_size", kBatch}, {"shards", 2}, {"label_smoothing", 0.05}, {"clip_norm", 5.0},
            {"optimizer", {{"kind", "sgd"}, {"momentum", 0.9}, {"nesterov", true}, {"beta1", 0.9}, {"beta2", 0.999},
                           {"epsilon", 1e-8}, {"weight_decay", 1e-4}}},
            {"schedule", {{"kind", "multi_step"}, {"learning_rate", 0.05}, {"final_learning_rate", 0.0},
                          {"milestones", {2}}, {"gamma", 0.1}, {"warmup_epochs", 0.5}, {"epochs", epochs}}}};
  }
  static Json Range(Json train, int64_t start, int64_t stop, int64_t draw) {
    return {{"train", std::move(train)}, {"start_epoch", start}, {"stop_epoch", stop}, {"draw_epoch", draw}, {"rule", "fine_tune"}};
  }
  static Json PruneParams(double sparsity) {
    return {{"schedule", "one_shot"}, {"criterion", "magnitude_l1"}, {"scope", "global"}, {"sparsity", sparsity},
            {"tensors", {"fc1.weight", "fc2.weight"}}, {"min_density", 0.0}, {"max_density", 1.0}};
  }
  static Json GradualParams(int64_t epochs) {
    Json params = PruneParams(0);
    params.erase("sparsity");
    params.update({{"schedule", "cubic"}, {"init_sparsity", 0.1}, {"final_sparsity", 0.8}, {"start_epoch", 0.5},
                   {"end_epoch", 2.0}, {"update_frequency", 0.25}, {"train", TrainParams(epochs)}, {"draw_epoch", 4}});
    return params;
  }

  worker::Assignment Make(const std::string& kind, Json params, std::map<std::string, Digest> inputs, uint64_t seed = 11) {
    bool reads_data = kind == "train" || kind == "retrain" || kind == "evaluate" || kind == "sensitivity" || params.contains("train") || params.contains("calibration_samples");
    return Make(kind, std::move(params), std::move(inputs), seed, reads_data);
  }
  worker::Assignment MakeWithData(const std::string& kind, Json params, std::map<std::string, Digest> inputs) {
    return Make(kind, std::move(params), std::move(inputs), 11, true);
  }
  worker::Assignment Make(const std::string& kind, Json params, std::map<std::string, Digest> inputs, uint64_t seed, bool reads_data) {
    recipes::StepSpec spec;
    spec.kind = kind;
    spec.params = std::move(params);
    // Any key will do: what counts is that it differs with the input.
    for (const auto& [role, artifact] : inputs) spec.inputs[role] = StepKey(artifact.bytes());
    spec.data = reads_data ? data::ToJson(data_) : Json();
    spec.seed = seed;
    worker::Assignment a;
    a.key = recipes::KeyOf(spec);
    a.spec = recipes::ToJson(spec);
    a.inputs = std::move(inputs);
    a.data = reads_data ? data::ToJson(info_) : Json();
    return a;
  }

  worker::RunnerEvent Run(const worker::Assignment& assignment, int threads = 1) {
    hooks_ = RecordingHooks();
    return Run(assignment, threads, hooks_);
  }
  // With a new cache: nothing is remembered from step to step.
  worker::RunnerEvent Run(const worker::Assignment& assignment, int threads, StepHooks& hooks) {
    InputCache cache(*blobs_);
    return ExecuteStep(assignment, {*blobs_, cache, clock_, threads, "cpu"}, hooks);
  }
  static Digest Artifact(const worker::RunnerEvent& event) {
    const auto* done = std::get_if<worker::StepDone>(&event);
    EXPECT_NE(done, nullptr) << Canonical(worker::ToJson(event));
    return done == nullptr ? Digest() : done->artifact;
  }
  static worker::StepFailed Failure(const worker::RunnerEvent& event) {
    const auto* failed = std::get_if<worker::StepFailed>(&event);
    EXPECT_NE(failed, nullptr) << Canonical(worker::ToJson(event));
    return failed == nullptr ? worker::StepFailed() : *failed;
  }
  // Stops before every `stride`th batch in turn, resumes on another number of threads, and expects the artifact of the whole
  // run, also from three threads.
  void ExpectExactResume(const worker::Assignment& assignment, int64_t batches, int64_t stride = 1) {
    Digest whole = Artifact(Run(assignment));
    EXPECT_EQ(Artifact(Run(assignment, 3)), whole) << "threads change the result";
    for (int64_t k = 0; k < batches; k += stride) {
      RecordingHooks hooks, after;
      hooks.stop_after = k;
      worker::RunnerEvent event = Run(assignment, 1, hooks);
      const auto* stopped = std::get_if<worker::StepStopped>(&event);
      ASSERT_NE(stopped, nullptr) << k << ": " << Canonical(worker::ToJson(event));
      EXPECT_EQ(stopped->position.at("batch"), k % kBatches);
      worker::Assignment rest = assignment;
      rest.snapshot = stopped->snapshot;
      ASSERT_FALSE(rest.snapshot.is_none());
      EXPECT_EQ(Artifact(Run(rest, 1 + static_cast<int>(k % 3), after)), whole) << "stopped before batch " << k;
      EXPECT_EQ(after.boundaries, batches - k) << "work was done twice";
    }
  }
  storage::Checkpoint CheckpointOf(const Digest& artifact) {
    InputCache cache(*blobs_);
    auto loaded = cache.Checkpoint(artifact);
    EXPECT_TRUE(loaded.ok());
    return (*loaded)->checkpoint;
  }
  Json ResultsOf(const Digest& artifact) { return storage::GetArtifact(*blobs_, artifact)->results; }

  std::unique_ptr<storage::BlobStore> blobs_ = storage::NewMemoryBlobStore();
  TickingClock clock_;
  RecordingHooks hooks_;
  data::Dataset dataset_;
  data::DataInfo info_;
  data::DataSpec data_;
  model::Graph graph_;
  Digest init_;
};

inline bool Contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

inline std::map<std::string, Digest> Digests(const model::TensorMap& tensors) {
  std::map<std::string, Digest> digests;
  for (const auto& [name, tensor] : tensors) digests[name] = tensor.digest();
  return digests;
}

}  // namespace pare::runner
