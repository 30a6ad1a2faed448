#include "methods/ranks.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <numeric>

namespace pare::methods {
namespace {

// A layer whose squared singular values fall by `ratio` from each to the next.
RankedLayer Layer(const std::string& name, int64_t rows, int64_t columns, double ratio) {
  RankedLayer layer{name, rows, columns, {}, rows * columns, rows * columns, rows + columns};
  double value = 1;
  for (int64_t i = 0; i < std::min(rows, columns); ++i, value *= ratio) layer.energies.push_back(value);
  return layer;
}

TEST(RanksTest, EnergyRankIsTheSmallestThatReachesTheThreshold) {
  std::vector<double> energies = {6, 3, 1};
  EXPECT_EQ(RankForEnergy(energies, 0.6), 1);
  EXPECT_EQ(RankForEnergy(energies, 0.61), 2);
  EXPECT_EQ(RankForEnergy(energies, 0.9), 2);
  EXPECT_EQ(RankForEnergy(energies, 1.0), 3);
  EXPECT_EQ(RankForEnergy({0, 0}, 0.5), 0);
  EXPECT_DOUBLE_EQ(EnergyOfRank(energies, 2), 0.9);
}

TEST(RanksTest, LayersAboveBreakEvenStayAndSayWhy) {
  // 20x30: ranks up to 11 save (12 · 50 = 600). A flat spectrum needs nearly all ranks.
  auto choices = *ChooseRanks({Layer("flat", 20, 30, 1.0), Layer("steep", 20, 30, 0.5)}, {.energy = 0.95});
  EXPECT_EQ(choices[0].rank, 0);
  EXPECT_EQ(choices[0].largest, 11);
  EXPECT_EQ(choices[0].reason, "0.95 of the energy needs rank 19; of 20x30 only ranks up to 11 save parameters");
  EXPECT_EQ(choices[1].rank, 5);
  EXPECT_TRUE(choices[1].reason.empty());
  EXPECT_NEAR(choices[1].energy, 31.0 / 32, 1e-5);
}

TEST(RanksTest, BreakEvenItselfDoesNotSave) {
  // 12x12 is 144 weights, rank 6 exactly as many.
  EXPECT_EQ((*ChooseRanks({Layer("a", 12, 12, 0.5)}, {.rank = 6}))[0].rank, 0);
  EXPECT_EQ((*ChooseRanks({Layer("a", 12, 12, 0.5)}, {.rank = 5}))[0].rank, 5);
}

TEST(RanksTest, APrunedLayerIsComparedWithWhatItKeeps) {
  RankedLayer layer = Layer("a", 20, 30, 0.5);
  layer.kept = 120;
  auto choice = (*ChooseRanks({layer}, {.energy = 0.95}))[0];
  EXPECT_EQ(choice.rank, 0);
  EXPECT_EQ(choice.largest, 2);
  EXPECT_NE(choice.reason.find("20x30 pruned to 120 weights"), std::string::npos) << choice.reason;
}

TEST(RanksTest, ALayerThatNoRankMakesSmallerSaysSo) {
  auto choice = (*ChooseRanks({Layer("a", 1, 30, 0.5)}, {.energy = 0.5}))[0];
  EXPECT_EQ(choice.reason, "0.5 of the energy needs rank 1; no rank of 1x30 saves parameters");
}

TEST(RanksTest, ABudgetBelowRankOneIsRefusedWithWhatIsPossible) {
  auto result = ChooseRanks({Layer("a", 20, 30, 0.5)}, {.budget = 0.05});
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::kInvalid);
  EXPECT_NE(result.error().message.find("rank 1 everywhere keeps 0.0834"), std::string::npos) << result.error().message;
}

double CostOf(const RankedLayer& layer, const RankChoice& choice) {
  return static_cast<double>(choice.rank == 0 ? layer.kept : choice.rank * (layer.rows + layer.columns));
}

// Every combination of choices within the budget: the smallest sum of losses.
double BruteForceLoss(const std::vector<RankedLayer>& layers, double budget, size_t at = 0) {
  if (at == layers.size()) return 0;
  double best = 1e9;
  const RankedLayer& layer = layers[at];
  int64_t largest = (layer.kept - 1) / (layer.rows + layer.columns);
  for (int64_t r = 0; r <= largest; ++r) {
    RankChoice choice{layer.tensor, r, largest, 1, ""};
    double cost = CostOf(layer, choice);
    if (cost > budget) continue;
    best = std::min(best, (r == 0 ? 0.0 : 1 - EnergyOfRank(layer.energies, r)) + BruteForceLoss(layers, budget - cost, at + 1));
  }
  return best;
}

TEST(RanksTest, ABudgetIsKeptAndSpentNearlyAsWellAsBruteForceWould) {
  EXPECT_TRUE(rc::check([] {
    std::vector<RankedLayer> layers;
    double whole = 0, steepest = 0;
    for (int i = 0; i < 3; ++i) {
      int64_t rows = *rc::gen::inRange<int64_t>(4, 12), columns = *rc::gen::inRange<int64_t>(4, 12);
      layers.push_back(Layer("l" + std::to_string(i), rows, columns, *rc::gen::element(0.3, 0.6, 0.8, 0.95)));
      whole += static_cast<double>(layers.back().kept);
      steepest = std::max(steepest, layers.back().energies[0]);
    }
    RankOptions options;
    options.budget = *rc::gen::element(0.45, 0.6, 0.75, 0.9);
    auto choices = ChooseRanks(layers, options);
    if (!choices.ok()) return;
    double cost = 0, loss = 0;
    for (size_t i = 0; i < layers.size(); ++i) {
      cost += CostOf(layers[i], (*choices)[i]);
      loss += 1 - (*choices)[i].energy;
      RC_ASSERT((*choices)[i].rank <= (*choices)[i].largest);
    }
    RC_ASSERT(cost <= *options.budget * whole);
    // A walk along convex hulls is off the best by less than one step of one layer.
    double best = BruteForceLoss(layers, *options.budget * whole);
    RC_ASSERT(loss <= best + 0.75 && loss >= best - 1e-12);
  }));
}

TEST(RanksTest, ABudgetGoesWhereItLosesLeast) {
  std::vector<RankedLayer> layers = {Layer("flat", 40, 40, 0.99), Layer("steep", 40, 40, 0.3)};
  auto choices = *ChooseRanks(layers, {.budget = 0.6});
  EXPECT_EQ(choices[0].rank, 0) << "the flat one is left as it is";
  EXPECT_GE(choices[1].rank, 2);
  EXPECT_LE(choices[1].rank, 4);
}

TEST(RanksTest, ABudgetOfMultiplyAddsCountsThose) {
  // The same matrices, but the first is applied at a hundred positions: there the saving counts.
  std::vector<RankedLayer> layers = {Layer("conv", 40, 40, 0.8), Layer("fc", 40, 40, 0.8)};
  layers[0].multiply_adds *= 100;
  layers[0].multiply_adds_per_rank *= 100;
  auto choices = *ChooseRanks(layers, {.budget = 0.4, .budget_of = BudgetOf::kMultiplyAdds});
  EXPECT_GT(choices[0].rank, 0);
  EXPECT_EQ(choices[1].rank, 0);
  double cost = 0;
  for (size_t i = 0; i < 2; ++i) cost += static_cast<double>(choices[i].rank == 0 ? layers[i].multiply_adds : choices[i].rank * layers[i].multiply_adds_per_rank);
  EXPECT_LE(cost, 0.4 * 101 * 1600);
}

// 40 x 40 at 100 positions, written out: 160,000 multiply-adds; 6,400 bytes of weights, 32,000 of inputs and outputs a sample.
TEST(RanksTest, LatencyIsTheLargerOfArithmeticAndTraffic) {
  RankedLayer conv = Layer("conv", 40, 40, 0.8);
  conv.multiply_adds *= 100;
  conv.multiply_adds_per_rank *= 100;
  RankOptions options{.budget = 0.5, .budget_of = BudgetOf::kLatency, .batch = 2, .machine_balance = 1};
  EXPECT_DOUBLE_EQ(CostOf(conv, 0, options), 2 * 160'000);
  EXPECT_DOUBLE_EQ(CostOf(conv, 5, options), 2 * 40'000);
  options.machine_balance = 100;
  EXPECT_DOUBLE_EQ(CostOf(conv, 0, options), 6'400 + 2 * 32'000);
  EXPECT_DOUBLE_EQ(CostOf(conv, 5, options), 1'600 + 2 * 100 * (80 + 2 * 5) * 4);
}

TEST(RanksTest, ABudgetOfLatencyGoesWhereTheBatchMakesItMatter) {
  std::vector<RankedLayer> layers = {Layer("conv", 40, 40, 0.8), Layer("fc", 400, 400, 0.8)};
  layers[0].multiply_adds *= 100;
  layers[0].multiply_adds_per_rank *= 100;
  auto small = *ChooseRanks(layers, {.budget = 0.9, .budget_of = BudgetOf::kLatency, .batch = 1, .machine_balance = 8});
  EXPECT_GT(small[1].rank, 0) << "at batch 1 the weights of fc are most of the time";
  auto large = *ChooseRanks(layers, {.budget = 0.7, .budget_of = BudgetOf::kLatency, .batch = 1024, .machine_balance = 1});
  EXPECT_GT(large[0].rank + large[1].rank, 0);
  for (const auto& [choices, options] : {std::pair(small, RankOptions{.budget = 0.9, .budget_of = BudgetOf::kLatency, .batch = 1, .machine_balance = 8}),
                                         std::pair(large, RankOptions{.budget = 0.7, .budget_of = BudgetOf::kLatency, .batch = 1024, .machine_balance = 1})}) {
    double cost = 0, whole = 0;
    for (size_t i = 0; i < 2; ++i) cost += CostOf(layers[i], choices[i].rank, options), whole += CostOf(layers[i], 0, options);
    EXPECT_LE(cost, *options.budget * whole);
  }
}

TEST(RanksTest, TheFrontierGrowsWithTheThresholdAndEndsAtTheModelAsItIs) {
  std::vector<RankedLayer> layers = {Layer("a", 30, 50, 0.7), Layer("b", 50, 10, 0.9)};
  auto points = Frontier(layers, {0.5, 0.8, 0.95, 1.0});
  for (size_t i = 1; i < points.size(); ++i) EXPECT_GE(points[i].parameters, points[i - 1].parameters);
  EXPECT_EQ(points[0].parameters, 2 * 80 + 4 * 60);  // 1 − 0.7² = 0.51 ; 1 − 0.9^n ≥ 0.5 · (1 − 0.9^10): n = 4
  EXPECT_EQ(points.back().parameters, 30 * 50 + 50 * 10);
}

TEST(RanksTest, ParametersNameTheFieldThatIsWrong) {
  auto message = [](const char* text) {
    auto options = RankOptionsFromJson(*ParseJson(text, "params"));
    return options.ok() ? std::string("accepted") : options.error().message;
  };
  EXPECT_NE(message("{}").find("exactly one of energy, budget and rank"), std::string::npos);
  EXPECT_NE(message(R"({"energy": 0.9, "rank": 3})").find("exactly one"), std::string::npos);
  EXPECT_NE(message(R"({"energy": 1.5})").find("energy: 1.5"), std::string::npos);
  EXPECT_NE(message(R"({"energy": 0})").find("energy"), std::string::npos);
  EXPECT_NE(message(R"({"budget": 1.0, "budget_of": "parameters"})").find("budget"), std::string::npos);
  EXPECT_NE(message(R"({"budget": 0.5, "budget_of": "bytes"})").find("budget_of: 'bytes'"), std::string::npos);
  EXPECT_NE(message(R"({"budget": 0.5, "budget_of": "latency", "batch": 0, "machine_balance": 8})").find("batch: 0"), std::string::npos);
  EXPECT_NE(message(R"({"rank": 0})").find("rank: 0"), std::string::npos);
  EXPECT_EQ(message(R"({"rank": 4})"), "accepted");
}

}  // namespace
}  // namespace pare::methods
