// The schema of the index as a list of named migrations: number i takes a database from version i to i + 1. A released
// migration is never edited; a change of the schema is a new entry at the end, and kSchemaVersion (storage/index.h) is the
// length of the list. Each runs in one transaction. The version of a database is SQLite's user_version.
//
// That number is in the file's header, which no checksum covers. So every version from 5 on differs from all before it in its tables,
// their columns or its indexes (a migration that would not gets a table of its own): a number that contradicts them is damaged, and
// one beyond ours with tables that are not ours is that of a newer release. Rejected: the number a second time, in a table: whoever
// reads the tables knows it already, and the stores of earlier releases have no such table.
//
// Rejected: hexadecimal text for ids (twice the bytes in every key and index; `SELECT hex(key)` shows them as well).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "common/result.h"

namespace pare::storage {

class Database;

struct Migration {
  std::string_view name;
  std::string_view sql;
  bool sums_rows = false;  // afterwards every row without a checksum gets one
};
std::span<const Migration> Migrations();

// The versions whose tables, columns and indexes are exactly those of a database. None: both 0.
struct SchemaVersions {
  int oldest = 0, newest = 0;
  bool known() const { return oldest != 0; }
  bool has(int64_t version) const { return known() && oldest <= version && version <= newest; }
};
// Writes nothing. Errors: those of reading the schema.
Result<SchemaVersions> VersionsByTables(Database& db);

// "PARE": SQLite's application_id of an index, so that a database of something else is never taken for one.
inline constexpr int kApplicationId = 0x50415245;

}  // namespace pare::storage
