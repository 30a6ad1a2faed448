// Store: one directory that holds everything (docs/architecture.md, "Storage"; docs/formats.md, "Store"):
//
//   store/index.db        SQLite: WAL, synchronous=FULL, one writer (storage/index.h)
//   store/blobs/ab/ab…    immutable, named by SHA-256
//   store/tmp/            writes in progress; what a dead process left is removed when a coordinator opens the store
//   store/quarantine/     what `pare fsck --repair` put aside
//   store/maintenance.lock  see storage/blob_files.h
//   store/reserve         space held back for a full disk (storage/reserve.h)
//   store/lock            locked (an open-file-description lock on its first byte) by the one coordinator; holds
//                         {"pid", "endpoint", "blob_endpoint", "version"}. The lock goes with its process: a file that a dead
//                         coordinator left is no obstacle
//
// Rejected: a pid file (a reused pid looks alive); the lock inside index.db (readers could not tell who holds it).
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "common/files.h"
#include "storage/blob_store.h"
#include "storage/index.h"
#include "storage/reserve.h"

namespace pare::storage {

// Where a store is when nobody says: $PARE_STORE, else ~/.local/share/pare.
std::string DefaultStore();

struct StorePaths {
  explicit StorePaths(std::string root_directory) : root(std::move(root_directory)) {}
  std::string root;
  std::string index() const { return root + "/index.db"; }
  std::string blobs() const { return root + "/blobs"; }
  std::string tmp() const { return root + "/tmp"; }
  std::string reserve() const { return root + "/reserve"; }
  std::string lock() const { return root + "/lock"; }
  std::string blob(const Digest& digest) const;
};

// What the living coordinator of a store wrote into its lock file.
struct CoordinatorInfo {
  int64_t pid = 0;
  std::string endpoint;
  std::string blob_endpoint;
  std::string version;
};

// The lock of a coordinator, for whoever repairs a store. Released when the descriptors are closed. Two locks, since a file is
// easily taken for a stale one and removed while its holder lives: the directory stays.
struct StoreLock {
  UniqueFd file, directory;
};
// kConflict names the holder.
Result<StoreLock> LockStore(const StorePaths& paths);

// Belongs to one thread, except blobs().
class Store {
 public:
  // Creates the directory if it is not there, takes the lock (kConflict names the holder's pid and endpoint), opens the
  // index, removes leftovers in tmp/. kCorrupt when there are blobs but no index: `pare fsck --repair` makes it again. kInvalid on a network file system, kIo when the store cannot be written, with the path
  // and what to do. A full disk is no error here: the reserve is missing then.
  static Result<std::unique_ptr<Store>> Open(const std::string& root);

  const StorePaths& paths() const { return paths_; }
  // Commits with the reserve's space when the disk is full.
  Index& index() { return *index_; }
  BlobStore& blobs() { return *blobs_; }
  // kNoSpace: the disk is so full that no new work may be accepted. Cheap when there is space.
  Status KeepReserve() { return reserve_.Keep(); }
  // Writes `info` into the lock file, for FindCoordinator.
  Status Announce(const CoordinatorInfo& info);

 private:
  explicit Store(StorePaths paths) : paths_(std::move(paths)), reserve_(paths_.reserve()) {}

  StorePaths paths_;
  StoreLock lock_;
  Reserve reserve_;
  std::unique_ptr<Index> index_;
  std::unique_ptr<BlobStore> blobs_;
};

// The coordinator that holds the store's lock now, if one is alive and has announced itself.
Result<std::optional<CoordinatorInfo>> FindCoordinator(const std::string& root);

// mkdir -p whose result survives a power cut.
Status MakeDurableDirectory(const std::string& path);

// `error`, met in the store at `root`, with what keeps it from being used and what to do: a read-only file system, a path that this
// user may not write.
Error CannotUse(const std::string& root, Error error);

// Blobs of a store directory without its lock: for runners on the same host and for reading commands.
std::unique_ptr<BlobStore> OpenBlobDirectory(const StorePaths& paths);
std::unique_ptr<BlobStore> NewMemoryBlobStore();

}  // namespace pare::storage
