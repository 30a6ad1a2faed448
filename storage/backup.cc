#include "storage/backup.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "common/files.h"
#include "storage/gc.h"
#include "storage/index_repair.h"

namespace pare::storage {
namespace {

namespace fs = std::filesystem;

Status CheckTarget(const StorePaths& target) {
  std::error_code code;
  if (!fs::exists(target.root, code)) return Ok();
  if (!fs::is_directory(target.root, code)) return Error{ErrorCode::kInvalid, target.root + " is not a directory"};
  // Whoever looks at a backup (`pare fsck`) leaves an empty log beside its index; one with something in it is a store's.
  // What begins like the partial index is of a backup that was killed.
  static const std::set<std::string> kOurs = {"index.db", "index.db-shm", "blobs", "tmp", "maintenance.lock"};
  std::error_code ignored;
  for (fs::directory_iterator entry(target.root, code), end; !code && entry != end; entry.increment(code)) {
    std::string name = entry->path().filename().string();
    bool ours = kOurs.count(name) != 0 || name.starts_with("index.db.partial") || (name == "index.db-wal" && entry->file_size(ignored) == 0);
    if (!ours) {
      return Error{ErrorCode::kInvalid, target.root + " holds '" + name + "': a backup goes to a directory that is empty or holds an older backup that nobody has used as a store"};
    }
  }
  return code ? Status(SystemError("cannot read " + target.root, code.value())) : Ok();
}

// A copy inside of what it is a copy of is lost with it.
Status RefuseInside(const StorePaths& store, const std::string& target) {
  std::error_code code;
  fs::path outer = fs::weakly_canonical(store.root, code), inner = fs::weakly_canonical(fs::absolute(target, code), code);
  if (!outer.has_filename()) outer = outer.parent_path();
  auto [end, ignored] = std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end());
  if (code || end != outer.end()) return Ok();
  return Error{ErrorCode::kInvalid, "backup: " + target + " is the store " + store.root + " itself or lies in it, so it would be lost together with it: choose a directory elsewhere, best on another disk"};
}

// Blobs that the rows name and that must be there.
std::set<Digest> Needed(const StoredState& state, BlobStore& blobs) {
  std::set<Digest> needed;
  for (const ArtifactRow& row : state.artifacts) {
    needed.insert(row.digest);
    auto artifact = HeadFromText(row.manifest);
    if (!artifact.ok() || row.collected_ms != 0) continue;
    for (const auto& [role, blob] : artifact->blobs) needed.insert(blob.digest);
  }
  for (const SnapshotRow& row : state.snapshots) {
    if (!row.blob.is_none()) needed.insert(row.blob);
  }
  // Datasets, weights, and whatever else specifications name and the store has: not every digest there is a blob's.
  auto add_if_there = [&](const Digest& digest) {
    auto there = blobs.Contains(digest);
    if (there.ok() && *there) needed.insert(digest);
  };
  for (const JobRow& row : state.jobs) CollectDigests(row.resolved, add_if_there);
  for (const StepRow& row : state.steps) CollectDigests(row.spec, add_if_there);
  return needed;
}

Status CopyBlob(BlobStore& from, BlobStore& to, const Digest& digest, BackupReport& report) {
  ASSIGN_OR_RETURN(bool there, to.Contains(digest));
  auto view = from.Get(digest);
  if (!view.ok() && (view.error().code == ErrorCode::kNotFound || view.error().code == ErrorCode::kCorrupt)) {
    report.missing.push_back(digest.hex());
    return Ok();
  }
  if (!view.ok()) return view.error();
  TRY(to.Put(view->bytes));
  ++report.blobs;
  report.bytes += static_cast<int64_t>(view->bytes.size());
  if (there) return Ok();
  ++report.copied_blobs;
  report.copied_bytes += static_cast<int64_t>(view->bytes.size());
  return Ok();
}

}  // namespace

Result<BackupReport> BackUp(const StorePaths& store, const std::string& target_root) {
  StorePaths target(target_root);
  if (target_root.empty()) return Error{ErrorCode::kInvalid, "backup: the directory's name is empty"};
  TRY(RefuseInside(store, target_root));
  TRY(CheckTarget(target));
  {  // what cannot be copied leaves no directory that looks like a store
    ASSIGN_OR_RETURN(int version, Index::SchemaOf(store.index()));
    if (version == 0) return Error{ErrorCode::kNotFound, "index " + store.index() + " is empty"};
  }
  // Nothing is collected between the copy of the index and that of its last blob.
  ASSIGN_OR_RETURN(MaintenanceLock lock, MaintenanceLock::Share(store));
  target = StorePaths(fs::absolute(target.root).lexically_normal().string());
  if (target.root.size() > 1 && target.root.ends_with('/')) target.root.pop_back();
  for (const std::string& directory : {target.root, target.blobs(), target.tmp()}) TRY(MakeDurableDirectory(directory));
  std::string partial = target.index() + ".partial";
  for (const char* suffix : {"", "-wal", "-shm", "-journal"}) ::unlink((partial + suffix).c_str());
  TRY(CopyIndex(store.index(), partial));
  StoredState state;
  {
    ASSIGN_OR_RETURN(auto index, Index::Open(partial));  // an older schema is brought up to date in the copy
    ASSIGN_OR_RETURN(state, index->Load());
  }
  auto from = OpenBlobDirectory(store), to = OpenBlobDirectory(target);
  BackupReport report;
  for (const Digest& digest : Needed(state, *from)) TRY(CopyBlob(*from, *to, digest, report));
  TRY(SealDatabase(partial));
  for (const char* suffix : {"-wal", "-shm"}) ::unlink((target.index() + suffix).c_str());
  if (::rename(partial.c_str(), target.index().c_str()) != 0) return SystemError("cannot rename " + partial, errno);
  TRY(SyncDirectory(target.root));
  TRY(SyncDirectory(fs::path(target.root).parent_path().string()));  // a killed backup may have made it
  return report;
}

}  // namespace pare::storage
