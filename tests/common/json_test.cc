// The writer and the reader of canonical JSON against the library's own.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/random.h"

namespace pare {
namespace {

// Values and damaged texts, from counted random numbers.
class Source {
 public:
  explicit Source(uint64_t seed) : seed_(seed) {}

  uint64_t Word() {
    auto block = Philox4x32({static_cast<uint32_t>(++count_), 0, 0, 0}, {static_cast<uint32_t>(seed_), 1});
    return static_cast<uint64_t>(block[0]) << 32 | block[1];
  }
  size_t Below(size_t n) { return static_cast<size_t>(Word() % n); }

  std::string Text() {
    static const std::vector<std::string> kPieces = {"a", "key", "\"", "\\", "\n", "\x01", "\x7f", "é", "−", "😀", "/", "\xff", "\xc3", " ", std::string(1, '\0')};
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
      case 7: {
        Json array = Json::array();
        for (size_t n = Below(5); n > 0; --n) array.push_back(Value(depth - 1));
        return array;
      }
      default: {
        Json object = Json::object();
        for (size_t n = Below(5); n > 0; --n) object[Text()] = Value(depth - 1);
        return object;
      }
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

std::string OfLibrary(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

// Types included: 1, 1u and 1.0 are equal as values.
void ExpectSame(const Json& a, const Json& b, const std::string& text) {
  ASSERT_EQ(a.type(), b.type()) << text;
  ASSERT_EQ(a.size(), b.size()) << text;
  if (a.is_number_float()) {
    EXPECT_EQ(std::bit_cast<uint64_t>(a.get<double>()), std::bit_cast<uint64_t>(b.get<double>())) << text;
  } else if (!a.is_structured()) {
    EXPECT_EQ(a, b) << text;
  }
  for (auto x = a.begin(), y = b.begin(); a.is_structured() && x != a.end(); ++x, ++y) {
    if (a.is_object()) {
      ASSERT_EQ(x.key(), y.key()) << text;
    }
    ExpectSame(*x, *y, text);
  }
}

void ExpectReadAsByTheLibrary(const std::string& text) {
  Json expected = Json::parse(text, nullptr, false);
  auto found = ParseJson(text, "x");
  ASSERT_EQ(found.ok(), !expected.is_discarded()) << text;
  if (found.ok()) ExpectSame(*found, expected, text);
}

TEST(JsonTest, WritesWhatTheLibraryWrites) {
  Source source(1);
  for (int i = 0; i < 5'000; ++i) {
    Json value = source.Value(4);
    ASSERT_EQ(Canonical(value), OfLibrary(value));
  }
}

TEST(JsonTest, WritesWhatIsNotANumberAndBinaryAsTheLibraryDoes) {
  for (const Json& value : {Json(NAN), Json(INFINITY), Json::binary({1, 2}), Json(Json::value_t::discarded)}) EXPECT_EQ(Canonical(value), OfLibrary(value));
}

TEST(JsonTest, ReadsWhatTheLibraryReads) {
  Source source(2);
  for (int i = 0; i < 5'000; ++i) {
    Json value = source.Value(4);
    ExpectReadAsByTheLibrary(source.Below(2) == 0 ? OfLibrary(value) : value.dump(1, ' ', true, Json::error_handler_t::replace));
  }
}

TEST(JsonTest, RefusesWhatTheLibraryRefuses) {
  Source source(3);
  for (int i = 0; i < 15'000; ++i) ExpectReadAsByTheLibrary(source.Damaged(OfLibrary(source.Value(3))));
}

TEST(JsonTest, ReadsRareFormsAsTheLibraryDoes) {
  for (const char* text : {"", " ", "-", "-0", "-0.0", "0", "00", "01", "1.", ".5", "1e5", "1E+5", "1e", "1e-400", "1e400", "4.9e-324", "123456789012345678",
                           "1234567890123456789", "18446744073709551615", "18446744073709551616", "-9223372036854775808", "-9223372036854775809", "true ", "tru", "nul",
                           "null1", "[1,]", "[,1]", "{\"a\":1,}", "{\"a\":1,\"a\":[2]}", "{\"b\":1,\"a\":{\"c\":2},\"b\":3}", "{\"a\" :\t1 }\r\n", "{1:2}", "{\"a\"}", "\"\\ud83d\\ude00\"",
                           "\"\\ud83d\"", "\"\\u00\"", "\"\\", "\"a", "\xef\xbb\xbf[1]", "[1]x", "\"\xc3\xa9\"", "\"\xc3\"", "//\n1", "[[[[]]],{}]"}) {
    ExpectReadAsByTheLibrary(text);
  }
  ExpectReadAsByTheLibrary(std::string("[1]\0", 4));
  ExpectReadAsByTheLibrary(std::string("\"a\0b\"", 5));
}

}  // namespace
}  // namespace pare
