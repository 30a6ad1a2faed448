// Masks against torch.nn.utils.prune (PyTorch 2.11) on stored inputs: reference/prune_reference.json, made by the script beside it.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "methods/pruning.h"
#include "methods/remove.h"
#include "model/graph.h"

namespace pare::methods {
namespace {

const Json& Reference() {
  static const Json reference = [] {
    std::ifstream in(std::string(PARE_SOURCE_DIR) + "/tests/methods/reference/prune_reference.json");
    std::ostringstream text;
    text << in.rdbuf();
    auto parsed = ParseJson(text.str(), "prune_reference.json");
    return parsed.ok() ? *parsed : Json::object();
  }();
  return reference;
}

Json CaseOf(const std::string& method, size_t which = 0) {
  for (const Json& c : Reference().value("cases", Json::array())) {
    if (c["method"] == method && which-- == 0) return c;
  }
  return Json();
}

std::string Bits(const model::Mask& mask) {
  std::string bits;
  for (int64_t i = 0; i < mask.size(); ++i) bits += mask.keeps(i) ? '1' : '0';
  return bits;
}

struct Layers {
  std::vector<std::vector<float>> values;
  std::vector<WeightView> views;
};
Layers LayersOf(const Json& c) {
  Layers layers;
  for (const Json& weights : c["weights"]) {
    std::vector<float> values;
    for (const Json& v : weights) values.push_back(v.get<float>() / 1024);
    layers.values.push_back(std::move(values));
  }
  for (size_t t = 0; t < layers.values.size(); ++t) {
    layers.views.push_back({"t" + std::to_string(t), c["shapes"][t].get<model::Shape>(), layers.values[t], t});
  }
  return layers;
}

TEST(TorchParityTest, L1UnstructuredMasksAreEqual) {
  for (size_t which = 0; which < 3; ++which) {
    Json c = CaseOf("l1_unstructured", which);
    ASSERT_FALSE(c.is_null());
    Layers layers = LayersOf(c);
    auto masks = Prune({}, {c["amount"].get<double>(), {}}, layers.views, {}, {});
    ASSERT_TRUE(masks.ok());
    EXPECT_EQ(Bits(masks->at("t0")), c["masks"][0]);
  }
}

TEST(TorchParityTest, PruningTwiceIsAFractionOfWhatRemains) {
  Json c = CaseOf("l1_unstructured_twice");
  ASSERT_FALSE(c.is_null());
  Layers layers = LayersOf(c);
  model::MaskMap masks;
  for (const Json& amount : c["amount"]) masks = *Prune({}, {{}, amount.get<double>()}, layers.views, masks, {});
  EXPECT_EQ(Bits(masks.at("t0")), c["masks"][0]);
}

TEST(TorchParityTest, GlobalUnstructuredMasksAreEqual) {
  Json c = CaseOf("global_unstructured");
  ASSERT_FALSE(c.is_null());
  Layers layers = LayersOf(c);
  PruneOptions options;
  options.scope = Scope::kGlobal;
  auto masks = Prune(options, {c["amount"].get<double>(), {}}, layers.views, {}, {});
  ASSERT_TRUE(masks.ok());
  for (size_t t = 0; t < layers.views.size(); ++t) EXPECT_EQ(Bits(masks->at(layers.views[t].name)), c["masks"][t]);
}

TEST(TorchParityTest, LnStructuredTakesTheSameRows) {
  for (auto [method, criterion] : {std::pair{"l1_structured", Criterion::kMagnitudeL1}, {"l2_structured", Criterion::kMagnitudeL2}}) {
    Json c = CaseOf(method);
    ASSERT_FALSE(c.is_null());
    Layers layers = LayersOf(c);
    int64_t rows = layers.views[0].shape[0], columns = layers.views[0].shape[1];
    model::Graph graph;
    graph.nodes = {{"input", model::OpType::kInput, {}, {.shape = {columns}}},
                   {"fc", model::OpType::kLinear, {"input"}, {.in_features = columns, .out_features = rows}},
                   {"out", model::OpType::kLinear, {"fc"}, {.in_features = rows, .out_features = 2}}};
    graph.output = "out";
    Json params = {{"criterion", criterion == Criterion::kMagnitudeL1 ? "magnitude_l1" : "magnitude_l2"}, {"scope", "layer"}, {"tensors", {"fc.weight"}},
                   {"min_density", 0.0}, {"max_density", 1.0}, {"granularity", {{"kind", "structured"}, {"unit", "channel"}, {"round_to", 1}}}};
    auto options = PruneOptionsFromJson(params, graph, *model::Analyze(graph));
    ASSERT_TRUE(options.ok()) << options.error().message;
    layers.views[0].name = "fc.weight";
    auto masks = Prune(*options, {c["amount"].get<double>(), {}}, layers.views, {}, {});
    ASSERT_TRUE(masks.ok());
    EXPECT_EQ(Bits(masks->at("fc.weight")), c["masks"][0]) << method;
  }
}

}  // namespace
}  // namespace pare::methods
