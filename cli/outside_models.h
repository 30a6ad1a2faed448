// Looks up the networks that a recipe names but does not make (recipes/outside.h): registry versions from the store, exports
// and weight files from disk.
#pragma once

#include <map>
#include <string>

#include "cli/connection.h"
#include "data/dataset.h"
#include "recipes/recipe.h"

namespace pare::cli {

struct OutsideInputs {
  recipes::OutsideModels models;
  std::map<Digest, std::string> bytes;  // of weight files, until they are stored
};
// Opens nothing if the recipe names no such network. kInvalid names the recipe's line and the file; kNotFound: the store, or
// the model in it; what Connect says.
Result<OutsideInputs> LoadOutsideModels(const recipes::Recipe& recipe, const std::string& recipe_path, const data::DataInfo& data,
                                        const Target& target);

}  // namespace pare::cli
