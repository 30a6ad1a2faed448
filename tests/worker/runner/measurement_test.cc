// Times in turn on a clock that the test moves, and what is said about them.
#include "worker/runner/measurement.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace pare::runner {
namespace {

// Time passes only inside the contenders.
struct FakeTime {
  double now = 0, cpu = 0;
  Meters meters() {
    Meters m;
    m.wall_s = [this] { return now; };
    m.cpu_s = [this] { return cpu; };
    return m;
  }
};

bool Never() { return false; }

TEST(MeasurementTest, TakesContendersInTurnAndGivesNearestRankPercentiles) {
  FakeTime time;
  std::string order;
  int runs_of_a = 0;
  std::vector<Contender> contenders = {{"a", [&] { order += "a", time.now += 1e-3 * (1 + runs_of_a++ % 20), time.cpu += 0.002; }},
                                       {"b", [&] { order += "b", time.now += 0.004, time.cpu += 0.001; }}};
  auto timings = MeasureInTurn(contenders, {.runs = 20, .least_seconds = 0, .seconds = 100}, time.meters(), Never);
  ASSERT_TRUE(timings.ok());
  for (size_t i = 0; i < order.size(); ++i) ASSERT_EQ(order[i], i % 2 == 0 ? 'a' : 'b');
  EXPECT_EQ(static_cast<int64_t>(order.size()), 2 * (timings->warm_up_runs + 20));
  EXPECT_EQ(timings->runs, 20);
  const Timing &a = timings->of[0], &b = timings->of[1];
  // 1 … 20 ms once each: the 10th and the 19th.
  EXPECT_NEAR(a.p50_s, 0.010, 1e-9);
  EXPECT_NEAR(a.p95_s, 0.019, 1e-9);
  EXPECT_NEAR(a.min_s, 0.001, 1e-9);
  EXPECT_NEAR(a.cpu_s, 0.002, 1e-9);
  EXPECT_NEAR(b.p50_s, 0.004, 1e-9);
  EXPECT_NEAR(b.cpu_s, 0.001, 1e-9);
}

TEST(MeasurementTest, WarmsUpUntilTheMedianStandsStill) {
  FakeTime time;
  int runs = 0;
  // Four windows get faster; the fifth differs from the fourth, the sixth from nothing.
  std::vector<Contender> falling = {{"a", [&] { time.now += ++runs <= 4 * kWindow ? 0.1 / runs : 0.001; }}};
  auto timings = MeasureInTurn(falling, {.runs = 3, .least_seconds = 0, .seconds = 100}, time.meters(), Never);
  ASSERT_TRUE(timings.ok());
  EXPECT_TRUE(timings->settled);
  EXPECT_EQ(timings->warm_up_runs, 6 * kWindow);
  EXPECT_NEAR(timings->of[0].p50_s, 0.001, 1e-9);
}

TEST(MeasurementTest, SaysThatTheMedianNeverStoodStill) {
  FakeTime time;
  int runs = 0;
  std::vector<Contender> growing = {{"a", [&] { time.now += 1e-3 * ++runs; }}};
  auto timings = MeasureInTurn(growing, {.runs = 3, .least_seconds = 0, .seconds = 100}, time.meters(), Never);
  ASSERT_TRUE(timings.ok());
  EXPECT_FALSE(timings->settled);
  EXPECT_EQ(timings->warm_up_runs, kMostWindows * kWindow);
}

TEST(MeasurementTest, EndsWhenTheSecondsAreOverButRunsOnce) {
  FakeTime time;
  std::vector<Contender> slow = {{"a", [&] { time.now += 2.0; }}};
  EXPECT_EQ(MeasureInTurn(slow, {.runs = 100, .seconds = 10}, time.meters(), Never)->runs, 5);
  EXPECT_EQ(MeasureInTurn(slow, {.runs = 100, .seconds = 0.5}, time.meters(), Never)->runs, 1);
}

TEST(MeasurementTest, RunsATinyNetworkForASecondUnlessTheSecondsAreOverBefore) {
  FakeTime time;
  std::vector<Contender> tiny = {{"a", [&] { time.now += 0.001; }}, {"b", [&] { time.now += 0.001; }}};
  EXPECT_NEAR(static_cast<double>(MeasureInTurn(tiny, {.runs = 100, .seconds = 10}, time.meters(), Never)->runs), 500, 1);
  EXPECT_NEAR(static_cast<double>(MeasureInTurn(tiny, {.runs = 1000, .seconds = 10}, time.meters(), Never)->runs), 1000, 1);
  EXPECT_NEAR(static_cast<double>(MeasureInTurn(tiny, {.runs = 100, .seconds = 0.1}, time.meters(), Never)->runs), 50, 1);
}

TEST(MeasurementTest, StopsBetweenRounds) {
  FakeTime time;
  int64_t looks = 0;
  std::vector<Contender> one = {{"a", [&] { time.now += 0.001; }}};
  auto timings = MeasureInTurn(one, {.runs = 100, .seconds = 10}, time.meters(), [&] { return ++looks > 10; });
  ASSERT_FALSE(timings.ok());
  EXPECT_EQ(timings.error().code, ErrorCode::kStopped);
}

TEST(MeasurementTest, SaysWhichOfSpaceAndTimeACandidateGives) {
  EXPECT_EQ(GivesOf({2.0, 8.0}), "space and time");
  EXPECT_EQ(GivesOf({1.0, 8.0}), "space");
  EXPECT_EQ(GivesOf({1.5, 1.0}), "time");
  EXPECT_EQ(GivesOf({0.7, 1.04}), "neither");
}

TEST(MeasurementTest, SaysNoGainAndWhy) {
  SpeedFacts facts{.time = 2.0, .before_s = 0.004, .after_s = 0.002, .batch = 128, .threads = 1};
  EXPECT_EQ(FindingOf(facts), "2.00x faster: 2.0000 ms against 4.0000 ms of the best dense execution of the baseline at batch 128, 1 thread");
  facts = {.time = 1.01, .before_s = 0.004, .after_s = 0.00396, .batch = 1, .threads = 2, .removed = true};
  EXPECT_EQ(FindingOf(facts), "no gain in time: 3.9600 ms against 4.0000 ms of the best dense execution of the baseline at batch 1, 2 threads; "
                              "fewer multiply-adds do not show there, a larger batch or a wider network may");
  facts = {.time = 1.0, .before_s = 0.004, .after_s = 0.004, .batch = 1, .threads = 1, .sparsity = 0.6};
  EXPECT_NE(FindingOf(facts).find("at 60.0 % sparsity dense execution beats the sparse kernel in every layer"), std::string::npos);
}

TEST(MeasurementTest, AGainStartsWhereMediansOfOneMachineNoLongerDifferByChance) {
  SpeedFacts facts{.before_s = 0.004, .after_s = 0.004};
  for (double time : {0.5, 1.0, kNoticeableGain - 1e-9}) {
    facts.time = time;
    EXPECT_EQ(FindingOf(facts).rfind("no gain in time: ", 0), 0u) << time;
    EXPECT_EQ(GivesOf({.time = time, .space = 4.0}), "space") << time;
  }
  facts.time = kNoticeableGain;
  EXPECT_EQ(FindingOf(facts).rfind("1.05x faster: ", 0), 0u);
  EXPECT_EQ(GivesOf({.time = kNoticeableGain, .space = 4.0}), "space and time");
}

TEST(MetersTest, EnergyAddsPackagesUpAcrossWraps) {
  namespace fs = std::filesystem;
  fs::path root = fs::path(testing::TempDir()) / "powercap";
  auto write = [&](const std::string& zone, const std::string& file, double value) {
    fs::create_directories(root / zone);
    std::ofstream(root / zone / file) << static_cast<int64_t>(value);
  };
  for (const char* zone : {"intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"}) write(zone, "energy_uj", 9e6), write(zone, "max_energy_range_uj", 10e6);
  Meters meters = SystemMeters(root.string());
  EXPECT_EQ(*meters.energy_j(), 0.0);
  write("intel-rapl:0", "energy_uj", 9.5e6);
  write("intel-rapl:1", "energy_uj", 1e6);  // past the end of its range
  write("intel-rapl:0:0", "energy_uj", 9.9e6);  // a part of a package: counted there
  EXPECT_NEAR(*meters.energy_j(), 0.5 + 2.0, 1e-9);
  fs::remove_all(root);
  auto none = SystemMeters((root / "none").string()).energy_j();
  ASSERT_FALSE(none.ok());
  EXPECT_NE(none.error().message.find("no energy counters"), std::string::npos);
}

}  // namespace
}  // namespace pare::runner
