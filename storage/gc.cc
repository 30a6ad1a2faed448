#include "storage/gc.h"

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

namespace pare::storage {
namespace {

const std::string kUnreferenced = "nothing names it";

// What a job's recipe says about its checkpoints once it is finished.
struct Retention {
  std::string policy = "all";
  int64_t count = 1;
  std::vector<std::string> pinned;
};

Retention RetentionOf(const Json& resolved) {
  Retention retention;
  const Json* tree = resolved.is_object() && resolved.contains("tree") ? &resolved["tree"] : nullptr;
  if (tree == nullptr || !tree->is_object() || !tree->contains("keep") || !(*tree)["keep"].is_object()) return retention;
  const Json& keep = (*tree)["keep"];
  if (auto policy = StringField(keep, "policy"); policy.ok()) retention.policy = *policy;
  if (auto count = IntField(keep, "count"); count.ok()) retention.count = *count;
  if (keep.contains("pinned") && keep["pinned"].is_array()) {
    for (const Json& pattern : keep["pinned"]) {
      if (pattern.is_string()) retention.pinned.push_back(pattern);
    }
  }
  return retention;
}

bool Unfinished(const JobRow& job) { return job.state == "running" || job.state == "paused"; }
bool IsEvidence(const std::string& kind) { return kind == "evaluation" || kind == "decision" || kind == "table" || kind == "comparison" || kind == "measurement"; }

// An artifact row as far as this file needs it.
struct Held {
  const ArtifactRow* row = nullptr;
  std::string kind;
  std::vector<Digest> blobs;
};

class Planner {
 public:
  Planner(const StoredState& state, std::span<const BlobFile> files, const GcOptions& options,
          const std::function<std::optional<Artifact>(const BlobFile&)>& manifest)
      : state_(state), files_(files), options_(options), manifest_(manifest) {}

  GcPlan Run() {
    ReadRows();
    for (const auto& [digest, held] : artifacts_) KeepOrLetGo(held);
    for (const SnapshotRow& snapshot : state_.snapshots) {
      if (!snapshot.blob.is_none()) Keep(snapshot.blob, "snapshots");
    }
    for (const JobRow& job : state_.jobs) KeepNamed(job.resolved, "datasets and weights of jobs");
    for (const StepRow& step : state_.steps) KeepNamed(step.spec, "named by steps");
    KeepOnTheirWay();
    open_since_ = OpenSince();
    for (const BlobFile& file : files_) Decide(file);
    return std::move(plan_);
  }

 private:
  void Keep(const Digest& blob, const char* reason) { kept_.try_emplace(blob, reason); }

  void ReadRows() {
    for (const ArtifactRow& row : state_.artifacts) {
      Held& held = artifacts_[row.digest];
      held.row = &row;
      Keep(row.digest, "manifests");
      auto artifact = HeadFromText(row.manifest);
      if (!artifact.ok()) continue;
      held.kind = artifact->kind;
      for (const auto& [role, blob] : artifact->blobs) held.blobs.push_back(blob.digest);
    }
    for (const VersionRow& version : state_.versions) registered_.insert(version.artifact);
    for (const StepRow& step : state_.steps) steps_[step.key] = &step;
    for (const JobStepRow& in_job : state_.job_steps) by_job_[in_job.job].push_back(&in_job);
    for (const JobRow& job : state_.jobs) ReadJob(job);
    for (const AttemptRow& attempt : state_.attempts) {
      if (attempt.outcome == "running") running_.emplace(attempt.key, attempt.started_ms);
    }
  }

  void ReadJob(const JobRow& job) {
    const std::vector<const JobStepRow*>& steps = by_job_[job.id];
    for (const JobStepRow* step : steps) named_.insert(step->key);
    if (Unfinished(job)) {
      for (const JobStepRow* step : steps) needed_.insert(step->key);
      return;
    }
    Retention retention = RetentionOf(job.resolved.Tree());
    bool all = retention.policy != "best" && retention.policy != "last" && retention.policy != "promoted";
    std::set<std::string> kept;
    if (retention.policy == "best" && !Best(steps, retention.count, kept)) all = true;
    if (retention.policy == "last") Last(steps, retention.count, kept);
    for (const JobStepRow* step : steps) {
      bool pinned = std::any_of(retention.pinned.begin(), retention.pinned.end(), [&](const std::string& p) { return MatchesPattern(p, step->name); });
      if (all || pinned || kept.count(step->name) != 0) retained_.insert(step->key);
      else let_go_.try_emplace(step->key, "job " + job.id + " keeps " + retention.policy + (retention.policy == "promoted" ? "" : " " + std::to_string(retention.count)));
    }
  }

  // The first of the ranking; false without a decision.
  bool Best(const std::vector<const JobStepRow*>& steps, int64_t count, std::set<std::string>& kept) {
    for (const JobStepRow* in_job : steps) {
      auto step = steps_.find(in_job->key);
      auto held = step == steps_.end() ? artifacts_.end() : artifacts_.find(step->second->artifact);
      if (held == artifacts_.end() || held->second.kind != "decision") continue;
      const Json manifest = held->second.row->manifest.Tree();
      if (!manifest.contains("results") || !manifest["results"].is_object() || !manifest["results"].contains("ranking")) continue;
      for (const Json& entry : manifest["results"]["ranking"]) {
        if (static_cast<int64_t>(kept.size()) >= count) break;
        if (auto name = StringField(entry, "step"); name.ok()) kept.insert(*name);
      }
      return true;
    }
    return false;
  }

  void Last(const std::vector<const JobStepRow*>& steps, int64_t count, std::set<std::string>& kept) {
    std::map<std::string, std::vector<const JobStepRow*>> variants;
    for (const JobStepRow* step : steps) {
      auto row = steps_.find(step->key);
      auto held = row == steps_.end() ? artifacts_.end() : artifacts_.find(row->second->artifact);
      if (held != artifacts_.end() && held->second.kind == "checkpoint") variants[step->variant].push_back(step);
    }
    for (auto& [variant, list] : variants) {
      std::sort(list.begin(), list.end(), [](const JobStepRow* a, const JobStepRow* b) { return a->ordinal > b->ordinal; });
      for (size_t i = 0; i < list.size() && static_cast<int64_t>(i) < count; ++i) kept.insert(list[i]->name);
    }
  }

  void KeepOrLetGo(const Held& held) {
    const ArtifactRow& row = *held.row;
    const char* reason = nullptr;
    auto step = steps_.find(row.key);
    bool current = step != steps_.end() && step->second->artifact == row.digest;
    if (registered_.count(row.digest) != 0) reason = "model registry";
    else if (row.collected_ms != 0) reason = nullptr;
    else if (needed_.count(row.key) != 0) reason = "unfinished jobs";
    else if (IsEvidence(held.kind) || held.blobs.empty()) reason = "evaluations, decisions and tables";
    else if (current && (retained_.count(row.key) != 0 || named_.count(row.key) == 0)) reason = "checkpoints that jobs keep";
    if (reason != nullptr) {
      for (const Digest& blob : held.blobs) Keep(blob, reason);
      return;
    }
    std::string why = "replaced by another result of its step";
    if (row.collected_ms != 0) why = "left by an interrupted collection";
    else if (auto rule = let_go_.find(row.key); current && rule != let_go_.end()) why = rule->second;
    if (row.collected_ms == 0) plan_.artifacts.push_back(row.digest);
    for (const Digest& blob : held.blobs) dropped_.try_emplace(blob, Dropped{why, row.created_ms});
  }

  // A blob that a value names; an artifact that it names, with all of its blobs.
  void KeepNamed(const JsonText& json, const char* reason) {
    CollectDigests(json, [&](const Digest& digest) {
      Keep(digest, reason);
      auto held = artifacts_.find(digest);
      if (held == artifacts_.end() || held->second.row->collected_ms != 0) return;
      for (const Digest& blob : held->second.blobs) Keep(blob, reason);
      std::erase(plan_.artifacts, digest);
    });
  }

  // A worker stores blobs, then their manifest, and reports then.
  void KeepOnTheirWay() {
    if (running_.empty()) return;
    for (const BlobFile& file : files_) {
      if (kept_.count(file.digest) != 0 || file.bytes > kMaxManifestBytes) continue;
      std::optional<Artifact> artifact = manifest_(file);
      if (!artifact || running_.count(artifact->step) == 0) continue;
      Keep(file.digest, "results on their way");
      for (const auto& [role, blob] : artifact->blobs) Keep(blob.digest, "results on their way");
    }
  }

  // A worker stores a snapshot and reports it then, snapshots of a step in order: what was put before the newest that is known of
  // every running step is none that is still to be reported. (Somebody whose lease is over may have put that one again since, so
  // neither is later than when it became known.)
  int64_t OpenSince() const {
    if (running_.empty()) return std::numeric_limits<int64_t>::max();
    std::map<Digest, int64_t> put;
    for (const BlobFile& file : files_) put.emplace_hint(put.end(), file.digest, file.put_ms);
    std::map<StepKey, int64_t> known = running_;
    for (const SnapshotRow& snapshot : state_.snapshots) {
      auto step = known.find(snapshot.key);
      auto at = put.find(snapshot.blob);
      if (step != known.end() && at != put.end()) step->second = std::max(step->second, std::min(at->second, snapshot.at_ms));
    }
    int64_t since = std::numeric_limits<int64_t>::max();
    for (const auto& [key, at] : known) since = std::min(since, at);
    return since;
  }

  void Decide(const BlobFile& file) {
    auto kept = kept_.find(file.digest);
    auto dropped = dropped_.find(file.digest);
    // Put again since a row let go of it, or not named yet.
    bool open = dropped == dropped_.end() || file.put_ms > dropped->second.created_ms;
    const char* keep = kept != kept_.end() ? kept->second : nullptr;
    if (keep == nullptr && open && options_.now_ms - file.put_ms < options_.young_ms) keep = "put a short while ago";
    if (keep == nullptr && open && file.put_ms >= open_since_) keep = "perhaps a snapshot on its way";
    if (keep != nullptr) {
      GcTally& tally = plan_.kept[keep];
      ++tally.blobs;
      tally.bytes += file.bytes;
      return;
    }
    std::string reason = dropped == dropped_.end() ? kUnreferenced : dropped->second.reason;
    GcTally& tally = plan_.removed[reason];
    ++tally.blobs;
    tally.bytes += file.bytes;
    plan_.bytes += file.bytes;
    plan_.removals.push_back({file, std::move(reason)});
  }

  struct Dropped {
    std::string reason;
    int64_t created_ms = 0;
  };
  const StoredState& state_;
  std::span<const BlobFile> files_;
  GcOptions options_;
  const std::function<std::optional<Artifact>(const BlobFile&)>& manifest_;
  GcPlan plan_;
  std::map<Digest, Held> artifacts_;
  std::map<StepKey, const StepRow*> steps_;
  std::map<std::string, std::vector<const JobStepRow*>> by_job_;
  std::set<Digest> registered_;
  std::set<StepKey> named_, needed_, retained_;
  std::map<StepKey, int64_t> running_;  // since when
  int64_t open_since_ = 0;
  std::map<StepKey, std::string> let_go_;
  std::map<Digest, const char*> kept_;
  std::map<Digest, Dropped> dropped_;
};

}  // namespace

GcPlan PlanGc(const StoredState& state, std::span<const BlobFile> files, const GcOptions& options,
              const std::function<std::optional<Artifact>(const BlobFile&)>& manifest) {
  return Planner(state, files, options, manifest).Run();
}

std::function<std::optional<Artifact>(const BlobFile&)> ManifestReader(const StorePaths& paths) {
  return [paths](const BlobFile& file) -> std::optional<Artifact> {
    constexpr std::string_view kBegin = "{\"blobs\":";  // canonical JSON of a manifest begins so
    std::string path = paths.blob(file.digest);
    if (!BeginsWith(path, kBegin)) return std::nullopt;
    auto text = ReadFile(path, static_cast<size_t>(kMaxManifestBytes));
    if (!text.ok()) return std::nullopt;
    auto json = JsonText::Read(*text, "manifest");
    if (!json.ok()) return std::nullopt;
    auto artifact = ArtifactFromText(*json);
    if (!artifact.ok()) return std::nullopt;
    return *std::move(artifact);
  };
}

namespace {

class DirectoryRemoval : public CollectableBlobs::Removal {
 public:
  DirectoryRemoval(const StorePaths& paths, MaintenanceLock alone) : paths_(paths), alone_(std::move(alone)) {}
  Result<GcResult> Remove(const GcPlan& plan) override { return ExecuteGc(paths_, plan, alone_); }

 private:
  StorePaths paths_;
  MaintenanceLock alone_;
};

class DirectoryOfBlobs : public CollectableBlobs {
 public:
  explicit DirectoryOfBlobs(const StorePaths& paths) : paths_(paths), manifest_(ManifestReader(paths)) {}
  Result<BlobListing> List() override { return ListBlobs(paths_); }
  std::optional<Artifact> Manifest(const BlobFile& file) override { return manifest_(file); }
  Result<std::unique_ptr<Removal>> Begin() override {
    ASSIGN_OR_RETURN(MaintenanceLock alone, MaintenanceLock::TakeAlone(paths_));
    return std::unique_ptr<Removal>(std::make_unique<DirectoryRemoval>(paths_, std::move(alone)));
  }

 private:
  StorePaths paths_;
  std::function<std::optional<Artifact>(const BlobFile&)> manifest_;
};

}  // namespace

std::unique_ptr<CollectableBlobs> CollectableDirectory(const StorePaths& paths) { return std::make_unique<DirectoryOfBlobs>(paths); }

Result<GcResult> ExecuteGc(const StorePaths& paths, const GcPlan& plan, const MaintenanceLock&) {
  GcResult result;
  for (const GcRemoval& removal : plan.removals) {
    ASSIGN_OR_RETURN(bool removed, RemoveBlob(paths, removal.file));
    result.changed += removed ? 0 : 1;
    result.removed.blobs += removed ? 1 : 0;
    result.removed.bytes += removed ? removal.file.bytes : 0;
  }
  return result;
}

Json ToJson(const GcPlan& plan) {
  auto tallies = [](const std::map<std::string, GcTally>& map) {
    Json list = Json::array();
    for (const auto& [reason, tally] : map) list.push_back({{"reason", reason}, {"blobs", tally.blobs}, {"bytes", tally.bytes}});
    return list;
  };
  Json removals = Json::array();
  for (const GcRemoval& removal : plan.removals) {
    if (removals.size() == kMaxListedRemovals) break;
    removals.push_back({{"blob", removal.file.digest.hex()}, {"bytes", removal.file.bytes}, {"reason", removal.reason}});
  }
  return {{"remove", std::move(removals)}, {"removed", tallies(plan.removed)}, {"kept", tallies(plan.kept)}, {"blobs", plan.removals.size()},
          {"bytes", plan.bytes}, {"artifacts", plan.artifacts.size()}};
}

bool MatchesPattern(std::string_view pattern, std::string_view text) {
  size_t p = 0, t = 0, star = std::string_view::npos, resume = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = t;
    } else if (p < pattern.size() && pattern[p] == text[t]) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {  // the last star takes one more; earlier ones need not be tried again
      p = star + 1;
      t = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

void CollectDigests(const JsonText& json, const std::function<void(const Digest&)>& found) {
  constexpr size_t kDigits = 2 * Digest::kBytes;
  for (std::string_view text : StringsOf(json.text())) {
    if (text.size() != kDigits) continue;
    if (auto digest = Digest::FromHex(text); digest.ok()) found(*digest);
  }
}

bool KeepsAll(const JobRow& job) { return RetentionOf(job.resolved.Tree()).policy == "all"; }

}  // namespace pare::storage
