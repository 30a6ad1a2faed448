#include "storage/artifact.h"

namespace pare::storage {

Json ToJson(const Artifact& artifact) {
  Json blobs = Json::object();
  for (const auto& [role, blob] : artifact.blobs) blobs[role] = {{"digest", blob.digest.hex()}, {"bytes", blob.bytes}};
  return {{"format", 1}, {"kind", artifact.kind}, {"step", artifact.step.hex()}, {"blobs", std::move(blobs)}, {"results", artifact.results}};
}

Result<Artifact> ArtifactFromJson(const Json& json) {
  ASSIGN_OR_RETURN(int64_t format, IntField(json, "format"));
  if (format != 1) return Error{ErrorCode::kVersion, "artifact manifest of format " + std::to_string(format) + ", this version reads 1"};
  Artifact artifact;
  ASSIGN_OR_RETURN(artifact.kind, StringField(json, "kind"));
  ASSIGN_OR_RETURN(artifact.step, StepKeyField(json, "step"));
  auto blobs = json.find("blobs"), results = json.find("results");
  if (blobs == json.end() || !blobs->is_object() || results == json.end()) {
    return Error{ErrorCode::kCorrupt, "artifact manifest without blobs or results"};
  }
  for (const auto& [role, blob] : blobs->items()) {
    BlobReference reference;
    ASSIGN_OR_RETURN(reference.digest, DigestField(blob, "digest"));
    ASSIGN_OR_RETURN(reference.bytes, IntField(blob, "bytes"));
    artifact.blobs.emplace(role, reference);
  }
  artifact.results = *results;
  return artifact;
}

Result<Digest> PutArtifact(BlobStore& blobs, const Artifact& artifact) {
  for (const auto& [role, blob] : artifact.blobs) {
    ASSIGN_OR_RETURN(bool there, blobs.Contains(blob.digest));
    if (!there) return Error{ErrorCode::kNotFound, "artifact of step " + artifact.step.brief() + ": its blob '" + role + "' (" + blob.digest.hex() + ") is not in the store"};
  }
  return blobs.Put(Canonical(ToJson(artifact)));
}

Result<Artifact> GetArtifact(BlobStore& blobs, const Digest& digest) {
  ASSIGN_OR_RETURN(BlobView view, blobs.Get(digest));
  ASSIGN_OR_RETURN(Json json, ParseJson(view.text(), "artifact " + digest.hex()));
  return ArtifactFromJson(json);
}

}  // namespace pare::storage
