// The only file that includes sqlite3.h.
#include "storage/index.h"

#include <sqlite3.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <map>
#include <utility>

#include "storage/row_columns.h"
#include "storage/schema.h"

namespace pare::storage {
namespace {

ErrorCode CodeOf(sqlite3* db) {
  switch (sqlite3_errcode(db) & 0xff) {
    case SQLITE_FULL: return ErrorCode::kNoSpace;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB: return ErrorCode::kCorrupt;
    case SQLITE_BUSY:
    case SQLITE_LOCKED: return ErrorCode::kConflict;
    case SQLITE_CONSTRAINT:
    case SQLITE_MISMATCH: return ErrorCode::kInternal;  // rows that our own code must not write
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN: {
      int system = sqlite3_system_errno(db);
      return system == ENOSPC || system == EDQUOT ? ErrorCode::kNoSpace : ErrorCode::kIo;
    }
    default: return ErrorCode::kIo;
  }
}

// A prepared statement: binds arguments in order, reads columns in order. What is bound must live until Step.
class Statement {
 public:
  explicit Statement(sqlite3_stmt* s) : s_(s) {}
  Statement(const Statement&) = delete;
  ~Statement() { sqlite3_finalize(s_); }

  void Reset() {
    sqlite3_reset(s_);
    next_ = 1;
    texts_ = 0;
    bad_ = {};
  }
  int Step() { return sqlite3_step(s_); }

  void Bind(int64_t v) { sqlite3_bind_int64(s_, next_++, v); }
  void Bind(const std::string& v) { sqlite3_bind_text64(s_, next_++, v.data(), v.size(), SQLITE_STATIC, SQLITE_UTF8); }
  void Bind(const Json& v) {
    CHECK(texts_ < json_.size());
    Bind(json_[texts_++] = Canonical(v));
  }
  template <typename Tag>
  void Bind(const Id<Tag>& v) {
    if (v.is_none()) sqlite3_bind_null(s_, next_++);
    else sqlite3_bind_blob64(s_, next_++, v.bytes().data(), v.bytes().size(), SQLITE_STATIC);
  }

  void Take(int column, int64_t& v) { v = sqlite3_column_int64(s_, column); }
  void Take(int column, int& v) { v = sqlite3_column_int(s_, column); }
  void Take(int column, bool& v) { v = sqlite3_column_int(s_, column) != 0; }
  void Take(int column, std::string& v) { v = Text(column); }
  void Take(int column, Json& v) {
    auto parsed = ParseJson(Text(column), "stored JSON");
    if (parsed.ok()) v = *std::move(parsed);
    else bad_ = sqlite3_column_name(s_, column);
  }
  template <typename Tag>
  void Take(int column, Id<Tag>& v) {
    if (sqlite3_column_type(s_, column) == SQLITE_NULL) return;
    std::array<uint8_t, 32> bytes;
    const auto* data = static_cast<const uint8_t*>(sqlite3_column_blob(s_, column));
    if (sqlite3_column_bytes(s_, column) != 32) {
      bad_ = sqlite3_column_name(s_, column);
      return;
    }
    std::copy(data, data + 32, bytes.begin());
    v = Id<Tag>(bytes);
  }
  // The column that did not parse since the last Reset, or "".
  const std::string& bad() const { return bad_; }

 private:
  std::string_view Text(int column) {
    const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(s_, column));
    return text == nullptr ? std::string_view() : std::string_view(text, static_cast<size_t>(sqlite3_column_bytes(s_, column)));
  }

  sqlite3_stmt* s_;
  int next_ = 1;
  std::array<std::string, 4> json_;
  size_t texts_ = 0;
  std::string bad_;
};

template <typename R, typename F>
void ForEachColumn(F&& f) {
  std::apply([&](const auto&... column) { (f(column), ...); }, Table<R>::kColumns);
}

template <typename R>
std::string ColumnList() {
  std::string list;
  ForEachColumn<R>([&](const auto& column) { (list += list.empty() ? "" : ",") += column.name; });
  return list;
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
  return "INSERT INTO " + std::string(Table<R>::kName) + "(" + ColumnList<R>() + ") VALUES(" + marks + ") ON CONFLICT(" + keys + ") DO UPDATE SET " + sets;
}

class SqliteIndex : public Index {
 public:
  SqliteIndex(sqlite3* db, std::string path) : db_(db), path_(std::move(path)) {}
  ~SqliteIndex() override {
    statements_.clear();
    sqlite3_close(db_);
  }

  Error Fail(const std::string& what) { return Error{CodeOf(db_), "index " + path_ + ": " + what + ": " + sqlite3_errmsg(db_)}; }

  bool read_only() const { return sqlite3_db_readonly(db_, "main") == 1; }

  Status Run(const std::string& sql) {
    if (sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK) return Ok();
    return Fail(sql.substr(0, 40));
  }

  // The one number that the query yields.
  Result<int64_t> Number(const std::string& sql) {
    ASSIGN_OR_RETURN(Statement* query, Prepare(sql));
    int64_t number = 0;
    int code = query->Step();
    if (code == SQLITE_ROW) query->Take(0, number);
    query->Reset();
    if (code != SQLITE_ROW) return Fail("cannot be read");
    return number;
  }

  // The schema's version; 0 for a database without anything in it. Writes nothing, so that a file of something else stays
  // as it is.
  Result<int> Version() {
    ASSIGN_OR_RETURN(int64_t application, Number("PRAGMA application_id"));
    ASSIGN_OR_RETURN(int64_t version, Number("PRAGMA user_version"));
    ASSIGN_OR_RETURN(int64_t tables, Number("SELECT count(*) FROM sqlite_schema"));
    if (application == 0 && version == 0 && tables == 0) return 0;
    if (application != kApplicationId) {
      return Error{ErrorCode::kInvalid, path_ + " is an SQLite database, but not the index of a Pare store; use another --store"};
    }
    if (version > kSchemaVersion) {
      return Error{ErrorCode::kVersion, path_ + " has schema version " + std::to_string(version) + ", this release reads up to " +
                                            std::to_string(kSchemaVersion) + ": use the newer Pare that wrote it"};
    }
    return static_cast<int>(version);
  }

  Status Migrate(int from) {
    for (int version = from; version < kSchemaVersion; ++version) {
      const Migration& migration = Migrations()[static_cast<size_t>(version)];
      Status status = Run("BEGIN IMMEDIATE;" + std::string(migration.sql) + "PRAGMA application_id=" + std::to_string(kApplicationId) +
                          ";PRAGMA user_version=" + std::to_string(version + 1) + ";COMMIT;");
      if (!status.ok()) {
        Rollback();
        return status.error().With("migration " + std::to_string(version + 1) + " (" + std::string(migration.name) + ")");
      }
    }
    return Ok();
  }

  Status Commit(std::span<const Row> rows) override {
    if (rows.empty()) return Ok();
    if (read_only()) return Error{ErrorCode::kConflict, "index " + path_ + " is open for reading only"};
    TRY(Do("BEGIN IMMEDIATE"));
    Status status = Ok();
    for (const Row& row : rows) {
      status = std::visit([&](const auto& r) { return Write(r); }, row);
      if (!status.ok()) break;
    }
    if (status.ok()) status = Do("COMMIT");
    if (!status.ok()) Rollback();
    return status;
  }

  Result<StoredState> Load() override {
    StoredState state;
    // One transaction, so that a reader beside a coordinator sees one moment.
    TRY(Do("BEGIN"));
    Status status = LoadTables(state);
    Rollback();
    if (!status.ok()) return status.error();
    return state;
  }

  Result<std::vector<MetricRow>> Metrics(const StepKey& key, int64_t limit) override {
    std::vector<MetricRow> rows;
    TRY(Select("WHERE key=? ORDER BY lease_epoch DESC, sequence DESC LIMIT ?", rows, key, limit));
    return std::vector<MetricRow>(rows.rbegin(), rows.rend());
  }

  Result<std::vector<EventRow>> Events(std::string_view job, int64_t after, int64_t limit) override {
    std::vector<EventRow> rows;
    TRY(Select("WHERE job=? AND sequence>? ORDER BY sequence LIMIT ?", rows, std::string(job), after, limit));
    return rows;
  }

 private:
  Result<Statement*> Prepare(const std::string& sql) {
    auto it = statements_.find(sql);
    if (it == statements_.end()) {
      sqlite3_stmt* s = nullptr;
      if (sqlite3_prepare_v3(db_, sql.c_str(), -1, SQLITE_PREPARE_PERSISTENT, &s, nullptr) != SQLITE_OK) return Fail("cannot be read");
      it = statements_.emplace(sql, std::make_unique<Statement>(s)).first;
    }
    it->second->Reset();
    return it->second.get();
  }

  Status Do(const char* sql) {
    ASSIGN_OR_RETURN(Statement* statement, Prepare(sql));
    Status status = statement->Step() == SQLITE_DONE ? Ok() : Status(Fail(sql));
    statement->Reset();
    return status;
  }

  void Rollback() {
    // SQLite has rolled back by itself after some errors.
    if (sqlite3_get_autocommit(db_) == 0) sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
  }

  template <typename R>
  Status Write(const R& row) {
    static const std::string sql = UpsertSql<R>();
    ASSIGN_OR_RETURN(Statement* insert, Prepare(sql));
    ForEachColumn<R>([&](const auto& column) { insert->Bind(row.*column.field); });
    Status status = insert->Step() == SQLITE_DONE ? Ok() : Status(Fail("cannot write " + std::string(Table<R>::kName)));
    insert->Reset();
    return status;
  }

  // Version 0: the alias is removed.
  Status Write(const AliasRow& row) {
    if (row.version != 0) return Write<AliasRow>(row);
    ASSIGN_OR_RETURN(Statement* removal, Prepare("DELETE FROM aliases WHERE model=? AND alias=?"));
    removal->Bind(row.model);
    removal->Bind(row.alias);
    Status status = removal->Step() == SQLITE_DONE ? Ok() : Status(Fail("cannot write aliases"));
    removal->Reset();
    return status;
  }

  template <typename R, typename... Args>
  Status Select(const char* clause, std::vector<R>& rows, const Args&... args) {
    ASSIGN_OR_RETURN(Statement* query, Prepare("SELECT " + ColumnList<R>() + " FROM " + std::string(Table<R>::kName) + " " + clause));
    (query->Bind(args), ...);
    int code;
    while ((code = query->Step()) == SQLITE_ROW) {
      R row;
      int number = 0;
      ForEachColumn<R>([&](const auto& column) { query->Take(number++, row.*column.field); });
      rows.push_back(std::move(row));
    }
    std::string bad = query->bad();
    query->Reset();
    if (code != SQLITE_DONE) return Fail("cannot read " + std::string(Table<R>::kName));
    if (!bad.empty()) return Error{ErrorCode::kCorrupt, "index " + path_ + ": column " + bad + " of a row of " + std::string(Table<R>::kName) + " does not parse"};
    return Ok();
  }

  Status LoadTables(StoredState& state) {
    TRY(Select("ORDER BY number", state.jobs));
    TRY(Select("", state.steps));
    TRY(Select("ORDER BY job, ordinal", state.job_steps));
    TRY(Select("ORDER BY epoch", state.attempts));
    TRY(Select("", state.snapshots));
    TRY(Select("", state.artifacts));
    TRY(Select("ORDER BY model, version", state.versions));
    TRY(Select("", state.aliases));
    for (const JobRow& job : state.jobs) {
      ASSIGN_OR_RETURN(int64_t last, Last("SELECT max(sequence) FROM events WHERE job=?", job.id));
      if (last > 0) state.last_event[job.id] = last;
    }
    for (const AttemptRow& attempt : state.attempts) {
      if (attempt.outcome != "running") continue;
      ASSIGN_OR_RETURN(int64_t last, Last("SELECT max(sequence) FROM metrics WHERE key=? AND lease_epoch=?", attempt.key, attempt.epoch));
      if (last > 0) state.last_point[attempt.key] = last;
    }
    return Ok();
  }

  // The newest number; 0 if there is none.
  template <typename... Args>
  Result<int64_t> Last(const char* sql, const Args&... args) {
    ASSIGN_OR_RETURN(Statement* query, Prepare(sql));
    (query->Bind(args), ...);
    int64_t last = 0;
    int code = query->Step();
    if (code == SQLITE_ROW) query->Take(0, last);
    query->Reset();
    if (code != SQLITE_ROW) return Fail("cannot be read");
    return last;
  }

  sqlite3* db_;
  std::string path_;
  std::map<std::string, std::unique_ptr<Statement>> statements_;
};

Result<std::unique_ptr<SqliteIndex>> Connect(const std::string& name, const std::string& path, int flags) {
  sqlite3* db = nullptr;
  int code = sqlite3_open_v2(name.c_str(), &db, flags | SQLITE_OPEN_NOMUTEX, nullptr);
  auto index = std::make_unique<SqliteIndex>(db, path);
  if (code != SQLITE_OK) return index->Fail("cannot be opened");
  sqlite3_extended_result_codes(db, 1);
  sqlite3_busy_timeout(db, 2000);
  return index;
}

Result<std::unique_ptr<Index>> OpenDatabase(const std::string& path) {
  ASSIGN_OR_RETURN(auto index, Connect(path, path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE));
  ASSIGN_OR_RETURN(int version, index->Version());
  if (index->read_only()) return Error{ErrorCode::kIo, "index " + path + " cannot be written: make it writable for this user, or use another --store"};
  for (const char* pragma : {"PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA foreign_keys=ON", "PRAGMA temp_store=MEMORY"}) {
    TRY(index->Run(pragma));
  }
  TRY(index->Migrate(version));
  return std::unique_ptr<Index>(std::move(index));
}

// A path as an SQLite URI that says that nobody writes the file, so that no lock and no -shm file is needed.
std::string ImmutableUri(const std::string& path) {
  std::string uri = "file:";
  for (char c : path) {
    if (c == '?' || c == '#' || c == '%') {
      static constexpr char kDigits[] = "0123456789ABCDEF";
      uri += {'%', kDigits[c >> 4 & 15], kDigits[c & 15]};
    } else {
      uri += c;
    }
  }
  return uri + "?immutable=1";
}

}  // namespace

Result<std::unique_ptr<Index>> Index::Open(const std::string& path) { return OpenDatabase(path); }

Result<std::unique_ptr<Index>> Index::OpenForReading(const std::string& path) {
  if (::access(path.c_str(), F_OK) != 0) return SystemError("cannot open " + path, errno);
  // A log beside the file holds transactions that the file alone lacks; without one, and where nothing can be created
  // beside it, the file is all there is and nobody can change it.
  std::string directory = path.substr(0, path.find_last_of('/') + 1);
  bool still = ::access((path + "-wal").c_str(), F_OK) != 0 && ::access(directory.empty() ? "." : directory.c_str(), W_OK) != 0;
  ASSIGN_OR_RETURN(auto index, still ? Connect(ImmutableUri(path), path, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI)
                                     : Connect(path, path, SQLITE_OPEN_READONLY));
  ASSIGN_OR_RETURN(int version, index->Version());
  if (version == 0) return Error{ErrorCode::kNotFound, "index " + path + " is empty"};
  if (version < kSchemaVersion) {
    return Error{ErrorCode::kVersion, path + " has schema version " + std::to_string(version) + ", an older one than this release's " +
                                          std::to_string(kSchemaVersion) + ": start a coordinator on the store once, it converts it"};
  }
  return std::unique_ptr<Index>(std::move(index));
}

Result<std::unique_ptr<Index>> Index::OpenInMemory() { return OpenDatabase(":memory:"); }

}  // namespace pare::storage
