// Blobs over a socket: BlobServer serves a store's blobs on its own thread, ConnectBlobStore is a BlobStore for processes on
// other hosts (docs/protocol.md, "Blob service"). Chunks of at most kBlobChunk bytes and at most kBlobCredit requests in
// flight per client bound the memory of both sides; an upload goes to disk as it comes. What arrives is verified against
// its digest before it is a blob.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "common/clock.h"
#include "common/transport.h"
#include "storage/blob_store.h"

namespace pare::storage {

inline constexpr int64_t kBlobChunk = 1 << 20;
inline constexpr size_t kBlobCredit = 8;
inline constexpr size_t kMaxUploads = 64;                    // at once; the oldest is dropped beyond
inline constexpr int64_t kMaxUploadBytes = int64_t{64} << 30;  // of one blob

// Whether this is how a blob service refuses a message of another protocol: whoever sent it has the wrong endpoint.
bool IsBlobServiceReply(std::string_view reply);

// The protocol without a socket: request bytes → reply bytes. Belongs to one thread. Never fails: errors are replies.
class BlobService {
 public:
  explicit BlobService(BlobStore& blobs) : blobs_(blobs) {}
  std::string Handle(std::string_view request);

 private:
  struct Upload {
    Digest digest;  // none: the client learns it while it writes, and names it with the commit
    int64_t size = 0;  // at most
    int64_t have = 0;
    std::unique_ptr<BlobWriter> writer;
  };
  Result<std::string> Dispatch(const Json& request, std::string_view payload);
  Result<std::string> Get(const Json& request);
  Result<bool> PutAgain(const Digest& digest);
  Result<std::string> Begin(const Json& request);
  Result<std::string> Chunk(const Json& request, std::string_view payload);
  Result<std::string> Commit(const Json& request);

  BlobStore& blobs_;
  std::map<int64_t, Upload> uploads_;
  int64_t next_upload_ = 1;
};

class BlobServer {
 public:
  // Serves `blobs` (which must live longer) until destroyed.
  static Result<std::unique_ptr<BlobServer>> Start(const std::string& endpoint, BlobStore& blobs);
  ~BlobServer();
  const std::string& endpoint() const { return endpoint_; }

 private:
  BlobServer() = default;
  std::string endpoint_;
  std::atomic<bool> ending_{false};
  std::thread thread_;
};

// kUnreachable when the service does not answer within `timeout`, also after repeating. Thread-safe (one request at a time).
Result<std::unique_ptr<BlobStore>> ConnectBlobStore(const std::string& endpoint, Millis timeout = Millis(30'000));
// The same over any transport and clock, for tests.
std::unique_ptr<BlobStore> NewRemoteBlobStore(std::unique_ptr<ClientTransport> transport, Millis timeout, std::shared_ptr<const Clock> clock);

}  // namespace pare::storage
