// What rows say of the versions of models: the texts that tell where a version came from, the evidence that it rests on, and its
// lineage. The coordinator writes them when it promotes; a repair that has lost a version's row reads the texts and makes the row
// again (storage/reconcile_versions.cc). Pure functions.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "storage/rows.h"

namespace pare::storage {

// Aliases that a model has.
inline constexpr const char* kChampion = "champion";
inline constexpr const char* kPrevious = "previous";

// ---- where a version came from ----

struct VersionOrigin {
  std::string job;
  std::string step;      // its name in the job; empty, in a history: whatever the job's decision chose
  bool by_hand = false;  // false: by the job's decision
  std::string reason;    // of the decision
  bool operator==(const VersionOrigin&) const = default;
};
// PromotionRow::text of a version that is made: "decision of job j1: smallest …", "by hand: step half/02-retrain of job j1".
std::string HistoryText(const VersionOrigin& origin);
// Nothing for a text that names no job: of a version that was there already, or a rollback. A long reason may be cut (ClipText).
std::optional<VersionOrigin> OriginOf(std::string_view history_text);

struct PromotedVersion {
  std::string model;
  int64_t version = 0;
  VersionOrigin origin;
  bool operator==(const PromotedVersion&) const = default;
};
// EventRow::text in the history of its job: "promoted half/02-retrain as small version 1: smallest …", "promoted by hand as small
// version 2", whose step is the event's.
std::string EventText(const PromotedVersion& promoted);
std::optional<PromotedVersion> PromotedOf(const EventRow& event);

// ---- what it rests on ----

struct VersionBasis {
  std::string job, job_name;
  Json validation, test;  // results of the evaluations of its checkpoint; null: not measured
  Json summary;           // results of the checkpoint (ResultsOf)
};
// {"job", "job_name", "validation_accuracy", "test_accuracy", "summary"}
Json EvidenceOf(const VersionBasis& basis);

struct LineageStep {
  std::string kind;
  StepKey key;
  Digest artifact;               // none: not done
  std::optional<StepKey> model;  // its input "model"
};
using FindLineageStep = std::function<std::optional<LineageStep>(const StepKey&)>;
// From the step that made a checkpoint back to where its network began: kind, step key and artifact of every step along the input
// "model", at most `max_steps`.
Json LineageOf(const StepKey& last, const FindLineageStep& find, size_t max_steps);

}  // namespace pare::storage
