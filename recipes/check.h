// Checking a recipe as written against the language: fields, types, ranges, structure, contradictions; everything that
// needs neither data nor files. Inside recipes/ only.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "common/json.h"
#include "recipes/check_context.h"

namespace pare::recipes {

inline constexpr size_t kMaxVariants = 256;
inline constexpr size_t kMaxVariantSteps = 5000;  // after repeat; kMaxPlannedSteps bounds the whole job

class Checker {
 public:
  // REQUIRES: both outlive this; `tree` is an object.
  Checker(const Json& tree, Errors& errors) : tree_(tree), context_(tree, errors) {}
  void Run();

 private:
  void Fail(const std::string& pointer, const std::string& text) { context_.Fail(pointer, text); }

  void Model();
  void Data();
  void Train();
  void Keep();
  void Promote();
  void Variants();
  // Adds to `expanded` how many steps there are after repeat; each counts `factor` times.
  void Steps(const Json& steps, const std::string& pointer, size_t factor, size_t& expanded);
  // A .safetensors file that teaches in several steps is one network.
  void TeacherFile(const Json& section, const std::string& pointer);
  void Item(const Json& item, const std::string& pointer, size_t factor, size_t& expanded);
  void Repeat(const Json& item, const std::string& pointer, size_t factor, size_t& expanded);

  struct FileTeacher {
    Json model;
    std::string pointer;  // of the section that names it first
  };

  const Json& tree_;
  CheckContext context_;
  std::map<std::string, FileTeacher> file_teachers_;  // by the text that names the file
};

}  // namespace pare::recipes
