// The distillation loss against PyTorch (reference/distillation.json) and finite differences; matching at taps against finite
// differences through a whole network.
#include "worker/engine/loss.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "model/architectures.h"
#include "model/initialize.h"
#include "tests/worker/engine/reference_values.h"
#include "worker/engine/network.h"

namespace pare::engine {
namespace {

struct Case {
  int64_t classes = 0;
  LossWeights weights;
  std::vector<float> student, teacher;
  std::vector<int64_t> labels;
  std::vector<double> loss, gradient;
};

std::vector<double> Flat(const Json& rows) {
  std::vector<double> flat;
  for (const Json& row : rows) {
    for (const Json& value : row) flat.push_back(value.get<double>());
  }
  return flat;
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  Json file = ReadReference("distillation.json");
  for (const Json& entry : file.value("cases", Json::array())) {
    Case c;
    c.classes = entry["classes"];
    c.weights = {entry["label_smoothing"], entry["temperature"], entry["hardness"]};
    for (double v : Flat(entry["student"])) c.student.push_back(static_cast<float>(v));
    for (double v : Flat(entry["teacher"])) c.teacher.push_back(static_cast<float>(v));
    for (const Json& label : entry["labels"]) c.labels.push_back(label == -100 ? kNoLabel : label.get<int64_t>());
    c.loss = entry["loss"].get<std::vector<double>>();
    c.gradient = Flat(entry["gradient"]);
    cases.push_back(std::move(c));
  }
  return cases;
}

TEST(LossTest, AgreesWithPyTorch) {
  std::vector<Case> cases = Cases();
  ASSERT_GE(cases.size(), 7u);
  for (const Case& c : cases) {
    SCOPED_TRACE(testing::Message() << "T " << c.weights.temperature << ", h " << c.weights.hardness << ", " << c.classes << " classes");
    auto width = static_cast<size_t>(c.classes);
    double largest = 0;
    for (double g : c.gradient) largest = std::max(largest, std::abs(g));
    for (size_t i = 0; i < c.labels.size(); ++i) {
      std::vector<float> gradient(width);
      RowLoss row = LossOfRow(std::span(c.student).subspan(i * width, width), c.labels[i], std::span(c.teacher).subspan(i * width, width), c.weights,
                              1.0 / static_cast<double>(c.labels.size()), gradient);
      EXPECT_NEAR(row.loss, c.loss[i], 1e-6 * std::abs(c.loss[i]) + 1e-12);
      EXPECT_EQ(row.labelled, c.labels[i] != kNoLabel);
      for (size_t k = 0; k < width; ++k) EXPECT_NEAR(gradient[k], c.gradient[i * width + k], 1e-6 * largest) << i << " " << k;
    }
  }
}

TEST(LossTest, GradientEqualsFiniteDifferences) {
  std::vector<float> teacher = {2.0f, -1.0f, 0.5f, 0.0f}, student = {0.25f, 1.5f, -0.75f, 0.5f}, gradient(4);
  for (int64_t label : {int64_t{2}, kNoLabel}) {
    LossWeights weights{0.1, 3.0, 0.4};
    LossOfRow(student, label, teacher, weights, 1.0, gradient);
    for (size_t c = 0; c < 4; ++c) {
      auto loss = [&](float step) {
        std::vector<float> moved = student;
        moved[c] += step;
        return LossOfRow(moved, label, teacher, weights, 1.0, {}).loss;
      };
      constexpr float kStep = 1.0f / 1024;
      EXPECT_NEAR(gradient[c], (loss(kStep) - loss(-kStep)) / (2.0 * kStep), 1e-6) << label << " " << c;
    }
  }
}

TEST(LossTest, IsZeroWithoutLabelWhenTheStudentAgrees) {
  std::vector<float> teacher = {3.0f, 0.0f, -2.0f}, student = {13.0f, 10.0f, 8.0f}, gradient(3);  // equal but for a constant
  RowLoss row = LossOfRow(student, kNoLabel, teacher, {0.0, 2.0, 0.5}, 1.0, gradient);
  EXPECT_NEAR(row.loss, 0.0, 1e-12);
  EXPECT_FALSE(row.correct);
  for (float g : gradient) EXPECT_NEAR(g, 0.0, 1e-12);
}

TEST(LossTest, TemperatureKeepsTheGradientsSize) {
  // For large T the gradient tends to (z − v)/classes for centred logits, whatever T (Hinton et al. 2015, equation 4).
  std::vector<float> teacher = {1.0f, -1.0f, 0.0f, 0.0f}, student = {0.0f, 0.5f, -0.5f, 0.0f}, gradient(4);
  LossOfRow(student, kNoLabel, teacher, {0.0, 1000.0, 1.0}, 1.0, gradient);
  for (size_t c = 0; c < 4; ++c) EXPECT_NEAR(gradient[c], (student[c] - teacher[c]) / 4, 1e-3);
}

TEST(LossTest, AClassThatTheTeacherExcludesDoesNoHarm) {
  float never = -std::numeric_limits<float>::infinity();
  std::vector<float> teacher = {1.0f, never, 0.0f}, student = {0.0f, 2.0f, 0.0f}, gradient(3);
  RowLoss row = LossOfRow(student, kNoLabel, teacher, {0.0, 1.0, 1.0}, 1.0, gradient);
  EXPECT_TRUE(std::isfinite(row.loss));
  EXPECT_GT(row.loss, 0.5);
  EXPECT_GT(gradient[1], 0.5f) << "its probability must fall";
}

class TapTest : public testing::Test {
 protected:
  static constexpr int64_t kBatch = 7;
  TapTest() : x_(kBatch * 12), labels_(kBatch, kNoLabel) {
    graph_ = *model::BuildArchitecture("mlp", {{"hidden", {9, 7}}}, {12}, 3);
    for (size_t i = 0; i < x_.size(); ++i) x_[i] = static_cast<float>(std::sin(1.7 * static_cast<double>(i)));
  }
  std::unique_ptr<Network> Make(std::vector<std::string> taps, int shards = 2) {
    NetworkOptions options;
    options.shards = shards;
    options.taps = std::move(taps);
    model::GraphInfo info = *model::Analyze(graph_);
    auto network = Network::Create(graph_, model::InitializeWeights(graph_, info, 5), options);
    EXPECT_TRUE(network.ok());
    return std::move(*network);
  }
  model::Graph graph_;
  std::vector<float> x_;
  std::vector<int64_t> labels_;
};

TEST_F(TapTest, MatchingBackwardEqualsFiniteDifferences) {
  // A linear whose value the relu behind it would overwrite, were it not tapped; and that relu.
  auto network = Make({"fc1", graph_.nodes[static_cast<size_t>(graph_.IndexOf("fc1")) + 1].name});
  std::vector<float> teacher(kBatch * 3), target(kBatch * 9), other(kBatch * 9);
  for (size_t i = 0; i < teacher.size(); ++i) teacher[i] = static_cast<float>(std::cos(0.9 * static_cast<double>(i)));
  for (size_t i = 0; i < target.size(); ++i) target[i] = static_cast<float>(std::cos(2.3 * static_cast<double>(i))), other[i] = 0.5f * target[i];
  LossOptions options{.teacher = teacher, .temperature = 2.0, .hardness = 0.5, .tap_targets = {target, other}, .tap_weight = 3.0};
  auto loss = [&] { return network->TrainBatch(x_, labels_, {}, options).loss; };
  loss();
  std::vector<float> gradients(network->gradients().begin(), network->gradients().end());
  double largest = 0;
  for (float g : gradients) largest = std::max(largest, std::abs(static_cast<double>(g)));
  for (const ParameterSlice& slice : network->layout()) {
    for (int64_t i = 0; i < slice.size; i += 5) {
      auto at = static_cast<size_t>(slice.offset + i);
      float kept = network->parameters()[at];
      double error = 1e9;  // a kink of relu may lie between the points
      for (float step : {1.0f / 128, 1.0f / 1024}) {
        network->parameters()[at] = kept + step;
        double above = loss();
        network->parameters()[at] = kept - step;
        double below = loss();
        error = std::min(error, std::abs((above - below) / (2.0 * step) - gradients[at]));
      }
      network->parameters()[at] = kept;
      EXPECT_LE(error, 0.02 * largest) << slice.name << " element " << i;
    }
  }
}

TEST_F(TapTest, ObserveGivesTheValuesOfEvaluation) {
  auto network = Make({"fc2", graph_.output}), alone = Make({}, 1);
  std::vector<float> logits(kBatch * 3), wanted(kBatch * 3), hidden(kBatch * 7), output(kBatch * 3);
  std::vector<std::span<float>> taps = {hidden, output};
  SampleSource samples = [&](int64_t first, int64_t count, std::span<float> out) {
    std::copy_n(x_.begin() + first * 12, count * 12, out.begin());
  };
  network->Observe(samples, kBatch, logits, taps);
  std::vector<int64_t> labels(kBatch, 1);
  alone->EvaluateBatch(x_, labels, wanted);
  EXPECT_EQ(output, logits);
  for (size_t i = 0; i < logits.size(); ++i) EXPECT_NEAR(logits[i], wanted[i], 1e-6);
  EXPECT_TRUE(std::any_of(hidden.begin(), hidden.end(), [](float v) { return v < 0; })) << "the relu behind fc2 overwrote it";
  EXPECT_EQ(network->tap_sizes(), (std::vector<int64_t>{7, 3}));
}

TEST_F(TapTest, ATapThatIsNotThereIsRefused) {
  NetworkOptions options;
  options.taps = {"fc9"};
  model::GraphInfo info = *model::Analyze(graph_);
  auto network = Network::Create(graph_, model::InitializeWeights(graph_, info, 5), options);
  ASSERT_FALSE(network.ok());
  EXPECT_NE(network.error().message.find("fc9"), std::string::npos);
}

TEST_F(TapTest, SamplesWithoutLabelCountNowhere) {
  auto network = Make({});
  labels_[0] = 1, labels_[3] = 2;
  BatchResult result = network->TrainBatch(x_, labels_, {}, {});
  EXPECT_EQ(result.labelled, 2);
  std::vector<int64_t> two = {1, 2};
  std::vector<float> rows(x_.begin(), x_.begin() + 12);
  rows.insert(rows.end(), x_.begin() + 36, x_.begin() + 48);
  BatchResult alone = Make({})->TrainBatch(rows, two, {}, {});
  EXPECT_NEAR(result.loss * kBatch, alone.loss * 2, 1e-6);
  EXPECT_EQ(result.correct, alone.correct);
}

// An encoder whose second sample ends in padding, with a node for what its heads attend to.
class ScoresTest : public testing::Test {
 protected:
  static constexpr int64_t kSamples = 2, kLength = 5, kHeads = 2, kWidth = 8;
  void SetUp() override {
    Json fields = {{"vocabulary", 11}, {"length", kLength}, {"layers", 1}, {"hidden", kWidth}, {"heads", kHeads}, {"intermediate", 8}, {"padding", 0}, {"dropout", 0}};
    graph_ = *model::BuildArchitecture("encoder", fields, {kLength}, 3);
    const model::Node attention = *graph_.Find("encoder.layer.0.attention.self");
    ASSERT_EQ(attention.inputs.size(), 4u);
    query_ = attention.inputs[0], key_ = attention.inputs[1];
    graph_.nodes.push_back({"scores", model::OpType::kAttentionScores, {query_, key_, attention.inputs[3]}, {.heads = kHeads}});
    NetworkOptions options;
    options.shards = 2;
    options.taps = {query_, key_, "scores"};
    model::GraphInfo info = *model::Analyze(graph_);
    model::TensorMap weights = model::InitializeWeights(graph_, info, 5);
    for (const std::string& name : {query_ + ".weight", key_ + ".weight"}) {
      for (float& w : weights[name].mutable_values<float>()) w *= 30;  // far from zero
    }
    network_ = *Network::Create(graph_, weights, options);
  }

  std::vector<float> x_ = {4, 5, 6, 7, 8, 1, 2, 3, 0, 0};
  model::Graph graph_;
  std::string query_, key_;
  std::unique_ptr<Network> network_;
};

TEST_F(ScoresTest, AreScaledProductsAndZeroWherePaddingIs) {
  std::vector<float> logits(kSamples * 3), q(kSamples * kLength * kWidth), k(q.size()), scores(kSamples * kHeads * kLength * kLength);
  std::vector<std::span<float>> taps = {q, k, scores};
  SampleSource samples = [&](int64_t first, int64_t count, std::span<float> out) { std::copy_n(x_.begin() + first * kLength, count * kLength, out.begin()); };
  network_->Observe(samples, kSamples, logits, taps);
  constexpr int64_t kPart = kWidth / kHeads;
  double largest = 0;
  for (int64_t n = 0; n < kSamples; ++n) {
    for (int64_t h = 0; h < kHeads; ++h) {
      for (int64_t a = 0; a < kLength; ++a) {
        for (int64_t b = 0; b < kLength; ++b) {
          double sum = 0;
          for (int64_t d = h * kPart; d < (h + 1) * kPart; ++d) {
            sum += static_cast<double>(q[static_cast<size_t>((n * kLength + a) * kWidth + d)]) * k[static_cast<size_t>((n * kLength + b) * kWidth + d)];
          }
          double expected = x_[static_cast<size_t>(n * kLength + b)] == 0 ? 0 : sum / 2;  // √4
          EXPECT_NEAR(scores[static_cast<size_t>(((n * kHeads + h) * kLength + a) * kLength + b)], expected, 1e-5 + 1e-6 * std::abs(expected));
          largest = std::max(largest, std::abs(expected));
        }
      }
    }
  }
  EXPECT_GT(largest, 0.1);
}

TEST_F(ScoresTest, MatchingThemBackwardEqualsFiniteDifferences) {
  std::vector<float> target(kSamples * kHeads * kLength * kLength);
  for (size_t i = 0; i < target.size(); ++i) target[i] = static_cast<float>(std::cos(2.3 * static_cast<double>(i)));
  std::vector<int64_t> labels = {1, 2};
  NetworkOptions options;
  options.taps = {"scores"};
  auto network = *Network::Create(graph_, network_->Weights(), options);
  LossOptions loss_options{.tap_targets = {target}, .tap_weight = 2.0};
  auto loss = [&] { return network->TrainBatch(x_, labels, {}, loss_options).loss; };
  loss();
  std::vector<float> gradients(network->gradients().begin(), network->gradients().end());
  for (const ParameterSlice& slice : network->layout()) {
    if (slice.name != query_ + ".weight" && slice.name != key_ + ".weight") continue;
    double largest = 0;
    for (int64_t i = 0; i < slice.size; ++i) largest = std::max(largest, std::abs(static_cast<double>(gradients[static_cast<size_t>(slice.offset + i)])));
    EXPECT_GT(largest, 1e-3) << slice.name;
    for (int64_t i = 0; i < slice.size; i += 3) {
      auto at = static_cast<size_t>(slice.offset + i);
      float kept = network->parameters()[at];
      network->parameters()[at] = kept + 1.0f / 128;
      double above = loss();
      network->parameters()[at] = kept - 1.0f / 128;
      double below = loss();
      network->parameters()[at] = kept;
      EXPECT_NEAR((above - below) * 64, gradients[at], 0.02 * largest + 1e-4) << slice.name << " element " << i;
    }
  }
}

}  // namespace
}  // namespace pare::engine
