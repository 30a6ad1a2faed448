// InputCache: decoded checkpoints and datasets of recent steps, so that a chain of steps on one runner does not load its
// inputs again. Least recently used goes first when the bytes exceed the limit; the newest entry always stays.
//
// Belongs to one thread. Entries are immutable and shared: they outlive their eviction while a step uses them.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <string>

#include "data/dataset.h"
#include "storage/artifact.h"
#include "storage/blob_store.h"
#include "storage/checkpoint.h"

namespace pare::runner {

inline constexpr int64_t kMaxInputCacheBytes = int64_t{1} << 30;

struct LoadedCheckpoint {
  storage::Artifact artifact;
  storage::Checkpoint checkpoint;
};

class InputCache {
 public:
  explicit InputCache(storage::BlobStore& blobs, int64_t max_bytes = kMaxInputCacheBytes)
      : blobs_(blobs), max_bytes_(max_bytes) {}

  // A checkpoint artifact, decoded. kNotFound, kCorrupt; kInvalid for an artifact of another kind.
  Result<std::shared_ptr<const LoadedCheckpoint>> Checkpoint(const Digest& artifact);
  // What a step just made: it is likely the next step's input.
  void Remember(const Digest& artifact, LoadedCheckpoint checkpoint);

  // The dataset of `info`, from its blob or from the files it names. kInvalid: the fingerprint of what is there is not
  // `expected` (names both), or a file is missing.
  Result<std::shared_ptr<const data::Dataset>> Dataset(const data::DataInfo& info, const Digest& expected);

  int64_t bytes() const { return bytes_; }

 private:
  struct Entry {
    std::string key;
    std::shared_ptr<const void> value;
    int64_t bytes = 0;
  };
  // The value of `key`, which becomes the most recent, or nullptr.
  std::shared_ptr<const void> Find(const std::string& key);
  void Insert(std::string key, std::shared_ptr<const void> value, int64_t bytes);

  storage::BlobStore& blobs_;
  int64_t max_bytes_;
  int64_t bytes_ = 0;
  std::list<Entry> entries_;  // most recent first; a handful, so searched in order
};

}  // namespace pare::runner
