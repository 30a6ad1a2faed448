// Artifact: what a finished step leaves. A manifest (canonical JSON, itself a blob) that names the blobs and carries the
// results; the artifact's digest is the manifest's digest, so it covers weights, masks, accuracies and decisions. A
// manifest is a pure function of the step, without times, hosts or attempts; but a measurement's, which no job's digest covers.
//
//   {"format": 1, "kind": "checkpoint", "step": "<step key>",
//    "blobs": {"checkpoint": {"digest": "…", "bytes": 123}}, "results": {…}}
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "common/digest.h"
#include "common/json.h"
#include "common/json_text.h"
#include "storage/blob_store.h"

namespace pare::storage {

struct BlobReference {
  Digest digest;
  int64_t bytes = 0;
  bool operator==(const BlobReference&) const = default;
};

struct Artifact {
  std::string kind;  // "checkpoint", "evaluation", "decision", "measurement"
  StepKey step;
  std::map<std::string, BlobReference> blobs;  // by role: "checkpoint", "correct", …
  Json results = Json::object();               // shapes: docs/formats.md, "Results"
  bool operator==(const Artifact&) const = default;
};

Json ToJson(const Artifact& artifact);
Result<Artifact> ArtifactFromText(const JsonText& manifest);
// All but the results, which grow with the model.
Result<Artifact> HeadFromText(const JsonText& manifest);
// The results in a manifest without "layers" and "training", which grow with the model and the training. REQUIRES: it has some.
JsonText ResultsOf(const JsonText& manifest);

// Stores the manifest; the blobs that it names must be in the store already (kNotFound names the missing one).
Result<Digest> PutArtifact(BlobStore& blobs, const Artifact& artifact);
Result<Artifact> GetArtifact(BlobStore& blobs, const Digest& digest);

}  // namespace pare::storage
