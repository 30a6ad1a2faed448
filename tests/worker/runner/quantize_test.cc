// quantize as a step: every scheme through artifact, evaluation, interruption and further steps.
#include "model/encoding.h"
#include "model/initialize.h"
#include "tests/worker/runner/fixture.h"

namespace pare::runner {
namespace {

using model::Encoding;

class QuantizeTest : public RunnerTest {
 protected:
  QuantizeTest() {
    graph_ = *model::BuildArchitecture("mlp", {{"hidden", {40, 30}}}, {1, 4, 4}, 3);
    Digest wide = Artifact(Run(Make("initialize", {{"graph", model::ToJson(graph_)}}, {})));
    trained_ = Artifact(Run(Make("train", Range(TrainParams(3), 0, 3, 0), {{"model", wide}})));
  }

  static Json Params(const std::string& scheme) {
    Json params = {{"scheme", scheme}, {"tensors", {"fc1.weight", "fc2.weight", "fc3.weight"}}};
    if (scheme == "cluster") params["bits"] = 3;
    if (scheme == "int8_static") params.update({{"calibrator", "percentile"}, {"percentile", 99.9}, {"calibration_samples", 32}});
    if (scheme == "qat") {
      params.update(Range(TrainParams(2), 0, 2, 3));
      params.erase("rule");
      params["activations"] = "dynamic";
    }
    return params;
  }
  static Json StaticQat() {
    Json params = Params("qat");
    params.update({{"activations", "static"}, {"calibrator", "mse"}, {"percentile", 99.99}, {"calibration_samples", 40}});
    return params;
  }
  worker::Assignment Quantize(const Json& params, const Digest& model) {
    worker::Assignment a = Make("quantize", params, {{"model", model}});
    if (params.contains("calibrator") || params.contains("train")) {
      recipes::StepSpec spec = *recipes::StepSpecFromJson(a.spec);
      spec.data = data::ToJson(data_);
      a.spec = recipes::ToJson(spec);
      a.key = recipes::KeyOf(spec);
      a.data = data::ToJson(info_);
    }
    return a;
  }
  double Accuracy(const Digest& model) { return ResultsOf(Artifact(Run(Make("evaluate", {{"split", "test"}}, {{"model", model}}))))["accuracy"].get<double>(); }

  Digest trained_;
};

TEST_F(QuantizeTest, EverySchemeLeavesACheckpointThatEvaluatesAndSaysWhatItDid) {
  double dense = Accuracy(trained_);
  for (const Json& params : {Params("int8_dynamic"), Params("int8_static"), Params("qat"), StaticQat(), Params("cluster")}) {
    SCOPED_TRACE(Canonical(params));
    Digest made = Artifact(Run(Quantize(params, trained_)));
    storage::Checkpoint c = CheckpointOf(made);
    EXPECT_TRUE(model::CheckWeights(*model::Analyze(c.graph), c.tensors).ok());
    Json results = ResultsOf(made);
    ASSERT_EQ(results["report"].size(), 3u);
    EXPECT_EQ(results["report"][0]["layer"], "fc1");
    if (params["scheme"] != "cluster") {
      EXPECT_TRUE(Contains(results["report"][2].value("reason", ""), "too small"));  // 90 weights
    }
    EXPECT_LT(results["weight_bytes"], ResultsOf(trained_)["weight_bytes"]);
    EXPECT_EQ(results["parameters"], ResultsOf(trained_)["parameters"]);
    EXPECT_NEAR(Accuracy(made), dense, 10.0);
    EXPECT_EQ(results.contains("training"), params["scheme"] == "qat");
  }
}

TEST_F(QuantizeTest, ResultsDependOnNeitherThreadsNorTheRunner) {
  for (const Json& params : {Params("int8_static"), StaticQat(), Params("cluster")}) {
    Digest one = Artifact(Run(Quantize(params, trained_), 1));
    EXPECT_EQ(one, Artifact(Run(Quantize(params, trained_), 3))) << Canonical(params);
  }
}

TEST_F(QuantizeTest, AnInterruptedTrainingContinuesToTheSameArtifact) {
  Digest whole = Artifact(Run(Quantize(StaticQat(), trained_)));
  worker::Assignment a = Quantize(StaticQat(), trained_);
  RecordingHooks hooks;
  hooks.stop_after = 9;
  auto stopped = Run(a, 2, hooks);
  const auto* event = std::get_if<worker::StepStopped>(&stopped);
  ASSERT_NE(event, nullptr) << Canonical(worker::ToJson(stopped));
  ASSERT_FALSE(event->snapshot.is_none());
  a.snapshot = event->snapshot;
  EXPECT_EQ(Artifact(Run(a)), whole);
}

TEST_F(QuantizeTest, ZerosOfAPrunedNetworkStayZeroThroughEveryScheme) {
  Digest pruned = Artifact(Run(Make("prune", PruneParams(0.6), {{"model", trained_}})));
  storage::Checkpoint before = CheckpointOf(pruned);
  for (const Json& params : {Params("int8_dynamic"), Params("qat"), Params("cluster")}) {
    Digest made = Artifact(Run(Quantize(params, pruned)));
    storage::Checkpoint c = CheckpointOf(made);
    EXPECT_EQ(c.masks, before.masks);
    for (const auto& [name, mask] : c.masks) {
      model::Tensor weight = *model::DecodeWeight(*c.graph.Find(name.substr(0, name.rfind('.'))), c.tensors);
      for (int64_t i = 0; i < mask.size(); ++i) {
        float w = weight.values<float>()[static_cast<size_t>(i)];
        ASSERT_TRUE(mask.keeps(i) || w == 0.0f) << name;
      }
    }
    EXPECT_EQ(ResultsOf(made)["sparsity"]["pruned_layers"], ResultsOf(pruned)["sparsity"]["pruned_layers"]);
  }
}

TEST_F(QuantizeTest, ClusteredValuesTrainAndStayShared) {
  Digest clustered = Artifact(Run(Quantize(Params("cluster"), trained_)));
  Json params = Range(TrainParams(1), 0, 1, 3);
  params["train"]["schedule"]["learning_rate"] = 0.002;
  Digest retrained = Artifact(Run(Make("retrain", params, {{"model", clustered}})));
  storage::Checkpoint before = CheckpointOf(clustered), after = CheckpointOf(retrained);
  EXPECT_EQ(after.graph, before.graph);
  EXPECT_EQ(after.tensors.at("fc1.weight").digest(), before.tensors.at("fc1.weight").digest());
  EXPECT_NE(after.tensors.at("fc1.weight_values").digest(), before.tensors.at("fc1.weight_values").digest());
  EXPECT_EQ(after.tensors.at("fc1.weight_values").values<float>()[0], 0.0f);
}

TEST_F(QuantizeTest, TrainingAnInt8LayerIsRefusedWithLayerAndRemedy) {
  Digest int8 = Artifact(Run(Quantize(Params("int8_dynamic"), trained_)));
  worker::StepFailed failed = Failure(Run(Make("retrain", Range(TrainParams(1), 0, 1, 3), {{"model", int8}})));
  EXPECT_EQ(failed.error_class, "bad_input");
  EXPECT_TRUE(Contains(failed.message, "layer 'fc1' is int8")) << failed.message;
  EXPECT_TRUE(Contains(failed.message, "qat")) << failed.message;
  // qat takes it, and gives int8 again.
  Digest again = Artifact(Run(Quantize(Params("qat"), int8)));
  EXPECT_EQ(CheckpointOf(again).graph, CheckpointOf(int8).graph);
}

TEST_F(QuantizeTest, MistakesNameTheFieldAndWhatIsAllowed) {
  Json params = Params("int8_static");
  params["calibration_samples"] = 3;
  EXPECT_TRUE(Contains(Failure(Run(Quantize(params, trained_))).message, "too few"));
  params["calibration_samples"] = 4000;
  EXPECT_TRUE(Contains(Failure(Run(Quantize(params, trained_))).message, "46 training samples"));
  params = Params("int8_dynamic");
  params["scheme"] = "int4";
  EXPECT_TRUE(Contains(Failure(Run(Quantize(params, trained_))).message, "int8_dynamic, int8_static, qat, cluster"));
}

}  // namespace
}  // namespace pare::runner
