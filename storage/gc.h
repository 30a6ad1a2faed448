// Garbage collection: what the store holds and nothing needs, as a plan first and then its execution.
//
// A blob stays while one of these needs it (the roots):
//   an unfinished job     everything that its steps left, whatever the recipe says
//   a job's retention     checkpoints that `keep` of its recipe keeps; without `keep`: all of them
//   the model registry    checkpoints of all versions
//   a snapshot            of a step that is not done
//   inputs                datasets and weights of jobs; blobs that steps name in their parameters
//   evidence              evaluations, decisions and tables: small, and what reports are made of. Manifests, always
//   a result on its way   a blob that a manifest names whose step is running: its worker is about to report it
//   a snapshot on its way an unnamed blob put since the newest snapshot of a running step that is known, or since the step's
//                         start: its worker may be about to report it, however long the coordinator was away
//   youth                 a blob put less than `young_ms` ago that no row names yet (or that was put again since a row let go
//                         of it): somebody may be about to name it
// Retention looks at finished jobs only: recipe `keep: {policy, count, pinned}`. "best": the first `count` of the decision's
// ranking; "last": the last `count` candidates of every variant; "promoted": none beside those of the registry; "pinned": step
// names with `*`. A job without a decision keeps all under "best".
//
// Rows are never removed: an artifact whose checkpoint is collected keeps manifest and results (reports and digests stay
// what they are) and is marked; its step runs again when a job needs the checkpoint. Order: the marks are committed, and only
// then are files removed; a crash in between leaves files that the next collection removes.
//
// PlanGc is pure. Removing belongs to the process that holds the store's lock, or its coordinator.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "storage/artifact.h"
#include "storage/blob_files.h"
#include "storage/index.h"

namespace pare::storage {

inline constexpr int64_t kYoungMs = 3'600'000;
inline constexpr int64_t kMaxManifestBytes = int64_t{16} << 20;

struct GcOptions {
  int64_t now_ms = 0;
  int64_t young_ms = kYoungMs;
};

struct GcTally {
  int64_t blobs = 0, bytes = 0;
};
struct GcRemoval {
  BlobFile file;
  std::string reason;
};
struct GcPlan {
  std::vector<GcRemoval> removals;        // by digest
  std::vector<Digest> artifacts;          // rows to be marked as collected
  std::map<std::string, GcTally> kept;    // by reason
  std::map<std::string, GcTally> removed;  // by reason
  int64_t bytes = 0;                      // of all removals
};
// `manifest`: the manifest that an unreferenced blob is, if it is one; asked only while steps run.
GcPlan PlanGc(const StoredState& state, std::span<const BlobFile> files, const GcOptions& options,
              const std::function<std::optional<Artifact>(const BlobFile&)>& manifest);
// Reads it from the blob directory.
std::function<std::optional<Artifact>(const BlobFile&)> ManifestReader(const StorePaths& paths);

struct GcResult {
  GcTally removed;
  int64_t changed = 0;  // put again since the plan: left alone
};
// `alone`: taken before the marks of plan.artifacts were committed.
Result<GcResult> ExecuteGc(const StorePaths& paths, const GcPlan& plan, const MaintenanceLock& alone);

// The blobs of a store as a collection sees them.
class CollectableBlobs {
 public:
  // Backups and other collections are kept away while it lives. Taken before the marks of the plan are committed.
  class Removal {
   public:
    virtual ~Removal() = default;
    virtual Result<GcResult> Remove(const GcPlan& plan) = 0;
  };
  virtual ~CollectableBlobs() = default;
  virtual Result<BlobListing> List() = 0;
  // The manifest that the blob is, if it is one.
  virtual std::optional<Artifact> Manifest(const BlobFile& file) = 0;
  // kConflict while another holds one, or a backup runs.
  virtual Result<std::unique_ptr<Removal>> Begin() = 0;
};
std::unique_ptr<CollectableBlobs> CollectableDirectory(const StorePaths& paths);

// The plan for people's tools (docs/protocol.md, request gc). At most kMaxListedRemovals are listed one by one.
inline constexpr size_t kMaxListedRemovals = 10'000;
Json ToJson(const GcPlan& plan);

// Whether the job's recipe has no `keep`, or one that keeps all.
bool KeepsAll(const JobRow& job);
// "*" in the pattern stands for any text.
bool MatchesPattern(std::string_view pattern, std::string_view text);

// Every string of 64 hexadecimal digits in a JSON value, names of fields too: what may be the name of a blob.
void CollectDigests(const JsonText& json, const std::function<void(const Digest&)>& found);

}  // namespace pare::storage
