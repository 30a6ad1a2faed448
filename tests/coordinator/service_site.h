// A whole coordinator without sockets: a Service over parts that the test holds (index, blobs, clock), and agents played by
// the test that answer grants with results of the right shape.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/clock.h"
#include "coordinator/service.h"
#include "storage/artifact.h"
#include "worker/step_runner.h"

namespace pare::coordinator {

// Remembers what was committed together, and fails on demand.
class RecordingIndex : public storage::Index {
 public:
  RecordingIndex() : inner_(*Index::OpenInMemory()) {}
  Status Commit(std::span<const storage::Row> rows) override;
  Result<storage::StoredState> Load() override { return inner_->Load(); }
  Result<std::vector<storage::MetricRow>> Metrics(const StepKey& key, int64_t limit) override { return inner_->Metrics(key, limit); }
  Result<std::vector<storage::EventRow>> Events(std::string_view job, int64_t after, int64_t limit) override {
    return inner_->Events(job, after, limit);
  }

  std::optional<Error> failure;                           // set: commits fail with it
  std::vector<std::vector<storage::Row>> transactions;    // committed
  int failed_commits = 0;

 private:
  std::unique_ptr<Index> inner_;
};

// Blobs in memory that can be lost.
class LosableBlobs : public storage::BlobStore {
 public:
  Result<Digest> Put(std::span<const std::byte> bytes) override;
  Result<storage::BlobView> Get(const Digest& digest) override { return inner_->Get(digest); }
  Result<bool> Contains(const Digest& digest) override;
  Result<bool> Holds(const Digest& digest, int64_t bytes) override;
  using BlobStore::Put;

  std::set<Digest> lost, cut;  // cut: there, but not whole
  std::optional<Error> failure;  // set: Put fails with it

 private:
  std::unique_ptr<BlobStore> inner_ = storage::NewMemoryBlobStore();
};

// baseline 90 %, candidates as given: what a played agent measures. By step name ("baseline/evaluate").
using AccuracyOf = std::function<double(const std::string& step)>;

class ServiceSite {
 public:
  ServiceSite() { Restart(); }

  // A new Service on what is durable.
  void Restart();

  Reply Ask(const std::string& method, Json args = Json::object());
  // The result of a request that must succeed.
  Json Get(const std::string& method, Json args = Json::object());
  // Submits a recipe on TestData; the id of the job.
  std::string Submit(const std::string& yaml, const std::string& user = "");
  Json SubmitArgs(const std::string& yaml);

  void Join(const std::string& worker);
  // Tick, commit, and what is sent is remembered; grants go to their workers.
  void Turn();
  // Says something as the worker, then a turn.
  void Say(const std::string& worker, const Message& message);
  const Grant* Granted(const std::string& worker) const;
  // Finishes the worker's step with a result of the right shape.
  void Finish(const std::string& worker);
  void Abort(const std::string& worker, const std::string& error_class, const std::string& message);
  // The name of a granted step in the newest job that has it.
  std::string NameOf(const Grant& grant) const;
  // All granted steps of all workers until nothing is granted any more.
  void FinishAll();
  Json ManifestFor(const Grant& grant);

  FakeClock clock;
  RecordingIndex index;
  LosableBlobs blobs;
  std::unique_ptr<storage::CollectableBlobs> collectable = storage::CollectableDirectory(storage::StorePaths("/store"));
  AccuracyOf accuracy = [](const std::string&) { return 90.0; };
  std::unique_ptr<Service> service;
  std::vector<Send> sent;
  int finished = 0;  // steps, by Finish

 private:
  void Learn();

  std::map<std::string, Grant> grants_;
  int64_t next_request_ = 1;
};

// A recipe of two variants with a decision: 13 steps with those of the test split.
inline constexpr const char* kSmallRecipe = R"(version: 1
name: small
seed: 1
model: {architecture: mlp, hidden: [8]}
data: {dataset: fashion-mnist, validation: 5000}
train: {epochs: 2}
goal: {max_accuracy_drop: 1.0, minimize: bytes}
variants:
  half:
    - prune: {sparsity: 0.5}
    - retrain: {epochs: 1}
  most:
    - prune: {sparsity: 0.9}
    - retrain: {epochs: 1}
promote: {as: small}
)";

}  // namespace pare::coordinator
