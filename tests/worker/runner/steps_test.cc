#include "worker/runner/steps.h"

#include <sys/socket.h>

#include <cmath>
#include <thread>

#include "model/initialize.h"
#include "model/safetensors.h"
#include "tests/worker/runner/fixture.h"
#include "worker/runner/evaluation.h"
#include "worker/runner/runner_loop.h"

namespace pare::runner {
namespace {

class StepsTest : public RunnerTest {};

// y = W x + b in double.
std::vector<double> Linear(const storage::Checkpoint& c, const std::string& node, const std::vector<double>& x, bool relu) {
  auto w = c.tensors.at(node + ".weight").values<float>(), b = c.tensors.at(node + ".bias").values<float>();
  std::vector<double> y(b.begin(), b.end());
  for (size_t o = 0; o < y.size(); ++o) {
    for (size_t i = 0; i < x.size(); ++i) y[o] += static_cast<double>(w[o * x.size() + i]) * x[i];
    if (relu) y[o] = std::max(0.0, y[o]);
  }
  return y;
}

TEST_F(StepsTest, EvaluateEqualsAComputationByHand) {
  Digest trained = Artifact(Run(Make("train", Range(TrainParams(2), 0, 2, 0), {{"model", init_}})));
  storage::Checkpoint c = CheckpointOf(trained);
  auto pixels = dataset_.test.samples.values<uint8_t>();
  auto labels = dataset_.test.labels.values<int64_t>();
  int64_t correct = 0;
  double loss = 0;
  std::string bitmap(3, '\0');
  for (size_t s = 0; s < labels.size(); ++s) {
    std::vector<double> x(16);
    for (size_t p = 0; p < 16; ++p) x[p] = (pixels[s * 16 + p] / 255.0 - 0.3) * 2.0;
    auto logits = Linear(c, "fc3", Linear(c, "fc2", Linear(c, "fc1", x, true), true), false);
    double sum = 0;
    for (double l : logits) sum += std::exp(l);
    loss += std::log(sum) - logits[static_cast<size_t>(labels[s])];
    if (std::max_element(logits.begin(), logits.end()) - logits.begin() == labels[s]) {
      ++correct;
      bitmap[s / 8] = static_cast<char>(bitmap[s / 8] | 1 << (s % 8));
    }
  }
  Digest evaluation = Artifact(Run(Make("evaluate", {{"split", "test"}}, {{"model", trained}})));
  auto artifact = storage::GetArtifact(*blobs_, evaluation);
  EXPECT_EQ(artifact->kind, "evaluation");
  const Json& r = artifact->results;
  EXPECT_EQ(r["correct"], correct);
  EXPECT_EQ(r["total"], 21);
  EXPECT_NEAR(r["loss"].get<double>(), loss / 21, 1e-5);
  EXPECT_DOUBLE_EQ(r["accuracy"].get<double>(), 100.0 * static_cast<double>(correct) / 21);
  EXPECT_EQ(r["model"], trained.hex());
  EXPECT_EQ(r["summary"]["checkpoint_bytes"], ResultsOf(trained)["checkpoint_bytes"]);
  EXPECT_EQ(blobs_->Get(artifact->blobs.at("correct").digest)->text(), bitmap);
}

TEST_F(StepsTest, ValidationAccuracyEqualsTheLastEpochsOfTheHistory) {
  Digest trained = Artifact(Run(Make("train", Range(TrainParams(3), 0, 3, 0), {{"model", init_}})));
  Digest evaluation = Artifact(Run(Make("evaluate", {{"split", "validation"}}, {{"model", trained}})));
  EXPECT_EQ(ResultsOf(evaluation)["total"], kValidation);
  EXPECT_EQ(ResultsOf(evaluation)["accuracy"], ResultsOf(trained)["training"]["history"][2]["validation_accuracy"]);
}

TEST(WilsonTest, EqualsPublishedValues) {
  // statsmodels.stats.proportion.proportion_confint(10, 100, method="wilson") = (0.0552285, 0.1743657)
  Interval interval = WilsonInterval(10, 100);
  EXPECT_NEAR(interval.low, 5.52285, 1e-4);
  EXPECT_NEAR(interval.high, 17.43657, 1e-4);
  EXPECT_EQ(WilsonInterval(0, 10).low, 0.0);
  EXPECT_EQ(WilsonInterval(10, 10).high, 100.0);
}

TEST_F(StepsTest, InitializeGivesTheSeedsWeights) {
  model::TensorMap expected = model::InitializeWeights(graph_, *model::Analyze(graph_), 11);
  EXPECT_EQ(Digests(CheckpointOf(init_).tensors), Digests(expected));
}

TEST_F(StepsTest, ImportTakesASafetensorsBlobAndNamesWhatDoesNotFit) {
  model::TensorMap weights = model::InitializeWeights(graph_, *model::Analyze(graph_), 99);
  auto import = [&](const model::TensorMap& tensors) {
    Digest blob = *blobs_->Put(model::EncodeSafetensors(tensors));
    return Run(Make("import", {{"graph", model::ToJson(graph_)}, {"weights", blob.hex()}}, {}));
  };
  EXPECT_EQ(Digests(CheckpointOf(Artifact(import(weights))).tensors), Digests(weights));
  weights.at("fc2.bias") = model::Tensor(model::DType::kF32, {9});
  worker::StepFailed failed = Failure(import(weights));
  EXPECT_EQ(failed.error_class, "bad_input");
  EXPECT_TRUE(Contains(failed.message, "fc2.bias")) << failed.message;
}

TEST_F(StepsTest, MissingAndDamagedInputsAreCorrupt) {
  worker::StepFailed missing = Failure(Run(Make("prune", PruneParams(0.5), {{"model", DigestOf(std::string_view("x"))}})));
  EXPECT_EQ(missing.error_class, "corrupt");
  EXPECT_TRUE(Contains(missing.message, "input 'model'")) << missing.message;
  auto artifact = *storage::GetArtifact(*blobs_, init_);
  std::string bytes(blobs_->Get(artifact.blobs.at("checkpoint").digest)->text());
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  artifact.blobs["checkpoint"] = {*blobs_->Put(bytes), static_cast<int64_t>(bytes.size())};
  Digest damaged = *storage::PutArtifact(*blobs_, artifact);
  EXPECT_EQ(Failure(Run(Make("prune", PruneParams(0.5), {{"model", damaged}}))).error_class, "corrupt");
  Digest evaluation = Artifact(Run(Make("evaluate", {{"split", "test"}}, {{"model", init_}})));
  worker::StepFailed other = Failure(Run(Make("prune", PruneParams(0.5), {{"model", evaluation}})));
  EXPECT_TRUE(Contains(other.message, "evaluation")) << other.message;
}

TEST_F(StepsTest, AnotherDatasetIsRefusedNamingBothFingerprints) {
  data::Dataset other{RandomSplit(kTrain, 5), RandomSplit(21, 6), 3};
  info_.blob = *blobs_->Put(data::EncodeDataset(other));
  worker::StepFailed failed = Failure(Run(Make("evaluate", {{"split", "test"}}, {{"model", init_}})));
  EXPECT_EQ(failed.error_class, "bad_input");
  EXPECT_TRUE(Contains(failed.message, other.fingerprint().hex())) << failed.message;
  EXPECT_TRUE(Contains(failed.message, data_.fingerprint.hex())) << failed.message;
}

TEST_F(StepsTest, AMissingDatasetFileIsBadInputAndNamesThePath) {
  info_.blob = Digest();
  info_.request.format = "idx";
  info_.request.train = info_.request.test = info_.request.train_labels = info_.request.test_labels = "/nowhere/images.idx";
  worker::StepFailed failed = Failure(Run(Make("evaluate", {{"split", "test"}}, {{"model", init_}})));
  EXPECT_EQ(failed.error_class, "bad_input");
  EXPECT_TRUE(Contains(failed.message, "/nowhere/images.idx")) << failed.message;
}

TEST_F(StepsTest, ModelAndDataMustFit) {
  auto evaluate = [&](model::Shape shape, int64_t classes) {
    graph_ = *model::BuildArchitecture("mlp", {{"hidden", {5}}}, shape, classes);
    Digest model = Artifact(Run(Make("initialize", {{"graph", model::ToJson(graph_)}}, {})));
    return Failure(Run(Make("evaluate", {{"split", "test"}}, {{"model", model}})));
  };
  EXPECT_TRUE(Contains(evaluate({1, 5, 5}, 3).message, "[1, 5, 5]"));
  EXPECT_TRUE(Contains(evaluate({1, 4, 4}, 2).message, "3 classes"));
  EXPECT_EQ(evaluate({1, 4, 4}, 2).error_class, "bad_input");
}

TEST_F(StepsTest, BadSpecsNameTheField) {
  auto message = [&](const std::string& kind, Json params) {
    worker::StepFailed failed = Failure(Run(Make(kind, std::move(params), {{"model", init_}})));
    EXPECT_EQ(failed.error_class, "bad_input");
    return failed.message;
  };
  EXPECT_TRUE(Contains(message("evaluate", {{"split", "training"}}), "split"));
  EXPECT_TRUE(Contains(message("sharpen", Json::object()), "sharpen"));
  EXPECT_TRUE(Contains(message("initialize", Json::object()), "graph"));
  EXPECT_TRUE(Contains(message("prune", {{"schedule", "sudden"}}), "schedule"));
  Json params = Range(TrainParams(2), 0, 2, 0);
  params["train"]["optimizer"].erase("momentum");
  EXPECT_TRUE(Contains(message("train", params), "params.train.optimizer"));
  params = Range(TrainParams(2), 0, 3, 0);
  EXPECT_TRUE(Contains(message("train", params), "stop_epoch"));
  params = Range(TrainParams(2), 0, 2, 0);
  params["train"]["schedule"]["kind"] = "sometimes";
  EXPECT_TRUE(Contains(message("train", params), "multi_step"));
}

TEST_F(StepsTest, ASpecThatDoesNotMatchItsKeyIsRefused) {
  worker::Assignment a = Make("evaluate", {{"split", "test"}}, {{"model", init_}});
  a.key = StepKey(init_.bytes());
  EXPECT_EQ(Failure(Run(a)).error_class, "bad_input");
}

TEST_F(StepsTest, TheCacheServesChainsAndStaysWithinItsLimit) {
  InputCache cache(*blobs_, 1);
  Environment environment{*blobs_, cache, clock_, 1, "cpu"};
  Digest pruned = Artifact(ExecuteStep(Make("prune", PruneParams(0.5), {{"model", init_}}), environment, hooks_));
  int64_t one = cache.bytes();
  EXPECT_GT(one, 1);  // the newest always stays
  Artifact(ExecuteStep(Make("evaluate", {{"split", "test"}}, {{"model", pruned}}), environment, hooks_));
  EXPECT_LT(cache.bytes(), one + 2 * kTrain * 16);
  // What is remembered equals what is stored.
  InputCache large(*blobs_);
  auto first = large.Checkpoint(init_), second = large.Checkpoint(init_);
  EXPECT_EQ(first->get(), second->get());
  large.Remember(pruned, {*storage::GetArtifact(*blobs_, pruned), CheckpointOf(pruned)});
  EXPECT_EQ((*large.Checkpoint(pruned))->checkpoint.masks, CheckpointOf(pruned).masks);
}

// The agent's end of a pipe, with the loop served on a thread.
class RunnerLoopTest : public RunnerTest {
 protected:
  RunnerLoopTest() {
    int fds[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    agent_.emplace(UniqueFd(fds[0]));
    served_ = std::thread([this, fd = fds[1]] {
      InputCache cache(*blobs_);
      worker::RunnerPipe pipe{UniqueFd(fd)};
      exit_code_ = ServePipe(pipe, {*blobs_, cache, real_clock_, 1, "cpu"});
    });
  }
  ~RunnerLoopTest() override {
    agent_.reset();
    if (served_.joinable()) served_.join();
  }
  void Send(const worker::RunnerCommand& command) {
    ASSERT_TRUE(agent_->Send(Canonical(worker::ToJson(command))).ok());
    ASSERT_TRUE(agent_->Flush(Millis::max()).ok());
  }
  // The next event that is not progress or a snapshot.
  worker::RunnerEvent Next() {
    while (true) {
      auto line = agent_->Receive(Millis(60'000));
      CHECK(line.ok() && line->has_value());
      auto event = worker::RunnerEventFromJson(*ParseJson(**line, "event"));
      CHECK(event.ok());
      if (!std::holds_alternative<worker::StepProgress>(*event) && !std::holds_alternative<worker::StepSnapshot>(*event)) return *event;
    }
  }
  SystemClock real_clock_;
  std::optional<worker::LineChannel> agent_;
  std::thread served_;
  int exit_code_ = -1;
};

TEST_F(RunnerLoopTest, ServesStepsStopsOnRequestAndEndsWithThePipe) {
  EXPECT_TRUE(std::holds_alternative<worker::RunnerReady>(Next()));
  Send(worker::StopStep{true});  // idle: ignored
  Send(worker::StartStep{Make("prune", PruneParams(0.5), {{"model", init_}})});
  EXPECT_FALSE(Artifact(Next()).is_none());
  Send(worker::StartStep{Make("prune", PruneParams(1.5), {{"model", init_}})});
  EXPECT_EQ(Failure(Next()).error_class, "bad_input");
  worker::Assignment train = Make("train", Range(TrainParams(100'000), 0, 100'000, 0), {{"model", init_}});
  Send(worker::StartStep{train});
  Send(worker::StopStep{true});
  worker::RunnerEvent event = Next();
  ASSERT_TRUE(std::holds_alternative<worker::StepStopped>(event)) << Canonical(worker::ToJson(event));
  EXPECT_TRUE(*blobs_->Contains(std::get<worker::StepStopped>(event).snapshot));
  Send(worker::StartStep{train});
  agent_.reset();
  served_.join();
  EXPECT_EQ(exit_code_, 0);
}

TEST_F(RunnerLoopTest, JoinsAGangWhenItIsTold) {
  worker::Assignment train = Make("train", Range(TrainParams(2), 0, 2, 0), {{"model", init_}});
  Digest alone = Artifact(Run(train));
  EXPECT_TRUE(std::holds_alternative<worker::RunnerReady>(Next()));
  Send(worker::JoinGang{{"", ""}});  // idle: ignored
  train.gang = {0, 2};
  Send(worker::StartStep{train});
  Send(worker::StopStep{true});
  worker::RunnerEvent event = Next();
  ASSERT_TRUE(std::holds_alternative<worker::StepJoins>(event)) << Canonical(worker::ToJson(event));
  EXPECT_TRUE(std::holds_alternative<worker::StepStopped>(Next()));
  Send(worker::StartStep{train});
  event = Next();
  ASSERT_TRUE(std::holds_alternative<worker::StepJoins>(event)) << Canonical(worker::ToJson(event));
  // The other rank, without a pipe.
  class Other : public RecordingHooks {
   public:
    explicit Other(std::vector<std::string> endpoints) : endpoints_(std::move(endpoints)) {}
    std::optional<std::vector<std::string>> Joined(Millis) override { return endpoints_; }

   private:
    std::vector<std::string> endpoints_;
  };
  Other hooks({std::get<worker::StepJoins>(event).endpoint, ""});
  Send(worker::JoinGang{{std::get<worker::StepJoins>(event).endpoint, ""}});
  train.gang = {1, 2};
  EXPECT_EQ(Artifact(Run(train, 1, hooks)), alone);
  EXPECT_EQ(Artifact(Next()), alone);
}

}  // namespace
}  // namespace pare::runner
