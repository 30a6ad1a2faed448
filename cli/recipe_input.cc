#include "cli/recipe_input.h"

#include <sys/stat.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "common/files.h"
#include "model/finite.h"
#include "model/published.h"
#include "model/safetensors.h"
#include "recipes/model_section.h"

namespace pare::cli {
namespace {

constexpr size_t kMaxCacheEntries = 200;

std::string CachePath() { return CacheDirectory() + "/datasets.json"; }

// Relative paths in a recipe start from where the command runs, as everywhere in a shell.
data::DataRequest Absolute(data::DataRequest request) {
  for (std::string* path : {&request.directory, &request.train, &request.train_labels, &request.test, &request.test_labels}) {
    if (!path->empty()) *path = std::filesystem::absolute(*path).lexically_normal().string();
  }
  return request;
}

// Identity of the files as the system knows them; empty if one cannot be examined (then nothing is cached).
std::string CacheKey(const data::DataRequest& request) {
  std::string directory = request.directory.empty() ? "/usr/share/datasets/fashion-mnist" : request.directory;
  std::vector<std::string> files;
  if (!request.dataset.empty()) {
    for (const char* f : {"train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"}) {
      files.push_back(directory + "/" + f);
    }
  }
  for (const std::string& f : {request.train, request.train_labels, request.test, request.test_labels}) {
    if (!f.empty()) files.push_back(f);
  }
  Json key = {request.dataset, request.format, request.label_column, request.shape};
  for (const std::string& file : files) {
    struct stat s{};
    if (::stat(file.c_str(), &s) != 0) return "";
    key.push_back({file, s.st_size, s.st_ino, s.st_mtim.tv_sec, s.st_mtim.tv_nsec, s.st_ctim.tv_sec, s.st_ctim.tv_nsec});
  }
  return DigestOf(std::string_view(Canonical(key))).hex();
}

Json ReadCache() {
  auto text = ReadFile(CachePath(), 16 << 20);
  if (!text.ok()) return Json::object();
  auto json = ParseJson(*text, "cache");
  return json.ok() && json->is_object() ? *json : Json::object();
}

// A cache that cannot be written costs time, nothing else.
void WriteCache(Json cache, const std::string& key, const data::DataInfo& info) {
  if (cache.size() >= kMaxCacheEntries) cache = Json::object();
  cache[key] = data::ToJson(info);
  std::string path = CachePath();
  if (!MakeDirectories(std::filesystem::path(path).parent_path().string()).ok()) return;
  (void)WriteFileDurably(path, Canonical(cache)).ok();
}

// Also fills inputs.data_bytes, unless the dataset is too large for a blob.
Status LoadData(const data::DataRequest& request, Inputs& inputs) {
  ASSIGN_OR_RETURN(data::Dataset dataset, data::Load(request));
  inputs.data = data::Describe(dataset, request);
  auto bytes = static_cast<int64_t>(dataset.train.samples.bytes().size() + dataset.test.samples.bytes().size());
  if (bytes > data::kMaxDatasetBlobBytes) return Ok();
  inputs.data_bytes = data::EncodeDataset(dataset);
  inputs.data.blob = DigestOf(std::string_view(inputs.data_bytes));
  return Ok();
}

// What the user named cannot be used: bad input, whatever the system's reason.
Error BadInput(Error error, const recipes::Recipe& recipe, const std::string& recipe_path, const std::string& section) {
  if (error.code == ErrorCode::kNotFound || error.code == ErrorCode::kIo || error.code == ErrorCode::kCorrupt) error.code = ErrorCode::kInvalid;
  auto p = recipe.position(section);
  return error.With(recipe_path + ":" + std::to_string(p.line) + ":" + std::to_string(p.column));
}

Status PutUnlessThere(storage::BlobStore& blobs, const Digest& digest, std::string& bytes, const std::string& what) {
  if (digest.is_none()) return Ok();
  auto there = blobs.Contains(digest);
  if (!there.ok()) return there.error().With("cannot store " + what);
  if (!*there) {
    auto stored = blobs.Put(std::string_view(bytes));
    if (!stored.ok()) return stored.error().With("cannot store " + what);
  }
  std::string().swap(bytes);
  return Ok();
}

}  // namespace

std::string CacheDirectory() {
  const char* base = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  return (base != nullptr && *base != 0 ? std::string(base) : std::string(home == nullptr ? "/tmp" : home) + "/.cache") + "/pare";
}

std::vector<std::string> WarningsOf(const recipes::ResolvedRecipe& resolved, const std::string& recipe_path) {
  std::vector<std::string> warnings;
  for (const recipes::Finding& finding : resolved.warnings) warnings.push_back(recipes::WithPlace(recipe_path, finding));
  return warnings;
}

Result<recipes::Recipe> ReadRecipe(const std::string& path) {
  auto text = ReadFile(path, 1 << 20);
  if (!text.ok()) return Error{ErrorCode::kInvalid, "recipe: " + text.error().message};
  return recipes::Recipe::Parse(*text, path);
}

Result<Inputs> PrepareInputs(const recipes::Recipe& recipe, const std::string& recipe_path, const Target& target) {
  Inputs inputs;
  data::DataRequest request = Absolute(recipe.data_request());
  std::string key = CacheKey(request);
  Json cache = ReadCache();
  auto remembered = !key.empty() && cache.contains(key) ? data::DataInfoFromJson(cache[key]) : Result<data::DataInfo>(Error{});
  if (remembered.ok()) {
    inputs.data = *std::move(remembered);
  } else {
    Status loaded = LoadData(request, inputs);
    if (!loaded.ok()) return BadInput(loaded.error(), recipe, recipe_path, "/data");
    if (!key.empty()) WriteCache(std::move(cache), key, inputs.data);
  }
  ASSIGN_OR_RETURN(inputs.outside, LoadOutsideModels(recipe, recipe_path, inputs.data, target));
  if (recipe.weights_path().empty()) return inputs;
  auto text = ReadFile(recipe.weights_path());
  if (!text.ok()) return BadInput(text.error(), recipe, recipe_path, "/model/weights");
  auto tensors = model::DecodeSafetensors(std::as_bytes(std::span(*text)), nullptr);
  if (!tensors.ok()) return BadInput(tensors.error().With(recipe.weights_path()), recipe, recipe_path, "/model/weights");
  // Another architecture is told before anything is submitted. A model that cannot be built is told by whoever resolves the recipe.
  Json section = recipe.tree().at("model");
  section.erase("weights");
  auto graph = recipes::BuildModelSection(std::move(section), inputs.data);
  auto info = graph.ok() ? model::Analyze(*graph) : Result<model::GraphInfo>(Error{});
  model::FittedWeights fitted{.tensors = *tensors};
  if (info.ok()) {
    auto fits = model::FitWeights(*graph, *info, *tensors, recipe.tree().value("seed", uint64_t{0}));
    if (!fits.ok()) {
      Error error = fits.error().With(recipe.weights_path());
      error.code = ErrorCode::kInvalid;
      error.message += ": name the architecture that the weights were made with";
      return BadInput(error, recipe, recipe_path, "/model/weights");
    }
    fitted = *std::move(fits);
    if (fitted.new_head && !recipe.tree().contains("train")) {
      Error error{ErrorCode::kInvalid, recipe.weights_path() + ": there are no weights of '" + graph->output + "', the last layer, so it has to learn: add a section train"};
      return BadInput(error, recipe, recipe_path, "/model/weights");
    }
  }
  if (Status finite = model::CheckFinite(fitted.tensors); !finite.ok()) {
    Error error = finite.error().With(recipe.weights_path());
    error.message += ": its training diverged or the file is damaged; give other weights, or leave them out to train from new ones";
    return BadInput(error, recipe, recipe_path, "/model/weights");
  }
  if (!fitted.notes.empty()) *text = model::EncodeSafetensors(fitted.tensors);
  for (const std::string& note : fitted.notes) std::fprintf(stderr, "note: %s: %s\n", recipe.weights_path().c_str(), note.c_str());
  inputs.weights = DigestOf(std::string_view(*text));
  inputs.weights_bytes = *std::move(text);
  return inputs;
}

Status StoreInputs(const recipes::Recipe& recipe, const std::string& recipe_path, storage::BlobStore& blobs, Inputs& inputs) {
  if (inputs.data_bytes.empty() && !inputs.data.blob.is_none()) {
    auto there = blobs.Contains(inputs.data.blob);
    if (!there.ok()) return there.error().With("cannot store the dataset");
    if (!*there) {
      Status loaded = LoadData(Absolute(recipe.data_request()), inputs);
      if (!loaded.ok()) return BadInput(loaded.error(), recipe, recipe_path, "/data");
    }
  }
  TRY(PutUnlessThere(blobs, inputs.data.blob, inputs.data_bytes, "the dataset"));
  for (auto& [digest, bytes] : inputs.outside.bytes) TRY(PutUnlessThere(blobs, digest, bytes, "a teacher's weights"));
  return PutUnlessThere(blobs, inputs.weights, inputs.weights_bytes, "the weights");
}

}  // namespace pare::cli
