// measure as a step: what its artifact says of a sparse, an int8 and an unchanged network. Nothing is said of the times.
#include "tests/worker/runner/fixture.h"
#include "worker/engine/execution.h"
#include "worker/engine/network.h"

namespace pare::runner {
namespace {

class MeasureTest : public RunnerTest {
 protected:
  MeasureTest() {
    graph_ = *model::BuildArchitecture("mlp", {{"hidden", {40, 30}}}, {1, 4, 4}, 3);
    Digest wide = Artifact(Run(Make("initialize", {{"graph", model::ToJson(graph_)}}, {})));
    trained_ = Artifact(Run(Make("train", Range(TrainParams(2), 0, 2, 0), {{"model", wide}})));
  }
  static Json Params(int64_t batch = 8) { return {{"threads", 1}, {"batch", batch}, {"runs", 3}, {"seconds", 0.1}, {"label", "a"}}; }
  storage::Artifact Measured(const Digest& model, const Json& params) {
    return *storage::GetArtifact(*blobs_, Artifact(Run(MakeWithData("measure", params, {{"model", model}, {"baseline", trained_}}))));
  }

  // On a clock that shows 1/1024 s more at every look: each run takes as long as any other.
  storage::Artifact MeasuredInStep(const Digest& model, const Json& params) {
    InputCache cache(*blobs_);
    Environment environment{*blobs_, cache, clock_, 1, "cpu"};
    environment.meters.wall_s = [now = 0.0]() mutable { return now += 0x1p-10; };
    RecordingHooks hooks;
    worker::Assignment assignment = MakeWithData("measure", params, {{"model", model}, {"baseline", trained_}});
    return *storage::GetArtifact(*blobs_, Artifact(ExecuteStep(assignment, environment, hooks)));
  }

  Digest trained_;
};

TEST_F(MeasureTest, TellsTimesLadderLayersSizesAndMachineOfASparseNetwork) {
  Json prune = PruneParams(0.9);
  prune["tensors"] = {"fc1.weight", "fc2.weight", "fc3.weight"};
  Digest sparse = Artifact(Run(Make("prune", prune, {{"model", trained_}})));
  Json params = Params();
  params["price_per_hour"] = 0.36;
  storage::Artifact artifact = Measured(sparse, params);
  EXPECT_EQ(artifact.kind, "measurement");
  const Json& r = artifact.results;
  EXPECT_EQ(r["model"], sparse.hex());
  EXPECT_EQ(r["baseline"], trained_.hex());
  EXPECT_GE(r["runs"].get<int64_t>(), 1);
  std::vector<std::string> names;
  for (const Json& rung : r["ladder"]) {
    names.push_back(rung["name"]);
    for (const char* field : {"p50_ms", "min_ms"}) EXPECT_GT(rung[field].get<double>(), 0.0);
    EXPECT_LE(rung["min_ms"], rung["p50_ms"]);
    EXPECT_LE(rung["p50_ms"], rung["p95_ms"]);
    EXPECT_NEAR(rung["speedup"].get<double>(), r["ladder"][0]["p50_ms"].get<double>() / rung["p50_ms"].get<double>(), 1e-9);
    // 0.36 an hour are 1e-4 a second; eight samples a run.
    EXPECT_NEAR(rung["cost_per_million"].get<double>(), 1e-4 * rung["p50_ms"].get<double>() / 1e3 / 8 * 1e6, 1e-9);
    EXPECT_TRUE(rung["energy_j_per_1000"].is_number() || r["not_measured"]["energy"].is_string());
    EXPECT_TRUE(rung["peak_memory_bytes"].is_number() || r["not_measured"]["peak_memory"].is_string());
  }
  EXPECT_EQ(names, (std::vector<std::string>{"eager", "dense", "stored", "chosen"}));
  ASSERT_EQ(r["choices"].size(), 3u);
  for (const Json& layer : r["choices"]) {
    EXPECT_TRUE(layer["milliseconds"].contains("encoded"));
    EXPECT_EQ(layer["milliseconds"].contains("sparse"), layer["density"].get<double>() <= 0.5) << layer["layer"];
    EXPECT_FALSE(layer["reason"].get<std::string>().empty());
  }
  EXPECT_EQ(r["sizes"]["parameters_nonzero"], ResultsOf(sparse)["parameters_nonzero"]);
  EXPECT_TRUE(r["accuracy_as_executed"].is_number());
  EXPECT_TRUE(Contains(r["finding"], "of the best dense execution of the baseline at batch 8, 1 thread"));
  EXPECT_TRUE(r["machine"].contains("processor"));
}

TEST_F(MeasureTest, ThePlanThatWasRecordedRunsTheStoredNetwork) {
  Digest int8 = Artifact(Run(Make("quantize", {{"scheme", "int8_dynamic"}, {"tensors", {"fc1.weight", "fc2.weight"}}}, {{"model", trained_}})));
  Json r = Measured(int8, Params(5)).results;
  engine::NetworkOptions options;
  for (const auto& [node, way] : r["execution"].items()) options.execution[node] = way;
  storage::Checkpoint c = CheckpointOf(int8);
  EXPECT_TRUE(engine::Network::Create(c.graph, c.tensors, options).ok());
  EXPECT_TRUE(r["choices"][0]["milliseconds"].contains("float32"));
}

TEST_F(MeasureTest, TheBaselineItselfGivesNeither) {
  Json r = Measured(trained_, Params(1)).results;
  EXPECT_EQ(r["smaller"], 1.0);
  EXPECT_TRUE(r["gives"] == "neither" || r["gives"] == "time");
  EXPECT_FALSE(r["ladder"][0].contains("cost_per_million"));
}

// Half of the width, three quarters of the multiply-adds gone, and a machine on which that gains nothing.
TEST_F(MeasureTest, SaysNoGainWhenHalfTheWidthGainsNothingAtBatchOne) {
  Json prune = PruneParams(0.5);
  prune["scope"] = "layer";
  prune["granularity"] = {{"kind", "structured"}, {"unit", "channel"}, {"round_to", 1}};
  Json tensors = {"fc1.weight", "fc2.weight", "fc3.weight"};
  prune["tensors"] = tensors;
  Digest masked = Artifact(Run(Make("prune", prune, {{"model", trained_}})));
  Digest narrow = Artifact(Run(Make("remove", {{"tensors", tensors}}, {{"model", masked}})));
  ASSERT_EQ(CheckpointOf(narrow).tensors.at("fc1.weight").shape(), (model::Shape{20, 16}));
  Json r = MeasuredInStep(narrow, Params(1)).results;
  EXPECT_EQ(r["speedup"], 1.0);
  EXPECT_EQ(r["finding"], "no gain in time: 0.9766 ms against 0.9766 ms of the best dense execution of the baseline at batch 1, 1 thread; "
                          "fewer multiply-adds do not show there, a larger batch or a wider network may");
  EXPECT_EQ(r["gives"], "space");
  // With masks alone nothing is removed, and nothing of multiply-adds is said.
  EXPECT_FALSE(Contains(MeasuredInStep(masked, Params(1)).results["finding"], "fewer multiply-adds"));
}

TEST_F(MeasureTest, NamesTheFieldThatMakesNoSense) {
  Json params = Params();
  params["threads"] = 0;
  worker::StepFailed failed = Failure(Run(MakeWithData("measure", params, {{"model", trained_}, {"baseline", trained_}})));
  EXPECT_EQ(failed.error_class, "bad_input");
  EXPECT_TRUE(Contains(failed.message, "'threads'"));
}

}  // namespace
}  // namespace pare::runner
