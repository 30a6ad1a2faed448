// Index: the SQLite database of a store (store/index.db): WAL, synchronous=FULL, foreign keys, one writer, a checksum in
// every row (storage/sqlite.h). Not thread-safe: it belongs to the coordinator's loop thread.
//
// Errors, all with the path: kNoSpace when the disk is full, kCorrupt when the file is damaged, kVersion for a schema of a
// newer release, kInvalid for a database of something else, kConflict when another process keeps it locked, kIo otherwise.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "storage/rows.h"

namespace pare::storage {

inline constexpr int kSchemaVersion = 4;

class Index {
 public:
  // Opens or creates, migrating an older schema (one transaction per named migration).
  static Result<std::unique_ptr<Index>> Open(const std::string& path);
  // For commands that only look, also beside a living coordinator and on a read-only disk: Commit is refused (kConflict).
  // kNotFound if there is none or nothing in it; kVersion for an older schema too (a coordinator migrates it).
  static Result<std::unique_ptr<Index>> OpenForReading(const std::string& path);
  // The schema version, 0 for an empty file. Errors as above, but an older schema is none.
  static Result<int> SchemaOf(const std::string& path);
  // For tests: a private database in memory.
  static Result<std::unique_ptr<Index>> OpenInMemory();
  virtual ~Index() = default;

  // Writes all rows in one transaction; when this returns they survive a power cut. All or nothing. Rows may come in any
  // order; kInternal if one refers to a row that does not exist afterwards.
  virtual Status Commit(std::span<const Row> rows) = 0;
  virtual Result<StoredState> Load() = 0;

  // Metrics of one step, all attempts, in order of (lease_epoch, sequence); at most `limit` newest.
  virtual Result<std::vector<MetricRow>> Metrics(const StepKey& key, int64_t limit) = 0;
  // Events of a job with sequence > after, oldest first, at most `limit`.
  virtual Result<std::vector<EventRow>> Events(std::string_view job, int64_t after, int64_t limit) = 0;
};

}  // namespace pare::storage
