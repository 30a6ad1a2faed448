// The recipe language as one table: every field with its type, unit, default, range and help. Validation, defaults, error
// messages and the reference in docs/recipes.md are derived from it.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "methods/field.h"

namespace pare::recipes {

using methods::Field;

// Of every section: those of the language, then those of the step kinds (recipes/kinds.h).
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
