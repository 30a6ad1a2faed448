// SQLite as the index needs it: connections, prepared statements, copies. sqlite.cc alone includes sqlite3.h. Belongs to one
// thread.
//
// Every row carries a checksum of its columns (Statement::checksum): SQLite notices damage of its own structures only, and a
// flipped bit in a name or a number must never be taken for a fact. 64 bits; any change of one word of a row changes it. 0
// stands for a row that was written before there were checksums.
//
// Errors, all with the path: kNoSpace when the disk is full, kCorrupt when the file is damaged, kConflict when another
// process keeps it locked, kInternal for rows that our own code must not write, kIo otherwise.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/digest.h"
#include "common/json.h"
#include "common/json_text.h"
#include "common/result.h"

struct sqlite3;
struct sqlite3_stmt;

namespace pare::storage {

// A prepared statement: binds arguments in order, reads columns in order. What is bound must live until Step.
class Statement {
 public:
  enum class Outcome { kRow, kDone, kFailed };

  explicit Statement(sqlite3_stmt* s) : s_(s) {}
  Statement(const Statement&) = delete;
  ~Statement();

  void Reset();
  Outcome Step();

  void Bind(int64_t v);
  void Bind(const std::string& v);
  void Bind(const Json& v);
  void Bind(const JsonText& v) { Bind(v.text()); }
  template <typename Tag>
  void Bind(const Id<Tag>& v) {
    v.is_none() ? BindNull() : BindBlob(v.bytes());
  }
  // Of everything bound since Reset, or of everything taken since ClearRow.
  int64_t checksum() const;

  void ClearRow() { hash_ = kEmpty; }
  void Take(int column, int64_t& v);
  void Take(int column, int& v);
  void Take(int column, bool& v);
  void Take(int column, std::string& v);
  void Take(int column, Json& v);
  void Take(int column, JsonText& v);
  template <typename Tag>
  void Take(int column, Id<Tag>& v) {
    std::array<uint8_t, 32> bytes;
    if (TakeBlob(column, bytes)) v = Id<Tag>(bytes);
  }
  int64_t Number(int column);  // without the checksum
  // The column that did not parse since the last Reset, or "".
  const std::string& bad() const { return bad_; }
  void set_bad(std::string column) { bad_ = std::move(column); }

 private:
  static constexpr uint64_t kEmpty = 0x9E3779B97F4A7C15u;
  void BindNull();
  void BindBlob(const std::array<uint8_t, 32>& bytes);
  bool TakeBlob(int column, std::array<uint8_t, 32>& bytes);  // false: NULL, or bad()
  std::string_view Text(int column);
  // Numbers and texts are never NULL. A page whose end is lost reads as zeros, that is, as rows of nothing but NULLs and a checksum of 0.
  void Expect(int column, int type);
  void Mix(uint64_t word);
  void MixBytes(std::string_view bytes);

  sqlite3_stmt* s_;
  int next_ = 1;
  std::array<std::string, 4> json_;
  size_t texts_ = 0;
  uint64_t hash_ = kEmpty;
  std::string bad_;
};

class Database {
 public:
  enum class Mode { kCreate, kWrite, kRead, kImmutable };  // kImmutable: nobody writes the file; takes no lock, no -shm file
  // `name`: a path, or ":memory:".
  static Result<std::unique_ptr<Database>> Open(const std::string& name, Mode mode);
  // For looking only, also where nothing can be written.
  static Result<std::unique_ptr<Database>> OpenForReading(const std::string& path);
  ~Database();
  Database(const Database&) = delete;

  const std::string& path() const { return path_; }
  bool read_only() const;
  // What SQLite says about the last failure.
  Error Fail(const std::string& what) const;
  // SQL of any number of statements.
  Status Run(const std::string& sql);
  // A statement that is kept and reset for its next use.
  Result<Statement*> Prepare(const std::string& sql);
  // One statement without a result.
  Status Do(const char* sql);
  void Rollback();
  // The one number that the query yields.
  Result<int64_t> Number(const std::string& sql);
  // The first column of every row, as text; "|"-joined columns for more.
  Result<std::vector<std::string>> Texts(const std::string& sql);
  // A copy of one moment, also while another process writes. `path` must not exist.
  Status CopyTo(const std::string& path);

 private:
  Database(sqlite3* db, std::string path) : db_(db), path_(std::move(path)) {}

  sqlite3* db_;
  std::string path_;
  std::map<std::string, std::unique_ptr<Statement>> statements_;
};

}  // namespace pare::storage
