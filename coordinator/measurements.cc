#include "coordinator/measurements.h"

#include <utility>

#include "storage/registry.h"

namespace pare::coordinator {

Json At(const Json& object, std::initializer_list<const char*> path) {
  const Json* at = &object;
  for (const char* field : path) {
    if (!at->is_object()) return nullptr;
    auto it = at->find(field);
    if (it == at->end()) return nullptr;
    at = &*it;
  }
  return *at;
}

std::string TextAt(const Json& object, const char* field) {
  Json value = At(object, {field});
  return value.is_string() ? value.get<std::string>() : "";
}

Measurements MeasurementsOf(const State& state, const Job& job) {
  Measurements all;
  for (const JobStep& in_job : job.steps) {
    const ArtifactRecord* artifact = state.ArtifactOf(in_job.key);
    if (artifact == nullptr || (artifact->kind != "evaluation" && artifact->kind != "measurement")) continue;
    Json results = artifact->results.Tree();
    Measured& measured = all[TextAt(results, "model")];
    std::string split = TextAt(results, "split");
    if (artifact->kind == "measurement") measured.speeds.push_back(results);
    if (split == "validation") measured.validation = results;
    if (split == "test") measured.test = results;
  }
  return all;
}

Result<Digest> CheckpointOf(const State& state, const Job& job, const std::string& name) {
  const JobStep* in_job = job.Find(name);
  if (in_job == nullptr) {
    return Error{ErrorCode::kNotFound, "job " + job.id + " has no step '" + name + "': `pare describe " + job.id + "` lists them"};
  }
  const ArtifactRecord* artifact = state.ArtifactOf(in_job->key);
  if (artifact == nullptr) return Error{ErrorCode::kConflict, "step '" + name + "' of job " + job.id + " has not finished: it has no checkpoint"};
  if (artifact->kind == "checkpoint") return state.FindStep(in_job->key)->artifact;
  if (artifact->kind == "evaluation") {
    return Digest::FromHex(TextAt(artifact->results.Tree(), "model"));
  }
  return Error{ErrorCode::kConflict, "step '" + name + "' of job " + job.id + " left a " + artifact->kind + ", not a checkpoint"};
}

Json EvidenceOf(const State& state, const Job& job, const Digest& checkpoint) {
  Measured measured = MeasurementsOf(state, job)[checkpoint.hex()];
  auto it = state.artifacts.find(checkpoint);
  return storage::EvidenceOf({.job = job.id,
                              .job_name = job.name,
                              .validation = std::move(measured.validation),
                              .test = std::move(measured.test),
                              .summary = it == state.artifacts.end() ? Json() : it->second.results.Tree()});
}

}  // namespace pare::coordinator
