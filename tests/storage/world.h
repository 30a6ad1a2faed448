// A store with a finished job, its blobs and its model: what examinations, repairs and backups are tried on.
#pragma once

#include <string>
#include <vector>

#include "storage/fsck.h"
#include "storage/store.h"
#include "tests/storage/files.h"
#include "tests/storage/rows.h"

namespace pare::storage {

class World {
 public:
  World() {
    auto store = std::move(Store::Open(root())).value();
    rows_.push_back(Job());
    for (const char* name : {"baseline", "a/01-prune", "a/02-retrain"}) AddStep(*store, name, "checkpoint", Json::object());
    AddStep(*store, "a/02-retrain/evaluate", "evaluation", {{"accuracy", 89.5}});
    Digest promoted = Artifact("a/02-retrain").digest;
    AddStep(*store, "promote", "decision", {{"as", "net"}, {"chosen", "a/02-retrain"}, {"artifact", promoted.hex()}, {"reason", "smallest"}});
    Row version = VersionRow{.model = "net", .version = 1, .artifact = promoted, .job = "j1", .step = "a/02-retrain", .evidence = {{"accuracy", 89.5}}};
    for (const Row& row : {version, Row(AliasRow{"net", "champion", 1}),
                           Row(PromotionRow{.model = "net", .sequence = 1, .action = "promote", .version = 1, .text = "decision of job j1: smallest"}),
                           Row(EventRow{.job = "j1", .sequence = 1, .level = "info", .text = "submitted"}),
                           Row(MetricRow{.key = KeyOfStep("baseline"), .lease_epoch = 1, .sequence = 1, .values = {{"epoch", 1}}}),
                           Row(AttemptRow{.key = KeyOfStep("baseline"), .epoch = 1, .attempt = 1, .worker = "w", .outcome = "done"})}) {
      rows_.push_back(row);
    }
    Digest snapshot = *store->blobs().Put(std::string_view("a snapshot"));
    StepRow unfinished = Step("b/01-prune");
    unfinished.state = "waiting";
    rows_.push_back(unfinished);
    rows_.push_back(SnapshotRow{.key = unfinished.key, .blob = snapshot, .position = {{"epoch", 3}}});
    CHECK(store->index().Commit(rows_).ok());
  }

  const std::string& root() const { return directory_.path(); }
  StorePaths paths() const { return StorePaths(root()); }

  static StepKey KeyOfStep(const std::string& name) { return StepKey(DigestOf(Canonical(SpecOf(name))).bytes()); }
  static Json SpecOf(const std::string& name) { return {{"kind", "step"}, {"params", {{"name", name}}}}; }
  static std::string BytesOf(const std::string& name) { return "bytes of " + name + RandomBytes(2000, name.size()); }
  const ArtifactRow& Artifact(const std::string& name) const {
    for (const Row& row : rows_) {
      if (auto* artifact = std::get_if<ArtifactRow>(&row); artifact != nullptr && artifact->key == KeyOfStep(name)) return *artifact;
    }
    CHECK(false);
    std::abort();
  }
  Digest Blob(const std::string& name) const { return DigestOf(BytesOf(name)); }
  StoredState Load() const {
    auto index = Index::OpenForReading(paths().index());
    CHECK(index.ok());
    return std::move((*index)->Load()).value();
  }
  FsckReport Examine(bool repair = false) const {
    auto report = Fsck(paths(), repair);
    if (!report.ok()) ADD_FAILURE() << report.error().message;
    return report.ok() ? *report : FsckReport();
  }
  // Files of the store that matter, relative to its root.
  std::vector<std::string> Files() const {
    std::vector<std::string> files = {"index.db"};
    BlobListing listing = *ListBlobs(paths());
    for (const BlobFile& file : listing.blobs) files.push_back(paths().blob(file.digest).substr(root().size() + 1));
    return files;
  }

 private:
  static JobRow Job() {
    JobRow job = JobOf("j1");
    job.state = "done";
    job.resolved = {{"tree", Json::object()}};
    return job;
  }
  static StepRow Step(const std::string& name) { return {.key = KeyOfStep(name), .kind = "step", .spec = SpecOf(name), .state = "done"}; }

  void AddStep(Store& store, const std::string& name, const std::string& kind, const Json& results) {
    storage::Artifact artifact{.kind = kind, .step = KeyOfStep(name), .results = results};
    if (kind != "decision") {
      std::string bytes = BytesOf(name);
      artifact.blobs["checkpoint"] = {*store.blobs().Put(std::string_view(bytes)), static_cast<int64_t>(bytes.size())};
    }
    StepRow step = Step(name);
    step.artifact = *PutArtifact(store.blobs(), artifact);
    rows_.push_back(step);
    rows_.push_back(ArtifactRow{.digest = step.artifact, .key = step.key, .manifest = ToJson(artifact), .bytes = 2000, .created_ms = 7});
    rows_.push_back(JobStepRow{.job = "j1", .name = name, .ordinal = static_cast<int64_t>(rows_.size()), .key = step.key, .wanted = true});
  }

  TemporaryDirectory directory_;
  std::vector<Row> rows_;
};

}  // namespace pare::storage
