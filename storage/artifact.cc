#include "storage/artifact.h"

#include <map>
#include <string_view>
#include <utility>

namespace pare::storage {
namespace {

Error Without(const std::string& what) { return Error{ErrorCode::kCorrupt, "artifact manifest without " + what}; }

Result<BlobReference> ReferenceOf(const std::string& role, std::string_view text) {
  auto digest = StringOf(FieldOf(text, "digest"));
  auto bytes = IntegerOf(FieldOf(text, "bytes"));
  if (!digest || !bytes) return Without("digest and bytes of blob '" + role + "'");
  ASSIGN_OR_RETURN(Digest found, Digest::FromHex(*digest));
  return BlobReference{found, *bytes};
}

// Without a tree of anything but the results: a coordinator reads thousands a second.
Result<Artifact> Read(const JsonText& manifest, bool results) {
  if (TypeNameOf(manifest.text()) != "object") {
    return Error{ErrorCode::kCorrupt, "artifact manifest: expected an object, found " + std::string(TypeNameOf(manifest.text()))};
  }
  std::map<std::string_view, std::string_view> fields;
  for (const JsonField& field : FieldsOf(manifest.text())) fields[field.name] = field.value;
  auto format = IntegerOf(fields["format"]);
  if (!format) return Without("format");
  if (*format != 1) return Error{ErrorCode::kVersion, "artifact manifest of format " + std::to_string(*format) + ", this version reads 1"};
  auto kind = StringOf(fields["kind"]), step = StringOf(fields["step"]);
  if (!kind || !step) return Without("kind and step");
  Artifact artifact{.kind = *kind};
  ASSIGN_OR_RETURN(artifact.step, StepKey::FromHex(*step));
  if (TypeNameOf(fields["blobs"]) != "object") return Without("blobs");
  for (const JsonField& blob : FieldsOf(fields["blobs"])) {
    std::string role = StringOf('"' + std::string(blob.name) + '"').value();
    ASSIGN_OR_RETURN(artifact.blobs[role], ReferenceOf(role, blob.value));
  }
  if (!results) return artifact;
  if (fields["results"].empty()) return Without("results");
  ASSIGN_OR_RETURN(artifact.results, ParseJson(fields["results"], "results of an artifact"));
  return artifact;
}

}  // namespace

Json ToJson(const Artifact& artifact) {
  Json blobs = Json::object();
  for (const auto& [role, blob] : artifact.blobs) blobs[role] = {{"digest", blob.digest.hex()}, {"bytes", blob.bytes}};
  return {{"format", 1}, {"kind", artifact.kind}, {"step", artifact.step.hex()}, {"blobs", std::move(blobs)}, {"results", artifact.results}};
}

Result<Artifact> HeadFromText(const JsonText& manifest) { return Read(manifest, false); }
Result<Artifact> ArtifactFromText(const JsonText& manifest) { return Read(manifest, true); }

JsonText ResultsOf(const JsonText& manifest) {
  std::string_view results = FieldOf(manifest.text(), "results");
  if (TypeNameOf(results) != "object") return JsonText::Of(std::string(results));
  std::string text = "{";
  for (const JsonField& field : FieldsOf(results)) {
    if (field.name == "layers" || field.name == "training") continue;
    ((((text += text.size() == 1 ? "\"" : ",\"") += field.name) += "\":") += field.value);
  }
  return JsonText::Of(text + "}");
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
