// Index: the SQLite database of a store (store/index.db): WAL, synchronous=FULL, foreign keys, one writer. sqlite3.h is
// included by index.cc alone. Not thread-safe: it belongs to the coordinator's loop thread.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "storage/rows.h"

namespace pare::storage {

inline constexpr int kSchemaVersion = 1;

class Index {
 public:
  // Opens or creates, migrating an older schema (one transaction per named migration). kVersion for a newer one,
  // kCorrupt if SQLite says so.
  static Result<std::unique_ptr<Index>> Open(const std::string& path);
  // For tests: a private database in memory.
  static Result<std::unique_ptr<Index>> OpenInMemory();
  virtual ~Index() = default;

  // Writes all rows in one transaction; when this returns they survive a power cut. All or nothing.
  virtual Status Commit(std::span<const Row> rows) = 0;
  virtual Result<StoredState> Load() = 0;

  // Metrics of one step, all attempts, in order of (lease_epoch, sequence); at most `limit` newest.
  virtual Result<std::vector<MetricRow>> Metrics(const StepKey& key, int64_t limit) = 0;
  // Events of a job with sequence > after, oldest first, at most `limit`.
  virtual Result<std::vector<EventRow>> Events(std::string_view job, int64_t after, int64_t limit) = 0;
};

}  // namespace pare::storage
