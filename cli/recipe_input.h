// What a submit needs from the user's side: the recipe, its data described (and stored, if small), starting weights.
#pragma once

#include <string>

#include "common/result.h"
#include "data/dataset.h"
#include "recipes/recipe.h"
#include "storage/blob_store.h"

namespace pare::cli {

// Reads and parses; kInvalid with file:line:column.
Result<recipes::Recipe> ReadRecipe(const std::string& path);

struct Inputs {
  data::DataInfo data;
  Digest weights;  // none: initialize
};
// Loads and describes the data, and stores it (and the weights) in `blobs` unless that has it. What an unchanged file's
// description was is remembered in $XDG_CACHE_HOME/pare/datasets.json, so that a repeated run reads no data at all.
// `blobs` null: describe only.
Result<Inputs> PrepareInputs(const recipes::Recipe& recipe, const std::string& recipe_path, storage::BlobStore* blobs);

}  // namespace pare::cli
