#include "recipes/step.h"

#include "common/version.h"

namespace pare::recipes {

Json ToJson(const StepSpec& spec) {
  Json inputs = Json::object();
  for (const auto& [role, key] : spec.inputs) inputs[role] = key.hex();
  return {{"engine", kEngineVersion}, {"kind", spec.kind}, {"params", spec.params}, {"inputs", std::move(inputs)},
          {"data", spec.data.Tree()}, {"seed", spec.seed}, {"device", spec.device}};
}

Result<StepSpec> StepSpecFromJson(const Json& json) {
  ASSIGN_OR_RETURN(std::string engine, StringField(json, "engine"));
  if (engine != kEngineVersion) {
    return Error{ErrorCode::kVersion, "step of engine version " + engine + ", this release runs " + std::string(kEngineVersion)};
  }
  StepSpec spec;
  ASSIGN_OR_RETURN(spec.kind, StringField(json, "kind"));
  ASSIGN_OR_RETURN(spec.device, StringField(json, "device"));
  if (!json.contains("params") || !json["params"].is_object() || !json.contains("data") || !json.contains("inputs") ||
      !json["inputs"].is_object() || !json.contains("seed") || !json["seed"].is_number_unsigned()) {
    return Error{ErrorCode::kInvalid, "step spec: params, inputs, data or seed is missing or of a wrong type"};
  }
  spec.params = json["params"];
  spec.data = json["data"];
  spec.seed = json["seed"].get<uint64_t>();
  for (const auto& [role, key] : json["inputs"].items()) {
    ASSIGN_OR_RETURN(StepKey input, StepKeyField(json["inputs"], role));
    spec.inputs.emplace(role, input);
  }
  return spec;
}

JsonText ToText(const StepSpec& spec) {
  std::string text = "{\"data\":";
  ((text += spec.data.text()) += ",\"device\":") += Canonical(spec.device);
  (((text += ",\"engine\":") += Canonical(kEngineVersion)) += ",\"inputs\":") += TextOfIds(spec.inputs);
  (((text += ",\"kind\":") += Canonical(spec.kind)) += ",\"params\":") += Canonical(spec.params);
  ((text += ",\"seed\":") += std::to_string(spec.seed)) += '}';
  return JsonText::Of(std::move(text));
}

StepKey KeyOf(const StepSpec& spec) { return KeyOf(ToText(spec)); }
StepKey KeyOf(const JsonText& spec) { return StepKey(DigestOf(spec.text()).bytes()); }

}  // namespace pare::recipes
