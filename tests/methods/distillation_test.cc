#include "methods/distillation.h"

#include <gtest/gtest.h>

#include "model/architectures.h"

namespace pare::methods {
namespace {

using model::Graph;
using model::OpType;

Graph Build(const std::string& name, const Json& parameters = Json::object(), model::Shape sample = {1, 28, 28}, int64_t classes = 10) {
  return *model::BuildArchitecture(name, parameters, sample, classes);
}

std::string MessageOf(const Status& status) { return status.ok() ? "" : status.error().message; }

TEST(CheckTeacherTest, AcceptsAnotherArchitectureForTheSameTask) {
  EXPECT_TRUE(CheckTeacher(Build("mlp"), Build("lenet5"), "big").ok());
}

TEST(CheckTeacherTest, NamesWhatDiffers) {
  EXPECT_EQ(MessageOf(CheckTeacher(Build("mlp"), Build("mlp", Json::object(), {1, 28, 28}, 12), "big")), "teacher big and student disagree in the classes: [12] and [10]; name a teacher made for the same data");
  EXPECT_EQ(MessageOf(CheckTeacher(Build("mlp"), Build("mlp", Json::object(), {1, 32, 32}), "big")),
            "teacher big and student disagree in the shape of a sample: [1, 32, 32] and [1, 28, 28]; name a teacher made for the same data");
}

Graph Embedding(int64_t vocabulary, int64_t length) {
  Graph g;
  g.nodes.push_back({"input", OpType::kInput, {}, {.shape = {length}, .dtype = model::DType::kI64}});
  g.nodes.push_back({"embedding", OpType::kEmbedding, {"input"}, {.vocabulary = vocabulary, .dimension = 4}});
  g.nodes.push_back({"flatten", OpType::kFlatten, {"embedding"}, {}});
  g.nodes.push_back({"head", OpType::kLinear, {"flatten"}, {.in_features = 4 * length, .out_features = 3}});
  g.output = "head";
  return g;
}

TEST(CheckTeacherTest, ComparesVocabularyAndInputLength) {
  EXPECT_TRUE(CheckTeacher(Embedding(30, 8), Embedding(30, 8), "big").ok());
  EXPECT_EQ(MessageOf(CheckTeacher(Embedding(30, 8), Embedding(31, 8), "big")), "teacher big and student disagree in the vocabulary: 31 and 30; name a teacher made for the same data");
  EXPECT_NE(MessageOf(CheckTeacher(Embedding(30, 8), Embedding(30, 9), "big")), "");
}

TEST(MatchNodesTest, ProjectsOnlyWhereWidthsDiffer) {
  Graph student = Build("mlp", {{"hidden", {30, 20}}}), teacher = Build("mlp", {{"hidden", {300, 20}}});
  Result<Matching> matching = MatchNodes(student, teacher, {{"fc1", "fc1"}, {"fc2", "fc2"}});
  ASSERT_TRUE(matching.ok()) << matching.error().message;
  EXPECT_EQ(matching->student_taps, (std::vector<std::string>{"match.fc1", "fc2"}));
  EXPECT_EQ(matching->teacher_taps, (std::vector<std::string>{"fc1", "fc2"}));
  ASSERT_EQ(matching->student.nodes.size(), student.nodes.size() + 1);
  EXPECT_EQ(matching->student.nodes.back().attributes.out_features, 300);
  EXPECT_EQ(matching->student.output, student.output);
}

TEST(MatchNodesTest, ImagesAreProjectedByTheirChannels) {
  Result<Matching> matching = MatchNodes(Build("resnet8", {{"width", 4}}), Build("resnet8", {{"width", 8}}), {{"stem.relu", "stem.relu"}});
  ASSERT_TRUE(matching.ok()) << matching.error().message;
  EXPECT_EQ(matching->student.nodes.back().op, OpType::kConv2d);
  EXPECT_EQ(matching->student.nodes.back().attributes.out_channels, 8);
}

Graph Encoder(int64_t layers, int64_t hidden, int64_t heads) {
  return Build("encoder", {{"vocabulary", 30}, {"length", 6}, {"layers", layers}, {"hidden", hidden}, {"heads", heads}, {"intermediate", 8}, {"padding", 0}}, {6}, 3);
}

TEST(MatchNodesTest, ScoresOfAttentionAreNodesOfTheirOwn) {
  Graph student = Encoder(1, 8, 2), teacher = Encoder(2, 16, 4);
  const std::string own = "encoder.layer.0.attention.self.scores", its = "encoder.layer.1.attention.self.scores";
  Result<Matching> matching = MatchNodes(student, teacher, {{own, its}});
  ASSERT_TRUE(matching.ok()) << matching.error().message;
  const model::Node* scores = matching->teacher.Find(its);
  ASSERT_NE(scores, nullptr);
  EXPECT_EQ(scores->op, OpType::kAttentionScores);
  const model::Node* attention = teacher.Find("encoder.layer.1.attention.self");
  EXPECT_EQ(scores->inputs, (std::vector<std::string>{attention->inputs[0], attention->inputs[1], attention->inputs[3]}));
  // Two heads become four by a convolution of 1x1 over the maps.
  EXPECT_EQ(matching->student_taps, std::vector<std::string>{"match." + own});
  EXPECT_EQ(matching->student.nodes.back().op, OpType::kConv2d);
  EXPECT_EQ(matching->student.nodes.back().attributes.in_channels, 2);
  EXPECT_EQ(matching->student.nodes.back().attributes.out_channels, 4);
  EXPECT_EQ(matching->student.output, student.output);
  EXPECT_NE(MessageOf(MatchNodes(student, teacher, {{"pooler.dense.scores", its}}).error()).find("pooler.dense of the student is linear, only attention has scores"), std::string::npos);
}

TEST(MatchNodesTest, NamesNodesThatAreNotThereAndShapesThatNoProjectionJoins) {
  Graph student = Build("mlp"), teacher = Build("lenet5");
  EXPECT_NE(MessageOf(MatchNodes(student, teacher, {{"fc7", "fc1"}}).error()).find("the student has no node 'fc7'"), std::string::npos);
  EXPECT_NE(MessageOf(MatchNodes(student, teacher, {{"fc1", "conv9"}}).error()).find("the teacher has no node 'conv9'"), std::string::npos);
  EXPECT_NE(MessageOf(MatchNodes(student, teacher, {{"fc1", "conv1"}}).error()).find("[6, 28, 28]"), std::string::npos);
}

}  // namespace
}  // namespace pare::methods
