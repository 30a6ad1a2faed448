#include "worker/step_runner.h"

#include <utility>

namespace pare::worker {
namespace {

template <typename Tag>
std::string HexOrEmpty(const Id<Tag>& id) {
  return id.is_none() ? std::string() : id.hex();
}

// A field that holds a digest, or "" for none.
Result<Digest> OptionalDigest(const Json& object, std::string_view field) {
  ASSIGN_OR_RETURN(std::string hex, StringField(object, field));
  if (hex.empty()) return Digest();
  Result<Digest> digest = Digest::FromHex(hex);
  if (!digest.ok()) return digest.error().With("field '" + std::string(field) + "'");
  return *digest;
}

Result<Json> AnyField(const Json& object, std::string_view field) {
  if (!object.is_object() || !object.contains(field)) {
    return Error{ErrorCode::kInvalid, "field '" + std::string(field) + "' is missing"};
  }
  return *object.find(field);
}

Result<int64_t> CountField(const Json& object, std::string_view field) {
  ASSIGN_OR_RETURN(int64_t value, IntField(object, field));
  if (value < 0) return Error{ErrorCode::kInvalid, "field '" + std::string(field) + "': expected an integer ≥ 0"};
  return value;
}

Json ToJson(const GangPlace& gang) { return {{"rank", gang.rank}, {"size", gang.size}}; }

Result<GangPlace> GangField(const Json& object) {
  ASSIGN_OR_RETURN(Json gang, AnyField(object, "gang"));
  ASSIGN_OR_RETURN(int64_t rank, CountField(gang, "rank"));
  ASSIGN_OR_RETURN(int64_t size, CountField(gang, "size"));
  if (size < 1 || size > kMaxGangSize || rank >= size) {
    return Error{ErrorCode::kInvalid, "field 'gang': expected a rank below a size of 1 to " + std::to_string(kMaxGangSize)};
  }
  return GangPlace{static_cast<int>(rank), static_cast<int>(size)};
}

struct EventToJson {
  Json operator()(const RunnerReady& e) { return {{"type", "ready"}, {"device", e.device}}; }
  Json operator()(const StepJoins& e) { return {{"type", "joins"}, {"endpoint", e.endpoint}}; }
  Json operator()(const StepProgress& e) { return {{"type", "progress"}, {"values", e.values}}; }
  Json operator()(const StepSnapshot& e) {
    return {{"type", "snapshot"}, {"blob", HexOrEmpty(e.blob)}, {"position", e.position}};
  }
  Json operator()(const StepDone& e) {
    return {{"type", "done"}, {"artifact", HexOrEmpty(e.artifact)}, {"manifest", e.manifest}, {"busy_ms", e.busy_ms}};
  }
  Json operator()(const StepFailed& e) {
    return {{"type", "failed"}, {"error_class", e.error_class}, {"message", e.message}, {"busy_ms", e.busy_ms}};
  }
  Json operator()(const StepStopped& e) {
    return {{"type", "stopped"}, {"snapshot", HexOrEmpty(e.snapshot)}, {"position", e.position}, {"busy_ms", e.busy_ms}};
  }
  Json operator()(const RunnerLost& e) { return {{"type", "lost"}, {"message", e.message}, {"out_of_memory", e.out_of_memory}}; }
};

Result<RunnerEvent> ReadEnd(const std::string& type, const Json& json) {
  ASSIGN_OR_RETURN(int64_t busy_ms, CountField(json, "busy_ms"));
  if (type == "done") {
    ASSIGN_OR_RETURN(Digest artifact, DigestField(json, "artifact"));
    ASSIGN_OR_RETURN(Json manifest, AnyField(json, "manifest"));
    return RunnerEvent(StepDone{artifact, std::move(manifest), busy_ms});
  }
  if (type == "failed") {
    ASSIGN_OR_RETURN(std::string error_class, StringField(json, "error_class"));
    ASSIGN_OR_RETURN(std::string message, StringField(json, "message"));
    return RunnerEvent(StepFailed{std::move(error_class), std::move(message), busy_ms});
  }
  ASSIGN_OR_RETURN(Digest snapshot, OptionalDigest(json, "snapshot"));
  ASSIGN_OR_RETURN(Json position, AnyField(json, "position"));
  return RunnerEvent(StepStopped{snapshot, std::move(position), busy_ms});
}

}  // namespace

// By value, field by field: a list of pairs would copy the trees twice.
Json ToJson(Assignment a) {
  Json inputs = Json::object();
  for (const auto& [role, artifact] : a.inputs) inputs[role] = artifact.hex();
  Json json = Json::object();
  json["key"] = a.key.hex();
  json["lease_epoch"] = a.lease_epoch;
  json["attempt"] = a.attempt;
  json["spec"] = std::move(a.spec);
  json["inputs"] = std::move(inputs);
  json["data"] = std::move(a.data);
  json["weights"] = HexOrEmpty(a.weights);
  json["gang"] = ToJson(a.gang);
  json["hints"] = std::move(a.hints);
  json["snapshot"] = HexOrEmpty(a.snapshot);
  return json;
}

JsonText ToText(const Assignment& a, const JsonText& spec, const JsonText& data, const JsonText& hints) {
  std::string text = "{\"attempt\":" + std::to_string(a.attempt);
  ((text += ",\"data\":") += data.text()) += ",\"gang\":";
  (text += Canonical(ToJson(a.gang))) += ",\"hints\":";
  (((text += hints.text()) += ",\"inputs\":") += TextOfIds(a.inputs)) += ",\"key\":\"";
  ((text += a.key.hex()) += "\",\"lease_epoch\":") += std::to_string(a.lease_epoch);
  ((text += ",\"snapshot\":\"") += HexOrEmpty(a.snapshot)) += "\",\"spec\":";
  ((text += spec.text()) += ",\"weights\":\"") += HexOrEmpty(a.weights);
  return JsonText::Of(text + "\"}");
}

Result<Assignment> AssignmentFromText(const JsonText& text) { return AssignmentFromJson(text.Tree()); }

Result<Assignment> AssignmentFromJson(const Json& json) {
  Assignment a;
  ASSIGN_OR_RETURN(a.key, StepKeyField(json, "key"));
  ASSIGN_OR_RETURN(a.lease_epoch, CountField(json, "lease_epoch"));
  ASSIGN_OR_RETURN(int64_t attempt, CountField(json, "attempt"));
  if (attempt > INT32_MAX) return Error{ErrorCode::kInvalid, "field 'attempt': expected an integer below 2^31"};
  a.attempt = static_cast<int>(attempt);
  ASSIGN_OR_RETURN(a.spec, AnyField(json, "spec"));
  ASSIGN_OR_RETURN(Json inputs, AnyField(json, "inputs"));
  if (!inputs.is_object()) return Error{ErrorCode::kInvalid, "field 'inputs': expected an object"};
  for (const auto& [role, unused] : inputs.items()) {
    Result<Digest> artifact = DigestField(inputs, role);
    if (!artifact.ok()) return artifact.error().With("field 'inputs'");
    a.inputs.emplace(role, *artifact);
  }
  ASSIGN_OR_RETURN(a.data, AnyField(json, "data"));
  ASSIGN_OR_RETURN(a.weights, OptionalDigest(json, "weights"));
  ASSIGN_OR_RETURN(a.gang, GangField(json));
  ASSIGN_OR_RETURN(a.hints, AnyField(json, "hints"));
  ASSIGN_OR_RETURN(a.snapshot, OptionalDigest(json, "snapshot"));
  return a;
}

Json ToJson(const RunnerEvent& event) { return std::visit(EventToJson{}, event); }

Result<RunnerEvent> RunnerEventFromJson(const Json& json) {
  ASSIGN_OR_RETURN(std::string type, StringField(json, "type"));
  if (type == "ready") {
    ASSIGN_OR_RETURN(std::string device, StringField(json, "device"));
    return RunnerEvent(RunnerReady{std::move(device)});
  }
  if (type == "joins") {
    ASSIGN_OR_RETURN(std::string endpoint, StringField(json, "endpoint"));
    return RunnerEvent(StepJoins{std::move(endpoint)});
  }
  if (type == "progress") {
    ASSIGN_OR_RETURN(Json values, AnyField(json, "values"));
    if (!values.is_object()) return Error{ErrorCode::kInvalid, "field 'values': expected an object"};
    return RunnerEvent(StepProgress{std::move(values)});
  }
  if (type == "snapshot") {
    ASSIGN_OR_RETURN(Digest blob, DigestField(json, "blob"));
    ASSIGN_OR_RETURN(Json position, AnyField(json, "position"));
    return RunnerEvent(StepSnapshot{blob, std::move(position)});
  }
  if (type == "done" || type == "failed" || type == "stopped") return ReadEnd(type, json);
  if (type == "lost") {
    ASSIGN_OR_RETURN(std::string message, StringField(json, "message"));
    ASSIGN_OR_RETURN(bool out_of_memory, BoolField(json, "out_of_memory"));
    return RunnerEvent(RunnerLost{std::move(message), out_of_memory});
  }
  return Error{ErrorCode::kInvalid, "unknown event '" + type.substr(0, 40) + "' from the runner"};
}

}  // namespace pare::worker
