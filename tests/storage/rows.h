// Rows of every type with every field set, and all of a state as text.
#pragma once

#include <string>
#include <vector>

#include "storage/index.h"

namespace pare::storage {

inline StepKey KeyOf(const std::string& name) { return StepKey(DigestOf(name).bytes()); }

inline JobRow JobOf(const std::string& id) {
  return {.id = id, .name = "lenet", .user = "ada", .state = "running", .created_ms = 1'700'000'000'123, .finished_ms = 5, .recipe_text = "name: lenet\n# µ '\"\n",
          .recipe_digest = DigestOf("recipe"), .resolved = {{"seed", 1}, {"rate", 0.1}}, .message = "why", .priority = -3};
}
inline StepRow StepOf(const std::string& name) {
  return {.key = KeyOf(name), .kind = "prune", .spec = {{"kind", "prune"}, {"params", {{"sparsity", 0.9}}}}, .state = "ready", .attempts = 2, .artifact = {},
          .error_class = "diverged", .message = "NaN at epoch 3"};
}
inline ArtifactRow ArtifactOf(const std::string& step) {
  return {.digest = DigestOf("manifest of " + step), .key = KeyOf(step), .manifest = {{"format", 1}, {"results", {{"accuracy", 89.5}}}}, .bytes = 123456789012,
          .created_ms = 77};
}

// One row of every type that refers to nothing outside of the list.
inline std::vector<Row> RowOfEveryType() {
  StepRow done = StepOf("one");
  done.state = "done";
  done.artifact = ArtifactOf("one").digest;
  return {
      JobOf("j000000001"), done,
      JobStepRow{.job = "j000000001", .name = "iterative/01-prune", .ordinal = 7, .variant = "iterative", .key = KeyOf("one"), .reused = true, .wanted = false},
      AttemptRow{.key = KeyOf("one"), .epoch = 41, .attempt = 2, .worker = "host-7-1", .started_ms = 10, .ended_ms = 20, .busy_ms = 9, .outcome = "lost",
                 .error_class = "worker_lost", .message = "no heartbeat"},
      MetricRow{.key = KeyOf("one"), .lease_epoch = 41, .sequence = 1, .at_ms = 12, .values = {{"epoch", 0.5}, {"loss", 2.25}}},
      SnapshotRow{.key = KeyOf("one"), .blob = DigestOf("snapshot"), .at_ms = 15, .position = {{"epoch", 3}, {"batch", 0}}}, ArtifactOf("one"),
      VersionRow{.model = "lenet", .version = 1, .artifact = ArtifactOf("one").digest, .job = "j000000001", .step = "iterative/01-prune", .created_ms = 30,
                 .evidence = {{"reason", "smallest"}}},
      AliasRow{"lenet", "champion", 1},
      PromotionRow{.model = "lenet", .sequence = 1, .at_ms = 31, .action = "promote", .version = 1, .previous = 0, .text = "smallest"}, EventRow{.job = "j000000001", .sequence = 1, .at_ms = 11, .level = "info", .step = "iterative/01-prune", .text = "granted"}};
}

template <typename R>
void Commit(Index& index, std::vector<R> rows) {
  std::vector<Row> list(rows.begin(), rows.end());
  Status status = index.Commit(list);
  CHECK(status.ok());
}

}  // namespace pare::storage
