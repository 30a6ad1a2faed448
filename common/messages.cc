#include "common/messages.h"

#include <climits>
#include <cstdint>
#include <iterator>
#include <optional>
#include <type_traits>

#include "common/version.h"

namespace pare {
namespace {

// Field-wise JSON: Put writes a field, Get reads it back or remembers the first error. One Fields() per message names each
// field once, so that the two directions cannot disagree.
struct Writer {
  Json& json;
  void operator()(const char* name, const std::string& v) { json[name] = v; }
  void operator()(const char* name, const int64_t& v) { json[name] = v; }
  void operator()(const char* name, const int& v) { json[name] = v; }
  void operator()(const char* name, const bool& v) { json[name] = v; }
  void operator()(const char* name, const Json& v) { json[name] = v; }
  void operator()(const char* name, const Digest& v) { json[name] = v.is_none() ? "" : v.hex(); }
  void operator()(const char* name, const Lease& v) { json[name] = ToJson(v); }
  template <typename T>
  void operator()(const char* name, const std::vector<T>& values) {
    Json list = Json::array();
    for (const T& v : values) list.push_back(ToJson(v));
    json[name] = std::move(list);
  }
  static Json ToJson(const Lease& v) { return {{"step", v.step.hex()}, {"epoch", v.epoch}}; }
  static Json ToJson(const Digest& v) { return v.hex(); }
  static Json ToJson(const MetricPoint& v) { return {{"sequence", v.sequence}, {"values", v.values}}; }
};

constexpr size_t kMaxListItems = 10'000;

struct Reader {
  const Json& json;
  std::optional<Error> error;

  void Fail(const Error& e) { if (!error) error = e; }
  template <typename T>
  void Take(T& out, Result<T> value) { if (value.ok()) out = std::move(value).value(); else Fail(value.error()); }

  void operator()(const char* name, std::string& v) { Take(v, StringField(json, name)); }
  void operator()(const char* name, int64_t& v) { Take(v, IntField(json, name)); }
  void operator()(const char* name, int& v) {
    auto value = IntField(json, name);
    if (!value.ok()) return Fail(value.error());
    if (*value < INT32_MIN || *value > INT32_MAX) return Fail({ErrorCode::kInvalid, std::string("field '") + name + "': out of range"});
    v = static_cast<int>(*value);
  }
  void operator()(const char* name, bool& v) { Take(v, BoolField(json, name)); }
  void operator()(const char* name, Json& v) {
    auto it = json.find(name);
    if (it == json.end()) return Fail({ErrorCode::kInvalid, std::string("field '") + name + "' is missing"});
    v = *it;
  }
  void operator()(const char* name, Digest& v) {
    auto text = StringField(json, name);
    if (!text.ok()) return Fail(text.error());
    if (text->empty()) v = Digest(); else Take(v, Digest::FromHex(*text));
  }
  void operator()(const char* name, Lease& v) {
    auto it = json.find(name);
    if (it == json.end()) return Fail({ErrorCode::kInvalid, std::string("field '") + name + "' is missing"});
    Item(*it, v);
  }
  template <typename T>
  void operator()(const char* name, std::vector<T>& values) {
    auto it = json.find(name);
    if (it == json.end() || !it->is_array() || it->size() > kMaxListItems) {
      return Fail({ErrorCode::kInvalid, std::string("field '") + name + "': expected a list of at most 10000 items"});
    }
    values.resize(it->size());
    for (size_t i = 0; i < values.size(); ++i) Item((*it)[i], values[i]);
  }
  void Item(const Json& item, Lease& v) {
    Take(v.step, StepKeyField(item, "step"));
    Take(v.epoch, IntField(item, "epoch"));
  }
  void Item(const Json& item, Digest& v) {
    if (!item.is_string()) return Fail({ErrorCode::kInvalid, "expected a digest"});
    Take(v, Digest::FromHex(item.get<std::string>()));
  }
  void Item(const Json& item, MetricPoint& v) {
    Take(v.sequence, IntField(item, "sequence"));
    auto it = item.is_object() ? item.find("values") : item.end();
    if (!item.is_object() || it == item.end()) return Fail({ErrorCode::kInvalid, "field 'values' is missing"});
    v.values = *it;
  }
};

template <typename M, typename V>
void Fields(M& m, V& visit) requires std::is_same_v<std::remove_const_t<M>, Hello> {
  visit("worker", m.worker); visit("pare_version", m.pare_version); visit("host", m.host); visit("device", m.device);
  visit("threads", m.threads); visit("running", m.running); visit("cached", m.cached);
}
template <typename M, typename V>
void Fields(M& m, V& visit) requires std::is_same_v<std::remove_const_t<M>, Heartbeat> {
  visit("worker", m.worker); visit("running", m.running); visit("cached", m.cached);
}
template <typename M, typename V>
void Fields(M& m, V& visit) requires std::is_same_v<std::remove_const_t<M>, Progress> {
  visit("lease", m.lease); visit("points", m.points);
}
template <typename M, typename V>
void Fields(M& m, V& visit) requires std::is_same_v<std::remove_const_t<M>, SnapshotTaken> {
  visit("lease", m.lease); visit("blob", m.blob); visit("position", m.position);
}
template <typename M, typename V>
void Fields(M& m, V& visit) requires std::is_same_v<std::remove_const_t<M>, StepFinished> {
  visit("lease", m.lease); visit("artifact", m.artifact); visit("manifest", m.manifest); visit("busy_ms", m.busy_ms);
}
template <typename M, typename V>
void Fields(M& m, V& visit) requires std::is_same_v<std::remove_const_t<M>, StepAborted> {
  visit("lease", m.lease); visit("error_class", m.error_class); visit("message", m.message); visit("busy_ms", m.busy_ms);
}
template <typename M, typename V>
void Fields(M& m, V& visit) requires std::is_same_v<std::remove_const_t<M>, Released> {
  visit("lease", m.lease); visit("snapshot", m.snapshot); visit("position", m.position); visit("busy_ms", m.busy_ms);
}
template <typename M, typename V>
void Fields(M& m, V& visit) requires std::is_same_v<std::remove_const_t<M>, Goodbye> { visit("worker", m.worker); }
template <typename M, typename V>
void Fields(M& m, V& visit) requires std::is_same_v<std::remove_const_t<M>, Welcome> {
  visit("heartbeat_ms", m.heartbeat_ms); visit("lease_timeout_ms", m.lease_timeout_ms); visit("store", m.store);
  visit("host", m.host); visit("blob_endpoint", m.blob_endpoint); visit("drop", m.drop);
}
template <typename M, typename V>
void Fields(M& m, V& visit) requires std::is_same_v<std::remove_const_t<M>, Refused> { visit("code", m.code); visit("message", m.message); }
template <typename M, typename V>
void Fields(M& m, V& visit) requires std::is_same_v<std::remove_const_t<M>, Grant> {
  visit("lease", m.lease); visit("attempt", m.attempt); visit("assignment", m.assignment);
}
template <typename M, typename V>
void Fields(M& m, V& visit) requires std::is_same_v<std::remove_const_t<M>, Revoke> {
  visit("lease", m.lease); visit("keep", m.keep); visit("reason", m.reason);
}
template <typename M, typename V>
void Fields(M& m, V& visit) requires std::is_same_v<std::remove_const_t<M>, Ack> {
  visit("lease", m.lease); visit("of", m.of); visit("sequence", m.sequence);
}
template <typename M, typename V>
void Fields(M& m, V& visit) requires std::is_same_v<std::remove_const_t<M>, Stale> { visit("lease", m.lease); visit("reason", m.reason); }
template <typename M, typename V>
void Fields(M& m, V& visit) requires std::is_same_v<std::remove_const_t<M>, Shutdown> { visit("reason", m.reason); }
template <typename M, typename V>
void Fields(M& m, V& visit) requires std::is_same_v<std::remove_const_t<M>, Request> {
  visit("id", m.id); visit("method", m.method); visit("args", m.args);
}
template <typename M, typename V>
void Fields(M& m, V& visit) requires std::is_same_v<std::remove_const_t<M>, Reply> {
  visit("id", m.id); visit("ok", m.ok); visit("result", m.result); visit("code", m.code); visit("message", m.message);
}

// In the order of the variant's alternatives.
constexpr std::string_view kTypes[] = {"hello", "heartbeat", "progress", "snapshot_taken", "step_finished", "step_aborted",
                                       "released", "goodbye", "welcome", "refused", "grant", "revoke", "ack", "stale",
                                       "shutdown", "request", "reply"};
static_assert(std::size(kTypes) == std::variant_size_v<Message>);

template <size_t I>
Result<Message> DecodeAlternative(std::string_view type, const Json& json) {
  if constexpr (I == std::variant_size_v<Message>) {
    return Error{ErrorCode::kInvalid, "message of unknown type '" + std::string(type.substr(0, 40)) + "'"};
  } else {
    if (kTypes[I] != type) return DecodeAlternative<I + 1>(type, json);
    std::variant_alternative_t<I, Message> message;
    Reader reader{json, {}};
    Fields(message, reader);
    if (reader.error) return reader.error->With("message '" + std::string(type) + "'");
    return Message(std::move(message));
  }
}

}  // namespace

std::string_view TypeOf(const Message& message) { return kTypes[message.index()]; }

std::string Encode(const Message& message) {
  Json json = {{"v", kProtocolVersion}, {"type", TypeOf(message)}};
  Writer writer{json};
  std::visit([&](const auto& m) { Fields(m, writer); }, message);
  return Canonical(json);
}

Result<Message> Decode(std::string_view bytes) {
  ASSIGN_OR_RETURN(Json json, ParseJson(bytes, "message"));
  ASSIGN_OR_RETURN(int64_t version, IntField(json, "v"));
  if (version != kProtocolVersion) {
    return Error{ErrorCode::kVersion, "the other side speaks protocol version " + std::to_string(version) + ", this is version " +
                                          std::to_string(kProtocolVersion) + ": use the same Pare release on both sides"};
  }
  ASSIGN_OR_RETURN(std::string type, StringField(json, "type"));
  return DecodeAlternative<0>(type, json);
}

}  // namespace pare
