#include "storage/artifact.h"

#include <utility>

namespace pare::storage {

Json ToJson(const Artifact& artifact) {
  Json blobs = Json::object();
  for (const auto& [role, blob] : artifact.blobs) blobs[role] = {{"digest", blob.digest.hex()}, {"bytes", blob.bytes}};
  return {{"format", 1}, {"kind", artifact.kind}, {"step", artifact.step.hex()}, {"blobs", std::move(blobs)}, {"results", artifact.results}};
}

Result<Artifact> HeadFromText(const JsonText& manifest) {
  if (TypeNameOf(manifest.text()) != "object") {
    return Error{ErrorCode::kCorrupt, "artifact manifest: expected an object, found " + std::string(TypeNameOf(manifest.text()))};
  }
  Json head = Json::object();
  for (const JsonField& field : FieldsOf(manifest.text())) {
    if (field.name != "results") head[std::string(field.name)] = JsonText::Of(std::string(field.value)).Tree();
  }
  ASSIGN_OR_RETURN(int64_t format, IntField(head, "format"));
  if (format != 1) return Error{ErrorCode::kVersion, "artifact manifest of format " + std::to_string(format) + ", this version reads 1"};
  Artifact artifact;
  ASSIGN_OR_RETURN(artifact.kind, StringField(head, "kind"));
  ASSIGN_OR_RETURN(artifact.step, StepKeyField(head, "step"));
  auto blobs = head.find("blobs");
  if (blobs == head.end() || !blobs->is_object()) return Error{ErrorCode::kCorrupt, "artifact manifest without blobs"};
  for (const auto& [role, blob] : blobs->items()) {
    BlobReference reference;
    ASSIGN_OR_RETURN(reference.digest, DigestField(blob, "digest"));
    ASSIGN_OR_RETURN(reference.bytes, IntField(blob, "bytes"));
    artifact.blobs.emplace(role, reference);
  }
  return artifact;
}

Result<Artifact> ArtifactFromText(const JsonText& manifest) {
  ASSIGN_OR_RETURN(Artifact artifact, HeadFromText(manifest));
  std::string_view results = FieldOf(manifest.text(), "results");
  if (results.empty()) return Error{ErrorCode::kCorrupt, "artifact manifest without results"};
  ASSIGN_OR_RETURN(artifact.results, ParseJson(results, "results of an artifact"));
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
  ASSIGN_OR_RETURN(JsonText manifest, JsonText::Read(view.text(), "artifact " + digest.hex()));
  return ArtifactFromText(manifest);
}

}  // namespace pare::storage
