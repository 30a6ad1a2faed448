// Patterns of targets and ignore against the layers of a graph.
#include "recipes/select.h"

#include "model/architectures.h"
#include "tests/recipes/fixture.h"

namespace pare::recipes {
namespace {

using testing::ElementsAre;
using Names = std::vector<std::string>;

class SelectTest : public testing::Test {
 protected:
  void Use(const std::string& architecture, const Json& parameters) {
    auto graph = model::BuildArchitecture(architecture, parameters, {1, 28, 28}, 10);
    ASSERT_TRUE(graph.ok());
    Use(*std::move(graph));
  }
  void Use(model::Graph graph) {
    graph_ = std::move(graph);
    auto info = model::Analyze(graph_);
    ASSERT_TRUE(info.ok()) << info.error().message;
    info_ = *std::move(info);
  }
  Names Select(const Json& section) {
    Errors errors("r.yaml", positions_);
    Names selected = SelectTensors(info_, graph_, section, "/s", errors);
    message_ = errors.empty() ? "" : errors.ToError().message;
    return selected;
  }
  // What is said about the section.
  std::string Wrong(const Json& section) {
    Select(section);
    return message_;
  }

  model::Graph graph_;
  model::GraphInfo info_;
  std::string message_;
  std::map<std::string, YamlPosition> positions_ = {{"/s", {1, 1}}, {"/s/targets", {2, 1}}, {"/s/targets/1", {3, 1}}, {"/s/ignore", {4, 1}}};
};

TEST_F(SelectTest, DefaultIsEveryLinearAndConvolution) {
  Use("lenet5", Json::object());
  EXPECT_EQ(Select(Json::object()), (Names{"conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight", "fc3.weight"}));
  EXPECT_EQ(message_, "");
}

TEST_F(SelectTest, EmbeddingsAreChosenOnlyByName) {
  model::Graph graph;
  model::Attributes ids, table, layer;
  ids.shape = {4};
  ids.dtype = model::DType::kI64;
  table.vocabulary = 100;
  table.dimension = 8;
  layer.in_features = 8;
  layer.out_features = 2;
  graph.nodes = {{"input", model::OpType::kInput, {}, ids}, {"words", model::OpType::kEmbedding, {"input"}, table}, {"out", model::OpType::kLinear, {"words"}, layer}};
  graph.output = "out";
  Use(graph);
  EXPECT_EQ(Select(Json::object()), Names{"out.weight"});
  EXPECT_EQ(Select({{"targets", "words"}}), Names{"words.weight"});
  EXPECT_EQ(Select({{"targets", {"embedding", "linear"}}}), (Names{"words.weight", "out.weight"}));
}

TEST_F(SelectTest, NamesLayersOrTheirTensors) {
  Use("mlp", {{"hidden", {8, 8}}});
  EXPECT_EQ(Select({{"targets", "fc2"}}), Names{"fc2.weight"});
  EXPECT_EQ(Select({{"targets", {"fc3.weight", "fc1"}}}), (Names{"fc1.weight", "fc3.weight"})) << "in the order of the graph";
  EXPECT_EQ(Select({{"targets", {"fc1", "fc1", "f*1"}}}), Names{"fc1.weight"}) << "once";
}

TEST_F(SelectTest, AModulePrefixIsHarmless) {
  Use("mlp", {{"hidden", {8, 8}}});
  EXPECT_EQ(Select({{"targets", "module.fc2"}}), Names{"fc2.weight"});
  EXPECT_EQ(Select({{"targets", "module.fc*"}, {"ignore", "module.fc3"}}), (Names{"fc1.weight", "fc2.weight"}));
  EXPECT_EQ(Select({{"targets", "re:module\\.fc[12]"}}), (Names{"fc1.weight", "fc2.weight"}));
}

TEST_F(SelectTest, GlobsMatchWholeNames) {
  Use("resnet", {{"depth", 8}, {"width", 4}});
  EXPECT_EQ(Select({{"targets", "stage1.*"}}), (Names{"stage1.0.conv1.weight", "stage1.0.conv2.weight"}));
  EXPECT_EQ(Select({{"targets", "*.shortcut.conv"}}), (Names{"stage2.0.shortcut.conv.weight", "stage3.0.shortcut.conv.weight"}));
  EXPECT_EQ(Select({{"targets", "stage?.0.conv1"}}), (Names{"stage1.0.conv1.weight", "stage2.0.conv1.weight", "stage3.0.conv1.weight"}));
  EXPECT_EQ(Select({{"targets", "stage[12].0.conv[!2]"}}), (Names{"stage1.0.conv1.weight", "stage2.0.conv1.weight"}));
  EXPECT_NE(Wrong({{"targets", "tage1.0.conv1"}}), "");
}

TEST_F(SelectTest, RegularExpressionsMatchWholeNames) {
  Use("resnet", {{"depth", 8}, {"width", 4}});
  EXPECT_EQ(Select({{"targets", "re:stage[23]\\.0\\.conv1"}}), (Names{"stage2.0.conv1.weight", "stage3.0.conv1.weight"}));
  EXPECT_EQ(Select({{"targets", "re:.*shortcut.*"}}), (Names{"stage2.0.shortcut.conv.weight", "stage3.0.shortcut.conv.weight"}));
  EXPECT_NE(Wrong({{"targets", "re:stage1"}}), "");
  EXPECT_NE(Wrong({{"targets", "re:conv1"}}), "");
}

TEST_F(SelectTest, OperatorTypesAreNamesToo) {
  Use("lenet5", Json::object());
  EXPECT_EQ(Select({{"targets", "conv2d"}}), (Names{"conv1.weight", "conv2.weight"}));
  EXPECT_EQ(Select({{"ignore", "conv2d"}}), (Names{"fc1.weight", "fc2.weight", "fc3.weight"}));
  EXPECT_EQ(Select({{"targets", "linear"}, {"ignore", {"fc1", "fc3"}}}), Names{"fc2.weight"});
}

TEST_F(SelectTest, APatternWithoutAMatchIsAnErrorAtItsPlace) {
  Use("mlp", {{"hidden", {8, 8}}});
  EXPECT_EQ(Wrong({{"targets", "fc4"}}), "r.yaml:2:1: pattern 'fc4' matches no layer with weights; did you mean 'fc1'? Layers: fc1, fc2, fc3");
  EXPECT_EQ(Wrong({{"targets", {"fc1", "encoder.*"}}}), "r.yaml:3:1: pattern 'encoder.*' matches no layer with weights. Layers: fc1, fc2, fc3");
  EXPECT_EQ(Wrong({{"targets", "fc1"}, {"ignore", "conv2d"}}), "r.yaml:4:1: pattern 'conv2d' matches no layer with weights. Layers: fc1, fc2, fc3");
  // Layers without weights cannot be pruned.
  EXPECT_EQ(Wrong({{"targets", "flatten"}}), "r.yaml:2:1: pattern 'flatten' matches no layer with weights. Layers: fc1, fc2, fc3");
}

TEST_F(SelectTest, EveryPatternWithoutAMatchIsTold) {
  Use("mlp", {{"hidden", {8, 8}}});
  std::string message = Wrong({{"targets", {"x.*", "y.*"}}, {"ignore", "z.*"}});
  EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 2) << message;
}

TEST_F(SelectTest, LongModelsAreListedInPart) {
  Use("resnet", {{"depth", 50}, {"width", 4}});
  EXPECT_THAT(Wrong({{"targets", "nothing"}}), testing::EndsWith(", … (52 in all)"));
}

TEST_F(SelectTest, IgnoringEverythingIsAnError) {
  Use("mlp", {{"hidden", {8}}});
  EXPECT_EQ(Wrong({{"ignore", "fc*"}}), "r.yaml:1:1: no layer is left: ignore takes away all that targets select");
}

TEST(PatternErrorTest, PatternsAreBoundedBeforeTheyRun) {
  EXPECT_EQ(PatternError("fc1"), std::nullopt);
  EXPECT_EQ(PatternError("[fc"), std::nullopt) << "an open bracket of a glob is a letter";
  EXPECT_EQ(PatternError(""), "an empty pattern matches nothing");
  EXPECT_EQ(PatternError(std::string(257, 'a')), "a pattern has at most 256 bytes");
  EXPECT_THAT(*PatternError("re:fc("), testing::HasSubstr("'re:fc(' is not a regular expression: "));
  EXPECT_THAT(*PatternError("re:(a)\\1"), testing::HasSubstr("is not a regular expression"));
  EXPECT_EQ(PatternError("re:a{1000}{1000}"), "'re:a{1000}{1000}': counted repetition {…} is not part of the language; use * or +");
  EXPECT_EQ(PatternError("re:(((a*)*)*)*b"), std::nullopt);
}

TEST_F(SelectTest, CatastrophicExpressionsMatchInTime) {
  model::Graph graph;
  model::Attributes input, layer;
  input.shape = {2};
  layer.in_features = layer.out_features = 2;
  // An expression that a backtracking matcher would try 2^64 ways on.
  graph.nodes = {{"input", model::OpType::kInput, {}, input}, {std::string(64, 'a'), model::OpType::kLinear, {"input"}, layer}};
  graph.output = std::string(64, 'a');
  Use(graph);
  EXPECT_NE(Wrong({{"targets", "re:(((a*)*)*)*b"}}), "");
}

}  // namespace
}  // namespace pare::recipes
