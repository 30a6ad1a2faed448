#include "storage/fsck.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <map>
#include <set>

#include "common/clock.h"
#include "common/log.h"
#include "storage/blob_files.h"
#include "storage/gc.h"
#include "storage/index_log.h"
#include "storage/index_repair.h"

namespace pare::storage {
namespace {

namespace fs = std::filesystem;

constexpr const char* kGone = "it is not in the store";

// What this user may not read is not damaged.
Status RefuseUnreadable(const std::string& path, int mode) {
  if (::faccessat(AT_FDCWD, path.c_str(), mode, AT_EACCESS) == 0 || errno != EACCES) return Ok();
  return Error{ErrorCode::kInvalid, "no permission to " + std::string((mode & W_OK) != 0 ? "write in " : "read ") + path + ": examine the store as its owner (this is user " + std::to_string(::geteuid()) +
                                        "); nothing is said about damage, and nothing was changed"};
}

Status CheckPermissions(const StorePaths& paths, bool repair) {
  TRY(RefuseUnreadable(paths.root, R_OK | X_OK | (repair ? W_OK : 0)));
  TRY(RefuseUnreadable(paths.blobs(), R_OK | X_OK | (repair ? W_OK : 0)));
  for (const char* suffix : {"", "-wal", "-shm"}) TRY(RefuseUnreadable(paths.index() + suffix, R_OK));
  // A log is read through a file beside it, which has to be made.
  bool alone = ::access((paths.index() + "-wal").c_str(), F_OK) == 0 && ::access((paths.index() + "-shm").c_str(), F_OK) != 0;
  if (alone) TRY(RefuseUnreadable(paths.root, W_OK));
  std::error_code code, ignored;
  for (fs::directory_iterator folder(paths.blobs(), code), end; !code && folder != end; folder.increment(code)) {
    TRY(RefuseUnreadable(folder->path().string(), folder->is_directory(ignored) ? R_OK | X_OK : F_OK));
  }
  return Ok();
}

class Examination {
 public:
  Examination(StorePaths paths, bool repair) : paths_(std::move(paths)), repair_(repair) {}

  Result<FsckReport> Run() {
    std::string log = ProblemOfLog(paths_.index());  // before anything opens the index
    TRY(RefuseForeign(paths_.index()));
    if (!log.empty()) NoteIndex({"index " + paths_.index() + ": " + log});
    TRY(ReadIndex());
    TRY(ReadBlobs());
    if (index_damaged_ && repair_) TRY(RebuildIndex());
    if (loaded_) {
      CheckArtifacts();
      CheckSnapshots();
      CheckInputs();
      CheckSteps();
      CheckVersions();
      TRY(WriteRepairs());
    }
    std::error_code code;
    if (repair_) fs::remove_all(scratch(), code);
    return std::move(report_);
  }

 private:
  std::string scratch() const { return paths_.tmp() + "/fsck"; }

  FsckProblem& Problem(const std::string& kind, const std::string& name, const std::string& text) {
    report_.problems.push_back({kind, name, text, ""});
    return report_.problems.back();
  }

  // ---- the index ----

  Status ReadIndex() {
    NoteIndex(CheckIndex(paths_.index()));
    if (report_.clean() && IsOlder(paths_.index())) TRY(ReadOlderIndex());
    index_damaged_ = !report_.clean();
    if (!index_damaged_) return LoadIndex();
    if (!repair_) (void)LoadIndex();  // what can be read helps to say who needs what
    return Ok();
  }

  // An older schema is brought up to date by a repair; otherwise it stays as it is, and a copy is.
  Status ReadOlderIndex() {
    Status status = Ok();
    if (repair_) {
      auto index = Index::Open(paths_.index());
      status = index.ok() ? Ok() : Status(index.error());
    } else {
      auto upgraded = UpgradedIndex::Of(paths_);
      status = upgraded.ok() ? Ok() : Status(upgraded.error());
      if (upgraded.ok()) upgraded_ = *std::move(upgraded);
    }
    if (!status.ok() && status.error().code != ErrorCode::kCorrupt) return status;
    if (status.ok()) NoteIndex(CheckIndex(ReadablePath()));
    else Problem("index", "index.db", status.error().message);
    return Ok();
  }

  std::string ReadablePath() const { return upgraded_ != nullptr ? upgraded_->path() : paths_.index(); }

  void NoteIndex(std::vector<std::string> problems) {
    for (std::string& problem : problems) {
      std::string path = ReadablePath();
      if (size_t at = problem.find(path); at != std::string::npos) problem.replace(at, path.size(), paths_.index());
      Problem("index", "index.db", problem);
    }
  }

  Status LoadIndex() {
    auto index = repair_ ? Index::Open(paths_.index()) : Index::OpenForReading(ReadablePath());
    if (!index.ok() && index.error().code == ErrorCode::kVersion && !repair_) {
      Problem("index", "index.db", index.error().message);
      return Ok();
    }
    if (!index.ok()) return index.error();
    ASSIGN_OR_RETURN(state_, (*index)->Load());
    loaded_ = true;
    NoteNames();
    return Ok();
  }

  void NoteNames() {
    names_.clear();
    for (const JobStepRow& row : state_.job_steps) names_[row.key].push_back("job " + row.job + " step " + row.name);
  }

  Status RebuildIndex() {
    ASSIGN_OR_RETURN(SalvagedIndex salvaged, SalvageIndex(paths_.index(), scratch()));
    std::vector<FoundManifest> manifests;
    auto read = ManifestReader(paths_);
    for (const auto& [digest, file] : good_) {
      if (file.bytes > kMaxManifestBytes) continue;
      if (std::optional<Artifact> artifact = read(file)) manifests.push_back({digest, *std::move(artifact), file.put_ms});
    }
    ReconcileOptions options{.versions_damaged = salvaged.versions_damaged, .now_ms = SystemClock().Wall().ms};
    std::vector<Row> rows = Reconcile(std::move(salvaged.rows), manifests, options, report_.losses);
    NoteTables(salvaged.tables);
    std::string rebuilt = scratch() + "/rebuilt.db";
    TRY(MakeDirectories(scratch()));
    for (const char* suffix : {"", "-wal", "-shm"}) ::unlink((rebuilt + suffix).c_str());
    {
      ASSIGN_OR_RETURN(auto index, Index::Open(rebuilt));
      TRY(index->Commit(rows));
    }
    TRY(SealDatabase(rebuilt));
    TRY(CopyIndexAside());
    if (::rename(rebuilt.c_str(), RepairedIndex(paths_).c_str()) != 0) return SystemError("cannot put the rebuilt index into its place", errno);
    TRY(SyncDirectory(paths_.root));
    TRY(FinishRepair(paths_));
    for (FsckProblem& problem : report_.problems) {
      if (problem.kind == "index") problem.action = "index rebuilt: " + std::to_string(rows.size()) + " rows; the old one is in quarantine";
    }
    return LoadIndex();
  }

  // What nobody can count any more: rows that are gone have left no name.
  void NoteTables(const std::vector<std::string>& tables) {
    static const std::map<std::string, const char*> kMeaning = {
        {"jobs", "jobs may be missing from the list: run their recipes again, what their steps left is used"},
        {"job_steps", "jobs may lack steps in their lists and reports: run their recipes again, what the steps left is used"},
        {"attempts", "attempts may be missing from jobs"},
        {"metrics", "points of curves may be missing"},
        {"snapshots", "steps may begin anew that had a snapshot"},
        {"events", "lines of histories may be missing"},
        {"versions", "versions of models may be missing of which no history tells"},
        {"promotions", "the history of models may have gaps"}};
    for (const std::string& table : tables) {
      if (auto meaning = kMeaning.find(table); meaning != kMeaning.end()) report_.losses.push_back({"rows", table, meaning->second});
    }
  }

  // The old index and its log stay in their places until the rebuilt one replaces both.
  Status CopyIndexAside() {
    std::error_code code;
    for (const char* suffix : {"", "-wal"}) {
      std::string copy = scratch() + "/index.db" + suffix;
      if (!fs::exists(paths_.index() + suffix, code)) continue;
      fs::copy_file(paths_.index() + suffix, copy, fs::copy_options::overwrite_existing, code);
      if (code) return SystemError("cannot copy " + paths_.index() + suffix, code.value());
      TRY(SyncFile(copy));
      TRY(Quarantine(paths_, copy));
    }
    return Ok();
  }

  // ---- the blobs ----

  Status ReadBlobs() {
    ASSIGN_OR_RETURN(BlobListing listing, ListBlobs(paths_));
    for (const BlobFile& file : listing.blobs) TRY(RefuseUnreadable(paths_.blob(file.digest), R_OK));
    for (const std::string& path : listing.strangers) {
      FsckProblem& problem = Problem("file", path, "it lies among the blobs and is none");
      if (repair_) PutAside(problem, path);
    }
    for (const BlobFile& file : listing.blobs) {
      std::string path = paths_.blob(file.digest);
      auto digest = DigestOfFile(path);
      if (!digest.ok()) digest = DigestOfFile(path);  // what fails once only is not damaged
      if (!digest.ok() && digest.error().code == ErrorCode::kNotFound) continue;  // collected meanwhile
      ++report_.blobs;
      report_.bytes += file.bytes;
      if (digest.ok() && *digest == file.digest) {
        good_[file.digest] = file;
        continue;
      }
      damaged_.insert(file.digest);
      FsckProblem& problem = Problem("blob", file.digest.hex(), digest.ok() ? "its bytes are not those that its name says" : digest.error().message);
      if (repair_) PutAside(problem, path);
    }
    return Ok();
  }

  void PutAside(FsckProblem& problem, const std::string& path) {
    auto moved = Quarantine(paths_, path);
    problem.action = moved.ok() ? "moved to " + *moved : "not moved: " + moved.error().message;
  }

  bool Has(const Digest& digest) const { return good_.count(digest) != 0; }

  // ---- references and rows ----

  std::string Who(const StepKey& key) const {
    auto names = names_.find(key);
    return names == names_.end() ? "step " + key.brief() : names->second.front();
  }

  void CheckArtifacts() {
    for (const ArtifactRow& row : state_.artifacts) {
      artifacts_[row.digest] = &row;
      auto artifact = ArtifactFromText(row.manifest);
      if (DigestOf(row.manifest.text()) != row.digest || !artifact.ok() || artifact->step != row.key) {
        FsckProblem& problem = Problem("row", row.digest.hex(), "the manifest in the index is not that of this artifact (" + Who(row.key) + ")");
        GiveUp(row, problem);
        continue;
      }
      if (!Has(row.digest)) HealManifest(row, row.manifest.text());
      if (row.collected_ms != 0) continue;
      std::string missing;
      for (const auto& [role, blob] : artifact->blobs) {
        if (!Has(blob.digest)) missing += (missing.empty() ? "" : ", ") + role + " " + blob.digest.hex();
      }
      if (missing.empty()) continue;
      FsckProblem& problem = Problem("artifact", row.digest.hex(), "the result of " + Who(row.key) + " lacks " + missing);
      GiveUp(row, problem);
    }
  }

  void HealManifest(const ArtifactRow& row, const std::string& text) {
    FsckProblem& problem = Problem("manifest", row.digest.hex(), "the manifest of the result of " + Who(row.key) + ": " + kGone);
    if (!repair_) return;
    auto put = OpenBlobDirectory(paths_)->Put(std::string_view(text));
    problem.action = put.ok() ? "written again from the index" : put.error().message;
  }

  void GiveUp(const ArtifactRow& row, FsckProblem& problem) {
    lost_.insert(row.digest);
    if (repair_) problem.action = "given up: the step runs again when a job needs it";
    ArtifactRow marked = row;
    marked.collected_ms = std::max<int64_t>(1, SystemClock().Wall().ms);
    if (repair_) repairs_.push_back(marked);
    auto names = names_.find(row.key);
    bool current = std::any_of(state_.steps.begin(), state_.steps.end(), [&](const StepRow& s) { return s.key == row.key && s.artifact == row.digest; });
    if (!current) return;
    if (names == names_.end()) report_.losses.push_back({"step", row.key.hex(), "runs again when a job needs it"});
    else for (const std::string& name : names->second) report_.losses.push_back({"step", name, LossTextOf(name)});
  }

  std::string LossTextOf(const std::string& name) const {
    for (const JobRow& job : state_.jobs) {
      if (name.starts_with("job " + job.id + " ")) {
        if (job.state == "running" || job.state == "paused") return "runs again when a step reads it";
        // Others leave a lost checkpoint alone that no step reads (recipes::MadeAgain).
        return "runs again when the recipe of job " + job.id + " is run again" + (KeepsAll(job) ? "" : " without `keep`");
      }
    }
    return "runs again when a job needs it";
  }

  void CheckSnapshots() {
    for (const SnapshotRow& row : state_.snapshots) {
      if (row.blob.is_none() || Has(row.blob)) continue;
      FsckProblem& problem = Problem("snapshot", row.blob.hex(), "the snapshot of " + Who(row.key) + ": " + kGone);
      if (!repair_) continue;
      problem.action = "given up: the step begins anew";
      repairs_.push_back(SnapshotRow{.key = row.key, .at_ms = row.at_ms});
    }
  }

  void CheckInputs() {
    std::map<std::string, std::vector<StepKey>> wanted;
    for (const JobStepRow& row : state_.job_steps) {
      if (row.wanted) wanted[row.job].push_back(row.key);
    }
    std::map<StepKey, std::pair<std::string, Digest>> outside;  // of steps that bring a network from outside
    for (const StepRow& row : state_.steps) {
      if (row.kind != "import" && row.kind != "adopt") continue;
      const Json spec = row.spec.Tree();
      if (!spec.contains("params") || !spec["params"].is_object()) continue;
      auto digest = DigestField(spec["params"], row.kind == "import" ? "weights" : "artifact");
      if (digest.ok()) outside[row.key] = {row.kind == "import" ? "weights" : "artifact of a registered model", *digest};
    }
    for (const JobRow& job : state_.jobs) {
      std::map<Digest, std::string> inputs;
      const Json resolved = job.resolved.Tree();
      auto add = [&inputs](const std::string& what, const Json& hex) {
        auto digest = hex.is_string() ? Digest::FromHex(hex.get<std::string>()) : Result<Digest>(Error{});
        if (digest.ok()) inputs.try_emplace(*digest, what);
      };
      if (resolved.contains("weights")) add("weights", resolved["weights"]);
      if (resolved.contains("data") && resolved["data"].is_object()) add("dataset", resolved["data"].value("blob", Json()));
      for (const StepKey& key : wanted[job.id]) {
        if (auto found = outside.find(key); found != outside.end()) inputs.try_emplace(found->second.second, found->second.first);
      }
      for (const auto& [digest, what] : inputs) CheckInput(job, digest, what);
    }
  }

  // A job that has ended needs it no more, unless its recipe is run again, which brings it back.
  void CheckInput(const JobRow& job, const Digest& digest, const std::string& what) {
    if (digest.is_none() || Has(digest)) return;
    bool unfinished = job.state == "running" || job.state == "paused";
    if (!unfinished && damaged_.count(digest) == 0) return;
    if (unfinished) Problem("input", digest.hex(), "the " + what + " of job " + job.id + ": " + kGone + "; run its recipe again to put it back");
    report_.losses.push_back({"job", job.id, "its " + what + " is lost: run its recipe again to put it back"});
  }

  void CheckSteps() {
    static const std::set<std::string> kStates = {"waiting", "ready", "running", "done", "failed", "cancelled"};
    for (const StepRow& row : state_.steps) {
      if (kStates.count(row.state) == 0) Problem("row", row.key.hex(), "step state '" + row.state + "' does not exist");
      if (row.state == "done" && row.artifact.is_none()) Problem("row", row.key.hex(), "the step is done without a result");
      // A rebuilt step has no spec until a job wants it.
      if (row.spec.text() != kNoSpec && StepKey(DigestOf(row.spec.text()).bytes()) != row.key) {
        Problem("row", row.key.hex(), "the specification of " + Who(row.key) + " is not the one that its key names");
      }
    }
  }

  void CheckVersions() {
    for (const VersionRow& row : state_.versions) {
      auto artifact = artifacts_.find(row.artifact);
      bool there = artifact != artifacts_.end() && artifact->second->collected_ms == 0 && lost_.count(row.artifact) == 0;
      if (there) continue;
      std::string name = row.model + "@" + std::to_string(row.version);
      Problem("version", name, "its checkpoint is lost: run the recipe of job " + row.job + " again (step " + row.step + ")");
      report_.losses.push_back({"version", name, "its checkpoint is lost until step " + row.step + " of job " + row.job + " has run again"});
    }
  }

  Status WriteRepairs() {
    if (repairs_.empty()) return Ok();
    ASSIGN_OR_RETURN(auto index, Index::Open(paths_.index()));
    return index->Commit(repairs_);
  }

  StorePaths paths_;
  bool repair_;
  FsckReport report_;
  bool index_damaged_ = false, loaded_ = false;
  std::unique_ptr<UpgradedIndex> upgraded_;
  StoredState state_;
  std::map<Digest, BlobFile> good_;
  std::set<Digest> damaged_;
  std::map<Digest, const ArtifactRow*> artifacts_;
  std::map<StepKey, std::vector<std::string>> names_;
  std::set<Digest> lost_;
  std::vector<Row> repairs_;
};

}  // namespace

Result<FsckReport> Fsck(const StorePaths& paths, bool repair) {
  std::error_code code;
  TRY(CheckPermissions(paths, repair));
  if (!fs::is_directory(paths.blobs(), code) && !fs::exists(paths.index(), code)) {
    return Error{ErrorCode::kNotFound, "there is no store in " + paths.root};
  }
  if (!repair) return Examination(paths, false).Run();
  auto lock = LockStore(paths);
  if (!lock.ok()) return lock.error().code == ErrorCode::kConflict ? lock.error() : CannotUse(paths.root, lock.error());
  TRY(FinishRepair(paths));
  return Examination(paths, true).Run();
}

Json ToJson(const FsckReport& report) {
  Json problems = Json::array(), losses = Json::array();
  for (const FsckProblem& p : report.problems) problems.push_back({{"kind", p.kind}, {"name", p.name}, {"text", p.text}, {"action", p.action}});
  for (const FsckLoss& l : report.losses) losses.push_back({{"what", l.what}, {"name", l.name}, {"text", l.text}});
  return {{"clean", report.clean()}, {"blobs", report.blobs}, {"bytes", report.bytes}, {"problems", std::move(problems)}, {"losses", std::move(losses)}};
}

}  // namespace pare::storage
