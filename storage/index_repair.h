// Examination of an index that may be damaged anywhere, and what can be read of it. Opens the file itself: nothing else of the
// process needs to have it open. Thread-compatible.
//
// Salvage reads every table row by row from both ends, on a copy whose header is mended (storage/index_header.h). A first page that is
// damaged beyond that is replaced by that of a new index: its tables begin on the same pages, because all of them are created before
// any row is written.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/files.h"
#include "storage/index.h"
#include "storage/store.h"

namespace pare::storage {

// What is wrong with the index, in words; empty: nothing. Header, structure, references, and every row of every table; no rows of another
// schema. Its log is another question, which is asked first: opening the index clears what the log is measured by (storage/index_log.h).
std::vector<std::string> CheckIndex(const std::string& path);

struct SalvagedIndex {
  std::vector<Row> rows;              // sound ones, in no order that matters
  std::vector<std::string> problems;  // what could not be read
  bool versions_damaged = false;      // the registry is among that
  std::vector<std::string> tables;    // those that lost rows, or may have
};
// `scratch`: a directory for the copy; what it puts there stays there. An index that is not there gives a problem and no rows.
Result<SalvagedIndex> SalvageIndex(const std::string& path, const std::string& scratch);

// An error for a database that is not ours to repair: of a newer release (kVersion), of something else (kInvalid). One that says it is
// either while its tables are ours has a damaged header.
Status RefuseForeign(const std::string& path);

// The rows of an index that no coordinator has open, read from a copy elsewhere: SQLite leaves files beside what it reads. Of an older
// schema too. Errors as Index::OpenForReading.
Result<StoredState> LoadWithoutTrace(const std::string& path);

// The bytes of a file that is written already are durable.
Status SyncFile(const std::string& path);

// Leaves the database in one synced file with nothing beside it. Nobody else has it open. An error: it may not be renamed yet.
Status SealDatabase(const std::string& path);

// A rebuilt index replaces the old one in three moves, the first of which decides: rebuilt.db → index.db.repaired, the old log goes,
// index.db.repaired → index.db. Whoever has the store's lock finishes what a crash left.
inline std::string RepairedIndex(const StorePaths& paths) { return paths.index() + ".repaired"; }
Status FinishRepair(const StorePaths& paths);

// A copy of one moment, also beside a living coordinator; of an older schema too, which it keeps. `to` must not exist.
Status CopyIndex(const std::string& from, const std::string& to);

// An index of an older schema, for whoever may not change it.
bool IsOlder(const std::string& path);
// A copy brought up to date, in a directory of its own that goes with the object: in the store's tmp/, or in $TMPDIR where that
// cannot be written. One that a dead process left in tmp/ is removed when a coordinator opens the store.
class UpgradedIndex {
 public:
  static Result<std::unique_ptr<UpgradedIndex>> Of(const StorePaths& paths);
  ~UpgradedIndex();
  UpgradedIndex(const UpgradedIndex&) = delete;
  std::string path() const { return directory_ + "/index.db"; }

 private:
  UpgradedIndex() = default;
  Status Make(const std::string& parent, const std::string& from);
  std::string directory_;
  UniqueFd lock_;
};

}  // namespace pare::storage
