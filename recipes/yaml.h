// YAML text → JSON tree with the position of every value. The only door to yaml-cpp. Strict: one document, no tags, no
// anchors or aliases, no duplicate keys; at most kMaxYamlBytes and kMaxYamlDepth.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "common/json.h"

namespace pare::recipes {

inline constexpr size_t kMaxYamlBytes = 1 << 20;
inline constexpr int kMaxYamlDepth = 32;

struct YamlPosition {
  int line = 0, column = 0;  // 1-based
};
struct YamlDocument {
  Json tree;
  // By JSON pointer: of the value, and under "<pointer>#key" of its key.
  std::map<std::string, YamlPosition> positions;
};
// kInvalid: "<name>:<line>:<column>: text".
Result<YamlDocument> ParseYaml(std::string_view text, std::string_view name);
// Parses back to the same tree.
std::string RenderYaml(const Json& tree);

}  // namespace pare::recipes
