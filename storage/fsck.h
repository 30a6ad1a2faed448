// Examination and repair of a store: every blob's digest, every reference, every row.
//
// Without repair nothing is written, and a coordinator may live. Repair needs the store's lock, and
//   · puts damaged blobs and strange files aside (store/quarantine/), never deletes them
//   · writes manifests again from their rows
//   · rebuilds a damaged or lost index from the rows that can still be read and the manifests among the blobs; the old one
//     goes to quarantine. Versions keep their numbers; no number that a row names is given to another network
//   · gives up artifacts and snapshots whose blobs are gone: their steps run again when a job needs them, with the same result
// A problem that repair could not heal says what is lost; a second run is clean unless a registered version lost its checkpoint.
// Belongs to one thread. Errors: only what keeps it from looking (the lock, the directory, kInvalid for files that this user may not
// read) or a database that is not ours to judge (kVersion: of a newer release).
#pragma once

#include <string>
#include <vector>

#include "storage/gc.h"
#include "storage/store.h"

namespace pare::storage {

struct FsckProblem {
  std::string kind;    // "blob", "file", "index", "manifest", "artifact", "snapshot", "input", "version", "row"
  std::string name;    // digest, path, model@version, …
  std::string text;    // what is wrong
  std::string action;  // what repair did; empty: nothing
};
struct FsckLoss {
  std::string what;  // "job", "version", "step"; "rows" of a table of the index
  std::string name;  // "j123…", "tiny@2", "j123… iterative/01-prune"
  std::string text;
};
struct FsckReport {
  int64_t blobs = 0, bytes = 0;
  std::vector<FsckProblem> problems;
  std::vector<FsckLoss> losses;  // steps: those that will be run again
  bool clean() const { return problems.empty(); }
};
Json ToJson(const FsckReport& report);

Result<FsckReport> Fsck(const StorePaths& paths, bool repair);

// ---- the pure part of rebuilding an index ----

struct FoundManifest {
  Digest digest;
  Artifact artifact;
  int64_t put_ms = 0;
};
struct ReconcileOptions {
  bool versions_damaged = false;  // versions or aliases may be missing
  int64_t now_ms = 0;             // for the history of a model whose newest version is lost
};
// Rows that fit together, from what was salvaged and the manifests among the blobs. Says what is lost.
std::vector<Row> Reconcile(std::vector<Row> salvaged, const std::vector<FoundManifest>& manifests, const ReconcileOptions& options,
                           std::vector<FsckLoss>& losses);

}  // namespace pare::storage
