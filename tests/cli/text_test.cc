#include "cli/text.h"

#include <gtest/gtest.h>

namespace pare::cli {
namespace {

TEST(TableTest, AlignsNumbersRightAndWordsLeft) {
  EXPECT_EQ(Table({{"name", "count"}, {"a", "5"}, {"longer", "123"}}), "name    count\na           5\nlonger    123\n");
}

TEST(TableTest, LeavesOutColumnsWithoutContent) { EXPECT_EQ(Table({{"a", "note", "b"}, {"1", "", "2"}, {"3", "", "4"}}), "a  b\n1  2\n3  4\n"); }

TEST(TableTest, EndsNoLineWithSpaces) { EXPECT_EQ(Table({{"name", "note"}, {"x", ""}, {"y", "z"}}), "name  note\nx\ny     z\n"); }

TEST(TableTest, CountsCharactersNotBytes) { EXPECT_EQ(Table({{"v", "w"}, {"± 1", "a"}, {"12345", "b"}}), "v      w\n± 1    a\n12345  b\n"); }

TEST(ClipTest, CutsLongLinesBetweenCharacters) { EXPECT_EQ(Clip("±±±±\nab\n±±±\n", 3, 9), "±±…\nab\n±±±\n"); }

TEST(ElideTest, SaysWhereSomethingIsLeftOut) {
  EXPECT_EQ(Elide("abcdef", 6), "abcdef");
  EXPECT_EQ(Elide("abcdef", 5), "abcd…");
  EXPECT_EQ(Elide("äöüäöü", 3), "äö…");
  EXPECT_EQ(Elide("abcdef", 1), "…");
  EXPECT_EQ(Elide("abcdef", 0), "");
  EXPECT_EQ(Elide("abcdef", kUnlimited), "abcdef");
}

TEST(ClipTest, KeepsTheFirstRows) { EXPECT_EQ(Clip("a\nb\nc\n", 9, 2), "a\nb\n"); }

TEST(UnitsTest, BytesHaveThreeDigitsOrSo) {
  EXPECT_EQ(HumanBytes(0), "0 B");
  EXPECT_EQ(HumanBytes(999), "999 B");
  EXPECT_EQ(HumanBytes(87'665), "87.7 kB");
  EXPECT_EQ(HumanBytes(1'040'000), "1.04 MB");
  EXPECT_EQ(HumanBytes(2'500'000'000), "2.50 GB");
}

TEST(UnitsTest, CountsHaveAPrefix) {
  EXPECT_EQ(HumanCount(7), "7");
  EXPECT_EQ(HumanCount(25'450), "25.4 k");
  EXPECT_EQ(HumanCount(1.25e6), "1.2 M");
  EXPECT_EQ(HumanCount(3e9), "3.0 G");
}

TEST(UnitsTest, DurationsChangeTheirUnitWithoutATenthTooMuch) {
  EXPECT_EQ(HumanDuration(0), "0.0 s");
  EXPECT_EQ(HumanDuration(9.94), "9.9 s");
  EXPECT_EQ(HumanDuration(9.96), "10 s");
  EXPECT_EQ(HumanDuration(59.4), "59 s");
  EXPECT_EQ(HumanDuration(59.6), "1 m 00 s");
  EXPECT_EQ(HumanDuration(125), "2 m 05 s");
  EXPECT_EQ(HumanDuration(3'725), "1 h 02 m");
}

TEST(FieldsTest, MissingValuesHaveTheirPlace) {
  Json object = {{"null", nullptr}, {"text", "x"}, {"number", 0.5}};
  EXPECT_EQ(Text(object, "absent"), "");
  EXPECT_EQ(Text(object, "null"), "");
  EXPECT_EQ(Text(object, "number"), "0.5");
  EXPECT_EQ(Number(object, "absent", "%.1f"), "–");
  EXPECT_EQ(Number(object, "text", "%.1f"), "–");
  EXPECT_EQ(Percentage(object, "number"), "50.00 %");
  EXPECT_EQ(Bytes(object, "null"), "–");
  EXPECT_EQ(Counted(object, "null", "step"), "– steps");
}

TEST(FieldsTest, OneThingIsNotCalledThings) {
  Json counts = {{"none", 0}, {"one", 1}, {"two", 2}};
  EXPECT_EQ(Counted(counts, "none", "step"), "0 steps");
  EXPECT_EQ(Counted(counts, "one", "step"), "1 step");
  EXPECT_EQ(Counted(counts, "two", "step"), "2 steps");
}

}  // namespace
}  // namespace pare::cli
