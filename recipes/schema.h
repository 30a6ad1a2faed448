// The recipe language as one table: every field with its type, unit, default, range and help. Validation, defaults, error
// messages and the reference in docs/recipes.md are derived from it.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"

namespace pare::recipes {

struct Field {
  std::string_view section;  // "recipe", "model", "data", "augment", "train", "snapshot", "goal", "target", "prune", …
  std::string_view name;
  // integer, number, boolean, text, name (one of `allowed`), numbers, integers, patterns, section, rewind
  std::string_view type;
  std::string_view default_json;  // JSON; empty: none
  double min = 0, max = 0;        // integer, number and lists; ignored when both are 0
  std::string_view allowed;       // name: comma-separated
  std::string_view unit;
  std::string_view help;
  std::string_view example;
};

std::span<const Field> Fields();
std::vector<const Field*> FieldsOf(std::string_view section);
const Field* FindField(std::string_view section, std::string_view name);
// What is wrong with the value ("expected an integer from 1 to 100000, found \"x\""), or nothing.
std::optional<std::string> CheckValue(const Field& field, const Json& value);
// The nearest of `known` by edit distance, or "" if none is near.
std::string Nearest(std::string_view word, const std::vector<std::string>& known);
// "; did you mean 'epochs'? Allowed: epochs, …", or ". Allowed: epochs, …" if none is near.
std::string Suggestion(std::string_view word, const std::vector<std::string>& known);
// Fields of `section` that have a default and are absent from `object`, added; numbers in their one canonical form.
// REQUIRES: the fields present passed CheckValue.
void FillDefaults(std::string_view section, Json& object);
// The reference part of docs/recipes.md.
std::string RenderReference();

}  // namespace pare::recipes
