// SQL of the tables, generated from their column lists (storage/row_columns.h): used by the index and by its examination.
#pragma once

#include <string>
#include <utility>

#include "storage/row_columns.h"
#include "storage/sqlite.h"

namespace pare::storage {

template <typename R, typename F>
void ForEachColumn(F&& f) {
  std::apply([&](const auto&... column) { (f(column), ...); }, Table<R>::kColumns);
}

template <typename R>
std::string ColumnList() {
  std::string list;
  ForEachColumn<R>([&](const auto& column) { (list += column.name) += ","; });
  return list + "checksum";
}

// "INSERT INTO jobs(…) VALUES(?,…) ON CONFLICT(id) DO UPDATE SET a=excluded.a, …": an update in place, which (unlike
// REPLACE) leaves rows that refer to this one alone.
template <typename R>
std::string UpsertSql() {
  std::string marks, keys, sets;
  size_t at = 0;
  ForEachColumn<R>([&](const auto& column) {
    std::string name(column.name);
    marks += at == 0 ? "?" : ",?";
    if (at < Table<R>::kKeyColumns) keys += (keys.empty() ? "" : ",") + name;
    else sets += (sets.empty() ? "" : ",") + name + "=excluded." + name;
    ++at;
  });
  marks += ",?";
  sets += (sets.empty() ? "" : ",") + std::string("checksum=excluded.checksum");
  return "INSERT INTO " + std::string(Table<R>::kName) + "(" + ColumnList<R>() + ") VALUES(" + marks + ") ON CONFLICT(" + keys + ") DO UPDATE SET " + sets;
}

// Every row that the clause selects: sink(row, problem) → Status. The problem, in words, is "" for a sound row. An error of the
// sink ends the walk. `unsummed`: rows of a migration, which have checksum 0.
template <typename R, bool unsummed = false, typename Sink, typename... Args>
Status ReadRows(Database& db, const char* clause, Sink&& sink, const Args&... args) {
  std::string table(Table<R>::kName);
  ASSIGN_OR_RETURN(Statement* query, db.Prepare("SELECT " + ColumnList<R>() + " FROM " + table + " " + clause));
  (query->Bind(args), ...);
  Statement::Outcome outcome;
  while ((outcome = query->Step()) == Statement::Outcome::kRow) {
    R row;
    int number = 0;
    query->ClearRow();
    query->set_bad("");
    ForEachColumn<R>([&](const auto& column) { query->Take(number++, row.*column.field); });
    std::string problem;
    if (!query->bad().empty()) {
      problem = "column " + query->bad() + " of a row of " + table + " does not parse";
    } else if (!unsummed && query->Number(number) != query->checksum()) {
      problem = "a row of " + table + " does not match its checksum";
    }
    Status status = sink(std::move(row), problem);
    if (!status.ok()) {
      query->Reset();
      return status;
    }
  }
  query->Reset();
  if (outcome != Statement::Outcome::kDone) return db.Fail("cannot read " + table);
  return Ok();
}

}  // namespace pare::storage
