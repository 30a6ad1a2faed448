// Digests, JSON and results: the values that everything else is made of.
#include <gtest/gtest.h>

#include <cerrno>

#include "common/digest.h"
#include "common/json.h"
#include "common/result.h"

namespace pare {
namespace {

// FIPS 180-4 examples (NIST CSRC, "SHA-256 example values") and the empty message.
TEST(DigestTest, GivesTheKnownAnswersOfSha256) {
  EXPECT_EQ(DigestOf(std::string_view("")).hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(DigestOf(std::string_view("abc")).hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(DigestOf(std::string_view("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")).hex(),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(DigestOf(std::string_view(std::string(1'000'000, 'a'))).hex(),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(DigestTest, PiecesGiveTheDigestOfTheWhole) {
  Sha256 hash;
  hash.Update(std::string_view("a"));
  hash.Update(std::string_view("bc"));
  EXPECT_EQ(Digest(hash.Finish()), DigestOf(std::string_view("abc")));
}

TEST(DigestTest, IsOrderedByItsBytes) {
  std::array<uint8_t, 32> bytes{};
  for (size_t at = 0; at < 32; ++at) {
    for (auto [low, high] : {std::pair<uint8_t, uint8_t>{0, 1}, {1, 2}, {127, 128}, {1, 255}}) {
      auto less = bytes, more = bytes;
      less[at] = low;
      more[at] = high;
      if (at < 31) less[at + 1] = 255;  // what follows decides nothing
      EXPECT_TRUE(Digest(less) < Digest(more) && Digest(more) > Digest(less) && Digest(less) != Digest(more)) << at;
    }
    bytes[at] = 7;
  }
  EXPECT_EQ(Digest(bytes) <=> Digest(bytes), std::strong_ordering::equal);
}

TEST(DigestTest, ReadsOnlySixtyFourLowerCaseDigits) {
  Digest digest = DigestOf(std::string_view("abc"));
  EXPECT_EQ(*Digest::FromHex(digest.hex()), digest);
  EXPECT_EQ(digest.brief(), digest.hex().substr(0, 12));
  for (std::string bad : {std::string(), digest.hex().substr(1), digest.hex() + "0", "G" + digest.hex().substr(1),
                          "A" + digest.hex().substr(1), " " + digest.hex().substr(1)}) {
    auto result = Digest::FromHex(bad);
    ASSERT_FALSE(result.ok()) << bad;
    EXPECT_EQ(result.error().code, ErrorCode::kInvalid);
  }
  EXPECT_TRUE(Digest().is_none());
  EXPECT_FALSE(digest.is_none());
}

TEST(JsonTest, CanonicalBytesDependOnTheValueOnly) {
  auto a = ParseJson(R"({"b": [1, 2.50, true, null], "a": {"y": 1e2, "x": "é"}})", "a");
  auto b = ParseJson("{\"a\":{\"x\":\"\\u00e9\",\"y\":100.0},\"b\":[1,2.5,true,null]}", "b");
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_EQ(Canonical(*a), R"({"a":{"x":"é","y":100.0},"b":[1,2.5,true,null]})");
  EXPECT_EQ(Canonical(*a), Canonical(*b));
}

TEST(JsonTest, NumbersSurviveARoundTripToTheBit) {
  for (double value : {0.1, 1.0 / 3.0, 5e-324, 1.7976931348623157e308, -0.0, 123456789.123456789}) {
    auto back = ParseJson(Canonical(Json(value)), "number");
    ASSERT_TRUE(back.ok());
    EXPECT_EQ(back->get<double>(), value);
  }
  EXPECT_EQ(ParseJson("9223372036854775807", "n")->get<int64_t>(), INT64_MAX);
}

TEST(JsonTest, RefusesWhatIsNotJsonAndNamesIt) {
  for (std::string bad : {"", "{", "[1,]", "{\"a\":1}x", "nul", "\"\x01\"", "NaN"}) {
    auto result = ParseJson(bad, "the file");
    ASSERT_FALSE(result.ok()) << bad;
    EXPECT_EQ(result.error().code, ErrorCode::kInvalid);
    EXPECT_NE(result.error().message.find("the file"), std::string::npos);
  }
}

TEST(JsonTest, RefusesDeepNesting) {
  auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_TRUE(ParseJson(nested(kMaxJsonDepth), "x").ok());
  EXPECT_FALSE(ParseJson(nested(kMaxJsonDepth + 2), "x").ok());
  EXPECT_FALSE(ParseJson(nested(1'000'000), "x").ok());
  EXPECT_FALSE(ParseJson(std::string(1'000'000, '['), "x").ok());
}

TEST(JsonTest, FieldsOfTheWrongTypeNameFieldAndType) {
  Json object = {{"text", "a"}, {"number", 1.5}, {"large", UINT64_MAX}};
  EXPECT_EQ(*StringField(object, "text"), "a");
  EXPECT_EQ(*NumberField(object, "number"), 1.5);
  auto wrong = IntField(object, "number");
  ASSERT_FALSE(wrong.ok());
  EXPECT_EQ(wrong.error().message, "field 'number': expected an integer, found number");
  EXPECT_EQ(StringField(object, "none").error().message, "field 'none': expected a string, found missing");
  EXPECT_FALSE(IntField(object, "large").ok());
  EXPECT_FALSE(BoolField(object, "text").ok());
  EXPECT_FALSE(DigestField(object, "text").ok());
  EXPECT_FALSE(StringField(Json::array(), "text").ok());
  EXPECT_FALSE(StringField(Json(), "text").ok());
}

Result<int> Half(int x) {
  if (x % 2) return Error{ErrorCode::kInvalid, "odd"};
  return x / 2;
}
Result<int> Quarter(int x) {
  ASSIGN_OR_RETURN(int half, Half(x));
  return Half(half);
}
Status IsQuarterable(int x) {
  TRY(Quarter(x));
  return Ok();
}

TEST(ResultTest, MacrosPassValuesOnAndReturnErrors) {
  EXPECT_EQ(*Quarter(12), 3);
  EXPECT_EQ(Quarter(6).error().message, "odd");
  EXPECT_TRUE(IsQuarterable(8).ok());
  EXPECT_EQ(IsQuarterable(7).error().code, ErrorCode::kInvalid);
}

TEST(ResultTest, MovesValuesThatCannotBeCopied) {
  Result<std::unique_ptr<int>> result = std::make_unique<int>(3);
  std::unique_ptr<int> value = *std::move(result);
  EXPECT_EQ(*value, 3);
}

TEST(ErrorTest, CodesHaveNamesThatReadBack) {
  for (auto code : {ErrorCode::kInvalid, ErrorCode::kNotFound, ErrorCode::kUnreachable, ErrorCode::kUnknown, ErrorCode::kNoSpace,
                    ErrorCode::kCorrupt, ErrorCode::kConflict, ErrorCode::kVersion, ErrorCode::kDiverged, ErrorCode::kStopped,
                    ErrorCode::kIo, ErrorCode::kInternal}) {
    EXPECT_EQ(ErrorCodeFromString(ToString(code)), code) << ToString(code);
  }
  EXPECT_EQ(ErrorCodeFromString("no such name"), ErrorCode::kInternal);
}

TEST(ErrorTest, ContextStandsBeforeTheCause) {
  Error error = SystemError("open /x", ENOENT).With("reading");
  EXPECT_EQ(error.code, ErrorCode::kNotFound);
  EXPECT_EQ(error.message.rfind("reading: ", 0), 0u) << error.message;
  EXPECT_NE(error.message.find("/x"), std::string::npos);
  EXPECT_EQ(SystemError("write", ENOSPC).code, ErrorCode::kNoSpace);
  EXPECT_EQ(SystemError("write", EDQUOT).code, ErrorCode::kNoSpace);
  EXPECT_EQ(SystemError("write", EACCES).code, ErrorCode::kIo);
}

}  // namespace
}  // namespace pare
