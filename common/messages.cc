#include "common/messages.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <concepts>
#include <optional>
#include <utility>

#include "common/transport.h"
#include "common/version.h"

namespace pare {
namespace {

constexpr std::array<std::string_view, std::variant_size_v<Message>> kTypes = {
    "hello",   "heartbeat", "progress", "snapshot_taken", "step_finished", "step_aborted", "prepared", "released", "goodbye",
    "welcome", "refused",   "grant",    "commit",         "revoke",        "ack",          "stale",    "shutdown", "request", "reply"};

constexpr size_t kMaxNameBytes = 1024;  // ids, host names, endpoints, paths, codes
constexpr size_t kMaxLeases = 64;
constexpr size_t kMaxCached = 64;
constexpr size_t kMaxPoints = 4096;

// Strings that are read by people and may be long (bounded by the message alone); all other strings are names.
struct Text {
  std::string& value;
};
struct ConstText {
  const std::string& value;
};
Text AsText(std::string& s) { return {s}; }
ConstText AsText(const std::string& s) { return {s}; }

template <typename M, typename T>
concept Is = std::same_as<std::remove_const_t<M>, T>;

// The fields of every message, listed once and visited by the encoder (const) and the decoder alike: the two directions
// cannot disagree.
void Fields(auto& f, Is<Lease> auto& m) { f("step", m.step), f("epoch", m.epoch); }
void Fields(auto& f, Is<MetricPoint> auto& m) { f("sequence", m.sequence), f("values", m.values); }
void Fields(auto& f, Is<Hello> auto& m) {
  f("worker", m.worker), f("pare_version", m.pare_version), f("host", m.host), f("device", m.device);
  f("threads", m.threads), f("running", m.running), f("cached", m.cached);
}
void Fields(auto& f, Is<Heartbeat> auto& m) { f("worker", m.worker), f("running", m.running), f("cached", m.cached); }
void Fields(auto& f, Is<Progress> auto& m) { f("lease", m.lease), f("after", m.after), f("points", m.points); }
void Fields(auto& f, Is<SnapshotTaken> auto& m) {
  f("lease", m.lease), f("sequence", m.sequence), f("blob", m.blob), f("position", m.position);
}
void Fields(auto& f, Is<StepFinished> auto& m) {
  f("lease", m.lease), f("artifact", m.artifact), f("manifest", m.manifest), f("busy_ms", m.busy_ms);
}
void Fields(auto& f, Is<StepAborted> auto& m) {
  f("lease", m.lease), f("error_class", m.error_class), f("message", AsText(m.message)), f("busy_ms", m.busy_ms);
}
void Fields(auto& f, Is<Prepared> auto& m) { f("lease", m.lease), f("endpoint", m.endpoint); }
void Fields(auto& f, Is<Released> auto& m) {
  f("lease", m.lease), f("snapshot", m.snapshot), f("position", m.position), f("busy_ms", m.busy_ms);
}
void Fields(auto& f, Is<Goodbye> auto& m) { f("worker", m.worker); }
void Fields(auto& f, Is<Welcome> auto& m) {
  f("heartbeat_ms", m.heartbeat_ms), f("lease_timeout_ms", m.lease_timeout_ms), f("store", AsText(m.store));
  f("host", m.host), f("blob_endpoint", m.blob_endpoint), f("drop", m.drop);
}
void Fields(auto& f, Is<Refused> auto& m) { f("code", m.code), f("message", AsText(m.message)); }
void Fields(auto& f, Is<Grant> auto& m) { f("lease", m.lease), f("attempt", m.attempt), f("assignment", m.assignment); }
void Fields(auto& f, Is<Commit> auto& m) { f("lease", m.lease), f("endpoints", m.endpoints); }
void Fields(auto& f, Is<Revoke> auto& m) { f("lease", m.lease), f("keep", m.keep), f("reason", AsText(m.reason)); }
void Fields(auto& f, Is<Ack> auto& m) { f("lease", m.lease), f("of", m.of), f("sequence", m.sequence); }
void Fields(auto& f, Is<Stale> auto& m) { f("lease", m.lease), f("reason", AsText(m.reason)); }
void Fields(auto& f, Is<Shutdown> auto& m) { f("reason", AsText(m.reason)); }
void Fields(auto& f, Is<Request> auto& m) { f("id", m.id), f("method", m.method), f.Object("args", m.args); }
void Fields(auto& f, Is<Reply> auto& m) {
  f("id", m.id), f("ok", m.ok);
  if (m.ok) {
    f("result", m.result);
  } else {
    f("code", m.code), f("message", AsText(m.message));
  }
}

// Writes canonical JSON directly: a tree would be copied, sorted and thrown away for every message. The text is that of
// Canonical() for the same object.
class Encoder {
 public:
  void operator()(const char* field, const auto& value) { fields_.emplace_back(field, Value(value)); }
  void Object(const char* field, const Json& value) { fields_.emplace_back(field, Canonical(value)); }

  // The object, its fields in byte order.
  std::string Text() {
    std::sort(fields_.begin(), fields_.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    size_t size = 2;
    for (const auto& [name, value] : fields_) size += name.size() + value.size() + 4;
    std::string text;
    text.reserve(size);
    for (const auto& [name, value] : fields_) (((text += text.empty() ? "{\"" : ",\"") += name) += "\":") += value;
    return fields_.empty() ? "{}" : text + "}";
  }

  static std::string Value(const std::string& value) { return Quoted(value); }
  static std::string Value(std::string_view value) { return Quoted(value); }
  static std::string Value(int64_t value) { return std::to_string(value); }
  static std::string Value(int value) { return std::to_string(value); }

 private:
  static std::string Quoted(std::string_view value) {
    bool plain = std::all_of(value.begin(), value.end(), [](char c) { return c >= ' ' && c < 0x7f && c != '"' && c != '\\'; });
    return plain ? "\"" + std::string(value) + "\"" : Canonical(Json(value));
  }
  static std::string Value(const Json& value) { return Canonical(value); }
  static const std::string& Value(const JsonText& value) { return value.text(); }
  static std::string Value(const ConstText& text) { return Quoted(text.value); }
  static std::string Value(bool value) { return value ? "true" : "false"; }
  template <typename Tag>
  static std::string Value(const Id<Tag>& id) {
    return id.is_none() ? "\"\"" : "\"" + id.hex() + "\"";
  }
  template <typename T>
  static std::string Value(const std::vector<T>& values) {
    std::string list;
    for (const T& value : values) (list += list.empty() ? "[" : ",") += Value(value);
    return list.empty() ? "[]" : list + "]";
  }
  template <typename T>
    requires Is<T, Lease> || Is<T, MetricPoint>
  static std::string Value(const T& value) {
    Encoder encoder;
    Fields(encoder, value);
    return encoder.Text();
  }

  std::vector<std::pair<std::string_view, std::string>> fields_;
};

// Reads the fields of one object out of its text, which is valid JSON; a tree is built only of what is one in the message. The first
// thing that does not fit is kept as the error, the rest is skipped.
class Decoder {
 public:
  explicit Decoder(std::string_view object) {
    if (TypeNameOf(object) == "object") fields_ = FieldsOf(object);
    else Fail("expected an object, found " + std::string(TypeNameOf(object)));
  }

  void operator()(const char* field, auto&& value) {
    if (auto text = Take(field)) Read(field, *text, value);
  }
  void Object(const char* field, Json& value) {
    auto text = Take(field);
    if (!text) return;
    if (TypeNameOf(*text) != "object") return Mistyped(field, "an object", *text);
    Read(field, *text, value);
  }
  Status so_far() const {
    if (problem_) return Error{ErrorCode::kInvalid, *problem_};
    return Ok();
  }
  Status Finish() {
    if (fields_.size() != taken_) Fail("it has a field twice, or one that this message does not know");
    return so_far();
  }

 private:
  void Fail(std::string problem) {
    if (!problem_) problem_ = std::move(problem);
  }
  void Mistyped(const char* field, const std::string& expected, std::string_view found) {
    Fail("field '" + std::string(field) + "': expected " + expected + ", found " + std::string(TypeNameOf(found)));
  }
  void TooLong(const char* field, size_t found, size_t limit) {
    Fail("field '" + std::string(field) + "': size " + std::to_string(found) + ", at most " + std::to_string(limit) +
         " is accepted");
  }
  std::optional<std::string_view> Take(std::string_view field) {
    if (problem_) return std::nullopt;
    auto it = std::find_if(fields_.begin(), fields_.end(), [&](const JsonField& f) { return f.name == field; });
    if (it == fields_.end()) {
      Fail("field '" + std::string(field) + "' is missing");
      return std::nullopt;
    }
    ++taken_;
    return it->value;
  }

  void Read(const char* field, std::string_view text, Json& value) {
    auto tree = ParseJson(text, field);
    if (!tree.ok()) return Fail(tree.error().message);
    value = *std::move(tree);
  }
  void Read(const char*, std::string_view text, JsonText& value) { value = JsonText::Of(std::string(text)); }
  void Read(const char* field, std::string_view text, bool& value) {
    if (TypeNameOf(text) != "boolean") return Mistyped(field, "true or false", text);
    value = text == "true";
  }
  // Every integer of the protocol is a count, an id or a duration: never negative.
  void Read(const char* field, std::string_view text, int64_t& value) {
    uint64_t read = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), read);
    if (error == std::errc::result_out_of_range || read > uint64_t{INT64_MAX}) return Mistyped(field, "an integer below 2^63", text);
    if (error != std::errc() || end != text.data() + text.size()) return Mistyped(field, "an integer ≥ 0", text);
    value = static_cast<int64_t>(read);
  }
  void Read(const char* field, std::string_view text, int& value) {
    int64_t wide = 0;
    Read(field, text, wide);
    if (wide > INT32_MAX) return Mistyped(field, "an integer below 2^31", text);
    value = static_cast<int>(wide);
  }
  bool ReadString(const char* field, const char* expected, std::string_view text, std::string& value) {
    if (TypeNameOf(text) != "string") {
      Mistyped(field, expected, text);
      return false;
    }
    if (text.find('\\') == std::string_view::npos) {
      value = text.substr(1, text.size() - 2);
    } else {
      value = ParseJson(text, field)->get<std::string>();
    }
    return true;
  }
  void Read(const char* field, std::string_view text, std::string& value) {
    if (!ReadString(field, "a string", text, value) || value.size() <= kMaxNameBytes) return;
    TooLong(field, value.size(), kMaxNameBytes);
    value.clear();
  }
  void Read(const char* field, std::string_view json, Text& text) { ReadString(field, "a string", json, text.value); }
  template <typename Tag>
  void Read(const char* field, std::string_view text, Id<Tag>& id) {
    std::string hex;
    if (!ReadString(field, "a SHA-256 or \"\"", text, hex)) return;
    if (hex.empty()) {
      id = Id<Tag>();
      return;
    }
    Result<Id<Tag>> read = Id<Tag>::FromHex(hex);
    if (!read.ok()) return Fail(read.error().With("field '" + std::string(field) + "'").message);
    id = *read;
  }
  template <typename T>
  void Read(const char* field, std::string_view text, std::vector<T>& values) {
    constexpr size_t kLimit = Is<T, Lease> ? kMaxLeases : Is<T, MetricPoint> ? kMaxPoints : kMaxCached;
    if (TypeNameOf(text) != "array") return Mistyped(field, "a list", text);
    std::vector<std::string_view> elements = ElementsOf(text);
    if (elements.size() > kLimit) return TooLong(field, elements.size(), kLimit);
    values.resize(elements.size());
    for (size_t i = 0; i < values.size() && !problem_; ++i) Read(field, elements[i], values[i]);
  }
  template <typename T>
    requires Is<T, Lease> || Is<T, MetricPoint>
  void Read(const char* field, std::string_view text, T& value) {
    Decoder decoder(text);
    Fields(decoder, value);
    if (Status status = decoder.Finish(); !status.ok()) Fail("field '" + std::string(field) + "': " + status.error().message);
  }

  std::vector<JsonField> fields_;
  size_t taken_ = 0;
  std::optional<std::string> problem_;
};

template <typename M>
Result<Message> DecodeAs(Decoder& decoder, std::string_view type) {
  M message;
  Fields(decoder, message);
  if (Status status = decoder.Finish(); !status.ok()) return status.error().With("message '" + std::string(type) + "'");
  return Message(std::move(message));
}

using DecodeFunction = Result<Message> (*)(Decoder&, std::string_view);
constexpr auto kDecoders = []<size_t... i>(std::index_sequence<i...>) {
  return std::array<DecodeFunction, sizeof...(i)>{&DecodeAs<std::variant_alternative_t<i, Message>>...};
}(std::make_index_sequence<std::variant_size_v<Message>>());

}  // namespace

std::string_view TypeOf(const Message& message) { return kTypes[message.index()]; }

std::string Encode(const Message& message) {
  Encoder encoder;
  encoder("v", kProtocolVersion);
  encoder("type", TypeOf(message));
  std::visit([&](const auto& m) { Fields(encoder, m); }, message);
  return encoder.Text();
}

Result<Message> Decode(std::string_view bytes) {
  if (bytes.size() > static_cast<size_t>(kMaxMessageBytes)) {
    return Error{ErrorCode::kInvalid, "message: " + std::to_string(bytes.size()) + " bytes, at most " +
                                          std::to_string(kMaxMessageBytes) + " are accepted"};
  }
  TRY(CheckJson(bytes, "message"));
  Decoder decoder(bytes);
  int64_t version = 0;
  decoder("v", version);
  if (Status status = decoder.so_far(); !status.ok()) return status.error().With("message");
  if (version != kProtocolVersion) {
    return Error{ErrorCode::kVersion, "the sender speaks protocol version " + std::to_string(version) +
                                          ", this program speaks version " + std::to_string(kProtocolVersion) +
                                          ": run the same release of pare on both sides"};
  }
  std::string type;
  decoder("type", type);
  if (Status status = decoder.so_far(); !status.ok()) return status.error().With("message");
  for (size_t i = 0; i < kTypes.size(); ++i) {
    if (kTypes[i] == type) return kDecoders[i](decoder, type);
  }
  return Error{ErrorCode::kInvalid, "message: unknown type '" + type.substr(0, 40) + "'"};
}

}  // namespace pare
