// SnapshotWriter: makes snapshots durable on a helper thread, so that training does not wait for the disk. One at a time.
//
// Belongs to one thread; the helper touches only the blob store (thread-safe) and the bytes it was given. A snapshot that
// cannot be stored is a warning in the log: the step goes on, and the one before it stays valid.
#pragma once

#include <future>
#include <optional>
#include <string>

#include "common/json.h"
#include "storage/blob_store.h"

namespace pare::runner {

struct StoredSnapshot {
  Digest blob;
  Json position;
};

class SnapshotWriter {
 public:
  explicit SnapshotWriter(storage::BlobStore& blobs) : blobs_(blobs) {}
  ~SnapshotWriter();

  bool busy() const { return pending_.valid(); }
  // REQUIRES: !busy().
  void Start(std::string bytes, Json position);
  // The snapshot that became durable since the last call, if any. Never waits.
  std::optional<StoredSnapshot> Poll();
  // Stores at once, after what is under way.
  std::optional<StoredSnapshot> WriteNow(std::string bytes, Json position);

 private:
  std::optional<StoredSnapshot> Collect();

  storage::BlobStore& blobs_;
  std::future<Result<Digest>> pending_;
  Json position_;
};

}  // namespace pare::runner
