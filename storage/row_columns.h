// The tables of the index, one list per row type: column names, how many of the first ones are the key, and the field
// behind each. SQL text, binding and reading are generated from these lists; storage/schema.cc declares the same tables.
#pragma once

#include <array>
#include <string_view>
#include <tuple>

#include "storage/rows.h"

namespace pare::storage {

template <typename RowType, typename T>
struct Column {
  std::string_view name;
  T RowType::*field;
};
template <typename RowType, typename T>
Column(const char*, T RowType::*) -> Column<RowType, T>;

template <typename RowType>
struct Table;

template <>
struct Table<JobRow> {
  static constexpr std::string_view kName = "jobs";
  static constexpr size_t kKeyColumns = 1;
  static constexpr auto kColumns = std::tuple{
      Column{"id", &JobRow::id}, Column{"name", &JobRow::name}, Column{"user", &JobRow::user},
      Column{"state", &JobRow::state}, Column{"created_ms", &JobRow::created_ms},
      Column{"finished_ms", &JobRow::finished_ms}, Column{"recipe_text", &JobRow::recipe_text},
      Column{"recipe_digest", &JobRow::recipe_digest}, Column{"resolved", &JobRow::resolved},
      Column{"message", &JobRow::message}, Column{"priority", &JobRow::priority}};
};

template <>
struct Table<StepRow> {
  static constexpr std::string_view kName = "steps";
  static constexpr size_t kKeyColumns = 1;
  static constexpr auto kColumns = std::tuple{
      Column{"key", &StepRow::key}, Column{"kind", &StepRow::kind}, Column{"spec", &StepRow::spec},
      Column{"state", &StepRow::state}, Column{"attempts", &StepRow::attempts},
      Column{"artifact", &StepRow::artifact}, Column{"error_class", &StepRow::error_class},
      Column{"message", &StepRow::message}};
};

template <>
struct Table<JobStepRow> {
  static constexpr std::string_view kName = "job_steps";
  static constexpr size_t kKeyColumns = 2;
  static constexpr auto kColumns = std::tuple{
      Column{"job", &JobStepRow::job}, Column{"name", &JobStepRow::name}, Column{"ordinal", &JobStepRow::ordinal},
      Column{"variant", &JobStepRow::variant}, Column{"key", &JobStepRow::key},
      Column{"reused", &JobStepRow::reused}, Column{"wanted", &JobStepRow::wanted}};
};

template <>
struct Table<AttemptRow> {
  static constexpr std::string_view kName = "attempts";
  static constexpr size_t kKeyColumns = 2;
  static constexpr auto kColumns = std::tuple{
      Column{"key", &AttemptRow::key}, Column{"epoch", &AttemptRow::epoch}, Column{"attempt", &AttemptRow::attempt},
      Column{"worker", &AttemptRow::worker}, Column{"started_ms", &AttemptRow::started_ms},
      Column{"ended_ms", &AttemptRow::ended_ms}, Column{"busy_ms", &AttemptRow::busy_ms},
      Column{"outcome", &AttemptRow::outcome}, Column{"error_class", &AttemptRow::error_class},
      Column{"message", &AttemptRow::message}};
};

template <>
struct Table<MetricRow> {
  static constexpr std::string_view kName = "metrics";
  static constexpr size_t kKeyColumns = 3;
  static constexpr auto kColumns = std::tuple{
      Column{"key", &MetricRow::key}, Column{"lease_epoch", &MetricRow::lease_epoch},
      Column{"sequence", &MetricRow::sequence}, Column{"at_ms", &MetricRow::at_ms},
      Column{"metric_values", &MetricRow::values}};
};

template <>
struct Table<SnapshotRow> {
  static constexpr std::string_view kName = "snapshots";
  static constexpr size_t kKeyColumns = 1;
  static constexpr auto kColumns = std::tuple{
      Column{"key", &SnapshotRow::key}, Column{"blob", &SnapshotRow::blob}, Column{"at_ms", &SnapshotRow::at_ms},
      Column{"position", &SnapshotRow::position}, Column{"lease_epoch", &SnapshotRow::lease_epoch},
      Column{"sequence", &SnapshotRow::sequence}};
};

template <>
struct Table<ArtifactRow> {
  static constexpr std::string_view kName = "artifacts";
  static constexpr size_t kKeyColumns = 1;
  static constexpr auto kColumns = std::tuple{
      Column{"digest", &ArtifactRow::digest}, Column{"key", &ArtifactRow::key},
      Column{"manifest", &ArtifactRow::manifest}, Column{"bytes", &ArtifactRow::bytes},
      Column{"created_ms", &ArtifactRow::created_ms},
      Column{"collected_ms", &ArtifactRow::collected_ms}};
};

template <>
struct Table<VersionRow> {
  static constexpr std::string_view kName = "versions";
  static constexpr size_t kKeyColumns = 2;
  static constexpr auto kColumns = std::tuple{
      Column{"model", &VersionRow::model}, Column{"version", &VersionRow::version},
      Column{"artifact", &VersionRow::artifact}, Column{"job", &VersionRow::job}, Column{"step", &VersionRow::step},
      Column{"created_ms", &VersionRow::created_ms}, Column{"evidence", &VersionRow::evidence}};
};

template <>
struct Table<AliasRow> {
  static constexpr std::string_view kName = "aliases";
  static constexpr size_t kKeyColumns = 2;
  static constexpr auto kColumns = std::tuple{
      Column{"model", &AliasRow::model}, Column{"alias", &AliasRow::alias}, Column{"version", &AliasRow::version}};
};

template <>
struct Table<PromotionRow> {
  static constexpr std::string_view kName = "promotions";
  static constexpr size_t kKeyColumns = 2;
  static constexpr auto kColumns = std::tuple{
      Column{"model", &PromotionRow::model}, Column{"sequence", &PromotionRow::sequence}, Column{"at_ms", &PromotionRow::at_ms},
      Column{"action", &PromotionRow::action}, Column{"version", &PromotionRow::version},
      Column{"previous", &PromotionRow::previous}, Column{"text", &PromotionRow::text}};
};

template <>
struct Table<EventRow> {
  static constexpr std::string_view kName = "events";
  static constexpr size_t kKeyColumns = 2;
  static constexpr auto kColumns = std::tuple{
      Column{"job", &EventRow::job}, Column{"sequence", &EventRow::sequence}, Column{"at_ms", &EventRow::at_ms},
      Column{"level", &EventRow::level}, Column{"step", &EventRow::step}, Column{"text", &EventRow::text}};
};

}  // namespace pare::storage
