// The files of a blob directory as maintenance sees them (storage/gc.h, storage/fsck.h, storage/backup.h): list them, take one away, put one
// aside. Not for readers and writers of blobs: those use BlobStore. Thread-compatible; errors carry the path.
//
// store/maintenance.lock keeps a blob that somebody is about to build on from being taken away at that moment: who finds that
// the bytes it wants to put are there already holds the lock shared while it marks the file as put just now; who takes blobs
// away holds it alone and looks at that mark again. A backup holds it shared from its copy of the index to its last blob.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/files.h"
#include "storage/store.h"

namespace pare::storage {

struct BlobFile {
  Digest digest;
  int64_t bytes = 0;
  int64_t put_ms = 0;  // when somebody last put these bytes (the file's modification time)
  bool operator==(const BlobFile&) const = default;
};
struct BlobListing {
  std::vector<BlobFile> blobs;          // by digest
  std::vector<std::string> strangers;  // paths of what is not named like a blob, in order
};
// Of the bytes as they are read now, a megabyte at a time. Read, not mapped: where a disk is broken a mapped page ends the process.
Result<Digest> DigestOfFile(const std::string& path);
// Whether the file has these bytes; false also if it cannot be read.
bool HasBytes(const std::string& path, std::span<const std::byte> bytes);
// The first bytes of a file: `count`, or all that it has. kNotFound where there is none.
Result<std::string> FirstBytes(const std::string& path, size_t count);
bool BeginsWith(const std::string& path, std::string_view bytes);

// An absent directory is an empty one.
Result<BlobListing> ListBlobs(const StorePaths& paths);

class MaintenanceLock {
 public:
  // Waits while blobs are being taken away (milliseconds).
  static Result<MaintenanceLock> Share(const StorePaths& paths);
  // kConflict, with what to do, while somebody holds it: never waits.
  static Result<MaintenanceLock> TakeAlone(const StorePaths& paths);

 private:
  explicit MaintenanceLock(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

// Removes the file unless it changed since it was listed; false: it did, or is gone. REQUIRES: the lock is held alone.
Result<bool> RemoveBlob(const StorePaths& paths, const BlobFile& file);
// Moves a file of the store to store/quarantine/, durably; its new path.
Result<std::string> Quarantine(const StorePaths& paths, const std::string& file);

}  // namespace pare::storage
