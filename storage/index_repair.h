// Examination of an index that may be damaged anywhere, and what can be read of it. Opens the file itself: nothing else of the
// process needs to have it open. Thread-compatible.
//
// Salvage reads every table row by row from both ends, on a copy. A damaged first page is replaced by that of a new index: its
// tables begin on the same pages, because all of them are created before any row is written.
#pragma once

#include <string>
#include <vector>

#include "storage/index.h"

namespace pare::storage {

// What is wrong with the index, in words; empty: nothing. Structure, references, and every row of every table.
std::vector<std::string> CheckIndex(const std::string& path);

struct SalvagedIndex {
  std::vector<Row> rows;              // sound ones, in no order that matters
  std::vector<std::string> problems;  // what could not be read
  bool versions_damaged = false;      // the registry is among that
};
// `scratch`: a directory for the copy; what it puts there stays there. An index that is not there gives a problem and no rows.
Result<SalvagedIndex> SalvageIndex(const std::string& path, const std::string& scratch);

// An error for a database that is whole but not ours to repair: of a newer release (kVersion), of something else (kInvalid). One that
// only says so while its tables are ours has a damaged header.
Status RefuseForeign(const std::string& path, const std::string& scratch);

// A copy of one moment, also beside a living coordinator. `to` must not exist.
Status CopyIndex(const std::string& from, const std::string& to);

}  // namespace pare::storage
