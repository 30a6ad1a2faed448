// Checking a recipe as written against the language: fields, types, ranges, structure, contradictions; everything that
// needs neither data nor files. Inside recipes/ only.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "common/json.h"
#include "recipes/findings.h"

namespace pare::recipes {

inline constexpr size_t kMaxVariants = 256;
inline constexpr size_t kMaxVariantSteps = 5000;  // after repeat; kMaxPlannedSteps bounds the whole job

class Checker {
 public:
  // REQUIRES: both outlive this; `tree` is an object.
  Checker(const Json& tree, Errors& errors) : tree_(tree), errors_(errors) {}
  void Run();

 private:
  void Fail(const std::string& pointer, const std::string& text) { errors_.Add(pointer, text); }
  // Known fields with good values; those of section `extra` too. False if `object` is not a section at all.
  bool Section(const std::string& section, const Json& object, const std::string& pointer, const std::string& extra = "");
  void Patterns(const std::string& key, const Json& value, const std::string& pointer);

  void Model();
  void Data();
  void Train();
  void Promote();
  void Variants();
  // Adds to `expanded` how many steps there are after repeat; each counts `factor` times.
  void Steps(const Json& steps, const std::string& pointer, size_t factor, size_t& expanded);
  void Item(const Json& item, const std::string& pointer, size_t factor, size_t& expanded);
  void Repeat(const Json& item, const std::string& pointer, size_t factor, size_t& expanded);

  void Prune(const Json& prune, const std::string& pointer);
  void ScheduledPrune(const Json& prune, const std::string& pointer);
  void OneShotPrune(const Json& prune, const std::string& pointer);
  void Density(const Json& prune, const std::string& pointer);
  void Retrain(const Json& retrain, const std::string& pointer);
  void Evaluate(const Json& evaluate, const std::string& pointer);
  // Training fields that mean nothing beside the optimizer and the learning-rate schedule in force.
  void Training(const Json& section, const std::string& pointer, const std::string& schedule);
  // The text at train.<field>, or `otherwise`.
  std::string OfTrain(const char* field, const char* otherwise) const;

  const Json& tree_;
  Errors& errors_;
};

}  // namespace pare::recipes
