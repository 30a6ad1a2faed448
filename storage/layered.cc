#include "storage/layered.h"

namespace pare::storage {
namespace {

constexpr const char* kBase = "base/";

}  // namespace

Result<Checkpoint> GetArtifactCheckpoint(BlobStore& blobs, const Artifact& artifact) {
  auto top = artifact.blobs.find("checkpoint");
  if (artifact.kind != "checkpoint" || top == artifact.blobs.end()) {
    return Error{ErrorCode::kInvalid, "it is of kind '" + artifact.kind + "', a checkpoint is needed"};
  }
  ASSIGN_OR_RETURN(Checkpoint checkpoint, GetCheckpoint(blobs, top->second.digest));
  std::string prefix = kBase;
  auto below = artifact.blobs.find(prefix + "checkpoint");
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(checkpoint.graph));
  for (int layer = 1; below != artifact.blobs.end(); ++layer) {
    if (layer > kMaxLayers) return Error{ErrorCode::kCorrupt, "checkpoint of more than " + std::to_string(kMaxLayers) + " layers"};
    ASSIGN_OR_RETURN(Checkpoint base, GetCheckpoint(blobs, below->second.digest));
    for (const model::TensorSpec& spec : info.tensors) {
      auto tensor = base.tensors.find(spec.name);
      if (tensor == base.tensors.end() || !checkpoint.tensors.emplace(spec.name, tensor->second).second) continue;
      if (auto mask = base.masks.find(spec.name); mask != base.masks.end()) checkpoint.masks.emplace(spec.name, mask->second);
    }
    prefix += kBase;
    below = artifact.blobs.find(prefix + "checkpoint");
  }
  for (const model::TensorSpec& spec : info.tensors) {
    if (!checkpoint.tensors.contains(spec.name)) return Error{ErrorCode::kCorrupt, "tensor '" + spec.name + "' is in no layer of the checkpoint"};
  }
  return checkpoint;
}

std::map<std::string, BlobReference> AsBase(const std::map<std::string, BlobReference>& blobs) {
  std::map<std::string, BlobReference> base;
  for (const auto& [role, blob] : blobs) base.emplace(kBase + role, blob);
  return base;
}

}  // namespace pare::storage
