// CheckContext: what checking a section of a recipe as written needs: the recipe, where errors go, and the checks that
// sections share. Given to the step kinds (recipes/kinds.h). Inside recipes/ only.
#pragma once

#include <string>

#include "common/json.h"
#include "recipes/findings.h"

namespace pare::recipes {

class CheckContext {
 public:
  // REQUIRES: both outlive this; `tree` is an object, not yet checked.
  CheckContext(const Json& tree, Errors& errors) : tree_(tree), errors_(errors) {}

  const Json& tree() const { return tree_; }
  void Fail(const std::string& pointer, const std::string& text) { errors_.Add(pointer, text); }
  // Known fields with good values; those of section `extra` too. False if `object` is not a section at all.
  bool Section(const std::string& section, const Json& object, const std::string& pointer, const std::string& extra = "");
  // A `model` section: a known architecture with fields of its own.
  void Model(const Json& model, const std::string& pointer);
  // Training fields that mean nothing beside the optimizer and the learning-rate schedule in force.
  void Training(const Json& section, const std::string& pointer, const std::string& schedule);
  // Each of `fields` that the section gives is an error: "<field>: <text>".
  void Refuse(const Json& section, const std::string& pointer, std::initializer_list<const char*> fields, const std::string& text);
  // The text at train.<field>, or `otherwise`.
  std::string OfTrain(const char* field, const char* otherwise) const;

 private:
  void Patterns(const std::string& key, const Json& value, const std::string& pointer);

  const Json& tree_;
  Errors& errors_;
};

// The value of a field, or `otherwise` if it is absent or of another type (which is an error of its own).
double NumberOr(const Json& section, const char* field, double otherwise);
std::string TextOr(const Json& section, const char* field, const std::string& otherwise);

}  // namespace pare::recipes
