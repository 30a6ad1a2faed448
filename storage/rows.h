// The rows of the index as plain values: what the coordinator's core decides to write, and what a restart loads. No SQL
// here. Every row is an upsert by the key fields marked (key).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "common/digest.h"
#include "common/json.h"
#include "common/json_text.h"

namespace pare::storage {

struct JobRow {
  std::string id;  // (key) "j" + 9 hexadecimal digits
  std::string name;
  std::string user;
  std::string state;  // running, paused, done, failed, cancelled
  int64_t created_ms = 0;
  int64_t finished_ms = 0;  // 0: not finished
  std::string recipe_text;  // as the user wrote it
  Digest recipe_digest;     // of the canonical resolved recipe: equal recipes are found by it
  JsonText resolved;            // the resolved recipe, dataset included: all that the planner needs
  std::string message;      // why it failed or paused
  int64_t priority = 0;
  bool operator==(const JobRow&) const = default;
};

inline constexpr const char* kNoSpec = "{}";

// A step is shared by all jobs that want its key.
struct StepRow {
  StepKey key;  // (key)
  std::string kind;
  JsonText spec;      // recipes::StepSpec; kNoSpec: lost, a job that wants the step brings it back
  std::string state;  // waiting, ready, running, done, failed, cancelled
  int attempts = 0;   // failed attempts so far, for the retry limit
  Digest artifact;    // none unless done
  std::string error_class;
  std::string message;
  bool operator==(const StepRow&) const = default;
};

struct JobStepRow {
  std::string job;  // (key)
  std::string name;  // (key) "baseline", "iterative/01-prune", …
  int64_t ordinal = 0;
  std::string variant;  // empty: shared by all variants
  StepKey key;
  bool reused = false;  // its artifact existed before this job wanted it
  bool wanted = true;   // false: a failure or a search's decision made it pointless
  bool operator==(const JobStepRow&) const = default;
};

struct AttemptRow {
  StepKey key;        // (key)
  int64_t epoch = 0;  // (key) fencing token: grows with every grant of any step
  int attempt = 0;    // 1, 2, … of this step
  std::string worker;  // its name; of a gang one a line, by rank
  int64_t started_ms = 0;
  int64_t ended_ms = 0;  // 0: in progress
  int64_t busy_ms = 0;   // time that the runner itself worked
  std::string outcome;   // running, done, failed, lost, released, cancelled
  std::string error_class;
  std::string message;
  bool operator==(const AttemptRow&) const = default;
};

struct MetricRow {
  StepKey key;           // (key)
  int64_t lease_epoch = 0;  // (key) the attempt's fencing token
  int64_t sequence = 0;  // (key) 1, 2, … within the attempt
  int64_t at_ms = 0;
  JsonText values;  // {"epoch": 3.0, "epochs": 20, "loss": …, "accuracy": …, "sparsity": …, …}
  bool operator==(const MetricRow&) const = default;
};

struct SnapshotRow {
  StepKey key;  // (key) the newest snapshot of the step
  Digest blob;  // none: the step is done or its snapshot was dropped
  int64_t at_ms = 0;
  JsonText position;  // {"epoch": 3, "batch": 0}
  int64_t lease_epoch = 0;  // the attempt that took it
  int64_t sequence = 0;     // 1, 2, … within the attempt
  bool operator==(const SnapshotRow&) const = default;
};

struct ArtifactRow {
  Digest digest;  // (key) of the manifest
  StepKey key;
  JsonText manifest;
  int64_t bytes = 0;  // of all its blobs
  int64_t created_ms = 0;
  int64_t collected_ms = 0;  // when its blobs were given up (`pare gc`); 0: they are there. Manifest and results stay
  bool operator==(const ArtifactRow&) const = default;
};

struct VersionRow {
  std::string model;    // (key)
  int64_t version = 0;  // (key) 1, 2, …
  Digest artifact;      // of the checkpoint's manifest
  std::string job;
  std::string step;  // its name in the job
  int64_t created_ms = 0;
  Json evidence;  // metrics, goal, reason
  bool operator==(const VersionRow&) const = default;
};

struct AliasRow {
  std::string model;    // (key)
  std::string alias;    // (key) "champion", "previous"
  int64_t version = 0;  // 0: the alias is removed
  bool operator==(const AliasRow&) const = default;
};

// A change of a model's champion, for its history.
struct PromotionRow {
  std::string model;     // (key)
  int64_t sequence = 0;  // (key) 1, 2, …
  int64_t at_ms = 0;
  std::string action;    // promote, rollback; repair: a version is lost, and its number, `previous`, stays taken
  int64_t version = 0;   // the champion from here on
  int64_t previous = 0;  // and before; 0: none
  std::string text;      // why
  bool operator==(const PromotionRow&) const = default;
};

// A line of a job's history, for `pare logs` and `describe`.
struct EventRow {
  std::string job;  // (key) with sequence
  int64_t sequence = 0;
  int64_t at_ms = 0;
  std::string level;  // info, warning, error
  std::string step;   // step name, may be empty
  std::string text;
  bool operator==(const EventRow&) const = default;
};

using Row = std::variant<JobRow, StepRow, JobStepRow, AttemptRow, MetricRow, SnapshotRow, ArtifactRow,
                         VersionRow, AliasRow, EventRow, PromotionRow>;

// All that a restart of the coordinator's core needs; metrics and events stay on disk.
struct StoredState {
  std::vector<JobRow> jobs;  // by creation
  std::vector<StepRow> steps;
  std::vector<JobStepRow> job_steps;
  std::vector<AttemptRow> attempts;
  std::vector<SnapshotRow> snapshots;
  std::vector<ArtifactRow> artifacts;
  std::vector<VersionRow> versions;
  std::vector<AliasRow> aliases;
  std::vector<PromotionRow> promotions;  // by model and sequence
  std::map<std::string, int64_t> last_event;  // by job: the newest event's sequence
  std::map<StepKey, int64_t> last_point;      // the newest metric point's sequence, of attempts that have not ended
};

}  // namespace pare::storage
