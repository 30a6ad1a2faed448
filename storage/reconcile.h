// The parts of rebuilding an index (storage/fsck.h, Reconcile): the salvaged rows, and what becomes of the models' versions and
// champions. Pure.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "storage/fsck.h"

namespace pare::storage {

// By type.
struct SalvagedRows {
  std::map<std::string, JobRow> jobs;
  std::vector<std::string> job_order;
  std::map<StepKey, StepRow> steps;
  std::map<Digest, ArtifactRow> artifacts;
  std::vector<JobStepRow> job_steps;
  std::vector<AttemptRow> attempts;
  std::vector<MetricRow> metrics;
  std::vector<SnapshotRow> snapshots;
  std::map<std::pair<std::string, int64_t>, VersionRow> versions;
  std::vector<AliasRow> aliases;
  std::vector<PromotionRow> promotions;
  std::vector<EventRow> events;

  void Add(JobRow row) {
    job_order.push_back(row.id);
    jobs[row.id] = std::move(row);
  }
  void Add(StepRow row) { steps[row.key] = std::move(row); }
  void Add(ArtifactRow row) { artifacts[row.digest] = std::move(row); }
  void Add(JobStepRow row) { job_steps.push_back(std::move(row)); }
  void Add(AttemptRow row) { attempts.push_back(std::move(row)); }
  void Add(MetricRow row) { metrics.push_back(std::move(row)); }
  void Add(SnapshotRow row) { snapshots.push_back(std::move(row)); }
  void Add(VersionRow row) { versions[{row.model, row.version}] = std::move(row); }
  void Add(AliasRow row) { aliases.push_back(std::move(row)); }
  void Add(PromotionRow row) { promotions.push_back(std::move(row)); }
  void Add(EventRow row) { events.push_back(std::move(row)); }
  bool HasVersion(const std::string& model, int64_t version) const { return versions.count({model, version}) != 0; }
};

// Of each model, the numbers that any row gives to a version: also to one that is gone.
using NumbersInUse = std::map<std::string, std::set<int64_t>>;

// Versions whose artifact is lost go. With `damaged`, those whose rows are lost come back under the numbers that promotions and events
// name, with the evidence that results give; other networks that decisions chose get numbers that nothing names. A loss for every
// version that is gone, or whose number is. REQUIRES: of `rows`, those of lost jobs are there still: they tell as well.
NumbersInUse RestoreVersions(SalvagedRows& rows, const std::vector<FoundManifest>& manifests, bool damaged, std::vector<FsckLoss>& losses);

// Every model has one champion, and the previous one where that can be told: by the aliases, or by the newest promotion. The history
// keeps what refers to versions that are there, and names the highest number in use, which is never given again.
void RestoreChampions(SalvagedRows& rows, const NumbersInUse& numbers, const ReconcileOptions& options, std::vector<FsckLoss>& losses);

inline FsckLoss VersionLoss(const std::string& model, int64_t version, std::string text) {
  return {"version", model + "@" + std::to_string(version), std::move(text)};
}

}  // namespace pare::storage
