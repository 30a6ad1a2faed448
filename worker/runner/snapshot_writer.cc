#include "worker/runner/snapshot_writer.h"

#include <chrono>

#include "common/log.h"

namespace pare::runner {

SnapshotWriter::~SnapshotWriter() {
  if (busy()) pending_.wait();
}

void SnapshotWriter::Start(std::string bytes, Json position) {
  CHECK(!busy());
  position_ = std::move(position);
  pending_ = std::async(std::launch::async, [this, bytes = std::move(bytes)]() -> Result<Digest> {
    try {
      return blobs_.Put(bytes);
    } catch (const std::exception& e) {
      return Error{ErrorCode::kInternal, e.what()};
    }
  });
}

std::optional<StoredSnapshot> SnapshotWriter::Collect() {
  Result<Digest> digest = pending_.get();
  if (digest.ok()) return StoredSnapshot{*digest, std::move(position_)};
  LogWarning("snapshot not stored: " + digest.error().message);
  return std::nullopt;
}

std::optional<StoredSnapshot> SnapshotWriter::Poll() {
  if (!busy() || pending_.wait_for(std::chrono::seconds(0)) != std::future_status::ready) return std::nullopt;
  return Collect();
}

std::optional<StoredSnapshot> SnapshotWriter::WriteNow(std::string bytes, Json position) {
  if (busy()) Collect();
  Start(std::move(bytes), std::move(position));
  return Collect();
}

}  // namespace pare::runner
