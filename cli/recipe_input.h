// What a submit needs from the user's side: the recipe, its data described (and stored, if small), starting weights.
#pragma once

#include <string>

#include "cli/outside_models.h"
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
  OutsideInputs outside;  // teachers of the registry or of files
  // What was read on the way, for StoreInputs; empty when the description was remembered.
  std::string data_bytes, weights_bytes;
};
// Loads and describes the data and the starting weights. What an unchanged file's description was is remembered in
// CacheDirectory()/datasets.json, so that a repeated run reads no data at all. kInvalid names the recipe's line and the file.
// `target`: whose registry is asked, if the recipe names a model of it.
Result<Inputs> PrepareInputs(const recipes::Recipe& recipe, const std::string& recipe_path, const Target& target);
// Puts into `blobs` what it lacks of them, reading the data again if need be, and lets go of the bytes.
Status StoreInputs(const recipes::Recipe& recipe, const std::string& recipe_path, storage::BlobStore& blobs, Inputs& inputs);

// "FILE:LINE:COLUMN: text", as errors are told.
std::vector<std::string> WarningsOf(const recipes::ResolvedRecipe& resolved, const std::string& recipe_path);

// $XDG_CACHE_HOME/pare, else ~/.cache/pare.
std::string CacheDirectory();

}  // namespace pare::cli
