#include "storage/index.h"

#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <map>
#include <utility>

#include "common/files.h"
#include "storage/row_sql.h"
#include "storage/schema.h"

namespace pare::storage {
namespace {

using Outcome = Statement::Outcome;

template <typename R>
Status WriteRow(Database& db, const R& row) {
  static const std::string sql = UpsertSql<R>();
  ASSIGN_OR_RETURN(Statement* insert, db.Prepare(sql));
  ForEachColumn<R>([&](const auto& column) { insert->Bind(row.*column.field); });
  insert->Bind(insert->checksum());
  Status status = insert->Step() == Outcome::kDone ? Ok() : Status(db.Fail("cannot write " + std::string(Table<R>::kName)));
  insert->Reset();
  return status;
}

class SqliteIndex : public Index {
 public:
  explicit SqliteIndex(std::unique_ptr<Database> db) : db_(std::move(db)), path_(db_->path()) {}

  Status Commit(std::span<const Row> rows) override {
    if (rows.empty()) return Ok();
    if (db_->read_only()) return Error{ErrorCode::kConflict, "index " + path_ + " is open for reading only"};
    TRY(db_->Do("BEGIN IMMEDIATE"));
    Status status = Ok();
    for (const Row& row : rows) {
      status = std::visit([&](const auto& r) { return Write(r); }, row);
      if (!status.ok()) break;
    }
    if (status.ok()) status = db_->Do("COMMIT");
    if (!status.ok()) db_->Rollback();
    return status;
  }

  Result<StoredState> Load() override {
    StoredState state;
    // One transaction, so that a reader beside a coordinator sees one moment.
    TRY(db_->Do("BEGIN"));
    Status status = LoadTables(state);
    db_->Rollback();
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
  template <typename R>
  Status Write(const R& row) {
    return WriteRow(*db_, row);
  }

  // Version 0: the alias is removed.
  Status Write(const AliasRow& row) {
    if (row.version != 0) return Write<AliasRow>(row);
    ASSIGN_OR_RETURN(Statement* removal, db_->Prepare("DELETE FROM aliases WHERE model=? AND alias=?"));
    removal->Bind(row.model);
    removal->Bind(row.alias);
    Status status = removal->Step() == Outcome::kDone ? Ok() : Status(db_->Fail("cannot write aliases"));
    removal->Reset();
    return status;
  }

  template <typename R, typename... Args>
  Status Select(const char* clause, std::vector<R>& rows, const Args&... args) {
    return ReadRows<R>(*db_, clause, [&](R row, const std::string& bad) -> Status {
      if (!bad.empty()) return Error{ErrorCode::kCorrupt, "index " + path_ + ": " + bad + "; `pare fsck` tells what is damaged"};
      rows.push_back(std::move(row));
      return Ok();
    }, args...);
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
    TRY(Select("ORDER BY model, sequence", state.promotions));
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
    ASSIGN_OR_RETURN(Statement* query, db_->Prepare(sql));
    (query->Bind(args), ...);
    Outcome outcome = query->Step();
    int64_t last = outcome == Outcome::kRow ? query->Number(0) : 0;
    query->Reset();
    if (outcome != Outcome::kRow) return db_->Fail("cannot be read");
    return last;
  }

  std::unique_ptr<Database> db_;
  std::string path_;
};

// Writes nothing, so that a file of something else stays as it is. Tables that are exactly ours tell a damaged number in the header
// (kCorrupt) from a newer release and from another program.
Result<int> VersionOf(Database& db) {
  ASSIGN_OR_RETURN(int64_t application, db.Number("PRAGMA application_id"));
  ASSIGN_OR_RETURN(int64_t version, db.Number("PRAGMA user_version"));
  ASSIGN_OR_RETURN(int64_t tables, db.Number("SELECT count(*) FROM sqlite_schema"));
  if (application == 0 && version == 0 && tables == 0) return 0;
  if (application == kApplicationId && version == kSchemaVersion) return kSchemaVersion;
  ASSIGN_OR_RETURN(SchemaVersions known, VersionsByTables(db));
  if (known.known() && (application != kApplicationId || !known.has(version))) {
    std::string number = application != kApplicationId ? "application id " + std::to_string(application) : "schema version " + std::to_string(version);
    return Error{ErrorCode::kCorrupt, "index " + db.path() + ": the header of its file is damaged: " + number + " beside the tables of schema version " + std::to_string(known.newest)};
  }
  if (application != kApplicationId) {
    return Error{ErrorCode::kInvalid, db.path() + " is an SQLite database, but not the index of a Pare store; use another --store"};
  }
  if (version > kSchemaVersion) {
    return Error{ErrorCode::kVersion, db.path() + " has schema version " + std::to_string(version) + ", this release reads up to " +
                                          std::to_string(kSchemaVersion) + ": use the newer Pare that wrote it"};
  }
  if (version < 0 || (version == 0 && tables > 0)) return Error{ErrorCode::kCorrupt, "index " + db.path() + ": its schema version is lost"};
  return static_cast<int>(version);
}

// Rows that do not parse stay without a checksum, which is damage from then on.
template <typename R>
Status SumRows(Database& db) {
  std::vector<R> rows;
  TRY((ReadRows<R, true>(db, "WHERE checksum=0", [&](R row, const std::string& problem) -> Status {
    if (problem.empty()) rows.push_back(std::move(row));
    return Ok();
  })));
  for (const R& row : rows) TRY(WriteRow(db, row));
  return Ok();
}

template <typename... R>
Status SumRowsOf(Database& db, const std::variant<R...>*) {
  Status status = Ok();
  (void)((status = SumRows<R>(db), status.ok()) && ...);
  return status;
}

Status Apply(Database& db, const Migration& migration, int version) {
  TRY(db.Run("BEGIN IMMEDIATE;" + std::string(migration.sql)));
  if (migration.sums_rows) TRY(SumRowsOf(db, static_cast<const Row*>(nullptr)));
  return db.Run("PRAGMA application_id=" + std::to_string(kApplicationId) + ";PRAGMA user_version=" + std::to_string(version) + ";COMMIT;");
}

Status Migrate(Database& db, int from) {
  for (int version = from; version < kSchemaVersion; ++version) {
    const Migration& migration = Migrations()[static_cast<size_t>(version)];
    Status status = Apply(db, migration, version + 1);
    if (!status.ok()) {
      db.Rollback();
      return status.error().With("migration " + std::to_string(version + 1) + " (" + std::string(migration.name) + ")");
    }
  }
  return Ok();
}

constexpr const char* kInMemory = ":memory:";

// SQLite opens a file for reading only, too, if a damaged header names a format that it does not know.
Error CannotBeWritten(const std::string& path) {
  std::string directory = std::filesystem::absolute(path).parent_path().string();
  bool may = ::access(path.c_str(), W_OK) == 0 && ::access(directory.c_str(), W_OK) == 0;
  if (may) return Error{ErrorCode::kCorrupt, "index " + path + ": the header of its file is damaged: it cannot be written, though this user may"};
  return Error{ErrorCode::kIo, "index " + path + " cannot be written: make it writable for this user, or use another --store"};
}

Result<std::unique_ptr<Index>> OpenDatabase(const std::string& path) {
  ASSIGN_OR_RETURN(auto db, Database::Open(path, Database::Mode::kCreate));
  ASSIGN_OR_RETURN(int version, VersionOf(*db));
  if (db->read_only()) return CannotBeWritten(path);
  // Keys are hashes, so the rows of one transaction lie all over the file: a cache of the default 2 MB would read pages
  // again and again, and a checkpoint every 4 MB of log would write most of them one by one.
  for (const char* pragma : {"PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA foreign_keys=ON", "PRAGMA temp_store=MEMORY",
                             "PRAGMA cache_size=-4096", "PRAGMA wal_autocheckpoint=8192"}) {
    TRY(db->Run(pragma));
  }
  TRY(Migrate(*db, version));
  // SQLite makes the log's name durable itself, but says nothing when that fails, and a commit is in a log without a name. So is the
  // end of the journal with which a database without a log gets one.
  if (path != kInMemory) {
    ASSIGN_OR_RETURN([[maybe_unused]] int64_t now, db->Number("PRAGMA user_version"));  // the first look makes the log
    TRY(SyncDirectory(std::filesystem::absolute(path).parent_path().string()));
  }
  return std::unique_ptr<Index>(std::make_unique<SqliteIndex>(std::move(db)));
}

}  // namespace

Result<std::unique_ptr<Index>> Index::Open(const std::string& path) { return OpenDatabase(path); }

Result<std::unique_ptr<Index>> Index::OpenForReading(const std::string& path) {
  if (::access(path.c_str(), F_OK) != 0) return SystemError("cannot open " + path, errno);
  ASSIGN_OR_RETURN(auto db, Database::OpenForReading(path));
  ASSIGN_OR_RETURN(int version, VersionOf(*db));
  if (version == 0) return Error{ErrorCode::kNotFound, "index " + path + " is empty"};
  if (version < kSchemaVersion) {
    return Error{ErrorCode::kVersion, path + " has schema version " + std::to_string(version) + ", an older one than this release's " +
                                          std::to_string(kSchemaVersion) + ": start a coordinator on the store once, it converts it"};
  }
  return std::unique_ptr<Index>(std::make_unique<SqliteIndex>(std::move(db)));
}

Result<int> Index::SchemaOf(const std::string& path) {
  if (::access(path.c_str(), F_OK) != 0) return SystemError("cannot open " + path, errno);
  ASSIGN_OR_RETURN(auto db, Database::OpenForReading(path));
  return VersionOf(*db);
}

Result<std::unique_ptr<Index>> Index::OpenInMemory() { return OpenDatabase(kInMemory); }

}  // namespace pare::storage
