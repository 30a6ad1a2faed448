// Rebuilding an index: rows that fit together from what is left of them.
#include <algorithm>
#include <map>
#include <set>

#include "storage/fsck.h"

namespace pare::storage {
namespace {

// Salvaged rows by type.
struct Rows {
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
};

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

  std::vector<Row> Run(bool versions_damaged) {
    AdoptManifests();
    DropWithoutJob();
    AddMissingSteps();
    CheckVersions();
    if (versions_damaged) VersionsOfDecisions();
    CheckAliases();
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

  void CheckVersions() {
    std::erase_if(rows_.versions, [this](const auto& entry) {
      const VersionRow& row = entry.second;
      if (rows_.artifacts.count(row.artifact) != 0) return false;
      losses_.push_back({"version", row.model + "@" + std::to_string(row.version), "its artifact " + row.artifact.hex() + " is lost"});
      return true;
    });
  }

  // What decisions promoted, in the order in which they were made.
  void VersionsOfDecisions() {
    for (const FoundManifest& found : manifests_) {
      const Json& results = found.artifact.results;
      if (found.artifact.kind != "decision" || !results.is_object()) continue;
      auto model = StringField(results, "as"), chosen = StringField(results, "chosen");
      auto artifact = DigestField(results, "artifact");
      if (!model.ok() || model->empty() || !chosen.ok() || !artifact.ok() || rows_.artifacts.count(*artifact) == 0) continue;
      int64_t newest = 0;
      bool there = false;
      for (const auto& [key, row] : rows_.versions) {
        if (key.first != *model) continue;
        newest = std::max(newest, key.second);
        there = there || row.artifact == *artifact;
      }
      if (there) continue;
      Json evidence = {{"decision", found.digest.hex()}, {"reason", results.value("reason", "")}, {"rebuilt", true}};
      rows_.Add(VersionRow{.model = *model, .version = newest + 1, .artifact = *artifact, .step = *chosen, .created_ms = found.put_ms, .evidence = evidence});
    }
  }

  // Every model has one champion: the newest version where the alias is lost.
  void CheckAliases() {
    std::erase_if(rows_.aliases, [this](const AliasRow& row) { return rows_.versions.count({row.model, row.version}) == 0; });
    std::erase_if(rows_.promotions, [this](const PromotionRow& row) { return rows_.versions.count({row.model, row.version}) == 0; });
    std::map<std::string, int64_t> newest;
    for (const auto& [key, row] : rows_.versions) newest[key.first] = std::max(newest[key.first], key.second);
    for (const auto& [model, version] : newest) {
      bool there = std::any_of(rows_.aliases.begin(), rows_.aliases.end(), [&](const AliasRow& a) { return a.model == model && a.alias == "champion"; });
      if (there) continue;
      rows_.Add(AliasRow{model, "champion", version});
      losses_.push_back({"version", model + "@" + std::to_string(version), "which version was champion is lost: it is the newest now, see `pare promote`"});
    }
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

  Rows rows_;
  std::vector<FoundManifest> manifests_;
  std::vector<FsckLoss>& losses_;
};

}  // namespace

std::vector<Row> Reconcile(std::vector<Row> salvaged, const std::vector<FoundManifest>& manifests, bool versions_damaged,
                           std::vector<FsckLoss>& losses) {
  return Reconciler(std::move(salvaged), manifests, losses).Run(versions_damaged);
}

}  // namespace pare::storage
