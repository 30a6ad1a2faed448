// BlobStore: one of the five edge interfaces. Immutable byte strings named by their SHA-256.
//
// Implementations: DirectoryBlobStore (a store directory), RemoteBlobStore (through the coordinator's blob service),
// MemoryBlobStore (tests). One conformance suite: tests/storage/blob_store_conformance_test.cc. Thread-safe.
// Errors: kNoSpace when the disk is full, kUnreachable when a remote store does not answer, kIo for the system's other reasons.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "common/digest.h"
#include "common/result.h"

namespace pare::storage {

// The bytes of a blob, alive as long as `keep_alive` (a mapped file or a buffer).
struct BlobView {
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> keep_alive;
  std::string_view text() const {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
};

// A blob that arrives in pieces. What was appended goes with the object unless Finish succeeded. Belongs to one thread;
// must not outlive its store.
class BlobWriter {
 public:
  virtual ~BlobWriter() = default;
  virtual Status Append(std::span<const std::byte> bytes) = 0;
  // Makes the bytes a blob, as Put does. kCorrupt (and no blob) if `expected` is given and names other bytes. Call once.
  virtual Result<Digest> Finish(const Digest& expected = {}) = 0;

  Status Append(std::string_view bytes) { return Append(std::as_bytes(std::span(bytes))); }
};

class BlobStore {
 public:
  virtual ~BlobStore() = default;
  // Stores the bytes; when this returns they survive a power cut. Storing what is there already is cheap and fine; a blob
  // whose stored bytes are damaged is replaced.
  virtual Result<Digest> Put(std::span<const std::byte> bytes) = 0;
  // The bytes, verified against the digest: kNotFound if there is none, kCorrupt if they do not match.
  virtual Result<BlobView> Get(const Digest& digest) = 0;
  virtual Result<bool> Contains(const Digest& digest) = 0;
  // The same of a blob that has `bytes` bytes: one of another size, which is damaged, is not there. A store that is far away answers as Contains.
  virtual Result<bool> Holds(const Digest& digest, int64_t bytes);
  // For a blob that need not fit into memory. The default collects the bytes in memory and calls Put.
  virtual Result<std::unique_ptr<BlobWriter>> NewWriter();

  Result<Digest> Put(std::string_view bytes) { return Put(std::as_bytes(std::span(bytes))); }
};

}  // namespace pare::storage
