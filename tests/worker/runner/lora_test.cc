// lora, qlora, merge: what trains, what is stored, exact resume, composition.
#include <set>

#include "methods/lora.h"
#include "storage/layered.h"
#include "tests/worker/runner/fixture.h"

namespace pare::runner {
namespace {

class LoraStepTest : public RunnerTest {
 protected:
  static Json Params(bool merge, int64_t epochs = 2) {
    Json params = Range(TrainParams(epochs), 0, epochs, 0);
    params.update({{"tensors", {"fc1.weight", "fc2.weight"}}, {"rank", 2}, {"alpha", 4.0}, {"merge", merge}});
    return params;
  }
  static Json QloraParams(bool merge, int64_t epochs = 2) {
    Json params = Params(merge, epochs);
    params.update({{"block_size", 64}, {"double_quantization", true}});
    return params;
  }
  Digest Adapted(Json params, const char* kind = "lora") { return Artifact(Run(Make(kind, std::move(params), {{"model", init_}}))); }
  double LossOf(const Digest& model) { return ResultsOf(Artifact(Run(Make("evaluate", {{"split", "test"}}, {{"model", model}}))))["loss"]; }
  // The blob itself, without the layers below it.
  storage::Checkpoint TopOf(const Digest& artifact) {
    return *storage::GetCheckpoint(*blobs_, storage::GetArtifact(*blobs_, artifact)->blobs.at("checkpoint").digest);
  }
};

TEST_F(LoraStepTest, TheCheckpointHoldsTheAdaptersAloneAndLoadsAsAWhole) {
  Digest adapted = Adapted(Params(false));
  storage::Checkpoint top = TopOf(adapted), whole = CheckpointOf(adapted), base = CheckpointOf(init_);
  std::set<std::string> own;
  for (const auto& [name, tensor] : top.tensors) own.insert(name);
  EXPECT_EQ(own, (std::set<std::string>{"fc1.lora_a.weight", "fc1.lora_b.weight", "fc2.lora_a.weight", "fc2.lora_b.weight"}));
  EXPECT_EQ(whole.tensors.size(), base.tensors.size() + 4);
  for (const auto& [name, tensor] : base.tensors) EXPECT_EQ(whole.tensors.at(name).digest(), tensor.digest()) << name << " was frozen";
  Json results = ResultsOf(adapted);
  EXPECT_LT(results["adapter_bytes"].get<int64_t>(), results["checkpoint_bytes"].get<int64_t>());
  EXPECT_EQ(results["checkpoint_bytes"].get<int64_t>(), results["adapter_bytes"].get<int64_t>() + ResultsOf(init_)["checkpoint_bytes"].get<int64_t>());
  EXPECT_EQ(results["report"].size(), 2u);
  EXPECT_LT(LossOf(adapted), LossOf(init_)) << "and it has learned";
}

TEST_F(LoraStepTest, MergingAsAnOptionAndAsAStepGiveTheSameBits) {
  Digest merged = Adapted(Params(true)), later = Artifact(Run(Make("merge", Json::object(), {{"model", Adapted(Params(false))}})));
  EXPECT_EQ(Digests(CheckpointOf(merged).tensors), Digests(CheckpointOf(later).tensors));
  EXPECT_EQ(CheckpointOf(merged).graph, graph_);
  EXPECT_NEAR(LossOf(merged), LossOf(Adapted(Params(false))), 1e-6);
}

TEST_F(LoraStepTest, ResumesBitForBitFromASnapshotThatHoldsNoBase) {
  worker::Assignment assignment = Make("lora", Params(false), {{"model", init_}});
  ExpectExactResume(assignment, 2 * kBatches, 5);
  RecordingHooks hooks;
  hooks.stop_after = 3;
  worker::RunnerEvent event = Run(assignment, 1, hooks);
  auto blob = blobs_->Get(std::get<worker::StepStopped>(event).snapshot);
  auto snapshot = DecodeSnapshot(blob->bytes, blob->keep_alive, assignment.key);
  EXPECT_EQ(snapshot->weights.size(), 4u);
}

TEST_F(LoraStepTest, QloraResumesBitForBit) { ExpectExactResume(Make("qlora", QloraParams(false), {{"model", init_}}), 2 * kBatches, 5); }

TEST_F(LoraStepTest, QloraStoresItsBaseInFourBits) {
  Digest adapted = Adapted(QloraParams(false), "qlora");
  storage::Checkpoint whole = CheckpointOf(adapted);
  EXPECT_EQ(whole.tensors.at("fc1.weight").dtype(), model::DType::kU8);
  EXPECT_EQ(whole.tensors.at("fc1.weight").size(), 80);
  EXPECT_EQ(TopOf(adapted).tensors.size(), 4u);
  Json encoded = ResultsOf(adapted)["encoded"];
  ASSERT_EQ(encoded.size(), 2u);
  EXPECT_EQ(encoded[0]["bytes_float32"], 640);
  EXPECT_LT(encoded[0]["error"].get<double>(), 0.12);
  // The base of another run is the same blob.
  Json params = QloraParams(false);
  params["alpha"] = 1.0;
  auto blob = [&](const Digest& artifact) { return storage::GetArtifact(*blobs_, artifact)->blobs.at("base/checkpoint").digest; };
  EXPECT_EQ(blob(Adapted(params, "qlora")), blob(adapted));
  EXPECT_LT(LossOf(adapted), LossOf(init_));
}

TEST_F(LoraStepTest, QloraMergesIntoDecodedWeights) {
  Digest merged = Adapted(QloraParams(true), "qlora"), apart = Adapted(QloraParams(false), "qlora");
  EXPECT_EQ(CheckpointOf(merged).graph, graph_);
  EXPECT_EQ(CheckpointOf(merged).tensors.at("fc1.weight").dtype(), model::DType::kF32);
  EXPECT_NEAR(LossOf(merged), LossOf(apart), 1e-5);
  Digest later = Artifact(Run(Make("merge", Json::object(), {{"model", apart}})));
  EXPECT_EQ(Digests(CheckpointOf(merged).tensors), Digests(CheckpointOf(later).tensors));
  // An ordinary network again.
  Artifact(Run(Make("retrain", Range(TrainParams(1), 0, 1, 0), {{"model", merged}})));
}

TEST_F(LoraStepTest, GivesTheSameBitsForAnyNumberOfThreads) {
  for (const char* kind : {"lora", "qlora"}) {
    worker::Assignment assignment = Make(kind, std::string(kind) == "lora" ? Params(false) : QloraParams(false), {{"model", init_}});
    Digest one = Artifact(Run(assignment, 1));
    EXPECT_EQ(Artifact(Run(assignment, 2)), one);
    EXPECT_EQ(Artifact(Run(assignment, 3)), one);
  }
}

TEST_F(LoraStepTest, AdaptersOnAPrunedBaseKeepItsZerosAndAreNotMerged) {
  Digest pruned = Artifact(Run(Make("prune", PruneParams(0.5), {{"model", init_}})));
  Digest adapted = Artifact(Run(Make("lora", Params(false), {{"model", pruned}})));
  EXPECT_EQ(CheckpointOf(adapted).masks, CheckpointOf(pruned).masks);
  EXPECT_EQ(CheckpointOf(adapted).tensors.at("fc1.weight").digest(), CheckpointOf(pruned).tensors.at("fc1.weight").digest());
  EXPECT_TRUE(Contains(Failure(Run(Make("merge", Json::object(), {{"model", adapted}}))).message, "fc1 is pruned"));
  EXPECT_TRUE(Contains(Failure(Run(Make("lora", Params(true), {{"model", pruned}}))).message, "fc1 is pruned"));
  EXPECT_TRUE(Contains(Failure(Run(Make("qlora", QloraParams(true), {{"model", pruned}}))).message, "fc1 is pruned"));
  // In 4 bits a removed weight is still exactly zero.
  Digest quantized = Artifact(Run(Make("qlora", QloraParams(false), {{"model", pruned}})));
  EXPECT_LE(ResultsOf(quantized)["parameters_nonzero"].get<int64_t>(), ResultsOf(adapted)["parameters_nonzero"].get<int64_t>());
}

TEST_F(LoraStepTest, AdaptersOfLowRankFactorsOnTopOfOtherAdapters) {
  Json spectrum = {{"tensors", {"fc1.weight"}}, {"conv", "channel"}, {"whitened", false}};
  Json rank = {{"tensors", {"fc1.weight"}}, {"conv", "channel"}, {"rank", 4}};
  Digest spectra = Artifact(Run(Make("spectrum", spectrum, {{"model", init_}})));
  Digest low = Artifact(Run(Make("low_rank", rank, {{"model", init_}, {"spectrum", spectra}})));
  Digest adapted = Artifact(Run(Make("lora", Params(false), {{"model", low}})));
  EXPECT_EQ(methods::AdaptedNodes(CheckpointOf(adapted).graph), (std::vector<std::string>{"fc1.down", "fc1.up", "fc2"}));
  // A second layer of adapters, on a layer of its own: three checkpoints on top of each other.
  Json more = Params(false);
  more["tensors"] = {"fc3.weight"};
  Digest twice = Artifact(Run(Make("lora", more, {{"model", adapted}})));
  EXPECT_TRUE(storage::GetArtifact(*blobs_, twice)->blobs.contains("base/base/checkpoint"));
  EXPECT_EQ(CheckpointOf(twice).tensors.at("fc1.up.weight").digest(), CheckpointOf(low).tensors.at("fc1.up.weight").digest());
  Digest merged = Artifact(Run(Make("merge", Json::object(), {{"model", twice}})));
  EXPECT_EQ(CheckpointOf(merged).graph, CheckpointOf(low).graph);
  EXPECT_NEAR(LossOf(merged), LossOf(twice), 1e-6);
}

TEST_F(LoraStepTest, AMissingBaseIsCorruptNotHalfANetwork) {
  auto artifact = *storage::GetArtifact(*blobs_, Adapted(Params(false)));
  artifact.blobs.erase("base/checkpoint");
  Digest broken = *storage::PutArtifact(*blobs_, artifact);
  worker::StepFailed failed = Failure(Run(Make("evaluate", {{"split", "test"}}, {{"model", broken}})));
  EXPECT_EQ(failed.error_class, "corrupt");
  EXPECT_TRUE(Contains(failed.message, "'fc1.weight' is in no layer")) << failed.message;
}

TEST_F(LoraStepTest, NamesWhatCannotBeAdapted) {
  Json params = Params(false);
  params["rank"] = 12;
  EXPECT_TRUE(Contains(Failure(Run(Make("lora", params, {{"model", init_}}))).message, "fc2: it is 7x10"));
  EXPECT_TRUE(Contains(Failure(Run(Make("merge", Json::object(), {{"model", init_}}))).message, "no adapters"));
  params = QloraParams(false);
  params["block_size"] = 7;
  EXPECT_TRUE(Contains(Failure(Run(Make("qlora", params, {{"model", init_}}))).message, "block_size"));
  Digest quantized = Adapted(QloraParams(false), "qlora");
  EXPECT_TRUE(Contains(Failure(Run(Make("retrain", Range(TrainParams(1), 0, 1, 0), {{"model", quantized}}))).message, "fc1")) << "4-bit weights are not trained";
}

}  // namespace
}  // namespace pare::runner
