// Outside models: networks that a recipe names but does not make: versions of the registry, exports and weight files. They are
// looked up before the recipe is resolved, by the words of the recipe; a plan never reads a file. Plain values.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "common/digest.h"
#include "common/json.h"
#include "model/graph.h"

namespace pare::recipes {

struct OutsideModel {
  model::Graph graph;
  // One of the two: a checkpoint artifact in the store (a version of the registry), or a blob of safetensors (files).
  Digest artifact, weights;
  bool operator==(const OutsideModel&) const = default;
};
using OutsideModels = std::map<std::string, OutsideModel>;  // by the text that names it in the recipe

// Where a text in the place of a network leads.
enum class ModelPlace {
  kRecipe,     // baseline, init, best, a step or a variant
  kRegistry,   // NAME@VERSION, NAME@champion
  kDirectory,  // as `pare export` writes it: graph.json, model.safetensors; starts with ./, ../ or /, or ends with /
  kFile,       // ends with .safetensors
};
ModelPlace PlaceOf(const std::string& text);

struct OutsideReference {
  std::string text;
  ModelPlace place = ModelPlace::kRegistry;
  std::string pointer;  // of the text in the recipe
  Json model;           // kFile: the `model` section whose architecture the tensors fill
};
// Every one of a recipe's tree, as written.
std::vector<OutsideReference> OutsideReferences(const Json& tree);

Json ToJson(const OutsideModels& models);
Result<OutsideModels> OutsideModelsFromJson(const Json& json);

}  // namespace pare::recipes
