// Plural: a count with its noun, as people read it: "1 step", "2 steps". Pure.
#pragma once

#include <concepts>
#include <string>

namespace pare {

std::string Plural(std::integral auto count, const std::string& noun) { return std::to_string(count) + " " + noun + (count == 1 ? "" : "s"); }

}  // namespace pare
