// JSON as text: what is accepted, and the pieces of it, against the library that builds trees.
#include "common/json_text.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "common/random.h"

namespace pare {
namespace {

// Values, their texts in many layouts, and damaged texts: from counted random numbers.
class Source {
 public:
  explicit Source(uint64_t seed) : seed_(seed) {}

  uint64_t Word() {
    auto block = Philox4x32({static_cast<uint32_t>(++count_), 0, 0, 0}, {static_cast<uint32_t>(seed_), 1});
    return static_cast<uint64_t>(block[0]) << 32 | block[1];
  }
  size_t Below(size_t n) { return static_cast<size_t>(Word() % n); }

  std::string Text() {
    static const std::vector<std::string> kPieces = {"a", "key", "\"", "\\", "\n", "\x01", "\x7f", "é", "−", "😀", "/", " ", "{", "]", ",", ":", std::string(1, '\0')};
    std::string text;
    for (size_t n = Below(4); n > 0; --n) text += Below(2) == 0 ? "plain" : kPieces[Below(kPieces.size())];
    return text;
  }
  double Real() {
    double value = Below(2) == 0 ? static_cast<double>(Below(100'000)) / 1000 : std::bit_cast<double>(Word());
    return std::isfinite(value) ? value : -0.0;
  }
  Json Value(int depth) {
    switch (Below(depth > 0 ? 9 : 7)) {
      case 0: return nullptr;
      case 1: return Below(2) == 0;
      case 2: return static_cast<int64_t>(Word());
      case 3: return Word();
      case 4: return static_cast<int64_t>(Below(200)) - 100;
      case 5: return Real();
      case 6: return Text();
      case 7: return List(depth);
      default: return Object(depth);
    }
  }
  Json List(int depth) {
    Json list = Json::array();
    for (size_t n = Below(5); n > 0; --n) list.push_back(Value(depth - 1));
    return list;
  }
  Json Object(int depth) {
    Json object = Json::object();
    for (size_t n = Below(5); n > 0; --n) object[Text()] = Value(depth - 1);
    return object;
  }
  // Canonical, or with space and line breaks, or with every character beyond ASCII escaped.
  std::string Layout(const Json& value) {
    switch (Below(3)) {
      case 0: return Canonical(value);
      case 1: return " \n" + value.dump(2) + "\t\r";
      default: return value.dump(-1, ' ', true);
    }
  }
  std::string Damaged(std::string text) {
    static const std::string kBytes = "{}[]\",:0123456789.eE+- \t\n\\utfn\x80\xef";
    for (size_t n = 1 + Below(3); n > 0 && !text.empty(); --n) {
      size_t at = Below(text.size());
      if (Below(3) == 0) text.erase(at, 1);
      else if (Below(2) == 0) text.insert(at, 1, kBytes[Below(kBytes.size())]);
      else text[at] = kBytes[Below(kBytes.size())];
    }
    return text;
  }

 private:
  uint64_t seed_, count_ = 0;
};

TEST(JsonTextTest, AcceptsWhatTheLibraryReads) {
  Source source(1);
  for (int i = 0; i < 5'000; ++i) {
    std::string text = source.Layout(source.Value(4));
    ASSERT_TRUE(CheckJson(text, "x").ok()) << text;
  }
}

TEST(JsonTextTest, RefusesWhatTheLibraryRefuses) {
  Source source(2);
  int refused = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string text = source.Damaged(source.Layout(source.Value(3)));
    bool read = !Json::parse(text, nullptr, false).is_discarded();
    ASSERT_EQ(CheckJson(text, "x").ok(), read) << text;
    refused += read ? 0 : 1;
  }
  EXPECT_GT(refused, 5'000);
}

TEST(JsonTextTest, AgreesWithTheLibraryOnRareForms) {
  for (const char* text : {"", " ", "-", "-0", "-0.0", "0", "00", "01", "1.", ".5", "1e5", "1E+5", "1e", "1e-400", "1e400", "4.9e-324", "18446744073709551615",
                           "18446744073709551616", "-9223372036854775808", "-9223372036854775809", "123456789012345678901234567890", "true ", "tru", "nul", "null1",
                           "[1,]", "[,1]", "{\"a\":1,}", "{\"a\":1,\"a\":[2]}", "{\"a\" :\t1 }\r\n", "{1:2}", "{\"a\"}", "\"\\ud83d\\ude00\"", "\"\\ud83d\"", "\"\\udc00\"", "\"\\ud800\\u0041\"", "\"\\u00\"",
                           "\"\\", "\"a", "\xef\xbb\xbf[1]", "[1]x", "[1][2]", "\"\xc3\xa9\"", "\"\xc3\"", "\"\xed\xa0\x80\"", "\"\x1f\"", "//\n1", "[[[[]]],{}]", "NaN", "Infinity"}) {
    EXPECT_EQ(CheckJson(text, "x").ok(), ParseJson(text, "x").ok()) << text;
  }
  EXPECT_FALSE(CheckJson(std::string("[1]\0", 4), "x").ok());
  EXPECT_FALSE(CheckJson(std::string("\"a\0b\"", 5), "x").ok());
}

TEST(JsonTextTest, TheDeepestAcceptedTextIsThatOfTheParser) {
  for (int depth = kMaxJsonDepth - 2; depth < kMaxJsonDepth + 3; ++depth) {
    std::string text = std::string(static_cast<size_t>(depth), '[') + std::string(static_cast<size_t>(depth), ']');
    EXPECT_EQ(CheckJson(text, "x").ok(), ParseJson(text, "x").ok()) << depth;
    EXPECT_EQ(CheckJson(text, "x").ok(), depth <= kMaxJsonDepth) << depth;
  }
}

TEST(JsonTextTest, AHugeTextIsCheckedAndASmallOneAfterIt) {
  std::string huge = "[" + std::string(8 << 20, ' ') + "1]";
  EXPECT_TRUE(CheckJson(huge, "x").ok());
  EXPECT_TRUE(CheckJson("[1]", "x").ok());
  EXPECT_FALSE(CheckJson(std::string(kMaxJsonBytes, ' ') + "1", "x").ok());
  std::string deep(static_cast<size_t>(kMaxJsonDepth) + 1, '[');
  EXPECT_FALSE(CheckJson(deep, "x").ok());
}

TEST(JsonTextTest, FieldsOfAnObjectAreThoseOfItsTree) {
  Source source(3);
  for (int i = 0; i < 5'000; ++i) {
    Json object = source.Object(3);
    std::string text = source.Layout(object);
    Json built = Json::object();
    for (const JsonField& field : FieldsOf(text)) built[Json::parse('"' + std::string(field.name) + '"').get<std::string>()] = Json::parse(field.value);
    ASSERT_EQ(built, object) << text;
    for (const auto& [name, value] : object.items()) {
      if (name.find_first_of(std::string("\"\\\n\x01\x7f\0", 6)) != std::string::npos || text.find("\\u") != std::string::npos) continue;
      ASSERT_EQ(Json::parse(FieldOf(text, name)), value) << text;
    }
    EXPECT_TRUE(FieldOf(text, "no such field").empty());
  }
}

TEST(JsonTextTest, ElementsOfAListAreThoseOfItsTree) {
  Source source(4);
  for (int i = 0; i < 5'000; ++i) {
    Json list = source.List(3);
    std::string text = source.Layout(list);
    Json built = Json::array();
    for (std::string_view element : ElementsOf(text)) {
      built.push_back(Json::parse(element));
      ASSERT_EQ(TypeNameOf(element), built.back().type_name());
    }
    ASSERT_EQ(built, list) << text;
  }
}

TEST(JsonTextTest, StringsOfAValueAreThoseOfItsTree) {
  Source source(5);
  std::function<void(const Json&, std::vector<std::string>&)> collect = [&](const Json& value, std::vector<std::string>& strings) {
    if (value.is_string()) strings.push_back(value);
    for (const auto& [name, inner] : value.items()) {
      if (value.is_object()) strings.push_back(name);
      if (value.is_structured()) collect(inner, strings);
    }
  };
  for (int i = 0; i < 5'000; ++i) {
    Json value = source.Value(4);
    std::vector<std::string> expected, found;
    collect(value, expected);
    std::string layout = source.Layout(value);
    for (std::string_view text : StringsOf(layout)) found.push_back(Json::parse('"' + std::string(text) + '"'));
    ASSERT_EQ(found, expected) << Canonical(value);
  }
}

TEST(JsonTextTest, StringsAndIntegersAreThoseOfTheirTrees) {
  Source source(6);
  auto integer = [](const Json& value) { return value.is_number_integer() && !(value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{INT64_MAX}); };
  for (int i = 0; i < 20'000; ++i) {
    Json value = source.Value(1);
    std::string text = Canonical(value);
    ASSERT_EQ(StringOf(text), value.is_string() ? std::optional(value.get<std::string>()) : std::nullopt) << text;
    ASSERT_EQ(IntegerOf(text), integer(value) ? std::optional(value.get<int64_t>()) : std::nullopt) << text;
  }
  EXPECT_EQ(IntegerOf("1.0"), std::nullopt);
  EXPECT_EQ(IntegerOf(""), std::nullopt);
  EXPECT_EQ(StringOf(""), std::nullopt);
}

TEST(JsonTextTest, IdsAreWrittenAsTheirTree) {
  std::map<std::string, Digest> ids;
  Json tree = Json::object();
  EXPECT_EQ(TextOfIds(ids), Canonical(tree));
  for (const char* role : {"model", "candidate/a \"quoted\" é", ""}) {
    ids[role] = DigestOf(std::string_view(role));
    tree[role] = ids[role].hex();
    EXPECT_EQ(TextOfIds(ids), Canonical(tree));
  }
}

TEST(JsonTextTest, TextIsSharedAndEqualByItsBytes) {
  JsonText a(Json{{"b", 1}, {"a", "x"}}), b = a, c = JsonText::Of(std::string("{\"a\":\"x\",\"b\":1}"));
  EXPECT_EQ(&a.text(), &b.text());
  EXPECT_EQ(a, c);
  EXPECT_EQ(a.Tree(), (Json{{"a", "x"}, {"b", 1}}));
  EXPECT_EQ(JsonText().text(), "null");
  EXPECT_EQ(JsonText(), JsonText(Json()));
  EXPECT_TRUE(JsonText(Json()).is_null());
  EXPECT_FALSE(a == JsonText());
  EXPECT_FALSE(JsonText::Read("[1,", "the text").ok());
  EXPECT_EQ(JsonText::Read("[1]", "the text")->Tree(), Json::array({1}));
}

}  // namespace
}  // namespace pare
