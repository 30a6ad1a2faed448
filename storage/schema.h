// The schema of the index as a list of named migrations: number i takes a database from version i to i + 1. A released
// migration is never edited; a change of the schema is a new entry at the end, and kSchemaVersion (storage/index.h) is the
// length of the list. Each runs in one transaction. The version of a database is SQLite's user_version.
//
// Rejected: hexadecimal text for ids (twice the bytes in every key and index; `SELECT hex(key)` shows them as well).
#pragma once

#include <span>
#include <string_view>

namespace pare::storage {

struct Migration {
  std::string_view name;
  std::string_view sql;
  bool sums_rows = false;  // afterwards every row without a checksum gets one
};
std::span<const Migration> Migrations();

// "PARE": SQLite's application_id of an index, so that a database of something else is never taken for one.
inline constexpr int kApplicationId = 0x50415245;

}  // namespace pare::storage
