// The only file that includes sqlite3.h.
#include "storage/index.h"

#include <sqlite3.h>

#include <map>

#include "storage/schema.h"

namespace pare::storage {
namespace {

Error SqliteError(sqlite3* db, const std::string& what) {
  int code = sqlite3_errcode(db) & 0xff;
  ErrorCode kind = code == SQLITE_FULL ? ErrorCode::kNoSpace
                   : code == SQLITE_CORRUPT || code == SQLITE_NOTADB ? ErrorCode::kCorrupt
                   : code == SQLITE_BUSY || code == SQLITE_LOCKED ? ErrorCode::kConflict : ErrorCode::kIo;
  return Error{kind, what + ": " + sqlite3_errmsg(db)};
}

// A prepared statement: binds arguments in order, reads columns in order.
class Statement {
 public:
  explicit Statement(sqlite3_stmt* s) : s_(s) {}
  Statement(const Statement&) = delete;
  ~Statement() { sqlite3_finalize(s_); }

  void Reset() { sqlite3_reset(s_); at_ = 1; }
  void Bind(int64_t v) { sqlite3_bind_int64(s_, at_++, v); }
  void Bind(const std::string& v) { sqlite3_bind_text(s_, at_++, v.data(), static_cast<int>(v.size()), SQLITE_TRANSIENT); }
  void Bind(const Json& v) { Bind(Canonical(v)); }
  template <typename Tag>
  void Bind(const Id<Tag>& v) { Bind(v.is_none() ? std::string() : v.hex()); }
  int Step() { return sqlite3_step(s_); }

  void Take(int column, int64_t& v) { v = sqlite3_column_int64(s_, column); }
  void Take(int column, int& v) { v = sqlite3_column_int(s_, column); }
  void Take(int column, bool& v) { v = sqlite3_column_int(s_, column) != 0; }
  void Take(int column, std::string& v) {
    const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(s_, column));
    v.assign(text == nullptr ? "" : text, static_cast<size_t>(sqlite3_column_bytes(s_, column)));
  }
  void Take(int column, Json& v) {
    std::string text;
    Take(column, text);
    auto parsed = ParseJson(text, "stored JSON");
    bad_ = bad_ || !parsed.ok();
    if (parsed.ok()) v = *std::move(parsed);
  }
  template <typename Tag>
  void Take(int column, Id<Tag>& v) {
    std::string text;
    Take(column, text);
    if (text.empty()) return;
    auto parsed = Id<Tag>::FromHex(text);
    bad_ = bad_ || !parsed.ok();
    if (parsed.ok()) v = *parsed;
  }
  bool bad() const { return bad_; }

 private:
  sqlite3_stmt* s_;
  int at_ = 1;
  bool bad_ = false;
};

// Table, columns and members of every row type, once: inserts and selects are derived from it.
template <typename Row>
struct Table;
#define PARE_TABLE(ROW, NAME, COLUMNS, ...)                                                  \
  template <>                                                                                \
  struct Table<ROW> {                                                                        \
    static constexpr const char* name = NAME;                                                \
    static constexpr const char* columns = COLUMNS;                                          \
    template <typename R, typename F>                                                        \
    static void Each(R& r, F&& f) { [&](auto&... m) { (f(m), ...); }(__VA_ARGS__); }         \
  }
PARE_TABLE(JobRow, "jobs", "id,name,user,state,created_ms,finished_ms,recipe_text,recipe_digest,resolved,message,priority", r.id, r.name,
           r.user, r.state, r.created_ms, r.finished_ms, r.recipe_text, r.recipe_digest, r.resolved, r.message, r.priority);
PARE_TABLE(StepRow, "steps", "key,kind,spec,state,attempts,artifact,error_class,message", r.key, r.kind, r.spec, r.state, r.attempts,
           r.artifact, r.error_class, r.message);
PARE_TABLE(JobStepRow, "job_steps", "job,name,ordinal,variant,key,reused,wanted", r.job, r.name, r.ordinal, r.variant, r.key, r.reused,
           r.wanted);
PARE_TABLE(AttemptRow, "attempts", "key,epoch,attempt,worker,started_ms,ended_ms,busy_ms,outcome,error_class,message", r.key, r.epoch,
           r.attempt, r.worker, r.started_ms, r.ended_ms, r.busy_ms, r.outcome, r.error_class, r.message);
PARE_TABLE(MetricRow, "metrics", "key,lease_epoch,sequence,at_ms,\"values\"", r.key, r.lease_epoch, r.sequence, r.at_ms, r.values);
PARE_TABLE(SnapshotRow, "snapshots", "key,blob,at_ms,position", r.key, r.blob, r.at_ms, r.position);
PARE_TABLE(ArtifactRow, "artifacts", "digest,key,manifest,bytes,created_ms", r.digest, r.key, r.manifest, r.bytes, r.created_ms);
PARE_TABLE(VersionRow, "versions", "model,version,artifact,job,step,created_ms,evidence", r.model, r.version, r.artifact, r.job, r.step,
           r.created_ms, r.evidence);
PARE_TABLE(AliasRow, "aliases", "model,alias,version", r.model, r.alias, r.version);
PARE_TABLE(EventRow, "events", "job,sequence,at_ms,level,step,text", r.job, r.sequence, r.at_ms, r.level, r.step, r.text);
#undef PARE_TABLE

// "INSERT INTO jobs(…) VALUES(?,…) ON CONFLICT DO UPDATE SET a=excluded.a, …": an update in place, which (unlike REPLACE)
// leaves rows that refer to this one alone.
std::string UpsertSql(const std::string& table, const std::string& columns) {
  std::string marks, sets;
  for (size_t at = 0; at <= columns.size();) {
    size_t end = std::min(columns.find(',', at), columns.size());
    std::string column = columns.substr(at, end - at);
    marks += marks.empty() ? "?" : ",?";
    sets += (sets.empty() ? "" : ",") + column + "=excluded." + column;
    at = end + 1;
  }
  return "INSERT INTO " + table + "(" + columns + ") VALUES(" + marks + ") ON CONFLICT DO UPDATE SET " + sets;
}

class SqliteIndex : public Index {
 public:
  explicit SqliteIndex(sqlite3* db) : db_(db) {}
  ~SqliteIndex() override {
    statements_.clear();
    sqlite3_close(db_);
  }

  Status Run(const std::string& sql) {
    if (sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK) return Ok();
    return SqliteError(db_, "index: " + sql.substr(0, 40));
  }

  Status Migrate() {
    ASSIGN_OR_RETURN(Statement* query, Prepare("PRAGMA user_version"));
    if (query->Step() != SQLITE_ROW) return SqliteError(db_, "index: cannot read the schema version");
    int version = 0;
    query->Take(0, version);
    query->Reset();
    if (version > kSchemaVersion) {
      return Error{ErrorCode::kVersion, "the store's index has schema version " + std::to_string(version) + ", this release reads up to " +
                                            std::to_string(kSchemaVersion) + ": use a newer Pare with this store"};
    }
    for (const Migration& migration : Migrations()) {
      if (migration.version <= version) continue;
      Status status = Run("BEGIN IMMEDIATE;" + std::string(migration.sql) + "PRAGMA user_version=" + std::to_string(migration.version) + ";COMMIT;");
      if (!status.ok()) {
        (void)Run("ROLLBACK");
        return status.error().With("migration '" + std::string(migration.name) + "'");
      }
    }
    return Ok();
  }

  Status Commit(std::span<const Row> rows) override {
    if (rows.empty()) return Ok();
    TRY(Run("BEGIN IMMEDIATE"));
    Status status = Ok();
    for (const Row& row : rows) {
      status = std::visit([&](const auto& r) { return Write(r); }, row);
      if (!status.ok()) break;
    }
    if (status.ok()) status = Run("COMMIT");
    if (!status.ok() && sqlite3_get_autocommit(db_) == 0) sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
    return status;
  }

  Result<StoredState> Load() override {
    StoredState state;
    TRY(Select("ORDER BY rowid", state.jobs));
    TRY(Select("", state.steps));
    TRY(Select("ORDER BY job, ordinal", state.job_steps));
    TRY(Select("ORDER BY epoch", state.attempts));
    TRY(Select("", state.snapshots));
    TRY(Select("", state.artifacts));
    TRY(Select("ORDER BY model, version", state.versions));
    TRY(Select("", state.aliases));
    ASSIGN_OR_RETURN(Statement* query, Prepare("SELECT job, max(sequence) FROM events GROUP BY job"));
    while (query->Step() == SQLITE_ROW) {
      std::string job;
      query->Take(0, job);
      query->Take(1, state.last_event[job]);
    }
    query->Reset();
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
      if (sqlite3_prepare_v2(db_, sql.c_str(), -1, &s, nullptr) != SQLITE_OK) return SqliteError(db_, "index: " + sql.substr(0, 60));
      it = statements_.emplace(sql, std::make_unique<Statement>(s)).first;
    }
    it->second->Reset();
    return it->second.get();
  }

  template <typename R>
  Status Write(const R& row) {
    static const std::string sql = UpsertSql(Table<R>::name, Table<R>::columns);
    ASSIGN_OR_RETURN(Statement* insert, Prepare(sql));
    Table<R>::Each(row, [&](const auto& member) { insert->Bind(member); });
    int code = insert->Step();
    Status status = code == SQLITE_DONE ? Ok() : Status(SqliteError(db_, std::string("index: cannot write ") + Table<R>::name));
    insert->Reset();
    return status;
  }

  template <typename R, typename... Args>
  Status Select(const char* clause, std::vector<R>& rows, const Args&... args) {
    ASSIGN_OR_RETURN(Statement* query, Prepare(std::string("SELECT ") + Table<R>::columns + " FROM " + Table<R>::name + " " + clause));
    (query->Bind(args), ...);
    int code;
    while ((code = query->Step()) == SQLITE_ROW) {
      R row;
      int column = 0;
      Table<R>::Each(row, [&](auto& member) { query->Take(column++, member); });
      rows.push_back(std::move(row));
    }
    bool bad = query->bad();
    query->Reset();
    if (code != SQLITE_DONE) return SqliteError(db_, std::string("index: cannot read ") + Table<R>::name);
    if (bad) return Error{ErrorCode::kCorrupt, std::string("index: a row of ") + Table<R>::name + " does not parse"};
    return Ok();
  }

  sqlite3* db_;
  std::map<std::string, std::unique_ptr<Statement>> statements_;
};

Result<std::unique_ptr<Index>> OpenDatabase(const std::string& path) {
  sqlite3* db = nullptr;
  int code = sqlite3_open_v2(path.c_str(), &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  auto index = std::make_unique<SqliteIndex>(db);
  if (code != SQLITE_OK) return SqliteError(db, "cannot open " + path);
  sqlite3_extended_result_codes(db, 1);
  sqlite3_busy_timeout(db, 2000);
  for (const char* pragma : {"PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA foreign_keys=ON", "PRAGMA temp_store=MEMORY"}) {
    Status status = index->Run(pragma);
    if (!status.ok()) return status.error().With(path);
  }
  Status status = index->Migrate();
  if (!status.ok()) return status.error().With(path);
  return std::unique_ptr<Index>(std::move(index));
}

}  // namespace

Result<std::unique_ptr<Index>> Index::Open(const std::string& path) { return OpenDatabase(path); }
Result<std::unique_ptr<Index>> Index::OpenInMemory() { return OpenDatabase(":memory:"); }

}  // namespace pare::storage
