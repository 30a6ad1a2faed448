// Rebuilding an index: rows that fit together from what is left of them.
#include <algorithm>
#include <map>
#include <set>

#include "storage/reconcile.h"

namespace pare::storage {
namespace {

std::string StepKindOf(const std::string& artifact_kind) {
  if (artifact_kind == "evaluation") return "evaluate";
  return artifact_kind == "decision" ? "promote" : "";
}

class Reconciler {
 public:
  Reconciler(std::vector<Row> salvaged, const std::vector<FoundManifest>& manifests, std::vector<FsckLoss>& losses)
      : manifests_(manifests), losses_(losses) {
    for (Row& row : salvaged) std::visit([&](auto& r) { rows_.Add(std::move(r)); }, row);
    std::sort(manifests_.begin(), manifests_.end(),
              [](const FoundManifest& a, const FoundManifest& b) { return std::pair(a.put_ms, a.digest) < std::pair(b.put_ms, b.digest); });
  }

  std::vector<Row> Run(const ReconcileOptions& options) {
    AdoptManifests();
    RestoreChampions(rows_, RestoreVersions(rows_, manifests_, options.versions_damaged, losses_), options, losses_);
    DropWithoutJob();
    AddMissingAttempts();
    AddMissingSteps();
    return Collected();
  }

 private:
  // Manifests of steps that the rows do not know, or know as done by exactly this artifact.
  void AdoptManifests() {
    std::set<StepKey> known;
    for (const auto& [key, step] : rows_.steps) known.insert(key);
    for (const FoundManifest& found : manifests_) {
      auto step = rows_.steps.find(found.artifact.step);
      bool wanted = known.count(found.artifact.step) == 0 || step->second.artifact == found.digest;
      if (!wanted) continue;
      if (rows_.artifacts.count(found.digest) == 0) {
        ArtifactRow row{.digest = found.digest, .key = found.artifact.step, .manifest = ToJson(found.artifact), .created_ms = found.put_ms};
        for (const auto& [role, blob] : found.artifact.blobs) row.bytes += blob.bytes;
        rows_.Add(std::move(row));
      }
      if (known.count(found.artifact.step) != 0) continue;
      // The newest one stands in the end.
      rows_.steps[found.artifact.step] = {.key = found.artifact.step, .kind = StepKindOf(found.artifact.kind), .spec = JsonText::Of(kNoSpec), .state = "done",
                                          .artifact = found.digest};
    }
    for (auto& [key, step] : rows_.steps) {
      if (step.artifact.is_none() || rows_.artifacts.count(step.artifact) != 0) continue;
      losses_.push_back({"step", key.hex(), "its result is lost: it runs again when a job needs it"});
      step.artifact = Digest();
      if (step.state == "done") step.state = "waiting";
    }
  }

  void DropWithoutJob() {
    std::set<std::string> lost;
    auto orphan = [&](const std::string& job) {
      if (rows_.jobs.count(job) != 0) return false;
      lost.insert(job);
      return true;
    };
    std::erase_if(rows_.job_steps, [&](const JobStepRow& row) { return orphan(row.job); });
    std::erase_if(rows_.events, [&](const EventRow& row) { return orphan(row.job); });
    for (const std::string& job : lost) losses_.push_back({"job", job, "its row is lost: run its recipe again, what its steps left is used"});
  }

  // Their epochs must not be given out again: an old worker's message would be taken for the new one's.
  void AddMissingAttempts() {
    std::map<std::pair<StepKey, int64_t>, AttemptRow> told;
    for (const MetricRow& row : rows_.metrics) {
      AttemptRow& attempt = told.try_emplace({row.key, row.lease_epoch}, AttemptRow{.key = row.key, .epoch = row.lease_epoch, .worker = "unknown", .started_ms = row.at_ms, .outcome = "released",
                                                                                    .message = "its row is lost, its points are there"}).first->second;
      attempt.started_ms = std::min(attempt.started_ms, row.at_ms);
      attempt.ended_ms = std::max(attempt.ended_ms, row.at_ms);
    }
    std::map<StepKey, int> attempts;
    for (const AttemptRow& row : rows_.attempts) {
      told.erase({row.key, row.epoch});
      attempts[row.key] = std::max(attempts[row.key], row.attempt);
    }
    for (auto& [id, attempt] : told) {
      attempt.attempt = ++attempts[attempt.key];
      rows_.Add(std::move(attempt));
    }
  }

  // A row without its recipe's step: the planner fills it in when a job wants it.
  void AddMissingSteps() {
    auto need = [this](const StepKey& key) {
      rows_.steps.try_emplace(key, StepRow{.key = key, .kind = "", .spec = JsonText::Of(kNoSpec), .state = "waiting"});
    };
    for (const JobStepRow& row : rows_.job_steps) need(row.key);
    for (const AttemptRow& row : rows_.attempts) need(row.key);
    for (const MetricRow& row : rows_.metrics) need(row.key);
    for (const SnapshotRow& row : rows_.snapshots) need(row.key);
    for (const auto& [digest, row] : rows_.artifacts) need(row.key);
  }

  std::vector<Row> Collected() {
    std::vector<Row> all;
    for (const std::string& id : rows_.job_order) all.push_back(std::move(rows_.jobs[id]));
    for (auto& [key, row] : rows_.steps) all.push_back(std::move(row));
    for (auto& [key, row] : rows_.artifacts) all.push_back(std::move(row));
    auto move_all = [&all](auto& list) {
      for (auto& row : list) all.push_back(std::move(row));
    };
    move_all(rows_.job_steps);
    move_all(rows_.attempts);
    move_all(rows_.metrics);
    move_all(rows_.snapshots);
    for (auto& [key, row] : rows_.versions) all.push_back(std::move(row));
    move_all(rows_.aliases);
    move_all(rows_.promotions);
    move_all(rows_.events);
    return all;
  }

  SalvagedRows rows_;
  std::vector<FoundManifest> manifests_;
  std::vector<FsckLoss>& losses_;
};

}  // namespace

std::vector<Row> Reconcile(std::vector<Row> salvaged, const std::vector<FoundManifest>& manifests, const ReconcileOptions& options,
                           std::vector<FsckLoss>& losses) {
  return Reconciler(std::move(salvaged), manifests, losses).Run(options);
}

}  // namespace pare::storage
