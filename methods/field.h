// Field: one field of a section of a recipe. Tables of these are the schema of the recipe language (recipes/schema.h) and
// of every method: validation, defaults, error messages and the reference in docs/recipes.md are derived from them.
#pragma once

#include <string_view>

namespace pare::methods {

struct Field {
  std::string_view section;  // "recipe", "model", "train", …, or the step kind: "prune", "cast", …
  std::string_view name;
  // integer, number, boolean, text, name (one of `allowed`), numbers, integers, patterns, map (names to names), section,
  // rewind
  std::string_view type;
  std::string_view default_json;  // JSON; empty: none
  double min = 0, max = 0;        // integer, number and lists; ignored when both are 0
  std::string_view allowed;       // name: comma-separated
  std::string_view unit;
  std::string_view help;
  std::string_view example;
};

// The two fields by which a step chooses its layers. A section that has `targets` gets `tensors`, the names of the weights
// that they select, when it is resolved.
constexpr Field Targets(std::string_view section) {
  return {section, "targets", "patterns", "", 0, 0, "", "",
          "which weights: layer or tensor name, glob, re:REGEX (whole name), or operator type; default: linear and conv2d", "[fc1, \"re:.*attention.*\"]"};
}
constexpr Field Ignore(std::string_view section) {
  return {section, "ignore", "patterns", "", 0, 0, "", "", "patterns of targets to leave alone", "fc3"};
}

}  // namespace pare::methods
