// Masks against a brute-force twin: all scores in one vector, std::sort by (score, tensor, index).
#include "methods/pruning.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/random.h"
#include "model/architectures.h"
#include "model/initialize.h"
#include "methods/registry.h"
#include "tests/methods/fake_toolbox.h"

namespace pare::methods {
namespace {

using Values = std::vector<std::vector<float>>;

std::vector<WeightView> Views(const Values& values) {
  std::vector<WeightView> views;
  for (size_t t = 0; t < values.size(); ++t) {
    views.push_back({"t" + std::to_string(t), {static_cast<int64_t>(values[t].size())}, values[t], t * 3});
  }
  return views;
}

PruneOptions Options(const Values& values, Criterion criterion, Scope scope) {
  PruneOptions options{criterion, scope, {}, 0.0, 1.0};
  for (size_t t = 0; t < values.size(); ++t) options.tensors.push_back("t" + std::to_string(t));
  return options;
}

struct Entry {
  double score;
  size_t tensor, index;
  auto operator<=>(const Entry&) const = default;
};

std::vector<Entry> Kept(const std::vector<WeightView>& views, const model::MaskMap& masks, Criterion criterion, PruneDraw draw) {
  std::vector<Entry> entries;
  for (size_t t = 0; t < views.size(); ++t) {
    RandomStream stream(draw.seed, RandomPurpose::kPruneRandom, views[t].ordinal, static_cast<uint64_t>(draw.draw));
    auto mask = masks.find(views[t].name);
    for (size_t i = 0; i < views[t].values.size(); ++i) {
      double word = stream.Bits();
      if (mask != masks.end() && !mask->second.keeps(static_cast<int64_t>(i))) continue;
      double w = views[t].values[i];
      double score = criterion == Criterion::kRandom ? word : criterion == Criterion::kMagnitudeL1 ? std::abs(w) : w * w;
      entries.push_back({score, t, i});
    }
  }
  std::sort(entries.begin(), entries.end());
  return entries;
}

// Removes one by one in sorted order while the tensor's own limit allows it.
model::MaskMap Twin(const PruneOptions& options, const PruneAmount& amount, const std::vector<WeightView>& views,
                    const model::MaskMap& masks, PruneDraw draw) {
  model::MaskMap result = masks;
  std::vector<int64_t> removed, least, most;
  int64_t size = 0;
  for (const auto& view : views) {
    auto n = static_cast<int64_t>(view.values.size());
    result.try_emplace(view.name, view.shape);
    removed.push_back(n - result.at(view.name).kept());
    most.push_back(std::max<int64_t>(removed.back(), n - std::llround(options.min_density * static_cast<double>(n))));
    least.push_back(std::clamp<int64_t>(n - std::llround(options.max_density * static_cast<double>(n)), removed.back(), most.back()));
    size += n;
  }
  auto wanted = [&](int64_t n, int64_t gone) -> int64_t {
    if (amount.sparsity) return std::max(gone, static_cast<int64_t>(std::llround(*amount.sparsity * static_cast<double>(n))));
    return gone + std::llround(*amount.fraction_of_remaining * static_cast<double>(n - gone));
  };
  std::vector<Entry> order = Kept(views, masks, options.criterion, draw);
  auto remove = [&](const Entry& e) {
    result.at(views[e.tensor].name).set(static_cast<int64_t>(e.index), false);
    ++removed[e.tensor];
  };
  if (options.scope == Scope::kLayer) {
    std::vector<int64_t> target(views.size());
    for (size_t t = 0; t < views.size(); ++t) {
      target[t] = std::clamp(wanted(static_cast<int64_t>(views[t].values.size()), removed[t]), least[t], most[t]);
    }
    for (const Entry& e : order) if (removed[e.tensor] < target[e.tensor]) remove(e);
    return result;
  }
  int64_t target = wanted(size, std::accumulate(removed.begin(), removed.end(), int64_t{0}));
  std::vector<Entry> rest;
  for (const Entry& e : order) {
    if (removed[e.tensor] < least[e.tensor]) remove(e); else rest.push_back(e);
  }
  int64_t gone = std::accumulate(removed.begin(), removed.end(), int64_t{0});
  for (const Entry& e : rest) {
    if (gone < target && removed[e.tensor] < most[e.tensor]) { remove(e); ++gone; }
  }
  return result;
}

rc::Gen<Values> SomeValues() {
  // Few different magnitudes, both signs: many ties.
  auto weight = rc::gen::map(rc::gen::inRange(-6, 7), [](int v) { return static_cast<float>(v) * 0.37f; });
  return rc::gen::resize(90, rc::gen::nonEmpty(rc::gen::container<Values>(rc::gen::nonEmpty(rc::gen::container<std::vector<float>>(weight)))));
}

TEST(PruningTest, EqualsABruteForceSortForAllCriteriaScopesAndBounds) {
  EXPECT_TRUE(rc::check([] {
    Values values = *SomeValues();
    auto views = Views(values);
    PruneOptions options = Options(values, *rc::gen::element(Criterion::kMagnitudeL1, Criterion::kMagnitudeL2, Criterion::kRandom),
                                   *rc::gen::element(Scope::kLayer, Scope::kGlobal));
    PruneDraw draw{*rc::gen::arbitrary<uint64_t>(), *rc::gen::inRange<int64_t>(0, 5)};
    auto fraction = rc::gen::map(rc::gen::inRange(0, 101), [](int v) { return v / 100.0; });
    model::MaskMap masks;
    for (int round = 0; round < 3; ++round) {
      PruneAmount amount;
      (*rc::gen::arbitrary<bool>() ? amount.sparsity : amount.fraction_of_remaining) = *fraction;
      double a = *fraction, b = *fraction;
      if (*rc::gen::arbitrary<bool>()) options.min_density = std::min(a, b), options.max_density = std::max(a, b);
      auto result = Prune(options, amount, views, masks, draw);
      if (!result.ok()) {
        RC_ASSERT(options.scope == Scope::kGlobal && options.max_density - options.min_density < 1.0);
        continue;
      }
      RC_ASSERT(*result == Twin(options, amount, views, masks, draw));
      for (const auto& [name, mask] : masks) {
        for (int64_t i = 0; i < mask.size(); ++i) RC_ASSERT(mask.keeps(i) || !result->at(name).keeps(i));
      }
      masks = *result;
    }
  }));
}

TEST(PruningTest, CountsAreExactAndRoundHalvesAwayFromZero) {
  Values values = {std::vector<float>(5, 1.0f), std::vector<float>(6, 2.0f)};
  auto count = [&](Scope scope, double s, std::string name) {
    auto masks = Prune(Options(values, Criterion::kMagnitudeL1, scope), {s, {}}, Views(values), {}, {});
    return masks->at(name).size() - masks->at(name).kept();
  };
  EXPECT_EQ(count(Scope::kLayer, 0.5, "t0"), 3);   // 2.5
  EXPECT_EQ(count(Scope::kLayer, 0.5, "t1"), 3);
  EXPECT_EQ(count(Scope::kGlobal, 0.5, "t0"), 5);  // 5.5 in all
  EXPECT_EQ(count(Scope::kGlobal, 0.5, "t1"), 1);
}

TEST(PruningTest, TiesGoByTensorThenIndex) {
  Values values = {{1, -1, 1}, {-1, 1, 1}};
  auto masks = Prune(Options(values, Criterion::kMagnitudeL1, Scope::kGlobal), {4.0 / 6.0, {}}, Views(values), {}, {});
  EXPECT_EQ(masks->at("t0"), model::Mask({3}, std::vector<uint8_t>{0, 0, 0}));
  EXPECT_EQ(masks->at("t1"), model::Mask({3}, std::vector<uint8_t>{0, 1, 1}));
}

TEST(PruningTest, RandomMasksDependOnSeedDrawAndTensorOnly) {
  Values values = {std::vector<float>(1000), std::vector<float>(1000)};
  PruneOptions options = Options(values, Criterion::kRandom, Scope::kLayer);
  auto at = [&](PruneDraw draw) { return *Prune(options, {0.5, {}}, Views(values), {}, draw); };
  auto a = at({7, 0});
  EXPECT_EQ(a, at({7, 0}));
  EXPECT_NE(a, at({8, 0}));
  EXPECT_NE(a, at({7, 1}));
  EXPECT_NE(a.at("t0"), a.at("t1"));
}

TEST(PruningTest, RefusesWhatTheDensityBoundsForbid) {
  Values values = {std::vector<float>(10, 1.0f)};
  PruneOptions options = Options(values, Criterion::kMagnitudeL1, Scope::kGlobal);
  options.min_density = 0.3;
  auto result = Prune(options, {0.9, {}}, Views(values), {}, {});
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::kInvalid);
  EXPECT_NE(result.error().message.find("allow 0 to 7"), std::string::npos) << result.error().message;
}

TEST(PruningTest, RefusesNaN) {
  Values values = {{1.0f, std::nanf("")}};
  auto result = Prune(Options(values, Criterion::kMagnitudeL1, Scope::kLayer), {0.5, {}}, Views(values), {}, {});
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::kDiverged);
}

TEST(PruningTest, ApplyingMasksLeavesPositiveZeros) {
  std::vector<float> values = {-3.0f, 2.0f, -0.0f};
  model::TensorMap tensors = {{"w", model::Tensor::Of<float>(model::DType::kF32, {3}, values)}};
  ApplyMasks({{"w", model::Mask({3}, std::vector<uint8_t>{0, 1, 0})}}, tensors);
  auto out = tensors.at("w").values<float>();
  EXPECT_EQ(out[1], 2.0f);
  EXPECT_FALSE(std::signbit(out[0]) || std::signbit(out[2]) || out[0] != 0.0f);
}

class OneShotPruneTest : public testing::Test {
 protected:
  Model Mlp() {
    Model m;
    m.graph = *model::BuildArchitecture("mlp", {{"hidden", {8, 6}}}, {1, 4, 4}, 3);
    m.tensors = model::InitializeWeights(m.graph, *model::Analyze(m.graph), 5);
    return m;
  }
  Json Params() {
    return {{"schedule", "one_shot"}, {"criterion", "magnitude_l1"}, {"scope", "global"}, {"sparsity", 0.5},
            {"tensors", {"fc2.weight", "fc1.weight"}}, {"min_density", 0.0}, {"max_density", 1.0}};
  }
};

TEST_F(OneShotPruneTest, MasksAndZeroesTheNamedTensorsOnly) {
  FakeToolbox toolbox;
  auto pruned = FindMethod("prune")->apply(Mlp(), Params(), toolbox);
  ASSERT_TRUE(pruned.ok()) << pruned.error().message;
  EXPECT_EQ(pruned->masks.size(), 2u);
  int64_t kept = pruned->masks.at("fc1.weight").kept() + pruned->masks.at("fc2.weight").kept();
  EXPECT_EQ(kept, (16 * 8 + 8 * 6) / 2);
  for (const auto& [name, mask] : pruned->masks) {
    auto values = pruned->tensors.at(name).values<float>();
    for (int64_t i = 0; i < mask.size(); ++i) EXPECT_EQ(mask.keeps(i), values[static_cast<size_t>(i)] != 0.0f);
  }
  EXPECT_EQ(pruned->tensors.at("fc3.weight").digest(), Mlp().tensors.at("fc3.weight").digest());
}

TEST_F(OneShotPruneTest, NamesTheFieldThatIsWrong) {
  auto message = [&](const char* field, Json value) {
    Json params = Params();
    params[field] = std::move(value);
    FakeToolbox toolbox;
    auto result = FindMethod("prune")->apply(Mlp(), params, toolbox);
    return result.ok() ? std::string("accepted") : result.error().message;
  };
  EXPECT_NE(message("criterion", "loudest").find("criterion"), std::string::npos);
  EXPECT_NE(message("scope", "galaxy").find("scope"), std::string::npos);
  EXPECT_NE(message("sparsity", 1.5).find("sparsity"), std::string::npos);
  EXPECT_NE(message("sparsity", "many").find("sparsity"), std::string::npos);
  EXPECT_NE(message("min_density", -1).find("min_density"), std::string::npos);
  EXPECT_NE(message("tensors", {"fc1.bias"}).find("fc1.bias is not"), std::string::npos);
  EXPECT_NE(message("tensors", {"fc9.weight"}).find("no tensor fc9.weight"), std::string::npos);
  EXPECT_NE(message("fraction_of_remaining", 0.1).find("exactly one"), std::string::npos);
}

}  // namespace
}  // namespace pare::methods
