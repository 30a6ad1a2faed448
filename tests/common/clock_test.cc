// Conformance suite of Clock, and what is particular to the fake one.
#include "common/clock.h"

#include <gtest/gtest.h>

#include <functional>

namespace pare {
namespace {

struct Kind {
  const char* name;
  std::function<std::unique_ptr<Clock>()> make;
};

class ClockTest : public testing::TestWithParam<Kind> {};

TEST_P(ClockTest, MonotonicTimeNeverGoesBack) {
  auto clock = GetParam().make();
  Millis last = clock->Monotonic();
  for (int i = 0; i < 1000; ++i) {
    Millis now = clock->Monotonic();
    ASSERT_GE(now, last);
    last = now;
  }
}

TEST_P(ClockTest, WallTimeIsInThisCentury) {
  WallTime now = GetParam().make()->Wall();
  EXPECT_GT(now.ms, 1'600'000'000'000);
  EXPECT_LT(now.ms, 4'102'444'800'000);
}

INSTANTIATE_TEST_SUITE_P(Clocks, ClockTest,
                         testing::Values(Kind{"System", [] { return std::make_unique<SystemClock>(); }},
                                         Kind{"Fake", [] { return std::make_unique<FakeClock>(); }}),
                         [](const auto& kind) { return kind.param.name; });

TEST(FakeClockTest, MovesBothTimesWhenToldTo) {
  FakeClock clock({1000});
  clock.Advance(Millis(250));
  EXPECT_EQ(clock.Monotonic(), Millis(250));
  EXPECT_EQ(clock.Wall().ms, 1250);
}

TEST(Iso8601Test, IsUtcToTheSecond) {
  EXPECT_EQ(Iso8601({0}), "1970-01-01T00:00:00Z");
  EXPECT_EQ(Iso8601({1'709'210'096'999}), "2024-02-29T12:34:56Z");  // date -u -d @1709210096
}

}  // namespace
}  // namespace pare
