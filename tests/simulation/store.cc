#include "tests/simulation/store.h"

#include <utility>

namespace pare::simulation {

Status DiskIndex::Commit(std::span<const storage::Row> rows) {
  if (rows.empty()) return Ok();
  if (disk_.full) return Error{ErrorCode::kNoSpace, "index: database or disk is full"};
  if (disk_.dead) return Error{ErrorCode::kIo, "the process is dead"};
  bool after = disk_.torn.value_or(false);
  disk_.dead = disk_.torn.has_value();
  if (disk_.torn && !after) {
    disk_.torn.reset();
    return Error{ErrorCode::kIo, "killed before the transaction"};
  }
  TRY(inner_->Commit(rows));
  ++commits_;
  if (!disk_.torn) return Ok();
  disk_.torn.reset();
  return Error{ErrorCode::kIo, "killed after the transaction"};
}

Result<Digest> DiskBlobs::Put(std::span<const std::byte> bytes) {
  if (disk_.full) return Error{ErrorCode::kNoSpace, "cannot write a blob: no space left on device"};
  Digest digest = DigestOf(bytes);
  Blob& blob = blobs_[digest];
  if (!blob.bytes) blob.bytes = std::make_shared<const std::string>(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  blob.put_ms = clock_.Wall().ms;
  ++blob.puts;
  return digest;
}

Result<storage::BlobView> DiskBlobs::Get(const Digest& digest) {
  auto found = blobs_.find(digest);
  if (found == blobs_.end()) return Error{ErrorCode::kNotFound, "blob " + digest.hex() + " is not in the store"};
  return storage::BlobView{std::as_bytes(std::span(*found->second.bytes)), found->second.bytes};
}

Result<storage::BlobListing> DiskBlobs::List() {
  storage::BlobListing listing;
  for (const auto& [digest, blob] : blobs_) listing.blobs.push_back({digest, static_cast<int64_t>(blob.bytes->size()), blob.put_ms});
  return listing;
}

std::optional<storage::Artifact> DiskBlobs::Manifest(const storage::BlobFile& file) {
  auto artifact = storage::GetArtifact(*this, file.digest);
  if (!artifact.ok()) return std::nullopt;
  return *std::move(artifact);
}

class DiskBlobs::Execution : public CollectableBlobs::Removal {
 public:
  explicit Execution(DiskBlobs& blobs) : blobs_(blobs) {}
  Result<storage::GcResult> Remove(const storage::GcPlan& plan) override {
    if (blobs_.collecting) blobs_.collecting(plan);
    storage::GcResult result;
    for (const storage::GcRemoval& removal : plan.removals) {
      auto found = blobs_.blobs_.find(removal.file.digest);
      bool gone = found != blobs_.blobs_.end() && found->second.put_ms == removal.file.put_ms;
      if (gone) blobs_.blobs_.erase(found);
      result.changed += gone ? 0 : 1;
      result.removed.blobs += gone ? 1 : 0;
      result.removed.bytes += gone ? removal.file.bytes : 0;
    }
    blobs_.removed_ += result.removed.blobs;
    return result;
  }

 private:
  DiskBlobs& blobs_;
};

Result<std::unique_ptr<storage::CollectableBlobs::Removal>> DiskBlobs::Begin() {
  if (disk_.torn_collection) disk_.torn = std::exchange(disk_.torn_collection, std::nullopt);
  return std::unique_ptr<Removal>(std::make_unique<Execution>(*this));
}

}  // namespace pare::simulation
