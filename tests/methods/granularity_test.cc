// Blocks, N:M and units against the most direct computation: every item's score in a list, sorted.
#include "methods/granularity.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>

#include "methods/pruning.h"
#include "model/architectures.h"
#include "tests/methods/graph_builder.h"

namespace pare::methods {
namespace {

struct Matrix {
  int64_t rows, columns;
  std::vector<float> values, companion;
};

Matrix SomeMatrix(int64_t rows, int64_t columns) {
  Matrix m{rows, columns, {}, {}};
  for (int64_t i = 0; i < rows * columns; ++i) {
    m.values.push_back(static_cast<float>(*rc::gen::inRange(-6, 7)) * 0.25f);  // sums of these are exact: many ties
    m.companion.push_back(static_cast<float>(*rc::gen::inRange(0, 5)) * 0.5f);
  }
  return m;
}

std::vector<WeightView> Views(const std::vector<Matrix>& matrices) {
  std::vector<WeightView> views;
  for (size_t t = 0; t < matrices.size(); ++t) {
    views.push_back({"t" + std::to_string(t), {matrices[t].rows, matrices[t].columns}, matrices[t].values, t, matrices[t].companion});
  }
  return views;
}

double Score(Criterion c, double w, double g) {
  switch (c) {
    case Criterion::kMagnitudeL1: return std::abs(w);
    case Criterion::kMagnitudeL2: return w * w;
    case Criterion::kTaylor: return std::abs(w * g);
    case Criterion::kFisher: return w * w * g;
    default: return g;
  }
}

struct Item {
  double score;
  size_t tensor;
  int64_t index;
  std::vector<int64_t> weights;
  auto operator<=>(const Item& o) const { return std::tie(score, tensor, index) <=> std::tie(o.score, o.tensor, o.index); }
};

Criterion AnyCriterion() {
  return *rc::gen::element(Criterion::kMagnitudeL1, Criterion::kMagnitudeL2, Criterion::kTaylor, Criterion::kFisher, Criterion::kMovement);
}

TEST(GranularityTest, BlocksEqualABruteForceSortForAllCriteriaAndScopes) {
  EXPECT_TRUE(rc::check([] {
    std::vector<Matrix> matrices;
    for (int t = *rc::gen::inRange(1, 4); t > 0; --t) matrices.push_back(SomeMatrix(*rc::gen::inRange<int64_t>(1, 9), *rc::gen::inRange<int64_t>(1, 9)));
    auto views = Views(matrices);
    PruneOptions options{AnyCriterion(), *rc::gen::element(Scope::kLayer, Scope::kGlobal), {}, 0.0, 1.0};
    options.granularity = {GranularityKind::kBlock, 0, 0, *rc::gen::inRange<int64_t>(1, 5), *rc::gen::inRange<int64_t>(1, 5)};
    const Granularity& g = options.granularity;
    double sparsity = *rc::gen::inRange(0, 101) / 100.0;
    std::vector<Item> items;
    std::vector<int64_t> counts(matrices.size());
    for (size_t t = 0; t < matrices.size(); ++t) {
      const Matrix& m = matrices[t];
      for (int64_t top = 0; top < m.rows; top += g.rows) {
        for (int64_t left = 0; left < m.columns; left += g.columns) {
          Item item{0, t, counts[t]++, {}};
          for (int64_t r = top; r < std::min(top + g.rows, m.rows); ++r) {
            for (int64_t c = left; c < std::min(left + g.columns, m.columns); ++c) {
              auto i = static_cast<size_t>(r * m.columns + c);
              item.weights.push_back(static_cast<int64_t>(i));
              item.score += Score(options.criterion, m.values[i], m.companion[i]);
            }
          }
          items.push_back(item);
        }
      }
    }
    std::sort(items.begin(), items.end());
    model::MaskMap expected;
    for (const WeightView& view : views) expected.emplace(view.name, view.shape);
    std::vector<int64_t> left = counts;
    int64_t all = static_cast<int64_t>(items.size()), total = std::llround(sparsity * static_cast<double>(all));
    for (int64_t& n : left) n = options.scope == Scope::kLayer ? std::llround(sparsity * static_cast<double>(n)) : total;
    for (const Item& item : items) {
      if (options.scope == Scope::kGlobal ? total-- <= 0 : left[item.tensor]-- <= 0) continue;
      for (int64_t i : item.weights) expected.at(views[item.tensor].name).set(i, false);
    }
    auto masks = Prune(options, {sparsity, {}}, views, {}, {});
    RC_ASSERT(masks.ok());
    RC_ASSERT(*masks == expected);
  }));
}

TEST(GranularityTest, NofMKeepsTheBestOfEveryGroupAndNeverBringsBack) {
  EXPECT_TRUE(rc::check([] {
    int64_t m = *rc::gen::inRange<int64_t>(2, 7), n = *rc::gen::inRange<int64_t>(1, m);
    std::vector<Matrix> matrices = {SomeMatrix(*rc::gen::inRange<int64_t>(1, 5), m * *rc::gen::inRange<int64_t>(1, 5))};
    auto views = Views(matrices);
    PruneOptions options{AnyCriterion(), Scope::kLayer, {}, 0.0, 1.0};
    options.granularity = {GranularityKind::kNofM, n, m};
    model::Mask before({matrices[0].rows, matrices[0].columns});
    for (int64_t i = 0; i < before.size(); ++i) before.set(i, *rc::gen::inRange(0, 5) > 0);
    double sparsity = 1.0 - static_cast<double>(n) / static_cast<double>(m);
    auto masks = Prune(options, {sparsity, {}}, views, {{"t0", before}}, {});
    RC_ASSERT(masks.ok());
    const model::Mask& after = masks->at("t0");
    for (int64_t first = 0; first < after.size(); first += m) {
      int64_t there = 0, kept = 0;
      for (int64_t i = first; i < first + m; ++i) {
        there += before.keeps(i);
        kept += after.keeps(i);
        RC_ASSERT(before.keeps(i) || !after.keeps(i));
        for (int64_t j = first; j < first + m; ++j) {  // nothing removed beats what stayed
          if (!after.keeps(i) || !before.keeps(j) || after.keeps(j)) continue;
          auto score = [&](int64_t k) { return std::pair(Score(options.criterion, matrices[0].values[static_cast<size_t>(k)], matrices[0].companion[static_cast<size_t>(k)]), k); };
          RC_ASSERT(score(i) > score(j));
        }
      }
      RC_ASSERT(kept == std::min(there, n));
    }
  }));
}

TEST(GranularityTest, AGroupThatDoesNotDivideTheRowNamesLayerAndRemedy) {
  model::Graph graph = *model::BuildArchitecture("mlp", {{"hidden", {6}}}, {1, 2, 4}, 3);
  Json params = {{"criterion", "magnitude_l1"}, {"scope", "layer"}, {"tensors", {"fc1.weight", "fc2.weight"}}, {"min_density", 0.0}, {"max_density", 1.0},
                 {"granularity", {{"kind", "n_m"}, {"n", 2}, {"m", 4}}}};
  auto options = PruneOptionsFromJson(params, graph, *model::Analyze(graph));
  ASSERT_FALSE(options.ok());
  for (const char* part : {"2:4", "fc2.weight", "6", "ignore"}) EXPECT_NE(options.error().message.find(part), std::string::npos) << options.error().message;
}

TEST(GranularityTest, BadGranularitiesNameTheField) {
  for (const Json& bad : {Json{{"kind", "n_m"}, {"n", 4}, {"m", 4}}, Json{{"kind", "block"}, {"rows", 0}, {"columns", 1}}, Json{{"kind", "cloud"}},
                          Json{{"kind", "structured"}, {"unit", "atom"}, {"round_to", 1}}, Json{{"kind", "structured"}, {"unit", "head"}, {"round_to", 0}}, Json(3)}) {
    auto read = GranularityFromJson({{"granularity", bad}});
    ASSERT_FALSE(read.ok()) << bad;
    EXPECT_NE(read.error().message.find("granularity"), std::string::npos) << read.error().message;
  }
}

// --- units ---

class UnitsTest : public testing::Test {
 protected:
  static Json Params(const std::string& unit, std::vector<std::string> tensors, const std::string& scope = "layer", int64_t round_to = 1) {
    return {{"criterion", "magnitude_l1"}, {"scope", scope}, {"tensors", std::move(tensors)}, {"min_density", 0.0}, {"max_density", 1.0},
            {"granularity", {{"kind", "structured"}, {"unit", unit}, {"round_to", round_to}}}};
  }
  static Result<model::MaskMap> Masks(const model::Graph& graph, const model::TensorMap& tensors, const Json& params, double sparsity, const model::MaskMap& before = {}) {
    ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(graph));
    ASSIGN_OR_RETURN(PruneOptions options, PruneOptionsFromJson(params, graph, info));
    ASSIGN_OR_RETURN(auto views, ViewWeights(options, info, tensors));
    return Prune(options, {sparsity, {}}, views, before, {7, 0});
  }
  static int64_t Width(const model::Mask& mask) {
    int64_t rows = mask.shape()[0], each = mask.size() / rows, width = 0;
    for (int64_t r = 0; r < rows; ++r) {
      int64_t kept = 0;
      for (int64_t i = r * each; i < (r + 1) * each; ++i) kept += mask.keeps(i);
      EXPECT_TRUE(kept == 0 || kept == each) << "a row is whole or gone";
      width += kept > 0;
    }
    return width;
  }
};

TEST_F(UnitsTest, RowsOfTheSmallestSumGoWithTheirBias) {
  model::Graph graph = *model::BuildArchitecture("mlp", {{"hidden", {9}}}, {1, 2, 4}, 3);
  model::TensorMap tensors = RandomTensors(graph, 4);
  auto masks = Masks(graph, tensors, Params("channel", {"fc1.weight"}), 0.5);
  ASSERT_TRUE(masks.ok()) << masks.error().message;
  std::vector<std::pair<double, int64_t>> sums;
  for (int64_t r = 0; r < 9; ++r) {
    double sum = 0;
    for (int64_t i = 0; i < 8; ++i) sum += std::abs(tensors.at("fc1.weight").values<float>()[static_cast<size_t>(r * 8 + i)]);
    sums.emplace_back(sum, r);
  }
  std::sort(sums.begin(), sums.end());
  for (size_t k = 0; k < sums.size(); ++k) {
    bool kept = k >= 5;  // round(4.5)
    EXPECT_EQ(masks->at("fc1.weight").keeps(sums[k].second * 8), kept);
    EXPECT_EQ(masks->at("fc1.bias").keeps(sums[k].second), kept);
  }
  EXPECT_FALSE(masks->contains("fc2.weight"));
}

TEST_F(UnitsTest, WidthsAreMultiplesAndOneUnitStays) {
  model::Graph graph = *model::BuildArchitecture("mlp", {{"hidden", {50, 6, 20}}}, {1, 2, 4}, 3);
  model::TensorMap tensors = RandomTensors(graph, 4);
  std::vector<std::string> names = {"fc1.weight", "fc2.weight", "fc3.weight", "fc4.weight"};
  auto masks = Masks(graph, tensors, Params("channel", names, "layer", 8), 0.55);
  EXPECT_EQ(Width(masks->at("fc1.weight")), 24);  // 22.5 → 23 of 50
  EXPECT_EQ(Width(masks->at("fc2.weight")), 6) << "narrower than 8";
  EXPECT_EQ(Width(masks->at("fc3.weight")), 8);
  EXPECT_EQ(Width(masks->at("fc4.weight")), 3) << "the classes";
  masks = Masks(graph, tensors, Params("channel", names), 0.999, *masks);
  for (const char* name : {"fc1.weight", "fc2.weight", "fc3.weight"}) EXPECT_EQ(Width(masks->at(name)), 1);
}

TEST_F(UnitsTest, MultiplesKeepWithinTheDensityBounds) {
  model::Graph graph = *model::BuildArchitecture("mlp", {{"hidden", {100}}}, {1, 2, 4}, 3);
  model::TensorMap tensors = RandomTensors(graph, 4);
  auto width = [&](double min_density, double max_density, double sparsity, int64_t round_to) {
    Json params = Params("channel", {"fc1.weight"}, "layer", round_to);
    params["min_density"] = min_density;
    params["max_density"] = max_density;
    return Width(Masks(graph, tensors, params, sparsity)->at("fc1.weight"));
  };
  EXPECT_EQ(width(0.5, 1.0, 0.9, 16), 64) << "50 is between 48 and 64";
  EXPECT_EQ(width(0.0, 0.5, 0.1, 16), 48) << "at most 50";
  EXPECT_EQ(width(0.0, 0.6, 0.42, 16), 48) << "58 is nearer to 64 than to 48";
  EXPECT_EQ(width(0.5, 0.6, 0.9, 16), 64) << "none is within: the lower bound holds";
  EXPECT_EQ(width(0.95, 1.0, 0.9, 64), 100) << "no multiple is large enough";
}

TEST_F(UnitsTest, AGlobalRankingTakesTheWeakestUnitsOfAllLayers) {
  model::Graph graph = *model::BuildArchitecture("mlp", {{"hidden", {8, 8}}}, {1, 2, 4}, 3);
  model::TensorMap tensors = RandomTensors(graph, 4);
  for (float& w : tensors.at("fc2.weight").mutable_values<float>()) w *= 0.01f;
  auto masks = Masks(graph, tensors, Params("channel", {"fc1.weight", "fc2.weight"}, "global"), 0.375);
  EXPECT_EQ(Width(masks->at("fc1.weight")), 8);
  EXPECT_EQ(Width(masks->at("fc2.weight")), 2);
}

TEST_F(UnitsTest, ResidualAdditionsCoupleTheirLayers) {
  model::Graph graph = *model::BuildArchitecture("resnet8", {{"width", 6}}, {1, 8, 8}, 3);
  auto info = *model::Analyze(graph);
  Coupling coupling = CoupledUnits(graph, info);
  std::vector<UnitClass> classes = ClassesOf(coupling, false);
  std::vector<std::vector<std::string>> layers;
  for (const UnitClass& c : classes) layers.push_back(c.tensors);
  EXPECT_EQ(layers, (std::vector<std::vector<std::string>>{{"stem.conv.weight", "stage1.0.conv2.weight"}, {"stage1.0.conv1.weight"}, {"stage2.0.conv1.weight"},
                                                           {"stage2.0.conv2.weight", "stage2.0.shortcut.conv.weight"}, {"stage3.0.conv1.weight"},
                                                           {"stage3.0.conv2.weight", "stage3.0.shortcut.conv.weight"}}));
  auto alone = Masks(graph, RandomTensors(graph, 1), Params("channel", {"stem.conv.weight"}), 0.5);
  ASSERT_FALSE(alone.ok());
  EXPECT_NE(alone.error().message.find("coupled with stage1.0.conv2.weight"), std::string::npos) << alone.error().message;
  auto last = Masks(graph, RandomTensors(graph, 1), Params("channel", {"fc.weight"}), 0.5);
  ASSERT_FALSE(last.ok());
  EXPECT_NE(last.error().message.find("output"), std::string::npos) << last.error().message;
}

TEST_F(UnitsTest, TheProjectionOfABlockIsNotOfferedAndLayersNeedAGlobalRanking) {
  model::Graph graph = *model::BuildArchitecture("resnet8", {{"width", 6}}, {1, 8, 8}, 3);
  std::vector<Branch> branches = ResidualBranches(graph, *model::Analyze(graph));
  ASSERT_EQ(branches.size(), 3u);
  EXPECT_EQ(branches[1].weights, (std::vector<std::string>{"stage2.0.conv1.weight", "stage2.0.conv2.weight"}));
  auto wrong = Masks(graph, RandomTensors(graph, 1), Params("layer", {"stage1.0.conv1.weight", "stage1.0.conv2.weight"}, "layer"), 0.5);
  ASSERT_FALSE(wrong.ok());
  EXPECT_NE(wrong.error().message.find("global"), std::string::npos);
  auto none = Masks(*model::BuildArchitecture("mlp", {{"hidden", {8}}}, {4}, 3), {}, Params("layer", {"fc1.weight"}, "global"), 0.5);
  ASSERT_FALSE(none.ok());
  EXPECT_NE(none.error().message.find("no residual branch"), std::string::npos) << none.error().message;
}

TEST_F(UnitsTest, SchedulesOfUnitsAreNested) {
  model::Graph graph = *model::BuildArchitecture("lenet5", Json::object(), {1, 28, 28}, 10);
  model::TensorMap tensors = RandomTensors(graph, 4);
  Json params = Params("channel", {"conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"}, "global");
  model::MaskMap before;
  for (double s : {0.1, 0.3, 0.5, 0.8}) {
    auto masks = Masks(graph, RandomTensors(graph, static_cast<uint64_t>(100 * s)), params, s, before);
    ASSERT_TRUE(masks.ok());
    int64_t width = 0;
    for (const auto& [name, mask] : *masks) {
      if (name.ends_with(".weight")) width += Width(mask);
      for (int64_t i = 0; i < mask.size() && before.contains(name); ++i) EXPECT_TRUE(before.at(name).keeps(i) || !mask.keeps(i));
    }
    EXPECT_EQ(width, 6 + 16 + 120 + 84 - std::llround(s * 226));
    before = *masks;
  }
}

}  // namespace
}  // namespace pare::methods
