// The only file that includes sqlite3.h.
#include "storage/sqlite.h"

#include <sqlite3.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace pare::storage {
namespace {

ErrorCode CodeOf(sqlite3* db) {
  switch (sqlite3_errcode(db) & 0xff) {
    case SQLITE_FULL: return ErrorCode::kNoSpace;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB: return ErrorCode::kCorrupt;
    case SQLITE_BUSY:
    case SQLITE_LOCKED: return ErrorCode::kConflict;
    case SQLITE_ERROR:  // of a damaged header; SQLite has no other code for it
      return std::string_view(sqlite3_errmsg(db)) == "unsupported file format" ? ErrorCode::kCorrupt : ErrorCode::kIo;
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

// ---- statements ----

Statement::~Statement() { sqlite3_finalize(s_); }

void Statement::Reset() {
  sqlite3_reset(s_);
  next_ = 1;
  texts_ = 0;
  hash_ = kEmpty;
  bad_ = {};
}

Statement::Outcome Statement::Step() {
  switch (sqlite3_step(s_)) {
    case SQLITE_ROW: return Outcome::kRow;
    case SQLITE_DONE: return Outcome::kDone;
    default: return Outcome::kFailed;
  }
}

// Both steps can be undone, so a change of one word always changes the result.
void Statement::Mix(uint64_t word) {
  hash_ = (hash_ ^ word) * 0x9FB21C651E98DF25u;
  hash_ ^= hash_ >> 29;
}

void Statement::MixBytes(std::string_view bytes) {
  Mix(bytes.size() + 1);
  for (size_t at = 0; at < bytes.size(); at += 8) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data() + at, std::min<size_t>(8, bytes.size() - at));
    Mix(word);
  }
}

int64_t Statement::checksum() const { return static_cast<int64_t>(hash_ == 0 ? 1 : hash_); }

void Statement::Bind(int64_t v) {
  Mix(static_cast<uint64_t>(v));
  sqlite3_bind_int64(s_, next_++, v);
}

void Statement::Bind(const std::string& v) {
  MixBytes(v);
  sqlite3_bind_text64(s_, next_++, v.data(), v.size(), SQLITE_STATIC, SQLITE_UTF8);
}

void Statement::Bind(const Json& v) {
  CHECK(texts_ < json_.size());
  Bind(json_[texts_++] = Canonical(v));
}

void Statement::BindNull() {
  Mix(0);
  sqlite3_bind_null(s_, next_++);
}

void Statement::BindBlob(const std::array<uint8_t, 32>& bytes) {
  MixBytes({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  sqlite3_bind_blob64(s_, next_++, bytes.data(), bytes.size(), SQLITE_STATIC);
}

std::string_view Statement::Text(int column) {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(s_, column));
  return text == nullptr ? std::string_view() : std::string_view(text, static_cast<size_t>(sqlite3_column_bytes(s_, column)));
}

int64_t Statement::Number(int column) { return sqlite3_column_int64(s_, column); }

void Statement::Expect(int column, int type) {
  if (sqlite3_column_type(s_, column) != type) bad_ = sqlite3_column_name(s_, column);
}

void Statement::Take(int column, int64_t& v) {
  Expect(column, SQLITE_INTEGER);
  Mix(static_cast<uint64_t>(v = Number(column)));
}

void Statement::Take(int column, int& v) {
  int64_t number = 0;
  Take(column, number);
  v = static_cast<int>(number);
}

void Statement::Take(int column, bool& v) {
  int64_t number = 0;
  Take(column, number);
  v = number != 0;
}

void Statement::Take(int column, std::string& v) {
  Expect(column, SQLITE_TEXT);
  v = Text(column);
  MixBytes(v);
}

void Statement::Take(int column, Json& v) {
  std::string_view text = Text(column);
  MixBytes(text);
  auto parsed = ParseJson(text, "stored JSON");
  if (parsed.ok()) v = *std::move(parsed);
  else bad_ = sqlite3_column_name(s_, column);
}

void Statement::Take(int column, JsonText& v) {
  std::string_view text = Text(column);
  MixBytes(text);
  auto read = JsonText::Read(text, "stored JSON");
  if (read.ok()) v = *std::move(read);
  else bad_ = sqlite3_column_name(s_, column);
}

bool Statement::TakeBlob(int column, std::array<uint8_t, 32>& bytes) {
  if (sqlite3_column_type(s_, column) == SQLITE_NULL) {
    Mix(0);
    return false;
  }
  const auto* data = static_cast<const uint8_t*>(sqlite3_column_blob(s_, column));
  if (sqlite3_column_bytes(s_, column) != 32) {
    bad_ = sqlite3_column_name(s_, column);
    return false;
  }
  std::copy(data, data + 32, bytes.begin());
  MixBytes({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  return true;
}

// ---- connections ----

Result<std::unique_ptr<Database>> Database::Open(const std::string& name, Mode mode) {
  int flags = mode == Mode::kCreate     ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE
              : mode == Mode::kWrite    ? SQLITE_OPEN_READWRITE
              : mode == Mode::kRead     ? SQLITE_OPEN_READONLY
                                        : SQLITE_OPEN_READONLY | SQLITE_OPEN_URI;
  sqlite3* db = nullptr;
  int code = sqlite3_open_v2(mode == Mode::kImmutable ? ImmutableUri(name).c_str() : name.c_str(), &db, flags | SQLITE_OPEN_NOMUTEX, nullptr);
  std::unique_ptr<Database> database(new Database(db, name));
  if (code != SQLITE_OK) return database->Fail("cannot be opened");
  sqlite3_extended_result_codes(db, 1);
  sqlite3_busy_timeout(db, 2000);
  return database;
}

Result<std::unique_ptr<Database>> Database::OpenForReading(const std::string& path) {
  std::string directory = path.substr(0, path.find_last_of('/') + 1);
  bool still = ::access((path + "-wal").c_str(), F_OK) != 0 && ::access(directory.empty() ? "." : directory.c_str(), W_OK) != 0;
  return Open(path, still ? Mode::kImmutable : Mode::kRead);
}

Database::~Database() {
  statements_.clear();
  sqlite3_close(db_);
}

bool Database::read_only() const { return sqlite3_db_readonly(db_, "main") == 1; }

Error Database::Fail(const std::string& what) const { return Error{CodeOf(db_), "index " + path_ + ": " + what + ": " + sqlite3_errmsg(db_)}; }

Status Database::Run(const std::string& sql) {
  if (sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK) return Ok();
  return Fail(sql.substr(0, 40));
}

Result<Statement*> Database::Prepare(const std::string& sql) {
  auto it = statements_.find(sql);
  if (it == statements_.end()) {
    sqlite3_stmt* s = nullptr;
    if (sqlite3_prepare_v3(db_, sql.c_str(), -1, SQLITE_PREPARE_PERSISTENT, &s, nullptr) != SQLITE_OK) return Fail("cannot be read");
    it = statements_.emplace(sql, std::make_unique<Statement>(s)).first;
  }
  it->second->Reset();
  return it->second.get();
}

Status Database::Do(const char* sql) {
  ASSIGN_OR_RETURN(Statement* statement, Prepare(sql));
  Status status = statement->Step() == Statement::Outcome::kDone ? Ok() : Status(Fail(sql));
  statement->Reset();
  return status;
}

void Database::Rollback() {
  // SQLite has rolled back by itself after some errors.
  if (sqlite3_get_autocommit(db_) == 0) sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
}

Result<int64_t> Database::Number(const std::string& sql) {
  ASSIGN_OR_RETURN(Statement* query, Prepare(sql));
  int64_t number = 0;
  Statement::Outcome outcome = query->Step();
  if (outcome == Statement::Outcome::kRow) number = query->Number(0);
  query->Reset();
  if (outcome != Statement::Outcome::kRow) return Fail("cannot be read");
  return number;
}

Result<std::vector<std::string>> Database::Texts(const std::string& sql) {
  std::vector<std::string> texts;
  auto add = [](void* list, int columns, char** values, char**) {
    std::string line;
    for (int i = 0; i < columns; ++i) line += (i == 0 ? "" : "|") + std::string(values[i] == nullptr ? "" : values[i]);
    static_cast<std::vector<std::string>*>(list)->push_back(std::move(line));
    return 0;
  };
  if (sqlite3_exec(db_, sql.c_str(), add, &texts, nullptr) != SQLITE_OK) return Fail("cannot be read");
  return texts;
}

Status Database::CopyTo(const std::string& path) {
  ASSIGN_OR_RETURN(auto target, Open(path, Mode::kCreate));
  TRY(target->Run("PRAGMA synchronous=FULL"));
  sqlite3_backup* backup = sqlite3_backup_init(target->db_, "main", db_, "main");
  if (backup == nullptr) return target->Fail("cannot be written");
  int code = sqlite3_backup_step(backup, -1);
  sqlite3_backup_finish(backup);
  if (code != SQLITE_DONE) return target->Fail("cannot be copied from " + path_);
  return Ok();
}

}  // namespace pare::storage
