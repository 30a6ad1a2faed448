// Copies of a store, and all that its index says as text.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "storage/store.h"
#include "tests/storage/world.h"

namespace pare::storage {

// A copy of the store beside whose index lies a log with a transaction that the index lacks: event 2 of job j1.
inline void StoreCopyWithLog(const World& world, const std::string& to) {
  namespace fs = std::filesystem;
  auto store = std::move(Store::Open(world.root())).value();
  CHECK(store->index().Commit(std::vector<Row>{EventRow{.job = "j1", .sequence = 2, .level = "info", .text = "in the log"}}).ok());
  fs::copy(world.root(), to, fs::copy_options::recursive | fs::copy_options::overwrite_existing);
  for (const char* name : {"/index.db-shm", "/reserve"}) fs::remove(to + name);
  CHECK(fs::file_size(to + "/index.db-wal") > 0);
}

// One more step with its artifact.
inline void AddWork(const std::string& root) {
  auto store = std::move(Store::Open(root)).value();
  StepRow step{.kind = "step", .spec = {{"kind", "more"}}, .state = "done"};
  step.key = StepKey(DigestOf(step.spec.text()).bytes());
  Artifact artifact{.kind = "checkpoint", .step = step.key};
  artifact.blobs["checkpoint"] = {*store->blobs().Put(std::string_view("more work")), 9};
  step.artifact = *PutArtifact(store->blobs(), artifact);
  ArtifactRow row{.digest = step.artifact, .key = step.key, .manifest = ToJson(artifact), .bytes = 9, .created_ms = 8};
  CHECK(store->index().Commit(std::vector<Row>{step, row}).ok());
  store.reset();
  std::filesystem::remove(root + "/reserve");
}

// The rows of the index but for times; "unreadable: …" if they cannot be read.
inline std::string StateText(const std::string& root) {
  auto index = Index::OpenForReading(StorePaths(root).index());
  if (!index.ok()) return "unreadable: " + index.error().message;
  auto state = (*index)->Load();
  if (!state.ok()) return "unreadable: " + state.error().message;
  std::vector<std::string> lines;
  for (const JobRow& row : state->jobs) {
    lines.push_back("job " + row.id + " " + row.state + " " + row.resolved.text());
    auto events = (*index)->Events(row.id, 0, 100);
    if (!events.ok()) return "unreadable: " + events.error().message;
    for (const EventRow& event : *events) lines.push_back("event " + std::to_string(event.sequence) + " " + event.text);
  }
  for (const StepRow& row : state->steps) {
    lines.push_back("step " + row.key.hex() + " " + row.state + " " + row.spec.text() + " " + row.artifact.hex());
    auto points = (*index)->Metrics(row.key, 100);
    if (!points.ok()) return "unreadable: " + points.error().message;
    for (const MetricRow& point : *points) lines.push_back("point " + row.key.hex() + " " + point.values.text());
  }
  for (const JobStepRow& row : state->job_steps) lines.push_back("name " + row.job + " " + row.name + " " + row.key.hex());
  for (const AttemptRow& row : state->attempts) lines.push_back("attempt " + row.key.hex() + " " + row.outcome);
  for (const SnapshotRow& row : state->snapshots) lines.push_back("snapshot " + row.key.hex() + " " + row.blob.hex());
  for (const ArtifactRow& row : state->artifacts) lines.push_back("artifact " + row.digest.hex() + " " + row.manifest.text() + (row.collected_ms != 0 ? " collected" : ""));
  for (const VersionRow& row : state->versions) lines.push_back("version " + row.model + "@" + std::to_string(row.version) + " " + row.artifact.hex());
  for (const AliasRow& row : state->aliases) lines.push_back("alias " + row.model + " " + row.alias + " " + std::to_string(row.version));
  for (const PromotionRow& row : state->promotions) lines.push_back("promotion " + row.model + " " + std::to_string(row.version));
  std::sort(lines.begin(), lines.end());
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

}  // namespace pare::storage
