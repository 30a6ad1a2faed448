// Shared by the tests of recipes/: a fixed dataset description (no file is read), shipped recipes, golden files.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "model/architectures.h"
#include "recipes/planner.h"
#include "recipes/recipe.h"

namespace pare::recipes {

// What data::Describe says of Fashion-MNIST, with a made-up fingerprint.
inline data::DataInfo FashionInfo() {
  data::DataInfo info;
  info.fingerprint = pare::DigestOf(std::string_view("fashion"));
  info.blob = pare::DigestOf(std::string_view("fashion blob"));
  info.request.dataset = "fashion-mnist";
  info.sample_shape = {1, 28, 28};
  info.dtype = "U8";
  info.classes = 10;
  info.train_count = 60'000;
  info.test_count = 10'000;
  info.mean = {0.2860405969887955};
  info.deviation = {0.35302424451492237};
  return info;
}

// The same of what recipes/make_tokens.py writes.
inline data::DataInfo TokensInfo() {
  data::DataInfo info;
  info.fingerprint = pare::DigestOf(std::string_view("tokens"));
  info.blob = pare::DigestOf(std::string_view("tokens blob"));
  info.sample_shape = {32};
  info.dtype = "F32";
  info.classes = 4;
  info.train_count = 8'000;
  info.test_count = 2'000;
  info.mean = {650.5};
  info.deviation = {690.5};
  info.largest_id = data::IdPlace{1999, "train", 0, 5};
  return info;
}

inline data::DataInfo InfoFor(const std::string& yaml) { return yaml.find("architecture: encoder") == std::string::npos ? FashionInfo() : TokensInfo(); }

inline std::string ReadText(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

// File names under recipes/, sorted.
inline std::vector<std::string> ShippedRecipes() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(PARE_SOURCE_DIR "/recipes")) {
    if (entry.path().extension() == ".yaml") names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

inline std::string ShippedText(const std::string& name) { return ReadText(PARE_SOURCE_DIR "/recipes/" + name); }

// Each of the recipe's outside teachers, as if it were what tiny.yaml promotes.
inline OutsideModels OutsideFor(const Recipe& recipe, const data::DataInfo& info) {
  OutsideModels models;
  for (const OutsideReference& reference : OutsideReferences(recipe.tree())) {
    OutsideModel& model = models[reference.text];
    model.graph = *model::BuildArchitecture("mlp", {{"hidden", {32}}}, info.sample_shape, info.classes);
    (reference.place == ModelPlace::kRegistry ? model.artifact : model.weights) = pare::DigestOf(std::string_view("tiny"));
  }
  return models;
}

inline ResolvedRecipe Resolved(const std::string& yaml, const data::DataInfo& info, const Digest& weights = {}) {
  auto recipe = Recipe::Parse(yaml, "test.yaml");
  EXPECT_TRUE(recipe.ok()) << recipe.error().message;
  if (!recipe.ok()) return {};
  auto resolved = Resolve(*recipe, info, weights, OutsideFor(*recipe, info));
  EXPECT_TRUE(resolved.ok()) << resolved.error().message;
  return resolved.ok() ? *resolved : ResolvedRecipe{};
}

inline ResolvedRecipe Resolved(const std::string& yaml) { return Resolved(yaml, InfoFor(yaml)); }

// What Parse or Resolve says against the recipe; "" if both take it.
inline std::string ErrorOf(const std::string& yaml, const data::DataInfo& info) {
  auto recipe = Recipe::Parse(yaml, "r.yaml");
  if (!recipe.ok()) return recipe.error().message;
  auto resolved = Resolve(*recipe, info, Digest());
  return resolved.ok() ? "" : resolved.error().message;
}

inline std::string ErrorOf(const std::string& yaml) { return ErrorOf(yaml, InfoFor(yaml)); }

// Five good lines, so that what a case adds starts in line 6.
inline constexpr const char* kHead =
    "version: 1\n"
    "name: test\n"
    "model: {architecture: mlp, hidden: [300, 100]}\n"
    "data: {dataset: fashion-mnist, validation: 5000}\n"
    "train: {epochs: 20, schedule: multi_step, milestones: [10, 15]}\n";

inline std::string WithSteps(const std::string& steps) { return kHead + ("variants: {v: [" + steps + "]}\n"); }
inline ResolvedRecipe Steps(const std::string& steps) { return Resolved(WithSteps(steps)); }
inline std::string StepsError(const std::string& steps) { return ErrorOf(WithSteps(steps)); }
// The message for a step at 6:17 of a recipe.
inline std::string StepError(const std::string& step) { return StepsError("{" + step + "}"); }

inline std::vector<std::string> WarningsOf(const std::string& yaml) {
  std::vector<std::string> texts;
  for (const Finding& f : Resolved(yaml).warnings) texts.push_back(std::to_string(f.line) + ":" + std::to_string(f.column) + ": " + f.text);
  return texts;
}

// A complete recipe around `variants` (a YAML flow mapping or an indented block).
inline std::string WithVariants(const std::string& variants) {
  return "version: 1\n"
         "name: test\n"
         "model: {architecture: mlp, hidden: [300, 100]}\n"
         "data: {dataset: fashion-mnist, validation: 5000}\n"
         "train: {epochs: 20, schedule: multi_step, milestones: [10, 15]}\n"
         "promote: {as: test}\n"
         "variants:" + variants + "\n";
}

inline std::vector<std::string> NamesOf(const PlannedSteps& steps) {
  std::vector<std::string> names;
  for (const PlannedStep& step : steps) names.push_back(step.name);
  return names;
}

inline const PlannedStep* FindStep(const PlannedSteps& steps, const std::string& name) {
  auto it = std::find_if(steps.begin(), steps.end(), [&](const PlannedStep& s) { return s.name == name; });
  return it == steps.end() ? nullptr : &*it;
}

// FullPlan's step of that name; a step without a name if there is none.
inline PlannedStep StepOf(const ResolvedRecipe& recipe, const std::string& name) {
  PlannedSteps steps = FullPlan(recipe);
  const PlannedStep* step = FindStep(steps, name);
  EXPECT_NE(step, nullptr) << "no step " << name << " among " << testing::PrintToString(NamesOf(steps));
  return step == nullptr ? PlannedStep{} : *step;
}

// PARE_ACCEPT=1 rewrites golden files instead of comparing.
inline bool Accepting() {
  const char* accept = std::getenv("PARE_ACCEPT");
  return accept != nullptr && std::string(accept) == "1";
}

inline void ExpectGolden(const std::string& path, const std::string& text) {
  if (Accepting()) {
    std::ofstream(path, std::ios::binary) << text;
    return;
  }
  ASSERT_TRUE(std::filesystem::exists(path)) << path << " is missing: PARE_ACCEPT=1 writes it";
  EXPECT_EQ(ReadText(path), text) << path << " differs; if the change is meant, PARE_ACCEPT=1 rewrites it";
}

}  // namespace pare::recipes
