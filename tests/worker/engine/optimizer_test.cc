// Optimizers, schedules and gradient norms against PyTorch's own numbers.
#include "worker/engine/optimizer.h"

#include <gtest/gtest.h>

#include "tests/worker/engine/reference_values.h"
#include "worker/engine/schedule.h"

namespace pare::engine {
namespace {

constexpr int kSize = 37;

std::vector<float> Start() {
  std::vector<float> p(kSize);
  for (int i = 0; i < kSize; ++i) p[static_cast<size_t>(i)] = static_cast<float>(std::sin(0.7 * i + 0.3));
  return p;
}

std::vector<float> GradientOf(int step) {
  std::vector<float> g(kSize);
  for (int i = 0; i < kSize; ++i) g[static_cast<size_t>(i)] = static_cast<float>(std::cos(1.3 * i + 0.9 * step) * (1 + 0.1 * step));
  return g;
}

OptimizerOptions OptionsOf(const Json& entry) {
  OptimizerOptions o;
  o.kind = entry["kind"];
  const Json& given = entry["options"];
  o.momentum = given.value("momentum", 0.0);
  o.nesterov = given.value("nesterov", false);
  o.beta1 = given.value("beta1", 0.9);
  o.beta2 = given.value("beta2", 0.999);
  o.epsilon = given.value("epsilon", 1e-8);
  o.weight_decay = given.value("weight_decay", 0.0);
  return o;
}

TEST(OptimizerTest, FollowsPyTorchStepByStep) {
  ASSERT_GE(Reference().value("optimizers", Json::array()).size(), 8u);
  for (const Json& entry : Reference()["optimizers"]) {
    SCOPED_TRACE(entry["kind"].get<std::string>() + " " + entry["options"].dump());
    auto optimizer = Optimizer::Create(OptionsOf(entry), kSize);
    std::vector<float> p = Start();
    for (int step = 0; step < static_cast<int>(entry["values"].size()); ++step) {
      optimizer->Step(p, GradientOf(step), {}, entry["learning_rate"], 1.0);
      for (size_t i = 0; i < p.size(); ++i) {
        EXPECT_NEAR(p[i], entry["values"][static_cast<size_t>(step)][i].get<double>(), 2e-6) << "step " << step << ", element " << i;
      }
    }
  }
}

TEST(OptimizerTest, ScalesTheGradientAsIfItWereClipped) {
  for (const char* kind : {"sgd", "adam", "adamw"}) {
    OptimizerOptions options;
    options.kind = kind;
    auto scaled = Optimizer::Create(options, kSize), plain = Optimizer::Create(options, kSize);
    std::vector<float> p = Start(), q = Start(), g = GradientOf(0), half = g;
    for (float& v : half) v *= 0.5f;
    scaled->Step(p, g, {}, 0.1, 0.5);
    plain->Step(q, half, {}, 0.1, 1.0);
    EXPECT_EQ(p, q) << kind;
  }
}

TEST(OptimizerTest, KeepsMaskedWeightsAndTheirMomentumAtZero) {
  for (const char* kind : {"sgd", "adam", "adamw"}) {
    OptimizerOptions options;
    options.kind = kind;
    options.momentum = 0.9;
    auto masked = Optimizer::Create(options, kSize), free = Optimizer::Create(options, kSize);
    std::vector<float> p = Start(), q = Start();
    std::vector<uint8_t> mask(kSize);
    for (size_t i = 0; i < mask.size(); ++i) mask[i] = i % 3 != 0;
    for (int step = 0; step < 3; ++step) {
      masked->Step(p, GradientOf(step), mask, 0.05, 1.0);
      free->Step(q, GradientOf(step), {}, 0.05, 1.0);
    }
    auto state = masked->State();
    auto momentum = state.at(std::string(kind) == "sgd" ? "momentum" : "exp_avg").values<float>();
    for (size_t i = 0; i < mask.size(); ++i) {
      EXPECT_EQ(p[i], mask[i] == 0 ? 0.0f : q[i]) << kind << " " << i;
      EXPECT_EQ(momentum[i] == 0.0f, mask[i] == 0) << kind << " " << i;
    }
  }
}

TEST(OptimizerTest, ContinuesFromItsStateBitForBit) {
  for (const char* kind : {"sgd", "adam", "adamw"}) {
    OptimizerOptions options;
    options.kind = kind;
    options.momentum = 0.9;
    options.weight_decay = 0.01;
    auto whole = Optimizer::Create(options, kSize), resumed = Optimizer::Create(options, kSize);
    std::vector<float> p = Start();
    for (int step = 0; step < 2; ++step) whole->Step(p, GradientOf(step), {}, 0.05, 1.0);
    std::vector<float> q = p;
    ASSERT_TRUE(resumed->SetState(whole->State()).ok());
    for (int step = 2; step < 4; ++step) {
      whole->Step(p, GradientOf(step), {}, 0.05, 1.0);
      resumed->Step(q, GradientOf(step), {}, 0.05, 1.0);
    }
    EXPECT_EQ(p, q) << kind;
    EXPECT_FALSE(resumed->SetState({}).ok());
    EXPECT_FALSE(Optimizer::Create(options, kSize + 1)->SetState(whole->State()).ok());
  }
}

// Vector bodies and scalar remainders must round alike: every element alone gives the bits it gives inside a long buffer.
TEST(OptimizerTest, GivesTheSameBitsWhateverTheBufferLength) {
  for (const char* kind : {"sgd", "adam", "adamw"}) {
    OptimizerOptions options;
    options.kind = kind;
    options.momentum = 0.9;
    options.nesterov = true;
    options.weight_decay = 0.01;
    auto whole = Optimizer::Create(options, kSize);
    std::vector<float> p = Start();
    for (int step = 0; step < 3; ++step) whole->Step(p, GradientOf(step), {}, 0.05, 0.7);
    for (size_t i = 0; i < p.size(); ++i) {
      auto single = Optimizer::Create(options, 1);
      std::vector<float> q = {Start()[i]};
      for (int step = 0; step < 3; ++step) single->Step(q, std::vector<float>{GradientOf(step)[i]}, {}, 0.05, 0.7);
      EXPECT_EQ(q[0], p[i]) << kind << " " << i;
    }
  }
}

TEST(GradientNormTest, EqualsClipGradNorm) {
  ASSERT_TRUE(Reference().contains("clip"));
  std::vector<float> g = Reference()["clip"]["gradient"].get<std::vector<float>>();
  EXPECT_NEAR(GradientNorm(g), Reference()["clip"]["norm"].get<double>(), 1e-6);
}

TEST(ScheduleTest, FollowsPyTorch) {
  ASSERT_EQ(Reference().value("schedules", Json::array()).size(), 2u);
  for (const Json& entry : Reference()["schedules"]) {
    ScheduleOptions o;
    o.kind = entry["kind"];
    o.learning_rate = entry["learning_rate"];
    o.epochs = entry["epochs"];
    o.gamma = entry["options"].value("gamma", 0.1);
    o.milestones = entry["options"].value("milestones", std::vector<double>());
    o.final_learning_rate = entry["options"].value("final_learning_rate", 0.0);
    int64_t batches = entry["batches"];
    for (int64_t i = 0; i < static_cast<int64_t>(entry["rates"].size()); ++i) {
      EXPECT_NEAR(LearningRate(o, i / batches, i % batches, batches), entry["rates"][static_cast<size_t>(i)].get<double>(), 1e-12)
          << o.kind << " at batch " << i;
    }
  }
}

TEST(ScheduleTest, WarmsUpLinearlyThenRunsTheRest) {
  ScheduleOptions o;
  o.kind = "linear";
  o.learning_rate = 0.4;
  o.epochs = 6;
  o.warmup_epochs = 2;
  EXPECT_DOUBLE_EQ(LearningRate(o, 0, 0, 4), 0.05);
  EXPECT_DOUBLE_EQ(LearningRate(o, 1, 3, 4), 0.4);
  EXPECT_DOUBLE_EQ(LearningRate(o, 2, 0, 4), 0.4);
  EXPECT_DOUBLE_EQ(LearningRate(o, 4, 0, 4), 0.2);
}

TEST(ScheduleTest, SparsityFollowsZhuAndGupta) {
  EXPECT_DOUBLE_EQ(ScheduledSparsity(true, 0.0, 0.8, 0, 10, -1), 0.0);
  EXPECT_DOUBLE_EQ(ScheduledSparsity(true, 0.0, 0.8, 0, 10, 5), 0.8 - 0.8 * 0.125);
  EXPECT_DOUBLE_EQ(ScheduledSparsity(false, 0.2, 0.8, 0, 10, 5), 0.5);
  EXPECT_DOUBLE_EQ(ScheduledSparsity(true, 0.0, 0.8, 0, 10, 11), 0.8);
}

}  // namespace
}  // namespace pare::engine
