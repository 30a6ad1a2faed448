#include "bench/methods/verdict.h"

#include <gtest/gtest.h>

namespace pare::bench {
namespace {

TEST(VerdictTest, SaysNoGainWhenWidthPruningGainsNothingAtBatchOne) {
  EXPECT_EQ(SpeedVerdict(21.0e-6, 20.5e-6), "0.0210 ms → 0.0205 ms, no gain");
  EXPECT_NE(SpeedVerdict(20e-6, 25e-6).find("1.25x slower: no gain"), std::string::npos);
  EXPECT_NE(SpeedVerdict(400e-6, 200e-6).find("2.00x faster"), std::string::npos);
}

}  // namespace
}  // namespace pare::bench
