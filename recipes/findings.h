// Errors: what is wrong with a recipe, collected so that one look is enough. Inside recipes/ only.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"
#include "recipes/yaml.h"

namespace pare::recipes {

inline constexpr size_t kMaxErrorsShown = 50;

class Errors {
 public:
  // REQUIRES: `positions` outlives this.
  Errors(std::string_view name, const std::map<std::string, YamlPosition>& positions) : name_(name), positions_(positions) {}

  // `pointer`: JSON pointer of the value ("/train/epochs"), or with "#key" behind it of its key.
  void Add(const std::string& pointer, const std::string& text);
  bool empty() const { return errors_.empty(); }
  // kInvalid: one line per error, "<name>:<line>:<column>: text", in the order of the recipe; an error found twice is told once.
  Error ToError() const;

 private:
  struct Entry {
    YamlPosition position;
    std::string text;
  };
  std::string name_;
  const std::map<std::string, YamlPosition>& positions_;
  std::vector<Entry> errors_;
};

// Of the value at `pointer`; of the nearest section around it if the value was not written.
YamlPosition PositionOf(const std::map<std::string, YamlPosition>& positions, std::string pointer);
// `key` as part of a JSON pointer.
std::string Escaped(const std::string& key);
// The user's words in a message: at most 60 bytes and never half a character; Quoted also escapes control characters.
std::string Shortened(std::string text);
std::string Quoted(const std::string& word);

}  // namespace pare::recipes
