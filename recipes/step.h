// StepSpec: the unit of work as a value. A step is a pure function of its spec; its key is the SHA-256 of the canonical
// JSON of the spec, with inputs named by *their* keys, so every key is known before anything runs.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "common/digest.h"
#include "common/json_text.h"

namespace pare::recipes {

struct StepSpec {
  std::string kind;                       // initialize, train, prune, …: docs/formats.md lists all
  Json params = Json::object();           // resolved: every default written out (docs/formats.md, "Step parameters")
  std::map<std::string, StepKey> inputs;  // by role: "model", "rewind", "candidate/…"
  JsonText data;                          // DataSpec; null for steps that read no data
  uint64_t seed = 0;
  std::string device = "cpu";  // device class: results are equal within one
  bool operator==(const StepSpec&) const = default;
};

// {"engine": kEngineVersion, "kind", "params", "inputs", "data", "seed", "device"}.
Json ToJson(const StepSpec& spec);
// Canonical(ToJson(spec)), without the tree.
JsonText ToText(const StepSpec& spec);
// Refuses another engine version (kVersion).
Result<StepSpec> StepSpecFromJson(const Json& json);
StepKey KeyOf(const StepSpec& spec);
StepKey KeyOf(const JsonText& spec);  // of ToText(spec)

}  // namespace pare::recipes
