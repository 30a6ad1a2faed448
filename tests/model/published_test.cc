#include "model/published.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>

#include "model/architectures.h"
#include "model/initialize.h"

namespace pare::model {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class PublishedTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Json fields = {{"vocabulary", 50}, {"length", 8}, {"layers", 1}, {"hidden", 8}, {"heads", 2}, {"intermediate", 16}};
    graph_ = *BuildArchitecture("encoder", fields, {8}, 3);
    info_ = *Analyze(graph_);
    ours_ = InitializeWeights(graph_, info_, 7);
  }
  // The network's weights under the names of BertForSequenceClassification.
  TensorMap Published() const {
    TensorMap file;
    for (const auto& [name, tensor] : ours_) file.emplace((name.starts_with("classifier.") ? "" : "bert.") + name, tensor);
    return file;
  }
  Result<FittedWeights> Fit(const TensorMap& file) const { return FitWeights(graph_, info_, file, 3); }
  void ExpectOurs(const TensorMap& tensors) const {
    ASSERT_EQ(tensors.size(), ours_.size());
    for (const auto& [name, tensor] : ours_) EXPECT_EQ(tensors.at(name).digest(), tensor.digest()) << name;
  }

  Graph graph_;
  GraphInfo info_;
  TensorMap ours_;
};

TEST_F(PublishedTest, AFileThatFitsStaysAsItIs) {
  auto fitted = Fit(ours_);
  ASSERT_TRUE(fitted.ok()) << fitted.error().message;
  EXPECT_THAT(fitted->notes, IsEmpty());
  ExpectOurs(fitted->tensors);
}

TEST_F(PublishedTest, APrefixIsTakenOff) {
  auto fitted = Fit(Published());
  ASSERT_TRUE(fitted.ok()) << fitted.error().message;
  ExpectOurs(fitted->tensors);
  EXPECT_FALSE(fitted->new_head);
  EXPECT_THAT(fitted->notes, Contains(HasSubstr("'bert.'")));
}

TEST_F(PublishedTest, GammaAndBetaAreANormsWeightAndBias) {
  TensorMap file;
  for (const auto& [name, tensor] : ours_) {
    std::string old = name;
    if (size_t at = old.find("LayerNorm.weight"); at != std::string::npos) old.replace(at, 16, "LayerNorm.gamma");
    if (size_t at = old.find("LayerNorm.bias"); at != std::string::npos) old.replace(at, 14, "LayerNorm.beta");
    file.emplace(old, tensor);
  }
  ASSERT_NE(file.count("embeddings.LayerNorm.gamma"), 0u);
  auto fitted = Fit(file);
  ASSERT_TRUE(fitted.ok()) << fitted.error().message;
  ExpectOurs(fitted->tensors);
  EXPECT_THAT(fitted->notes, Contains(HasSubstr("gamma and beta"))) << "without a note the file itself would be stored";
}

TEST_F(PublishedTest, BuffersAndHeadsOfOtherTasksAreLeftOut) {
  TensorMap file = Published();
  file.emplace("bert.embeddings.position_ids", Tensor(DType::kI64, {1, 8}));
  file.emplace("cls.predictions.bias", Tensor(DType::kF32, {50}));
  auto fitted = Fit(file);
  ASSERT_TRUE(fitted.ok()) << fitted.error().message;
  ExpectOurs(fitted->tensors);
  EXPECT_THAT(fitted->notes, Contains(HasSubstr("left out, no part of this network: bert.embeddings.position_ids, cls.predictions.bias")));
}

TEST_F(PublishedTest, AMissingHeadIsNew) {
  TensorMap file = Published();
  file.erase("classifier.weight");
  file.erase("classifier.bias");
  auto fitted = Fit(file);
  ASSERT_TRUE(fitted.ok()) << fitted.error().message;
  EXPECT_TRUE(fitted->new_head);
  EXPECT_EQ(fitted->tensors.at("classifier.weight").digest(), InitializeWeights(graph_, info_, 3).at("classifier.weight").digest());
  EXPECT_EQ(fitted->tensors.at("pooler.dense.weight").digest(), ours_.at("pooler.dense.weight").digest());
}

// The values are those of IEEE 754: numpy's float16 and the upper half of a float32.
TEST_F(PublishedTest, HalfPrecisionIsWidenedExactly) {
  TensorMap file = ours_;
  const std::vector<uint16_t> half = {0x3c00, 0xc000, 0x0001, 0x8000, 0x03ff, 0x0400, 0x7bff, 0x3555};
  const std::vector<float> wide = {1, -2, 0x1p-24f, -0.0f, 0x3ffp-24f, 0x1p-14f, 65504, 0.333251953125f};
  file["pooler.dense.bias"] = Tensor::Of<uint16_t>(DType::kF16, {8}, half);
  const std::vector<uint16_t> brain = {0x3f80, 0xc000, 0x0001, 0x8000, 0x7f7f, 0x3eab, 0x4049, 0x0080};
  file["encoder.layer.0.output.dense.bias"] = Tensor::Of<uint16_t>(DType::kBF16, {8}, brain);
  auto fitted = Fit(file);
  ASSERT_TRUE(fitted.ok()) << fitted.error().message;
  EXPECT_EQ(fitted->tensors.at("pooler.dense.bias").digest(), (Tensor::Of<float>(DType::kF32, {8}, wide).digest()));
  auto values = fitted->tensors.at("encoder.layer.0.output.dense.bias").values<float>();
  for (size_t i = 0; i < brain.size(); ++i) EXPECT_EQ(std::bit_cast<uint32_t>(values[i]), static_cast<uint32_t>(brain[i]) << 16);
}

TEST_F(PublishedTest, AnotherNetworkIsNotGuessed) {
  TensorMap more = Published();
  more.emplace("bert.encoder.layer.1.output.dense.bias", Tensor(DType::kF32, {8}));
  EXPECT_THAT(Fit(more).error().message, HasSubstr("'encoder.layer.1.output.dense.bias' belongs to no operator"));
  TensorMap less = Published();
  less.erase("bert.encoder.layer.0.output.dense.bias");
  EXPECT_THAT(Fit(less).error().message, HasSubstr("'encoder.layer.0.output.dense.bias' is missing"));
  TensorMap twice = Published();
  twice.emplace("pooler.dense.bias", Tensor(DType::kF32, {8}));
  EXPECT_THAT(Fit(twice).error().message, HasSubstr("is there twice"));
  EXPECT_FALSE(Fit({{"conv.weight", Tensor(DType::kF32, {8})}}).ok());
}

}  // namespace
}  // namespace pare::model
