// What outlives the processes of a simulation: the real Index on a database in memory, and blobs. A full disk refuses both;
// a torn commit ends the process just before or just after the transaction.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "storage/index.h"
#include "storage/store.h"

namespace pare::simulation {

struct Disk {
  bool full = false;
  // The next commit: false, the process dies before it; true, right after it.
  std::optional<bool> torn;
  bool dead = false;  // torn: nothing is written any more until the process is started again
};

class DiskIndex : public storage::Index {
 public:
  explicit DiskIndex(Disk& disk) : disk_(disk), inner_(*Index::OpenInMemory()) {}

  Status Commit(std::span<const storage::Row> rows) override;
  Result<storage::StoredState> Load() override { return inner_->Load(); }
  Result<std::vector<storage::MetricRow>> Metrics(const StepKey& key, int64_t limit) override { return inner_->Metrics(key, limit); }
  Result<std::vector<storage::EventRow>> Events(std::string_view job, int64_t after, int64_t limit) override {
    return inner_->Events(job, after, limit);
  }
  int64_t commits() const { return commits_; }

 private:
  Disk& disk_;
  std::unique_ptr<Index> inner_;
  int64_t commits_ = 0;
};

class DiskBlobs : public storage::BlobStore {
 public:
  explicit DiskBlobs(Disk& disk) : disk_(disk) {}

  Result<Digest> Put(std::span<const std::byte> bytes) override {
    if (disk_.full) return Error{ErrorCode::kNoSpace, "cannot write a blob: no space left on device"};
    return inner_->Put(bytes);
  }
  using BlobStore::Put;
  Result<storage::BlobView> Get(const Digest& digest) override { return inner_->Get(digest); }
  Result<bool> Contains(const Digest& digest) override { return inner_->Contains(digest); }

 private:
  Disk& disk_;
  std::unique_ptr<BlobStore> inner_ = storage::NewMemoryBlobStore();
};

}  // namespace pare::simulation
