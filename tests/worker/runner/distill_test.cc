// logits, distill, choose, adopt and compare as steps: what they compute, that they resume to the same bits, what they refuse.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "model/half.h"
#include "tests/worker/runner/fixture.h"
#include "worker/runner/evaluation.h"
#include "worker/runner/logits.h"
#include "worker/runner/training.h"

namespace pare::runner {
namespace {

using model::FloatOf;
using model::HalfOf;

class DistillTest : public RunnerTest {
 protected:
  DistillTest() {
    model::Graph wide = *model::BuildArchitecture("mlp", {{"hidden", {24, 12}}}, {1, 4, 4}, 3);
    Digest fresh = Artifact(Run(Make("initialize", {{"graph", model::ToJson(wide)}}, {}, 5)));
    teacher_ = Artifact(Run(Make("train", Range(TrainParams(3), 0, 3, 0), {{"model", fresh}})));
  }
  worker::Assignment LogitsOf(const Digest& teacher) { return MakeWithData("logits", {{"split", "train"}}, {{"model", teacher}}); }
  static Json DistillParams(int64_t epochs, double labels = 1.0) {
    Json params = Range(TrainParams(epochs), 0, epochs, 3);
    params.erase("rule");
    params.update({{"temperature", 2.0}, {"hardness", 0.5}});
    if (labels < 1) params["train"]["labels"] = labels;
    return params;
  }
  Digest Logits() { return Artifact(Run(LogitsOf(teacher_))); }
  Digest teacher_;
};

TEST_F(DistillTest, HalvesRoundToNearestEven) {
  // Values and their binary16 codes (IEEE 754-2019, section 3.6).
  const std::pair<float, uint16_t> exact[] = {{0.0f, 0}, {1.0f, 0x3c00}, {-2.0f, 0xc000}, {65504.0f, 0x7bff}, {0x1p-14f, 0x0400}, {0x1p-24f, 1}, {-0x1.8p-15f, 0x8300}};
  for (const auto& [value, half] : exact) {
    EXPECT_EQ(HalfOf(value), half) << value;
    EXPECT_EQ(FloatOf(half), value) << half;
  }
  EXPECT_EQ(HalfOf(1.0f + 0x1p-11f), 0x3c00) << "a tie goes to the even neighbour";
  EXPECT_EQ(HalfOf(1.0f + 0x3p-11f), 0x3c02);
  EXPECT_EQ(HalfOf(0x1p-25f), 0);
  EXPECT_EQ(HalfOf(65520.0f), 0x7c00);
  EXPECT_EQ(HalfOf(-1e9f), 0xfc00);
  for (uint32_t half = 0; half < 0x10000; ++half) {
    float value = FloatOf(static_cast<uint16_t>(half));
    if (std::isnan(value)) continue;
    ASSERT_EQ(HalfOf(value), half);
  }
}

TEST_F(DistillTest, LogitsComeBackRelativeToTheLargest) {
  std::vector<float> values = {5.0f, 7.5f, -3.0f, 0.1f, 0.2f, -1e9f};
  Result<pare::runner::Logits> logits = pare::runner::Logits::Decode(pare::runner::Logits(values, 3).Encode());
  ASSERT_TRUE(logits.ok()) << logits.error().message;
  std::vector<float> row(3);
  logits->Row(0, row);
  EXPECT_EQ(row, (std::vector<float>{-2.5f, 0.0f, -10.5f}));
  logits->Row(1, row);
  EXPECT_NEAR(row[0], -0.1f, 1e-4);
  EXPECT_EQ(row[1], 0.0f);
  EXPECT_EQ(row[2], -std::numeric_limits<float>::infinity());
}

TEST_F(DistillTest, DamagedLogitsAreRefused) {
  std::string bytes = pare::runner::Logits(std::vector<float>(30, 1.0f), 3).Encode();
  for (std::string broken : {std::string(), std::string("{}\n"), bytes.substr(0, bytes.size() - 1), std::string("{\"classes\":3,\"format\":1,\"samples\":-1}\n")}) {
    auto logits = pare::runner::Logits::Decode(broken);
    ASSERT_FALSE(logits.ok());
    EXPECT_EQ(logits.error().code, ErrorCode::kCorrupt) << logits.error().message;
  }
}

TEST_F(DistillTest, LogitsAreTheTeachersAnswersAndSayTheirSize) {
  Digest artifact = Logits();
  Json results = ResultsOf(artifact);
  EXPECT_EQ(results["samples"], kTrain - kValidation);
  EXPECT_EQ(results["classes"], 3);
  storage::Artifact stored = *storage::GetArtifact(*blobs_, artifact);
  EXPECT_EQ(stored.kind, "logits");
  auto blob = blobs_->Get(stored.blobs.at("logits").digest);
  EXPECT_EQ(results["bytes"], blob->bytes.size());
  EXPECT_LT(blob->bytes.size(), static_cast<size_t>(kTrain * 3 * 4));
  auto logits = pare::runner::Logits::Decode(blob->text());
  storage::Checkpoint teacher = CheckpointOf(teacher_);
  auto network = engine::Network::Create(teacher.graph, teacher.tensors, {});
  std::vector<uint32_t> rows = data::CutValidation(kTrain, kValidation, data_.split_seed).train;
  std::vector<float> x(rows.size() * 16), wanted(rows.size() * 3), row(3);
  data::Gather(dataset_.train, data_, rows, x);
  (*network)->EvaluateBatch(x, std::vector<int64_t>(rows.size(), 0), wanted);
  for (size_t i = 0; i < rows.size(); ++i) {
    logits->Row(static_cast<int64_t>(i), row);
    float largest = *std::max_element(wanted.begin() + static_cast<int64_t>(i * 3), wanted.begin() + static_cast<int64_t>(i * 3 + 3));
    for (size_t c = 0; c < 3; ++c) EXPECT_NEAR(row[c], wanted[i * 3 + c] - largest, 0.005);
  }
}

TEST_F(DistillTest, LogitsThatWereInterruptedComeOutTheSame) {
  RecordingHooks hooks;
  hooks.stop_after = 0;
  worker::RunnerEvent event = Run(LogitsOf(teacher_), 1, hooks);
  EXPECT_TRUE(std::holds_alternative<worker::StepStopped>(event));
  EXPECT_EQ(Artifact(Run(LogitsOf(teacher_), 3)), Logits());
}

TEST_F(DistillTest, ContinuesBitForBitFromEveryBatchWithStoredLogits) {
  ExpectExactResume(MakeWithData("distill", DistillParams(2, 0.4), {{"model", init_}, {"logits", Logits()}}), 2 * kBatches);
}

TEST_F(DistillTest, ContinuesBitForBitWithTheTeacherInTheLoopAugmentationAndMatching) {
  data_.flip = true;
  data_.shift = 1;
  Json params = DistillParams(2);
  params.update({{"match", {{"fc1", "fc1"}, {"fc2", "fc2"}}}, {"match_weight", 0.5}});
  ExpectExactResume(MakeWithData("distill", params, {{"model", init_}, {"teacher", teacher_}}), 2 * kBatches);
}

TEST_F(DistillTest, StoredLogitsTeachAsTheTeacherInTheLoopDoes) {
  storage::Checkpoint stored = CheckpointOf(Artifact(Run(MakeWithData("distill", DistillParams(2), {{"model", init_}, {"logits", Logits()}}))));
  storage::Checkpoint loop = CheckpointOf(Artifact(Run(MakeWithData("distill", DistillParams(2), {{"model", init_}, {"teacher", teacher_}}))));
  storage::Checkpoint alone = CheckpointOf(Artifact(Run(MakeWithData("retrain", Range(TrainParams(2), 0, 2, 3), {{"model", init_}}))));
  double difference = 0, effect = 0;
  for (const auto& [name, tensor] : stored.tensors) {
    auto a = tensor.values<float>(), b = loop.tensors.at(name).values<float>(), c = alone.tensors.at(name).values<float>();
    for (size_t i = 0; i < a.size(); ++i) {
      difference = std::max(difference, std::abs(static_cast<double>(a[i]) - b[i]));
      effect = std::max(effect, std::abs(static_cast<double>(a[i]) - c[i]));
    }
  }
  EXPECT_LT(difference, 1e-4) << "half precision of the stored logits";
  EXPECT_GT(effect, 1e-2) << "the teacher has no effect";
}

TEST_F(DistillTest, WithHardnessZeroItIsARetrain) {
  Json params = DistillParams(2);
  params["hardness"] = 0.0;
  Digest taught = Artifact(Run(MakeWithData("distill", params, {{"model", init_}, {"logits", Logits()}})));
  Digest plain = Artifact(Run(Make("retrain", Range(TrainParams(2), 0, 2, 3), {{"model", init_}})));
  EXPECT_EQ(Digests(CheckpointOf(taught).tensors), Digests(CheckpointOf(plain).tensors));
}

TEST_F(DistillTest, ProjectionsAreLearnedAndDropped) {
  Json params = DistillParams(1);
  Digest without = Artifact(Run(MakeWithData("distill", params, {{"model", init_}, {"teacher", teacher_}})));
  params.update({{"match", {{"fc1", "fc1"}}}, {"match_weight", 1.0}});
  Digest with = Artifact(Run(MakeWithData("distill", params, {{"model", init_}, {"teacher", teacher_}})));
  EXPECT_EQ(CheckpointOf(with).graph, graph_);
  EXPECT_EQ(CheckpointOf(with).tensors.size(), CheckpointOf(init_).tensors.size());
  EXPECT_NE(CheckpointOf(with).tensors.at("fc1.weight").digest(), CheckpointOf(without).tensors.at("fc1.weight").digest());
  EXPECT_EQ(CheckpointOf(with).tensors.at("fc3.weight").shape(), CheckpointOf(init_).tensors.at("fc3.weight").shape());
}

TEST_F(DistillTest, WeightsMayComeFromElsewhereUnderThePresentMasks) {
  Digest pruned = Artifact(Run(Make("prune", PruneParams(0.6), {{"model", init_}})));
  Digest fresh = Artifact(Run(Make("initialize", Json::object(), {{"like", pruned}}, 77)));
  EXPECT_EQ(CheckpointOf(fresh).graph, graph_);
  Digest again = Artifact(Run(MakeWithData("distill", DistillParams(1), {{"model", pruned}, {"logits", Logits()}, {"rewind", fresh}})));
  EXPECT_EQ(CheckpointOf(again).masks, CheckpointOf(pruned).masks);
  Digest continued = Artifact(Run(MakeWithData("distill", DistillParams(1), {{"model", pruned}, {"logits", Logits()}})));
  EXPECT_NE(Digests(CheckpointOf(again).tensors), Digests(CheckpointOf(continued).tensors));
}

TEST_F(DistillTest, OnlyTheChosenLabelsAreUsed) {
  std::vector<uint32_t> rows = data::CutValidation(kTrain, kValidation, data_.split_seed).train;
  std::vector<uint32_t> labelled = LabelledRows(rows, 0.5, 11);
  ASSERT_EQ(labelled.size(), rows.size() / 2);
  EXPECT_TRUE(std::is_sorted(labelled.begin(), labelled.end()));
  Digest before = Artifact(Run(MakeWithData("distill", DistillParams(1, 0.5), {{"model", init_}, {"logits", Logits()}})));
  auto taught = Digests(CheckpointOf(before).tensors);
  auto relabel = [&](bool those_with) {
    data::Dataset changed = dataset_;
    changed.train.labels = model::Tensor(model::DType::kI64, {kTrain});
    auto to = changed.train.labels.mutable_values<int64_t>();
    auto from = dataset_.train.labels.values<int64_t>();
    for (size_t i = 0; i < to.size(); ++i) {
      bool has = std::binary_search(labelled.begin(), labelled.end(), static_cast<uint32_t>(i));
      bool trains = std::binary_search(rows.begin(), rows.end(), static_cast<uint32_t>(i));
      to[i] = trains && has == those_with ? (from[i] + 1) % 3 : from[i];
    }
    info_ = data::Describe(changed, {});
    info_.blob = *blobs_->Put(data::EncodeDataset(changed));
    data_.fingerprint = info_.fingerprint;
    return Digests(CheckpointOf(Artifact(Run(MakeWithData("distill", DistillParams(1, 0.5), {{"model", init_}, {"logits", Logits()}})))).tensors);
  };
  EXPECT_EQ(relabel(false), taught) << "a label that may not be used has an effect";
  EXPECT_NE(relabel(true), taught);
}

TEST_F(DistillTest, WithoutATeacherOnlyLabelledSamplesTrain) {
  Json params = Range(TrainParams(1), 0, 1, 0);
  params["train"]["labels"] = 0.5;  // 23 of 46 samples: 3 batches of 8
  Artifact(Run(Make("train", params, {{"model", init_}})));
  EXPECT_EQ(hooks_.boundaries, 3);
  params["train"]["labels"] = 0.0;
  EXPECT_TRUE(Contains(Failure(Run(Make("train", params, {{"model", init_}}))).message, "labels"));
}

TEST_F(DistillTest, ATransferSetWithoutAnyLabelHasNoTrainAccuracy) {
  Digest taught = Artifact(Run(MakeWithData("distill", DistillParams(1, 0.0), {{"model", init_}, {"logits", Logits()}})));
  Json record = ResultsOf(taught)["training"]["history"][0];
  EXPECT_FALSE(record.contains("train_accuracy"));
  EXPECT_TRUE(record.contains("validation_accuracy"));
}

TEST_F(DistillTest, ATeacherThatAnswersNanIsNamedWithARemedy) {
  storage::Checkpoint broken = CheckpointOf(teacher_);
  model::Tensor bias(model::DType::kF32, broken.tensors.at("fc3.bias").shape());
  bias.mutable_values<float>()[1] = std::nanf("");
  broken.tensors["fc3.bias"] = bias;
  std::string bytes = *storage::EncodeCheckpoint(broken);
  storage::Artifact artifact = *storage::GetArtifact(*blobs_, teacher_);
  artifact.blobs["checkpoint"] = {*blobs_->Put(std::string_view(bytes)), static_cast<int64_t>(bytes.size())};
  Digest sick = *storage::PutArtifact(*blobs_, artifact);
  worker::Assignment logits = LogitsOf(sick), loop = MakeWithData("distill", DistillParams(1), {{"model", init_}, {"teacher", sick}});
  for (worker::Assignment* assignment : {&logits, &loop}) {
    assignment->hints = {{"teacher", "big/02-retrain"}};
    worker::StepFailed failed = Failure(Run(*assignment));
    EXPECT_EQ(failed.error_class, "diverged");
    EXPECT_TRUE(Contains(failed.message, "teacher big/02-retrain")) << failed.message;
    EXPECT_TRUE(Contains(failed.message, "tensor 'fc3.bias' holds NaN at element 1")) << failed.message;
    EXPECT_TRUE(Contains(failed.message, "name another teacher")) << failed.message;
  }
}

TEST_F(DistillTest, WhatDoesNotFitTogetherIsRefused) {
  model::Graph other = *model::BuildArchitecture("mlp", {{"hidden", {8}}}, {1, 4, 4}, 5);
  Digest five = Artifact(Run(Make("initialize", {{"graph", model::ToJson(other)}}, {})));
  auto message = [&](const worker::Assignment& assignment) {
    worker::StepFailed failed = Failure(Run(assignment));
    EXPECT_EQ(failed.error_class, "bad_input");
    return failed.message;
  };
  Digest its = Artifact(Run(LogitsOf(five))), good = Logits();
  EXPECT_TRUE(Contains(message(MakeWithData("distill", DistillParams(1), {{"model", init_}, {"logits", its}})), "5 classes"));
  EXPECT_TRUE(Contains(message(MakeWithData("distill", DistillParams(1), {{"model", init_}, {"teacher", five}})), "disagree in the classes"));
  EXPECT_TRUE(Contains(message(MakeWithData("distill", DistillParams(1), {{"model", init_}})), "exactly one"));
  EXPECT_TRUE(Contains(message(MakeWithData("distill", DistillParams(1), {{"model", init_}, {"logits", init_}})), "of kind 'checkpoint'"));
  Json params = DistillParams(1);
  params["match"] = {{"fc1", "fc9"}};
  params["match_weight"] = 1.0;
  EXPECT_TRUE(Contains(message(MakeWithData("distill", params, {{"model", init_}, {"teacher", teacher_}})), "no node 'fc9'"));
  EXPECT_TRUE(Contains(message(MakeWithData("distill", params, {{"model", init_}, {"logits", good}})), "needs the input 'teacher'"));
  params = DistillParams(1);
  params["temperature"] = 0.0;
  EXPECT_TRUE(Contains(message(MakeWithData("distill", params, {{"model", init_}, {"logits", good}})), "temperature"));
  data_.flip = true;
  EXPECT_TRUE(Contains(message(MakeWithData("distill", DistillParams(1), {{"model", init_}, {"logits", good}})), "not augmented"));
}

class ChooseTest : public DistillTest {
 protected:
  Digest EvaluationOf(const Digest& model, const char* split = "validation") {
    return Artifact(Run(Make("evaluate", {{"split", split}}, {{"model", model}})));
  }
  worker::Assignment Choose(const Digest& first, const Digest& second) {
    return Make("choose", {{"rule", "better"}},
                {{"first", first}, {"second", second}, {"first_evaluation", EvaluationOf(first)}, {"second_evaluation", EvaluationOf(second)}});
  }
};

TEST_F(ChooseTest, TakesTheMoreAccurateAndOfEqualsTheFirst) {
  ASSERT_GT(ResultsOf(EvaluationOf(teacher_))["correct"], ResultsOf(EvaluationOf(init_))["correct"]);
  for (auto [first, second] : {std::pair(init_, teacher_), std::pair(teacher_, init_)}) {
    Digest chosen = Artifact(Run(Choose(first, second)));
    EXPECT_EQ(storage::GetArtifact(*blobs_, chosen)->blobs, storage::GetArtifact(*blobs_, teacher_)->blobs);
    EXPECT_EQ(ResultsOf(chosen)["choice"]["chosen"], second == teacher_ ? "second" : "first");
  }
  EXPECT_EQ(ResultsOf(Artifact(Run(Choose(teacher_, teacher_))))["choice"]["chosen"], "first");
}

TEST_F(ChooseTest, AnEvaluationOfAnotherModelIsRefused) {
  worker::Assignment assignment = Make("choose", {{"rule", "better"}}, {{"first", init_}, {"second", teacher_},
                                       {"first_evaluation", EvaluationOf(init_)}, {"second_evaluation", EvaluationOf(init_)}});
  EXPECT_TRUE(Contains(Failure(Run(assignment)).message, "second_evaluation"));
}

TEST_F(ChooseTest, AdoptTakesACheckpointOfTheStore) {
  Digest adopted = Artifact(Run(Make("adopt", {{"artifact", teacher_.hex()}}, {})));
  EXPECT_EQ(Digests(CheckpointOf(adopted).tensors), Digests(CheckpointOf(teacher_).tensors));
  EXPECT_TRUE(Contains(Failure(Run(Make("adopt", {{"artifact", Logits().hex()}}, {}))).message, "of kind 'logits'"));
}

TEST_F(ChooseTest, CompareCountsSamplesThatOnlyOneGetsRight) {
  Digest compared = Artifact(Run(Make("compare", Json::object(), {{"first", EvaluationOf(init_)}, {"second", EvaluationOf(teacher_)}})));
  Json results = ResultsOf(compared);
  double difference = ResultsOf(EvaluationOf(teacher_))["accuracy"].get<double>() - ResultsOf(EvaluationOf(init_))["accuracy"].get<double>();
  EXPECT_NEAR(results["difference"].get<double>(), difference, 1e-9);
  EXPECT_LT(results["interval"][0].get<double>(), results["interval"][1].get<double>());
  worker::Assignment mixed = Make("compare", Json::object(), {{"first", EvaluationOf(init_)}, {"second", EvaluationOf(teacher_, "test")}});
  EXPECT_TRUE(Contains(Failure(Run(mixed)).message, "different samples"));
}

TEST(PairedIntervalTest, CoversTheTruthAboutAsOftenAsItSays) {
  // Pairs drawn with known probabilities of being right by one alone; 95 % of the intervals must hold the true difference.
  constexpr double kFirst = 0.03, kSecond = 0.05;
  int covered = 0;
  constexpr int kRounds = 2000, kSamples = 500;
  for (int round = 0; round < kRounds; ++round) {
    RandomStream stream(static_cast<uint64_t>(round), RandomPurpose::kTest);
    PairedCounts counts;
    for (int i = 0; i < kSamples; ++i) {
      double u = stream.Uniform();
      counts.only_first += u < kFirst;
      counts.only_second += u >= kFirst && u < kFirst + kSecond;
    }
    Interval interval = PairedInterval(counts, kSamples);
    covered += interval.low <= 2.0 && interval.high >= 2.0;
  }
  EXPECT_NEAR(covered / static_cast<double>(kRounds), 0.95, 0.02);
}

TEST(PairedIntervalTest, CountsBitsOfBothMaps) {
  PairedCounts counts = CountPairs(std::string("\x0f\x01", 2), std::string("\x33\x00", 2), 9);
  EXPECT_EQ(counts.only_first, 3);   // samples 2, 3 and 8
  EXPECT_EQ(counts.only_second, 2);  // 4 and 5
}

}  // namespace
}  // namespace pare::runner
