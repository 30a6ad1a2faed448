// Versions of named models: decisions of jobs, promotions by hand, rollback. A promotion is the version's row and both
// alias rows in one transaction, so that there is always exactly one champion.
#include <algorithm>
#include <utility>

#include "coordinator/measurements.h"
#include "coordinator/scheduler.h"
#include "storage/registry.h"

namespace pare::coordinator {
namespace {

using storage::kChampion;
using storage::kPrevious;

int64_t AliasOf(const Model& model, const char* alias) {
  auto it = model.aliases.find(alias);
  return it == model.aliases.end() ? 0 : it->second;
}

// Numbers are given once: a repair may have lost versions that the history still names.
int64_t NextVersion(const Model& model) {
  int64_t newest = model.versions.empty() ? 0 : model.versions.back().version;
  for (const storage::PromotionRow& row : model.history) newest = std::max({newest, row.version, row.previous});
  return newest + 1;
}

Error NoModel(const std::string& name) {
  return Error{ErrorCode::kNotFound, "there is no model '" + name + "': `pare models` lists what was promoted"};
}

Json AliasesReply(const std::string& name, const Model& model) {
  int64_t previous = AliasOf(model, kPrevious);
  return {{"name", name}, {"version", AliasOf(model, kChampion)}, {"previous", previous == 0 ? Json() : Json(previous)}};
}

}  // namespace

void Scheduler::RegisterDecision(Job& job, const recipes::PlannedStep& planned, const Json& results) {
  std::string model = TextAt(results, "as");
  std::string chosen = TextAt(results, "chosen");
  auto artifact = Digest::FromHex(TextAt(results, "artifact"));
  if (model.empty() || chosen.empty() || !artifact.ok()) {
    return Note(job, "warning", planned.name, "nothing is promoted: " + TextAt(results, "reason"));
  }
  std::string decision = state_.steps.at(planned.key).artifact.hex();
  // A job that was cancelled after its decision and is retried decides the same again; others may have promoted since.
  for (const storage::VersionRow& row : state_.models[model].versions) {
    if (row.job != job.id || row.evidence.value("decision", "") != decision) continue;
    return Note(job, "info", planned.name, chosen + " was promoted by this decision as " + model + " version " + std::to_string(row.version) + " already");
  }
  const storage::VersionRow* champion = state_.models[model].Alias(kChampion);
  if (champion != nullptr && champion->artifact == *artifact) {
    return Note(job, "info", planned.name, chosen + " is " + model + " version " + std::to_string(champion->version) + " already");
  }
  Json evidence = EvidenceOf(state_, job, *artifact);
  evidence["reason"] = TextAt(results, "reason");
  evidence["met_goal"] = At(results, {"met_goal"});
  evidence["decision"] = std::move(decision);
  int64_t version = AddVersion(model, *artifact, job.id, chosen, std::move(evidence));
  storage::VersionOrigin origin{.job = job.id, .step = chosen, .reason = TextAt(results, "reason")};
  SetChampion(model, version, "promote", storage::HistoryText(origin));
  Note(job, "info", planned.name, storage::EventText({model, version, origin}));
}

int64_t Scheduler::AddVersion(const std::string& name, const Digest& artifact, const std::string& job, const std::string& step,
                              Json evidence) {
  auto record = state_.artifacts.find(artifact);
  evidence["step_key"] = record == state_.artifacts.end() ? "" : record->second.key.hex();
  evidence["lineage"] = LineageOf(artifact);
  Model& model = state_.models[name];
  int64_t version = NextVersion(model);
  model.versions.push_back({.model = name,
                            .version = version,
                            .artifact = artifact,
                            .job = job,
                            .step = step,
                            .created_ms = now_.wall.ms,
                            .evidence = std::move(evidence)});
  Write(model.versions.back());
  return version;
}

Json Scheduler::LineageOf(const Digest& artifact) const {
  auto record = state_.artifacts.find(artifact);
  if (record == state_.artifacts.end()) return Json::array();
  auto find = [this](const StepKey& key) -> std::optional<storage::LineageStep> {
    const Step* step = state_.FindStep(key);
    if (step == nullptr) return std::nullopt;
    storage::LineageStep found{.kind = *step->kind, .key = key, .artifact = step->artifact};
    if (auto model = step->inputs.find("model"); model != step->inputs.end()) found.model = model->second;
    return found;
  };
  return storage::LineageOf(record->second.key, find, kMaxStepsPerJob);
}

bool Scheduler::ChampionIs(const Caller& caller, const std::string& name, std::optional<int64_t> expected) {
  if (!expected) return true;
  auto model = state_.models.find(name);
  int64_t champion = model == state_.models.end() ? 0 : AliasOf(model->second, kChampion);
  if (champion == *expected) return true;
  ReplyError(caller, {ErrorCode::kConflict, "model " + name + ": the champion is version " + std::to_string(champion) + ", not " + std::to_string(*expected) +
                                                " as expected: somebody else promoted meanwhile"});
  return false;
}

void Scheduler::SetChampion(const std::string& name, int64_t version, const std::string& action, const std::string& why) {
  Model& model = state_.models[name];
  int64_t before = AliasOf(model, kChampion);
  if (before == version) return;
  model.aliases[kChampion] = version;
  Write(storage::AliasRow{name, kChampion, version});
  int64_t sequence = model.history.empty() ? 1 : model.history.back().sequence + 1;  // a repaired history may have gaps
  model.history.push_back({.model = name, .sequence = sequence, .at_ms = now_.wall.ms, .action = action,
                           .version = version, .previous = before, .text = ClipText(why)});
  Write(model.history.back());
  if (before == 0) return;
  model.aliases[kPrevious] = before;
  Write(storage::AliasRow{name, kPrevious, before});
}

void Scheduler::On(const PromoteVersion& event) {
  auto model = state_.models.find(event.model);
  if (model == state_.models.end()) return ReplyError(event.caller, NoModel(event.model));
  if (model->second.Find(event.version) == nullptr) {
    return ReplyError(event.caller, {ErrorCode::kNotFound, "model " + event.model + " has no version " + std::to_string(event.version) +
                                                               ": its newest is " + std::to_string(model->second.versions.back().version)});
  }
  // Champion already: the request is a repetition, whose answer got lost.
  if (AliasOf(model->second, kChampion) != event.version && !ChampionIs(event.caller, event.model, event.expected)) return;
  SetChampion(event.model, event.version, "promote", "by hand");
  ReplyOk(event.caller, AliasesReply(event.model, model->second));
}

void Scheduler::On(const PromoteCandidate& event) {
  Result<const Job*> job = state_.FindJob(event.job);
  if (!job.ok()) return ReplyError(event.caller, job.error());
  Result<Digest> checkpoint = CheckpointOf(state_, **job, event.step);
  if (!checkpoint.ok()) return ReplyError(event.caller, checkpoint.error());
  if (auto record = state_.artifacts.find(*checkpoint); record != state_.artifacts.end() && record->second.collected) {
    return ReplyError(event.caller, {ErrorCode::kConflict, "the checkpoint of step " + event.step + " was collected; run the recipe of job " + (*job)->id +
                                                               " again, without `keep`, to make it again"});
  }
  auto known = state_.models.find(event.model);
  int64_t version = 0;
  for (const storage::VersionRow& row : known == state_.models.end() ? std::vector<storage::VersionRow>() : known->second.versions) {
    if (row.artifact == *checkpoint) version = row.version;
  }
  bool champion = version != 0 && AliasOf(known->second, kChampion) == version;  // as above
  if (!champion && !ChampionIs(event.caller, event.model, event.expected)) return;
  Model& model = state_.models[event.model];
  if (version == 0) {
    Json evidence = EvidenceOf(state_, **job, *checkpoint);
    evidence["reason"] = "promoted by hand";
    version = AddVersion(event.model, *checkpoint, (*job)->id, event.step, std::move(evidence));
  }
  storage::VersionOrigin origin{.job = (*job)->id, .step = event.step, .by_hand = true};
  SetChampion(event.model, version, "promote", storage::HistoryText(origin));
  Note(state_.jobs.at((*job)->id), "info", event.step, storage::EventText({event.model, version, origin}));
  ReplyOk(event.caller, AliasesReply(event.model, model));
}

void Scheduler::On(const Rollback& event) {
  auto model = state_.models.find(event.model);
  if (model == state_.models.end()) return ReplyError(event.caller, NoModel(event.model));
  int64_t previous = AliasOf(model->second, kPrevious);
  if (previous == 0) {
    return ReplyError(event.caller, {ErrorCode::kConflict, "model " + event.model + " has no previous champion to go back to"});
  }
  if (!ChampionIs(event.caller, event.model, event.expected)) return;
  SetChampion(event.model, previous, "rollback", "by hand");
  ReplyOk(event.caller, AliasesReply(event.model, model->second));
}

}  // namespace pare::coordinator
