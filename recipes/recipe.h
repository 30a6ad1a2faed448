// Recipe: the user's YAML, parsed once at the edge into a value that cannot be wrong, and resolved: every default written
// out, the dataset and model checked against each other, every `targets` pattern matched. docs/recipes.md is the language.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "data/dataset.h"
#include "model/graph.h"
#include "recipes/outside.h"
#include "recipes/yaml.h"

namespace pare::recipes {

// One message for the user: "fashion.yaml:7:12: unknown field 'epoch' in train; did you mean 'epochs'? Allowed: …".
struct Finding {
  enum class Severity { kError, kWarning };
  Severity severity = Severity::kError;
  int line = 0, column = 0;  // 1-based; 0: the recipe as a whole
  std::string text;
};
// "<name>:<line>:<column>: text".
std::string WithPlace(std::string_view name, const Finding& finding);

// The recipe as written: a checked JSON tree (types, ranges, names, structure), with the position of every value.
// Nothing yet depends on data or on files.
class Recipe {
 public:
  // All errors at once, in Error.message, one per line as "<name>:<line>:<column>: text". kInvalid.
  static Result<Recipe> Parse(std::string_view yaml, std::string_view name);

  const Json& tree() const { return tree_; }
  const std::string& text() const { return text_; }
  const std::string& name() const { return name_; }
  // What to load: the `data:` section.
  data::DataRequest data_request() const;
  // `model: {weights: FILE}`: path of a safetensors file to start from; empty if none.
  std::string weights_path() const;
  // YAML again; Parse(Render()) gives the same tree.
  std::string Render() const;

  using Position = YamlPosition;
  // Of the value at a JSON pointer ("/variants/iterative/0/prune/criterion"), or of the nearest section around it.
  Position position(const std::string& pointer) const;
  const std::map<std::string, Position>& positions() const { return positions_; }

 private:
  Json tree_;
  std::string text_, name_;
  std::map<std::string, Position> positions_;
};

struct Plan;  // recipes/plan.h

// Ready to plan. ToJson/FromJson are the identity: this is what a job stores.
struct ResolvedRecipe {
  std::string name;
  Json tree;            // the recipe with every default written out, `repeat` kept
  data::DataInfo data;  // fingerprint, shapes, classes, counts, blob
  model::Graph graph;   // of the dense model
  OutsideModels outside;  // networks that it names but does not make
  Digest weights;       // blob of the starting weights (safetensors); none: initialize from the seed
  std::vector<Finding> warnings;
  // The steps of all of the above with their keys, worked out once by Resolve and ResolvedRecipeFromJson, and shared by
  // copies. Planning without it (a value put together by hand) gives the same steps, only slower.
  std::shared_ptr<const Plan> plan;
};
// `outside`: every one of OutsideReferences(recipe.tree()).
Result<ResolvedRecipe> Resolve(const Recipe& recipe, const data::DataInfo& data, const Digest& weights, const OutsideModels& outside = {});
Json ToJson(const ResolvedRecipe& recipe);
Result<ResolvedRecipe> ResolvedRecipeFromJson(const Json& json);
// SHA-256 of the canonical resolved recipe (warnings excluded): equal for recipes that mean the same.
Digest DigestOf(const ResolvedRecipe& recipe);

}  // namespace pare::recipes
