// Store: one directory that holds everything (docs/architecture.md, "Storage"):
//
//   store/index.db        SQLite
//   store/blobs/ab/ab…    immutable, named by SHA-256
//   store/tmp/            writes in progress; emptied when a coordinator opens the store
//   store/lock            flock-ed by the one coordinator; holds {"pid", "endpoint", "blob_endpoint", "version"}
//
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "storage/blob_store.h"
#include "storage/index.h"

namespace pare::storage {

struct StorePaths {
  explicit StorePaths(std::string root_directory) : root(std::move(root_directory)) {}
  std::string root;
  std::string index() const { return root + "/index.db"; }
  std::string blobs() const { return root + "/blobs"; }
  std::string tmp() const { return root + "/tmp"; }
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

class Store {
 public:
  // Creates the directory if it is not there, takes the lock (kConflict names the holder's pid and endpoint), opens the
  // index, empties tmp/. kIo/kNoSpace with the path otherwise.
  static Result<std::unique_ptr<Store>> Open(const std::string& root);
  ~Store();

  const StorePaths& paths() const { return paths_; }
  Index& index() { return *index_; }
  BlobStore& blobs() { return *blobs_; }
  // Writes `info` into the lock file, for FindCoordinator.
  Status Announce(const CoordinatorInfo& info);

 private:
  explicit Store(StorePaths paths) : paths_(std::move(paths)) {}
  StorePaths paths_;
  int lock_fd_ = -1;
  std::unique_ptr<Index> index_;
  std::unique_ptr<BlobStore> blobs_;
};

// The coordinator that holds the store's lock now, if one is alive and has announced itself.
Result<std::optional<CoordinatorInfo>> FindCoordinator(const std::string& root);

// Blobs of a store directory without its lock: for runners on the same host and for reading commands.
std::unique_ptr<BlobStore> OpenBlobDirectory(const StorePaths& paths);
std::unique_ptr<BlobStore> NewMemoryBlobStore();

}  // namespace pare::storage
