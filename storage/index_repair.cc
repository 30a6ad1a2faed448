#include "storage/index_repair.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <set>

#include "common/files.h"
#include "storage/index_header.h"
#include "storage/index_log.h"
#include "storage/row_sql.h"
#include "storage/schema.h"

namespace pare::storage {
namespace {

namespace fs = std::filesystem;

constexpr size_t kPageBytes = 4096;

// Every table, in an order in which rows refer to earlier ones only (steps and artifacts refer to each other).
template <typename F>
void ForEachTable(F&& f) {
  f(JobRow());
  f(StepRow());
  f(ArtifactRow());
  f(JobStepRow());
  f(AttemptRow());
  f(MetricRow());
  f(SnapshotRow());
  f(VersionRow());
  f(AliasRow());
  f(PromotionRow());
  f(EventRow());
}

template <typename R>
std::string OrderDown() {
  std::string order;
  size_t at = 0;
  ForEachColumn<R>([&](const auto& column) {
    if (at++ < Table<R>::kKeyColumns) order += (order.empty() ? "ORDER BY " : ", ") + std::string(column.name) + " DESC";
  });
  return order;
}

// Rows that read well, from one end.
template <typename R>
Status ReadSound(Database& db, const std::string& clause, std::vector<R>& rows, std::vector<std::string>& problems) {
  return ReadRows<R>(db, clause.c_str(), [&](R row, const std::string& problem) {
    if (problem.empty()) rows.push_back(std::move(row));
    else problems.push_back(problem);
    return Ok();
  });
}

template <typename R>
std::string KeyTextOf(const R& row) {
  Json key = Json::array();
  size_t at = 0;
  ForEachColumn<R>([&](const auto& column) {
    if (at++ >= Table<R>::kKeyColumns) return;
    if constexpr (requires { (row.*column.field).hex(); }) key.push_back((row.*column.field).hex());
    else if constexpr (requires { (row.*column.field).Tree(); }) key.push_back((row.*column.field).Tree());
    else key.push_back(row.*column.field);
  });
  return Canonical(key);
}

template <typename R>
void SalvageTable(Database& db, SalvagedIndex& salvaged) {
  std::vector<R> rows;
  std::vector<std::string> problems;
  Status status = ReadSound(db, "", rows, problems);
  if (!status.ok()) {
    problems.push_back(status.error().message);
    std::set<std::string> have;
    for (const R& row : rows) have.insert(KeyTextOf(row));
    std::vector<R> others;
    std::vector<std::string> again;
    (void)ReadSound(db, OrderDown<R>(), others, again);
    for (R& row : others) {
      if (have.insert(KeyTextOf(row)).second) rows.push_back(std::move(row));
    }
  }
  if (!problems.empty()) salvaged.tables.emplace_back(Table<R>::kName);
  if ((std::is_same_v<R, VersionRow> || std::is_same_v<R, AliasRow>) && !problems.empty()) salvaged.versions_damaged = true;
  for (R& row : rows) salvaged.rows.push_back(std::move(row));
  for (std::string& problem : problems) salvaged.problems.push_back(std::move(problem));
}

// The copy with the first page of a new index, if that can help.
Status ReplaceFirstPage(const std::string& path, const std::string& scratch) {
  std::string fresh = scratch + "/new.db";
  fs::remove(fresh);
  {
    ASSIGN_OR_RETURN(auto created, Index::Open(fresh));
  }
  ASSIGN_OR_RETURN(std::string first, ReadFile(fresh));
  ASSIGN_OR_RETURN(std::string bytes, ReadFile(path));
  if (bytes.size() < first.size()) return Error{ErrorCode::kCorrupt, "index " + path + " is shorter than an empty one"};
  bytes.replace(0, kPageBytes, first, 0, kPageBytes);
  auto pages = static_cast<uint32_t>(bytes.size() / kPageBytes);
  auto put = [&bytes](size_t at, uint32_t value) {
    for (size_t i = 0; i < 4; ++i) bytes[at + i] = static_cast<char>(value >> (24 - 8 * i));
  };
  // "The SQLite Database File Format", section 1.3: size in pages, no free pages, and that the size is valid.
  put(28, pages);
  put(32, 0);
  put(36, 0);
  std::memcpy(bytes.data() + 92, bytes.data() + 24, 4);
  return WriteFileDurably(path, bytes);
}

// The two numbers of the header that say whose the tables are, and which: by the tables. Of two versions with these tables the older
// one is taken: its migration changes nothing in an index of the newer one.
Status MendNumbers(const std::string& path) {
  ASSIGN_OR_RETURN(auto db, Database::Open(path, Database::Mode::kWrite));
  ASSIGN_OR_RETURN(SchemaVersions known, VersionsByTables(*db));
  if (!known.known()) return Ok();
  ASSIGN_OR_RETURN(int64_t version, db->Number("PRAGMA user_version"));
  if (!known.has(version)) TRY(db->Run("PRAGMA user_version=" + std::to_string(known.oldest)));
  ASSIGN_OR_RETURN(int64_t application, db->Number("PRAGMA application_id"));
  if (application != kApplicationId) TRY(db->Run("PRAGMA application_id=" + std::to_string(kApplicationId)));
  return Ok();
}

Result<std::unique_ptr<Database>> OpenForSalvage(const std::string& path) {
  TRY(MendNumbers(path));
  {  // recovers the log, and brings an older schema up to date
    ASSIGN_OR_RETURN(auto index, Index::Open(path));
  }
  return Database::Open(path, Database::Mode::kWrite);
}

}  // namespace

std::vector<std::string> CheckIndex(const std::string& path) {
  std::vector<std::string> problems;
  if (std::string problem = ProblemOfHeader(path); !problem.empty()) problems.push_back("index " + path + ": " + problem);
  auto add = [&](const Error& error) { problems.push_back(error.message); };
  auto reading = Index::OpenForReading(path);
  bool other = !reading.ok() && reading.error().code == ErrorCode::kVersion;
  if (!reading.ok() && !other) return problems.push_back(reading.error().message), problems;
  auto db = Database::OpenForReading(path);
  if (!db.ok()) return problems.push_back(db.error().message), problems;
  auto integrity = (*db)->Texts("PRAGMA integrity_check(100)");
  if (!integrity.ok()) add(integrity.error());
  else if (*integrity != std::vector<std::string>{"ok"}) problems.insert(problems.end(), integrity->begin(), integrity->end());
  auto references = (*db)->Texts("PRAGMA foreign_key_check");
  if (!references.ok()) add(references.error());
  else for (const std::string& line : *references) problems.push_back("a row refers to one that does not exist: " + line);
  if (other) return problems;  // its rows are not ours to read
  ForEachTable([&](auto empty) {
    using R = decltype(empty);
    std::vector<std::string> bad;
    Status status = ReadRows<R>(**db, "", [&](R, const std::string& problem) {
      if (!problem.empty()) bad.push_back(problem);
      return Ok();
    });
    problems.insert(problems.end(), bad.begin(), bad.end());
    if (!status.ok()) add(status.error());
  });
  return problems;
}

Result<SalvagedIndex> SalvageIndex(const std::string& path, const std::string& scratch) {
  SalvagedIndex salvaged;
  std::error_code code;
  if (!fs::exists(path, code)) {
    salvaged.problems.push_back("index " + path + " is not there");
    salvaged.versions_damaged = true;
    ForEachTable([&](auto empty) { salvaged.tables.emplace_back(Table<decltype(empty)>::kName); });
    return salvaged;
  }
  TRY(MakeDirectories(scratch));
  std::string copy = scratch + "/salvage.db";
  auto refresh = [&]() -> Status {
    for (const char* suffix : {"", "-wal", "-shm"}) fs::remove(copy + suffix, code);
    for (const char* suffix : {"", "-wal"}) {
      if (!fs::exists(path + suffix, code)) continue;
      fs::copy_file(path + suffix, copy + suffix, code);
      if (code) return SystemError("cannot copy " + path + suffix, code.value());
    }
    TRY(MendHeader(copy));
    return MendLog(copy);
  };
  TRY(refresh());
  if (auto reading = Index::OpenForReading(copy); !reading.ok() && reading.error().code == ErrorCode::kNotFound) {
    salvaged.problems.push_back("index " + path + " is empty");
    salvaged.versions_damaged = true;
    ForEachTable([&](auto empty) { salvaged.tables.emplace_back(Table<decltype(empty)>::kName); });
    return salvaged;
  }
  auto db = OpenForSalvage(copy);
  if (!db.ok()) {
    salvaged.problems.push_back(db.error().message);
    TRY(refresh());
    if (Status replaced = ReplaceFirstPage(copy, scratch); replaced.ok()) db = OpenForSalvage(copy);
  }
  if (!db.ok()) {
    salvaged.versions_damaged = true;
    ForEachTable([&](auto empty) { salvaged.tables.emplace_back(Table<decltype(empty)>::kName); });
    return salvaged;
  }
  ForEachTable([&](auto empty) { SalvageTable<decltype(empty)>(**db, salvaged); });
  return salvaged;
}

Status RefuseForeign(const std::string& path) {
  auto version = Index::SchemaOf(path);
  bool foreign = !version.ok() && (version.error().code == ErrorCode::kVersion || version.error().code == ErrorCode::kInvalid);
  return foreign ? Status(version.error()) : Ok();
}

Result<StoredState> LoadWithoutTrace(const std::string& path) {
  std::error_code code;
  std::string scratch = fs::temp_directory_path(code).string() + "/pare-XXXXXX";
  if (::mkdtemp(scratch.data()) == nullptr) return SystemError("cannot make a directory " + scratch, errno);
  std::string copy = scratch + "/index.db";
  auto load = [&]() -> Result<StoredState> {
    for (const char* suffix : {"", "-wal"}) {
      if (suffix[0] != 0 && !fs::exists(path + suffix, code)) continue;
      fs::copy_file(path + suffix, copy + suffix, code);
      if (code) return SystemError("cannot copy " + path + suffix + " to " + scratch, code.value());
    }
    if (auto reading = Index::OpenForReading(copy); !reading.ok() && reading.error().code != ErrorCode::kVersion) return reading.error();
    ASSIGN_OR_RETURN(auto index, Index::Open(copy));
    return index->Load();
  };
  Result<StoredState> state = load();
  fs::remove_all(scratch, code);
  if (state.ok()) return state;
  Error error = state.error();  // about the index, not about its copy
  for (size_t at; (at = error.message.find(copy)) != std::string::npos;) error.message.replace(at, copy.size(), path);
  return error;
}

Status SyncFile(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  return fd.valid() && ::fsync(fd.get()) == 0 ? Ok() : Status(SystemError("cannot sync " + path, errno));
}

Status SealDatabase(const std::string& path) {
  {
    ASSIGN_OR_RETURN(auto db, Database::Open(path, Database::Mode::kWrite));
    ASSIGN_OR_RETURN(std::vector<std::string> mode, db->Texts("PRAGMA journal_mode=DELETE"));
    if (mode != std::vector<std::string>{"delete"}) return Error{ErrorCode::kIo, "index " + path + ": its log cannot be folded into it"};
  }
  std::error_code code;
  for (const char* suffix : {"-wal", "-journal"}) {
    if (fs::exists(path + suffix, code)) return Error{ErrorCode::kIo, "index " + path + ": " + path + suffix + " is left beside it"};
  }
  return SyncFile(path);
}

Status FinishRepair(const StorePaths& paths) {
  if (::access(RepairedIndex(paths).c_str(), F_OK) != 0) return Ok();
  for (const char* suffix : {"-wal", "-shm"}) ::unlink((paths.index() + suffix).c_str());
  TRY(SyncDirectory(paths.root));  // the old log must not meet a database that it does not belong to
  if (::rename(RepairedIndex(paths).c_str(), paths.index().c_str()) != 0) return SystemError("cannot put the rebuilt index into its place", errno);
  return SyncDirectory(paths.root);
}

Status CopyIndex(const std::string& from, const std::string& to) {
  ASSIGN_OR_RETURN(int version, Index::SchemaOf(from));
  if (version == 0) return Error{ErrorCode::kNotFound, "index " + from + " is empty"};
  ASSIGN_OR_RETURN(auto db, Database::OpenForReading(from));
  return db->CopyTo(to);
}

bool IsOlder(const std::string& path) {
  auto version = Index::SchemaOf(path);
  return version.ok() && *version > 0 && *version < kSchemaVersion;
}

Result<std::unique_ptr<UpgradedIndex>> UpgradedIndex::Of(const StorePaths& paths) {
  std::error_code code;
  std::string elsewhere = fs::temp_directory_path(code).string();
  Status status = Ok();
  for (const std::string& parent : {paths.tmp(), elsewhere}) {
    std::unique_ptr<UpgradedIndex> upgraded(new UpgradedIndex());
    status = upgraded->Make(parent, paths.index());
    if (status.ok()) return upgraded;
    if (status.error().code == ErrorCode::kCorrupt) break;
  }
  return status.error().With("index " + paths.index() + " has an older schema: a copy of it cannot be brought up to date in " + paths.tmp() + " or " + elsewhere);
}

Status UpgradedIndex::Make(const std::string& parent, const std::string& from) {
  std::string name = parent + "/upgrade-XXXXXX";
  if (::mkdtemp(name.data()) == nullptr) return SystemError("cannot create a directory in " + parent, errno);
  directory_ = name;
  lock_ = UniqueFd(::open(name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!lock_.valid() || ::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) return SystemError("cannot lock " + name, errno);
  TRY(CopyIndex(from, path()));
  ASSIGN_OR_RETURN(auto index, Index::Open(path()));
  return Ok();
}

UpgradedIndex::~UpgradedIndex() {
  std::error_code code;
  if (!directory_.empty()) fs::remove_all(directory_, code);
}

}  // namespace pare::storage
