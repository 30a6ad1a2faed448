// An index as an earlier release would have written it (the same rows in that release's tables), and as a newer one would.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "storage/index.h"
#include "storage/sqlite.h"
#include "tests/storage/files.h"

namespace pare::storage {

// REQUIRES: nobody has it open.
inline void MakeOlder(const std::string& index, int version) {
  std::string older = index + ".older", sql = ReadBytes(PARE_SOURCE_DIR "/tests/storage/golden/index_v" + std::to_string(version) + ".sql");
  CHECK(!sql.empty());
  {
    auto created = std::move(Database::Open(older, Database::Mode::kCreate)).value();
    CHECK(created->Run(sql).ok());
  }
  {
    auto db = std::move(Database::Open(index, Database::Mode::kWrite)).value();
    CHECK(db->Run("PRAGMA foreign_keys=OFF; ATTACH '" + older + "' AS older").ok());
    auto columns = [&](const std::string& schema, const std::string& table) {
      std::vector<std::string> names;
      auto lines = db->Texts("PRAGMA " + schema + ".table_info(" + table + ")");
      for (const std::string& line : *lines) {  // number|name|type|…
        size_t begin = line.find('|') + 1;
        names.push_back(line.substr(begin, line.find('|', begin) - begin));
      }
      return names;
    };
    auto tables = db->Texts("SELECT name FROM older.sqlite_schema WHERE type='table' AND name NOT LIKE 'sqlite_%'");
    for (const std::string& table : *tables) {
      std::vector<std::string> now = columns("main", table);
      std::string list;
      for (const std::string& name : columns("older", table)) {
        CHECK(std::find(now.begin(), now.end(), name) != now.end());
        list += (list.empty() ? "" : ",") + name;
      }
      CHECK(!list.empty());
      Status status = db->Run("DELETE FROM older." + table + "; INSERT INTO older." + table + "(" + list + ") SELECT " + list + " FROM main." + table);
      if (!status.ok()) ADD_FAILURE() << status.error().message;
    }
  }
  for (const char* suffix : {"-wal", "-shm"}) std::filesystem::remove(index + suffix);
  std::filesystem::rename(older, index);
}

// REQUIRES: nobody has it open.
inline void MakeNewer(const std::string& index) {
  auto db = std::move(Database::Open(index, Database::Mode::kWrite)).value();
  CHECK(db->Run("CREATE TABLE added_later(x); PRAGMA user_version=" + std::to_string(kSchemaVersion + 1)).ok());
}

}  // namespace pare::storage
