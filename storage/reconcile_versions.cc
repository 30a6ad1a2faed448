// Rebuilding an index: versions of models whose rows are lost. The history of a model and those of its jobs tell which job and step a
// number belongs to; job and step lead to the artifact.
#include <algorithm>
#include <optional>
#include <tuple>

#include "storage/reconcile.h"
#include "storage/registry.h"

namespace pare::storage {
namespace {

// What the manifest of a decision says that promoted something.
struct Decision {
  Digest digest, artifact;  // its own, and the chosen checkpoint's
  StepKey step;
  std::string model, chosen, reason;
  Json met_goal;
  int64_t at_ms = 0;
};

struct Evaluation {
  StepKey step;
  std::string model, split;  // the artifact of its checkpoint, in hexadecimal digits
  Json results;
};

// A version as rows other than its own tell of it.
struct Told {
  std::optional<VersionOrigin> origin;
  int64_t at_ms = 0;
};

// A history keeps the beginning of a long reason, and an ellipsis.
bool Fits(const std::string& reason, std::string_view kept) {
  constexpr std::string_view kCut = " …";
  if (reason == kept) return true;
  return kept.ends_with(kCut) && reason.starts_with(kept.substr(0, kept.size() - kCut.size()));
}

class VersionRepair {
 public:
  VersionRepair(SalvagedRows& rows, std::vector<FsckLoss>& losses) : rows_(rows), losses_(losses) {
    for (const JobStepRow& row : rows_.job_steps) steps_of_[row.job].push_back(&row);
    for (auto& [job, steps] : steps_of_) {
      std::sort(steps.begin(), steps.end(), [](const JobStepRow* a, const JobStepRow* b) { return a->ordinal < b->ordinal; });
    }
  }

  NumbersInUse Run(const std::vector<FoundManifest>& manifests, bool damaged) {
    FindNumbers();
    DropWithoutArtifact();
    if (damaged) {
      ReadResults(manifests);
      RestoreNumbered();
      NumberOthers();
    }
    NumbersInUse numbers;
    for (const auto& [model, versions] : told_) {
      for (const auto& [version, told] : versions) numbers[model].insert(version);
    }
    return numbers;
  }

 private:
  // ---- what rows tell ----

  void FindNumbers() {
    for (const auto& [key, row] : rows_.versions) told_[key.first][key.second];
    for (const AliasRow& row : rows_.aliases) told_[row.model][row.version];
    std::vector<std::pair<int64_t, PromotedVersion>> promoted;
    for (const PromotionRow& row : rows_.promotions) {
      told_[row.model][row.version];
      if (row.previous > 0) told_[row.model][row.previous];
      if (auto origin = OriginOf(row.text)) promoted.push_back({row.at_ms, {row.model, row.version, *std::move(origin)}});
    }
    for (const EventRow& row : rows_.events) {
      if (auto of_event = PromotedOf(row)) promoted.push_back({row.at_ms, *std::move(of_event)});
    }
    // The first one made the version; others may have promoted it again, as the step of another job.
    std::stable_sort(promoted.begin(), promoted.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    for (auto& [at_ms, version] : promoted) Note(at_ms, version);
  }

  void Note(int64_t at_ms, const PromotedVersion& promoted) {
    Told& told = told_[promoted.model][promoted.version];
    if (!told.origin) told = {promoted.origin, at_ms};
    // A job's event names the step that its decision chose, the model's history does not.
    else if (told.origin->step.empty() && told.origin->job == promoted.origin.job) told.origin->step = promoted.origin.step;
  }

  void DropWithoutArtifact() {
    std::erase_if(rows_.versions, [this](const auto& entry) {
      const VersionRow& row = entry.second;
      if (rows_.artifacts.count(row.artifact) != 0) return false;
      losses_.push_back(VersionLoss(row.model, row.version, "its artifact " + row.artifact.hex() + " is lost"));
      said_.insert(entry.first);
      return true;
    });
  }

  void ReadResults(const std::vector<FoundManifest>& manifests) {
    std::set<Digest> known;
    for (const auto& [digest, row] : rows_.artifacts) {
      auto artifact = ArtifactFromText(row.manifest);
      if (!artifact.ok()) continue;
      known.insert(digest);
      Read(digest, *artifact, row.created_ms);
    }
    for (const FoundManifest& found : manifests) {
      if (known.count(found.digest) == 0) Read(found.digest, found.artifact, found.put_ms);
    }
    std::sort(decisions_.begin(), decisions_.end(), [](const Decision& a, const Decision& b) { return std::tie(a.at_ms, a.digest) < std::tie(b.at_ms, b.digest); });
  }

  void Read(const Digest& digest, const Artifact& artifact, int64_t at_ms) {
    const Json& results = artifact.results;
    kinds_[digest] = artifact.kind;
    if (!results.is_object()) return;
    auto split = StringField(results, "split"), evaluated = StringField(results, "model");
    if ((artifact.kind == "evaluation" || artifact.kind == "measurement") && split.ok() && evaluated.ok()) {
      evaluations_.push_back({artifact.step, *evaluated, *split, results});
    }
    auto model = StringField(results, "as"), chosen = StringField(results, "chosen"), reason = StringField(results, "reason");
    auto promoted = DigestField(results, "artifact");
    if (artifact.kind != "decision" || !model.ok() || model->empty() || !chosen.ok() || !promoted.ok()) return;
    decisions_.push_back({digest, *promoted, artifact.step, *model, *chosen, reason.ok() ? *reason : "", results.value("met_goal", Json()), at_ms});
  }

  // ---- versions whose number something tells ----

  void RestoreNumbered() {
    for (const auto& [model, versions] : told_) {
      int64_t newest = versions.empty() ? 0 : versions.rbegin()->first;
      // Numbers have no gaps: one that nothing names was a version too.
      for (int64_t version = 1; version <= newest; ++version) {
        if (rows_.HasVersion(model, version) || said_.count({model, version}) != 0) continue;
        auto told = versions.find(version);
        RestoreVersion(model, version, told == versions.end() ? Told() : told->second);
      }
    }
  }

  void RestoreVersion(const std::string& model, int64_t version, const Told& told) {
    if (!told.origin) return losses_.push_back(VersionLoss(model, version, "its row is lost, and nothing tells which network it was"));
    const VersionOrigin& origin = *told.origin;
    const Decision* decision = origin.by_hand ? nullptr : DecisionOf(model, told);
    std::optional<Digest> artifact = decision != nullptr ? decision->artifact : CheckpointOf(origin.job, origin.step);
    if (!artifact || rows_.artifacts.count(*artifact) == 0) {
      std::string network = origin.step.empty() ? "what job " + origin.job + " promoted" : "the result of step " + origin.step + " of job " + origin.job;
      return losses_.push_back(VersionLoss(model, version, "its row is lost, and so is " + network + ": run its recipe again"));
    }
    VersionRow row{.model = model, .version = version, .artifact = *artifact, .job = origin.job, .step = origin.step, .created_ms = told.at_ms};
    if (decision != nullptr) row.step = decision->chosen;
    row.evidence = EvidenceFor(row, decision);
    row.evidence["reason"] = origin.by_hand ? "promoted by hand" : decision != nullptr ? decision->reason : origin.reason;
    rows_.Add(std::move(row));
  }

  // Reasons are alike in decisions of other jobs. A job that was retried may have decided twice: its row's time tells them apart.
  const Decision* DecisionOf(const std::string& model, const Told& told) const {
    const VersionOrigin& origin = *told.origin;
    std::vector<const Decision*> at_that_time, of_job, of_nobody;
    for (const Decision& decision : decisions_) {
      bool fits = decision.model == model && Fits(decision.reason, origin.reason) && (origin.step.empty() || decision.chosen == origin.step);
      if (!fits) continue;
      if (decision.at_ms == told.at_ms) at_that_time.push_back(&decision);
      if (Has(origin.job, decision.step)) of_job.push_back(&decision);
      if (JobOf(decision.step).empty()) of_nobody.push_back(&decision);
    }
    for (const auto* list : {&at_that_time, &of_job, &of_nobody}) {
      bool one = !list->empty() && std::all_of(list->begin(), list->end(), [&](const Decision* d) { return d->artifact == list->front()->artifact; });
      if (one) return list->front();
    }
    return nullptr;
  }

  bool Has(const std::string& job, const StepKey& step) const {
    auto steps = steps_of_.find(job);
    return steps != steps_of_.end() && std::any_of(steps->second.begin(), steps->second.end(), [&](const JobStepRow* row) { return row->key == step; });
  }

  // The checkpoint that a step made, or evaluated.
  std::optional<Digest> CheckpointOf(const std::string& job, const std::string& name) const {
    auto steps = steps_of_.find(job);
    if (steps == steps_of_.end()) return std::nullopt;
    for (const JobStepRow* in_job : steps->second) {
      auto step = rows_.steps.find(in_job->key);
      if (in_job->name != name || step == rows_.steps.end()) continue;
      auto kind = kinds_.find(step->second.artifact);
      if (kind == kinds_.end()) return std::nullopt;
      if (kind->second == "checkpoint") return step->second.artifact;
      for (const Evaluation& evaluation : evaluations_) {
        auto evaluated = Digest::FromHex(evaluation.model);
        if (kind->second == "evaluation" && evaluation.step == in_job->key && evaluated.ok()) return *evaluated;
      }
    }
    return std::nullopt;
  }

  // ---- others ----

  // What decisions promoted, in the order in which they were made.
  void NumberOthers() {
    for (const Decision& decision : decisions_) {
      bool there = std::any_of(rows_.versions.begin(), rows_.versions.end(), [&](const auto& entry) {
        return entry.first.first == decision.model && entry.second.artifact == decision.artifact;
      });
      if (there || rows_.artifacts.count(decision.artifact) == 0) continue;
      std::map<int64_t, Told>& numbers = told_[decision.model];
      int64_t version = numbers.empty() ? 1 : numbers.rbegin()->first + 1;
      numbers[version] = Told();
      VersionRow row{.model = decision.model, .version = version, .artifact = decision.artifact, .job = JobOf(decision.step), .step = decision.chosen, .created_ms = decision.at_ms};
      row.evidence = EvidenceFor(row, &decision);
      row.evidence["reason"] = decision.reason;
      row.evidence["rebuilt"] = true;
      losses_.push_back(VersionLoss(row.model, version, "which number it had is lost: the result of step " + row.step + (row.job.empty() ? "" : " of job " + row.job) + " has this one now"));
      rows_.Add(std::move(row));
    }
  }

  // The oldest job that has the step, or one whose row is lost; "": none is on record.
  std::string JobOf(const StepKey& step) const {
    auto job = std::find_if(rows_.job_order.begin(), rows_.job_order.end(), [&](const std::string& id) { return Has(id, step); });
    if (job != rows_.job_order.end()) return *job;
    auto lost = std::find_if(steps_of_.begin(), steps_of_.end(), [&](const auto& entry) { return Has(entry.first, step); });
    return lost == steps_of_.end() ? "" : lost->first;
  }

  // ---- evidence ----

  // All but the reason, as the coordinator writes it.
  Json EvidenceFor(const VersionRow& row, const Decision* decision) const {
    const ArtifactRow& artifact = rows_.artifacts.at(row.artifact);
    auto job = rows_.jobs.find(row.job);
    Json evidence = EvidenceOf({.job = row.job,
                                .job_name = job == rows_.jobs.end() ? "" : job->second.name,
                                .validation = Evaluated(row, "validation"),
                                .test = Evaluated(row, "test"),
                                .summary = ResultsOf(artifact.manifest).Tree()});
    if (decision != nullptr) evidence["met_goal"] = decision->met_goal, evidence["decision"] = decision->digest.hex();
    evidence["step_key"] = artifact.key.hex();
    evidence["lineage"] = LineageOf(artifact.key, [this](const StepKey& key) { return StepOf(key); }, rows_.steps.size());
    return evidence;
  }

  // By the last such step of its job. Where no job is on record: what all evaluations of the network say alike.
  Json Evaluated(const VersionRow& row, const std::string& split) const {
    std::vector<const Evaluation*> found;
    for (const Evaluation& evaluation : evaluations_) {
      if (evaluation.model == row.artifact.hex() && evaluation.split == split) found.push_back(&evaluation);
    }
    auto steps = steps_of_.find(row.job);
    if (steps == steps_of_.end()) {
      bool alike = !found.empty() && std::all_of(found.begin(), found.end(), [&](const Evaluation* e) { return e->results == found.front()->results; });
      return alike ? found.front()->results : Json();
    }
    Json results;
    for (const JobStepRow* in_job : steps->second) {
      for (const Evaluation* evaluation : found) {
        if (evaluation->step == in_job->key) results = evaluation->results;
      }
    }
    return results;
  }

  std::optional<LineageStep> StepOf(const StepKey& key) const {
    auto step = rows_.steps.find(key);
    if (step == rows_.steps.end()) return std::nullopt;
    LineageStep found{.kind = step->second.kind, .key = key, .artifact = step->second.artifact};
    auto from = StepKey::FromHex(StringOf(FieldOf(FieldOf(step->second.spec.text(), "inputs"), "model")).value_or(""));
    if (from.ok()) found.model = *from;
    return found;
  }

  SalvagedRows& rows_;
  std::vector<FsckLoss>& losses_;
  std::map<std::string, std::vector<const JobStepRow*>> steps_of_;  // by job, in the plan's order
  std::map<std::string, std::map<int64_t, Told>> told_;             // by model and number
  std::set<std::pair<std::string, int64_t>> said_;                  // versions whose loss is told already
  std::map<Digest, std::string> kinds_;                             // of artifacts
  std::vector<Decision> decisions_;                                 // oldest first
  std::vector<Evaluation> evaluations_;
};

}  // namespace

NumbersInUse RestoreVersions(SalvagedRows& rows, const std::vector<FoundManifest>& manifests, bool damaged, std::vector<FsckLoss>& losses) {
  return VersionRepair(rows, losses).Run(manifests, damaged);
}

}  // namespace pare::storage
