#include "cli/recipe_input.h"

#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>

#include "common/files.h"
#include "model/safetensors.h"

namespace pare::cli {
namespace {

constexpr size_t kMaxCacheEntries = 200;

std::string CachePath() {
  const char* base = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  std::string directory = base != nullptr && *base != 0 ? base : std::string(home == nullptr ? "/tmp" : home) + "/.cache";
  return directory + "/pare/datasets.json";
}

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

Result<data::DataInfo> PrepareData(const recipes::Recipe& recipe, storage::BlobStore* blobs) {
  data::DataRequest request = Absolute(recipe.data_request());
  std::string key = CacheKey(request);
  Json cache = ReadCache();
  if (!key.empty() && cache.contains(key)) {
    auto info = data::DataInfoFromJson(cache[key]);
    if (info.ok()) {
      if (blobs == nullptr || info->blob.is_none()) return info;
      auto there = blobs->Contains(info->blob);
      if (there.ok() && *there) return info;
    }
  }
  ASSIGN_OR_RETURN(data::Dataset dataset, data::Load(request));
  data::DataInfo info = data::Describe(dataset, request);
  int64_t bytes = static_cast<int64_t>(dataset.train.samples.bytes().size() + dataset.test.samples.bytes().size());
  if (bytes <= data::kMaxDatasetBlobBytes) {
    std::string blob = data::EncodeDataset(dataset);
    info.blob = DigestOf(std::string_view(blob));
    if (blobs != nullptr) {
      auto stored = blobs->Put(std::string_view(blob));
      if (!stored.ok()) return stored.error().With("cannot store the dataset");
    }
  }
  if (!key.empty()) WriteCache(std::move(cache), key, info);
  return info;
}

}  // namespace

Result<recipes::Recipe> ReadRecipe(const std::string& path) {
  auto text = ReadFile(path, 1 << 20);
  if (!text.ok()) return Error{ErrorCode::kInvalid, "recipe: " + text.error().message};
  return recipes::Recipe::Parse(*text, path);
}

Result<Inputs> PrepareInputs(const recipes::Recipe& recipe, const std::string& recipe_path, storage::BlobStore* blobs) {
  Inputs inputs;
  auto info = PrepareData(recipe, blobs);
  if (!info.ok()) {
    auto p = recipe.position("/data");
    return info.error().With(recipe_path + ":" + std::to_string(p.line) + ":" + std::to_string(p.column));
  }
  inputs.data = *std::move(info);
  if (recipe.weights_path().empty()) return inputs;
  auto text = ReadFile(recipe.weights_path());
  if (!text.ok()) return Error{ErrorCode::kInvalid, "model.weights: " + text.error().message};
  auto tensors = model::DecodeSafetensors(std::as_bytes(std::span(*text)), nullptr);
  if (!tensors.ok()) return tensors.error().With("model.weights: " + recipe.weights_path());
  inputs.weights = DigestOf(std::string_view(*text));
  if (blobs != nullptr) {
    auto stored = blobs->Put(std::string_view(*text));
    if (!stored.ok()) return stored.error().With("cannot store the weights");
  }
  return inputs;
}

}  // namespace pare::cli
