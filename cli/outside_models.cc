#include "cli/outside_models.h"

#include <algorithm>
#include <filesystem>

#include "common/files.h"
#include "model/finite.h"
#include "model/published.h"
#include "model/safetensors.h"
#include "recipes/model_section.h"
#include "recipes/schema.h"
#include "storage/artifact.h"
#include "storage/checkpoint.h"

namespace pare::cli {
namespace {

namespace fs = std::filesystem;
using recipes::ModelPlace;
using recipes::OutsideModel;
using recipes::OutsideReference;

constexpr int64_t kMaxGraphBytes = 64 << 20;
constexpr size_t kMaxListed = 12;  // names of files in a message

Result<Json> VersionOf(const std::string& text) {
  size_t at = text.rfind('@');
  std::string version = text.substr(at + 1);
  int64_t number = 0;  // the champion
  if (version != "champion") {
    if (version.empty() || version.size() > 9 || version.find_first_not_of("0123456789") != version.npos || std::stoll(version) == 0) {
      return Error{ErrorCode::kInvalid, "expected NAME@VERSION with a version number, or NAME@champion"};
    }
    number = std::stoll(version);
  }
  return Json{{"name", text.substr(0, at)}, {"version", number}};
}

Result<OutsideModel> FromRegistry(const std::string& text, const Target& target) {
  ASSIGN_OR_RETURN(Json version, VersionOf(text));
  ASSIGN_OR_RETURN(auto connection, Connect(target));
  ASSIGN_OR_RETURN(Json found, connection->Call("resolve_model", version));
  ASSIGN_OR_RETURN(auto blobs, OpenBlobs(*connection));
  OutsideModel model;
  ASSIGN_OR_RETURN(model.artifact, DigestField(found, "artifact"));
  ASSIGN_OR_RETURN(storage::Artifact artifact, storage::GetArtifact(*blobs, model.artifact));
  auto reference = artifact.blobs.find("checkpoint");
  if (reference == artifact.blobs.end()) return Error{ErrorCode::kCorrupt, "artifact " + model.artifact.brief() + " holds no checkpoint"};
  ASSIGN_OR_RETURN(storage::Checkpoint checkpoint, storage::GetCheckpoint(*blobs, reference->second.digest));
  if (Status finite = model::CheckFinite(checkpoint.tensors); !finite.ok()) {
    return Error{ErrorCode::kInvalid, finite.error().message + ": its training diverged; name another version or another teacher"};
  }
  model.graph = std::move(checkpoint.graph);
  return model;
}

Result<model::Graph> GraphOf(const OutsideReference& reference, const data::DataInfo& data) {
  if (reference.place == ModelPlace::kDirectory) {
    ASSIGN_OR_RETURN(std::string text, ReadFile(reference.text + "/graph.json", kMaxGraphBytes));
    ASSIGN_OR_RETURN(Json json, ParseJson(text, reference.text + "/graph.json"));
    auto graph = model::GraphFromJson(json);
    if (!graph.ok()) return graph.error().With(reference.text + "/graph.json");
    return graph;
  }
  return recipes::BuildModelSection(reference.model, data);
}

// Names in a directory, sorted; empty if it cannot be read.
std::vector<std::string> NamesIn(const fs::path& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error)) names.push_back(entry->path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

std::string Listed(const std::vector<std::string>& names) {
  std::string list;
  for (size_t i = 0; i < names.size() && i < kMaxListed; ++i) list += (i == 0 ? "" : ", ") + names[i];
  return list.empty() ? "nothing" : list + (names.size() > kMaxListed ? ", …" : "");
}

// The name beside the path that may be meant, as the user would write it: "./exports"; empty if none is near.
std::string Near(const std::string& text, bool directory) {
  fs::path path(text.ends_with("/") ? text.substr(0, text.size() - 1) : text);
  std::vector<std::string> names = NamesIn(fs::absolute(path).parent_path());
  std::erase_if(names, [&](const std::string& name) { return directory != fs::is_directory(fs::absolute(path).parent_path() / name) || (!directory && !name.ends_with(".safetensors")); });
  std::string near = recipes::Nearest(path.filename().string(), names);
  if (near.empty()) return "";
  return (text.starts_with("./") ? "./" : "") + (path.parent_path() / near).lexically_normal().string();
}

// What a user may mean is looked up before it is read: a file system says only that something is not there.
Status CheckThere(const OutsideReference& reference) {
  bool directory = reference.place == ModelPlace::kDirectory;
  std::error_code error;
  fs::path path = fs::absolute(reference.text).lexically_normal();
  if (!fs::exists(path, error)) {
    std::string near = Near(reference.text, directory);
    return Error{ErrorCode::kInvalid, std::string("there is no ") + (directory ? "directory " : "file ") + path.string() + (near.empty() ? ". " : "; did you mean '" + near + "'? ") +
                                          (directory ? "It should hold graph.json and model.safetensors, as pare export NAME DIR writes them" : "Paths start from where the command runs")};
  }
  if (!directory) return fs::is_directory(path, error) ? Status(Error{ErrorCode::kInvalid, path.string() + " is a directory; name the file in it, or end its name with /"}) : Ok();
  if (!fs::is_directory(path, error)) return Error{ErrorCode::kInvalid, path.string() + " is a file; a teacher is a directory that pare export wrote, or a file that ends with .safetensors"};
  for (const char* part : {"graph.json", "model.safetensors"}) {
    if (fs::exists(path / part, error)) continue;
    return Error{ErrorCode::kInvalid, "there is no " + std::string(part) + " in " + path.string() + ", which holds " + Listed(NamesIn(path)) +
                                          "; pare export NAME DIR writes graph.json and model.safetensors"};
  }
  return Ok();
}

// The file's last layer may answer other classes than the samples have: then that is what is wrong.
Error WithClasses(Error error, const model::Graph& graph, const model::TensorMap& tensors) {
  const model::Node* last = graph.Find(graph.output);
  auto weight = tensors.find(graph.output + ".weight");
  if (last == nullptr || last->op != model::OpType::kLinear || weight == tensors.end() || weight->second.shape().empty()) return error;
  int64_t theirs = weight->second.shape()[0], ours = last->attributes.out_features;
  if (theirs != ours) {
    error.message = "the file answers " + std::to_string(theirs) + " classes, the samples have " + std::to_string(ours) + ": name a teacher of the same classes (" + error.message + ")";
  }
  return error;
}

Result<OutsideModel> FromFiles(const OutsideReference& reference, const data::DataInfo& data, std::map<Digest, std::string>& bytes) {
  OutsideModel model;
  TRY(CheckThere(reference));
  ASSIGN_OR_RETURN(model.graph, GraphOf(reference, data));
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(model.graph));
  std::string path = reference.text + (reference.place == ModelPlace::kDirectory ? "/model.safetensors" : "");
  ASSIGN_OR_RETURN(std::string text, ReadFile(path));
  auto tensors = model::DecodeSafetensors(std::as_bytes(std::span(text)), nullptr);
  if (!tensors.ok()) return tensors.error().With(path);
  auto fitted = model::FitWeights(model.graph, info, *tensors, 0);
  if (!fitted.ok()) return WithClasses(fitted.error(), model.graph, *tensors).With(path);
  if (fitted->new_head) return Error{ErrorCode::kInvalid, path + ": there are no weights of '" + model.graph.output + "', the last layer: a teacher has learned the task"};
  if (Status finite = model::CheckFinite(fitted->tensors); !finite.ok()) {
    return Error{ErrorCode::kInvalid, path + ": " + finite.error().message + ": its training diverged or it is damaged; name another teacher"};
  }
  if (!fitted->notes.empty()) text = model::EncodeSafetensors(fitted->tensors);
  model.weights = DigestOf(std::string_view(text));
  bytes[model.weights] = std::move(text);
  return model;
}

}  // namespace

Result<OutsideInputs> LoadOutsideModels(const recipes::Recipe& recipe, const std::string& recipe_path, const data::DataInfo& data,
                                        const Target& target) {
  OutsideInputs inputs;
  for (const OutsideReference& reference : recipes::OutsideReferences(recipe.tree())) {
    bool registry = reference.place == ModelPlace::kRegistry;
    Result<OutsideModel> model = registry ? FromRegistry(reference.text, target) : FromFiles(reference, data, inputs.bytes);
    if (!model.ok()) {
      Error error = model.error();
      // What the user named is not there: bad input. A registry that cannot be reached is not.
      if (!registry) error.code = ErrorCode::kInvalid;
      auto p = recipe.position(reference.pointer);
      return error.With(recipe_path + ":" + std::to_string(p.line) + ":" + std::to_string(p.column) + ": teacher " + reference.text);
    }
    inputs.models.emplace(reference.text, *std::move(model));
  }
  return inputs;
}

}  // namespace pare::cli
