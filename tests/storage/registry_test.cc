// The texts that tell where a version came from: what the coordinator writes is what a repair reads.
#include "storage/registry.h"

#include <gtest/gtest.h>

namespace pare::storage {
namespace {

const VersionOrigin kDecided{.job = "j1", .step = "half/02-retrain", .reason = "smallest bytes: 2 of 2 candidates, as of job j0"};
const VersionOrigin kByHand{.job = "j2", .step = "half/02-retrain/evaluate", .by_hand = true};

TEST(RegistryTextTest, AHistoryNamesTheJobAndOfAPromotionByHandTheStep) {
  EXPECT_EQ(HistoryText(kDecided), "decision of job j1: smallest bytes: 2 of 2 candidates, as of job j0");
  VersionOrigin without_step = kDecided;
  without_step.step = "";
  EXPECT_EQ(OriginOf(HistoryText(kDecided)), without_step);
  EXPECT_EQ(HistoryText(kByHand), "by hand: step half/02-retrain/evaluate of job j2");
  EXPECT_EQ(OriginOf(HistoryText(kByHand)), kByHand);
}

TEST(RegistryTextTest, AnEventNamesVersionAndStep) {
  PromotedVersion decided{"small.v2", 12, kDecided}, by_hand{"small", 3, kByHand};
  EXPECT_EQ(EventText(decided), "promoted half/02-retrain as small.v2 version 12: smallest bytes: 2 of 2 candidates, as of job j0");
  EXPECT_EQ(PromotedOf({.job = "j1", .step = "promote", .text = EventText(decided)}), decided);
  EXPECT_EQ(EventText(by_hand), "promoted by hand as small version 3");
  EXPECT_EQ(PromotedOf({.job = "j2", .step = kByHand.step, .text = EventText(by_hand)}), by_hand);
}

TEST(RegistryTextTest, OtherTextsNameNoVersion) {
  for (const char* text : {"", "by hand", "smallest", "decision of job ", "by hand: step a", "by hand: step a of job "}) EXPECT_EQ(OriginOf(text), std::nullopt) << text;
  for (const char* text : {"", "submitted", "promoted ", "promoted a as small version x: why", "promoted a as small version 0: why", "promoted a as small version 2",
                           "promoted by hand as small version 2 or so", "a is small version 2 already", "a was promoted by this decision as small version 2 already"}) {
    EXPECT_EQ(PromotedOf({.job = "j1", .step = "a", .text = text}), std::nullopt) << text;
  }
  EXPECT_EQ(PromotedOf({.job = "j1", .text = "promoted by hand as small version 2"}), std::nullopt) << "no step";
}

}  // namespace
}  // namespace pare::storage
