#include "cli/outside_models.h"

#include "common/files.h"
#include "model/architectures.h"
#include "model/initialize.h"
#include "model/safetensors.h"
#include "storage/artifact.h"
#include "storage/checkpoint.h"

namespace pare::cli {
namespace {

using recipes::ModelPlace;
using recipes::OutsideModel;
using recipes::OutsideReference;

constexpr int64_t kMaxGraphBytes = 64 << 20;

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
  Json parameters = reference.model;
  std::string architecture = parameters.value("architecture", "");
  parameters.erase("architecture");
  parameters.erase("weights");
  return model::BuildArchitecture(architecture, parameters, data.sample_shape, data.classes);
}

Result<OutsideModel> FromFiles(const OutsideReference& reference, const data::DataInfo& data, std::map<Digest, std::string>& bytes) {
  OutsideModel model;
  ASSIGN_OR_RETURN(model.graph, GraphOf(reference, data));
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(model.graph));
  std::string path = reference.text + (reference.place == ModelPlace::kDirectory ? "/model.safetensors" : "");
  ASSIGN_OR_RETURN(std::string text, ReadFile(path));
  auto tensors = model::DecodeSafetensors(std::as_bytes(std::span(text)), nullptr);
  if (!tensors.ok()) return tensors.error().With(path);
  if (Status fits = model::CheckWeights(info, *tensors); !fits.ok()) return fits.error().With(path);
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
      if (!registry && error.code != ErrorCode::kInvalid) error.code = ErrorCode::kInvalid;
      auto p = recipe.position(reference.pointer);
      return error.With(recipe_path + ":" + std::to_string(p.line) + ":" + std::to_string(p.column) + ": teacher " + reference.text);
    }
    inputs.models.emplace(reference.text, *std::move(model));
  }
  return inputs;
}

}  // namespace pare::cli
