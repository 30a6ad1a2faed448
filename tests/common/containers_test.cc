// Box and the flat containers against what they stand for: std::optional, std::set, std::map.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <string>

#include "common/box.h"
#include "common/flat.h"
#include "common/random.h"

namespace pare {
namespace {

TEST(BoxTest, IsAValueLikeAnOptional) {
  Box<std::string> a;
  EXPECT_FALSE(a.has_value());
  EXPECT_EQ(a.OrDefault(), "");
  a = std::string("one");
  Box<std::string> b = a;
  *b += " and two";
  EXPECT_EQ(*a, "one");
  EXPECT_EQ(b.OrDefault(), "one and two");
  a = b;
  b.reset();
  EXPECT_TRUE(a && !b);
  EXPECT_EQ(a->size(), 11u);
}

TEST(BoxTest, TakesOnePointerWhileThereIsNone) { EXPECT_EQ(sizeof(Box<std::array<char, 500>>), sizeof(void*)); }

TEST(FlatSetTest, DoesWhatASetDoes) {
  RandomStream random(1, RandomPurpose::kTest);
  FlatSet<std::string> flat;
  std::set<std::string> set;
  for (int i = 0; i < 2'000; ++i) {
    std::string value = std::to_string(random.Below(60));
    if (random.Below(2) == 0) {
      EXPECT_EQ(flat.insert(value), set.insert(value).second);
    } else {
      EXPECT_EQ(flat.erase(value), set.erase(value));
    }
    ASSERT_TRUE(std::equal(flat.begin(), flat.end(), set.begin(), set.end()));
    EXPECT_EQ(flat.count("7"), set.count("7"));
    EXPECT_EQ(flat.empty(), set.empty());
  }
}

TEST(FlatMapTest, DoesWhatAMapDoes) {
  RandomStream random(2, RandomPurpose::kTest);
  FlatMap<std::string, int> flat;
  std::map<std::string, int> map;
  for (int i = 0; i < 500; ++i) {
    std::string key = std::to_string(random.Below(60));
    if (random.Below(2) == 0) {
      flat[key] = map[key] = i;
    } else {
      flat.try_emplace(key, i);
      map.try_emplace(key, i);
    }
    EXPECT_EQ(flat.at(key), map.at(key));
    EXPECT_EQ(flat.count("61"), 0u);
    EXPECT_EQ(flat.find("61"), flat.end());
  }
  ASSERT_EQ(flat.size(), map.size());
  for (const auto& [key, value] : flat) EXPECT_EQ(map.at(key), value);
  EXPECT_TRUE(std::is_sorted(flat.begin(), flat.end()));
  FlatMap<std::string, int> same(map);
  EXPECT_TRUE(std::equal(same.begin(), same.end(), flat.begin(), flat.end()));
}

}  // namespace
}  // namespace pare
