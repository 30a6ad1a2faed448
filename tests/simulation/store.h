// What outlives the processes of a simulation: the real Index on a database in memory, and blobs. A full disk refuses both;
// a torn commit ends the process just before or just after the transaction. Blobs are collected as those of a directory are.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "storage/gc.h"
#include "storage/index.h"
#include "storage/store.h"
#include "tests/simulation/timeline.h"

namespace pare::simulation {

struct Disk {
  bool full = false;
  // The next commit: false, the process dies before it; true, right after it.
  std::optional<bool> torn;
  std::optional<bool> torn_collection;  // the same of the commit of the next collection
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

class DiskBlobs : public storage::BlobStore, public storage::CollectableBlobs {
 public:
  DiskBlobs(Disk& disk, const Clock& clock) : disk_(disk), clock_(clock) {}

  Result<Digest> Put(std::span<const std::byte> bytes) override;
  using BlobStore::Put;
  Result<storage::BlobView> Get(const Digest& digest) override;
  Result<bool> Contains(const Digest& digest) override { return blobs_.count(digest) != 0; }
  Result<bool> Holds(const Digest& digest, int64_t bytes) override {
    auto blob = blobs_.find(digest);
    return blob != blobs_.end() && static_cast<int64_t>(blob->second.bytes->size()) == bytes;
  }

  Result<storage::BlobListing> List() override;
  std::optional<storage::Artifact> Manifest(const storage::BlobFile& file) override;
  Result<std::unique_ptr<Removal>> Begin() override;

  std::function<void(const storage::GcPlan&)> collecting;  // about to remove
  int64_t removed() const { return removed_; }
  // Whether it was put more than once.
  bool PutAgain(const Digest& digest) const { return blobs_.count(digest) != 0 && blobs_.at(digest).puts > 1; }

 private:
  class Execution;
  struct Blob {
    std::shared_ptr<const std::string> bytes;
    int64_t put_ms = 0;
    int puts = 0;
  };
  Disk& disk_;
  const Clock& clock_;
  std::map<Digest, Blob> blobs_;
  int64_t removed_ = 0;
};

}  // namespace pare::simulation
