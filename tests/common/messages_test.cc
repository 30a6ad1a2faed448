#include "common/messages.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <limits>
#include <set>

#include "common/random.h"
#include "common/transport.h"
#include "common/version.h"

namespace pare {
namespace {

// ---- generators: any value that the protocol can carry ----

std::string AnyText(size_t most = 40) {
  static const std::vector<std::string> kPieces = {"a", "Z", "0", " ", "\"", "\\", "\n", "\t", "é", "≤", "😀", std::string(1, '\0'), "/"};
  auto pieces = *rc::gen::resize(static_cast<int>(most), rc::gen::container<std::vector<std::string>>(rc::gen::elementOf(kPieces)));
  std::string text;
  for (const std::string& piece : pieces) text += piece;
  return text;
}

int64_t AnyCount() {
  return *rc::gen::oneOf(rc::gen::inRange<int64_t>(0, 1000), rc::gen::just(std::numeric_limits<int64_t>::max()),
                         rc::gen::just<int64_t>(0), rc::gen::inRange<int64_t>(0, std::numeric_limits<int64_t>::max()));
}

template <typename I>
I AnyId() {
  if (*rc::gen::inRange(0, 4) == 0) return I();
  std::array<uint8_t, 32> bytes;
  for (uint8_t& byte : bytes) byte = *rc::gen::arbitrary<uint8_t>();
  return I(bytes);
}

Json AnyJson(int depth = 3) {
  switch (*rc::gen::inRange(0, depth > 0 ? 8 : 6)) {
    case 0: return nullptr;
    case 1: return *rc::gen::arbitrary<bool>();
    case 2: return *rc::gen::arbitrary<int64_t>();
    case 3: return *rc::gen::arbitrary<uint64_t>();
    case 4: return *rc::gen::arbitrary<double>();
    case 5: return AnyText();
    case 6: {
      Json list = Json::array();
      for (int n = *rc::gen::inRange(0, 4); n > 0; --n) list.push_back(AnyJson(depth - 1));
      return list;
    }
    default: {
      Json object = Json::object();
      for (int n = *rc::gen::inRange(0, 4); n > 0; --n) object[AnyText(5)] = AnyJson(depth - 1);
      return object;
    }
  }
}

Json AnyObject() { return {{AnyText(5), AnyJson()}, {"x", AnyJson()}}; }
Lease AnyLease() { return {AnyId<StepKey>(), AnyCount()}; }

template <typename T, typename F>
std::vector<T> Several(int most, F&& make) {
  std::vector<T> values(static_cast<size_t>(*rc::gen::inRange(0, most + 1)));
  for (T& value : values) value = make();
  return values;
}

template <size_t I>
std::variant_alternative_t<I, Message> AnyOf();
template <> Hello AnyOf<0>() {
  return {AnyText(), AnyText(), AnyText(), AnyText(), *rc::gen::inRange(0, 1 << 30), Several<Lease>(3, AnyLease), Several<Digest>(64, AnyId<Digest>)};
}
template <> Heartbeat AnyOf<1>() { return {AnyText(), Several<Lease>(3, AnyLease), Several<Digest>(3, AnyId<Digest>)}; }
template <> Progress AnyOf<2>() {
  return {AnyLease(), AnyCount(), Several<MetricPoint>(5, [] { return MetricPoint{AnyCount(), AnyJson()}; })};
}
template <> SnapshotTaken AnyOf<3>() { return {AnyLease(), AnyCount(), AnyId<Digest>(), AnyJson()}; }
template <> StepFinished AnyOf<4>() { return {AnyLease(), AnyId<Digest>(), AnyJson(), AnyCount()}; }
template <> StepAborted AnyOf<5>() { return {AnyLease(), AnyText(), AnyText(), AnyCount()}; }
template <> Prepared AnyOf<6>() { return {AnyLease(), AnyText()}; }
template <> Released AnyOf<7>() { return {AnyLease(), AnyId<Digest>(), AnyJson(), AnyCount()}; }
template <> Goodbye AnyOf<8>() { return {AnyText()}; }
template <> Welcome AnyOf<9>() {
  return {AnyCount(), AnyCount(), AnyText(), AnyText(), AnyText(), Several<Lease>(3, AnyLease)};
}
template <> Refused AnyOf<10>() { return {AnyText(), AnyText()}; }
template <> Grant AnyOf<11>() { return {AnyLease(), *rc::gen::inRange(0, 100), AnyJson()}; }
template <> Commit AnyOf<12>() { return {AnyLease(), Several<std::string>(3, [] { return AnyText(); })}; }
template <> Revoke AnyOf<13>() { return {AnyLease(), *rc::gen::arbitrary<bool>(), AnyText()}; }
template <> Ack AnyOf<14>() { return {AnyLease(), AnyText(), AnyCount()}; }
template <> Stale AnyOf<15>() { return {AnyLease(), AnyText()}; }
template <> Shutdown AnyOf<16>() { return {AnyText()}; }
template <> Request AnyOf<17>() { return {AnyCount(), AnyText(), AnyObject()}; }
template <> Reply AnyOf<18>() {
  if (*rc::gen::arbitrary<bool>()) return {AnyCount(), true, AnyJson(), "", ""};
  return {AnyCount(), false, Json(), AnyText(), AnyText()};
}

template <size_t... I>
Message AnyMessageOf(size_t type, std::index_sequence<I...>) {
  Message message;
  (void)((type == I ? (message = AnyOf<I>(), true) : false) || ...);
  return message;
}
Message AnyMessage() {
  constexpr size_t kTypes = std::variant_size_v<Message>;
  return AnyMessageOf(*rc::gen::inRange<size_t>(0, kTypes), std::make_index_sequence<kTypes>());
}

RC_GTEST_PROP(MessagesTest, DecodingWhatWasEncodedGivesTheSameMessage, ()) {
  Message message = AnyMessage();
  Result<Message> decoded = Decode(Encode(message));
  RC_ASSERT(decoded.ok());
  RC_ASSERT(*decoded == message);
}

RC_GTEST_PROP(MessagesTest, WhatIsEncodedIsCanonicalJson, ()) {
  std::string bytes = Encode(AnyMessage());
  RC_ASSERT(bytes == Canonical(*ParseJson(bytes, "test")));
}

RC_GTEST_PROP(MessagesTest, EveryFieldIsRequiredAndNoOtherIsTaken, ()) {
  Message message = AnyMessage();
  Json json = *ParseJson(Encode(message), "test");
  for (const auto& [field, unused] : json.items()) {
    Json without = json;
    without.erase(field);
    RC_ASSERT(!Decode(without.dump()).ok());
  }
  json["no_such_field"] = 1;
  Result<Message> decoded = Decode(json.dump());
  RC_ASSERT(!decoded.ok());
  RC_ASSERT(decoded.error().code == ErrorCode::kInvalid);
}

// Whatever arrives is either refused or a message that encodes to something that decodes to it again.
TEST(MessagesTest, DamagedBytesNeverDecodeToAnythingElseThanAMessage) {
  RandomStream random(7, RandomPurpose::kTest);
  const Lease lease{StepKey(std::array<uint8_t, 32>{1, 2, 3}), 5};
  const std::vector<Message> seeds = {
      Hello{"w", "0.1", "h", "cpu", 2, {lease}, {DigestOf("a")}}, Progress{lease, 0, {{1, {{"epoch", 1.5}}}, {2, {}}}},
      Welcome{100, 1000, "/s", "h", "tcp://x:1", {lease}}, Grant{lease, 1, {{"key", "v"}}}, Reply{1, false, {}, "invalid", "m"}};
  int accepted = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = Encode(seeds[random.Below(seeds.size())]);
    for (uint64_t edits = 1 + random.Below(3); edits > 0 && !bytes.empty(); --edits) {
      size_t at = random.Below(bytes.size());
      switch (random.Below(4)) {
        case 0: bytes[at] = static_cast<char>(random.Below(256)); break;
        case 1: bytes.erase(at, 1 + random.Below(8)); break;
        case 2: bytes.insert(at, bytes.substr(random.Below(bytes.size()), random.Below(20))); break;
        default: bytes.resize(at);
      }
    }
    Result<Message> decoded = Decode(bytes);
    if (!decoded.ok()) {
      EXPECT_TRUE(decoded.error().code == ErrorCode::kInvalid || decoded.error().code == ErrorCode::kVersion);
      EXPECT_FALSE(decoded.error().message.empty());
      continue;
    }
    ++accepted;
    Result<Message> again = Decode(Encode(*decoded));
    ASSERT_TRUE(again.ok()) << bytes;
    EXPECT_TRUE(*again == *decoded) << bytes;
  }
  EXPECT_GT(accepted, 100);  // the damage is small enough to reach the fields
}

TEST(MessagesTest, AnotherVersionIsRefusedNamingBoth) {
  Result<Message> decoded = Decode(R"({"v": 99, "type": "hello", "field of the future": 1})");
  ASSERT_FALSE(decoded.ok());
  EXPECT_EQ(decoded.error().code, ErrorCode::kVersion);
  EXPECT_NE(decoded.error().message.find("99"), std::string::npos);
  EXPECT_NE(decoded.error().message.find(" " + std::to_string(kProtocolVersion) + ":"), std::string::npos) << decoded.error().message;
}

TEST(MessagesTest, RefusalsSayWhatIsWrongWhere) {
  auto message_of = [](std::string_view bytes) {
    Result<Message> decoded = Decode(bytes);
    return decoded.ok() ? "accepted" : decoded.error().message;
  };
  EXPECT_NE(message_of(R"({"v": 3, "type": "dance"})").find("unknown type 'dance'"), std::string::npos);
  EXPECT_EQ(message_of(R"({"v": 3, "type": "goodbye", "worker": 3})"),
            "message 'goodbye': field 'worker': expected a string, found number");
  EXPECT_EQ(message_of(R"({"v": 3, "type": "ack", "of": "progress", "sequence": 1, "lease": {"step": ""}})"),
            "message 'ack': field 'lease': field 'epoch' is missing");
  EXPECT_EQ(message_of(R"({"v": 3, "type": "ack", "of": "progress", "sequence": -1, "lease": {"step": "", "epoch": 1}})"),
            "message 'ack': field 'sequence': expected an integer ≥ 0, found number");
  EXPECT_NE(message_of(R"([1])"), "accepted");
  EXPECT_NE(message_of(""), "accepted");
  EXPECT_NE(message_of(R"({"v": 3, "type": "request", "id": 1, "method": "list", "args": []})").find("an object"), std::string::npos);
}

TEST(MessagesTest, OversizedFieldsAreRefused) {
  EXPECT_FALSE(Decode(Encode(Goodbye{std::string(2000, 'x')})).ok());
  EXPECT_FALSE(Decode(Encode(Hello{"w", "", "", "", 1, {}, std::vector<Digest>(65, DigestOf("a"))})).ok());
  EXPECT_TRUE(Decode(Encode(Shutdown{std::string(1 << 20, 'x')})).ok());
  Result<Message> huge = Decode(Encode(Shutdown{std::string(kMaxMessageBytes, 'x')}));
  ASSERT_FALSE(huge.ok());
  EXPECT_NE(huge.error().message.find("16777216"), std::string::npos);
}

TEST(MessagesTest, TextThatIsNotUnicodeStillTravels) {
  Result<Message> decoded = Decode(Encode(Shutdown{"bad \xff byte"}));
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(std::get<Shutdown>(*decoded).reason, "bad \uFFFD byte");
}

// The wire format is a contract: field names and shapes, one by one.
TEST(MessagesTest, AGrantLooksLikeThisOnTheWire) {
  Grant grant{{StepKey(std::array<uint8_t, 32>{0xab}), 7}, 2, {{"k", 1}}};
  EXPECT_EQ(Encode(grant), R"({"assignment":{"k":1},"attempt":2,"lease":{"epoch":7,"step":"ab)" + std::string(62, '0') +
                               R"("},"type":"grant","v":3})");
  EXPECT_EQ(Encode(Ack{{}, "heartbeat", 0}), R"({"lease":{"epoch":0,"step":""},"of":"heartbeat","sequence":0,"type":"ack","v":3})");
}

}  // namespace
}  // namespace pare
