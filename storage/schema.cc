#include "storage/schema.h"

#include <array>
#include <string>
#include <vector>

#include "storage/index.h"
#include "storage/sqlite.h"

namespace pare::storage {
namespace {

// Ids of 32 bytes are BLOBs, JSON is canonical TEXT, times are milliseconds since 1970 UTC. A digest that may be absent is
// NULL then. Foreign keys are checked at commit: the rows of one transaction may come in any order. A version keeps the
// name of its job, not a reference to it. Tables with rows of more than a few hundred bytes have rowids: large rows in the
// inner nodes of a tree make it deep.
constexpr std::string_view kFirst = R"sql(
CREATE TABLE jobs(
  number INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  user TEXT NOT NULL,
  state TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  finished_ms INTEGER NOT NULL,
  recipe_text TEXT NOT NULL,
  recipe_digest BLOB CHECK(length(recipe_digest) = 32),
  resolved TEXT NOT NULL,
  message TEXT NOT NULL,
  priority INTEGER NOT NULL
) STRICT;

CREATE TABLE steps(
  key BLOB PRIMARY KEY NOT NULL CHECK(length(key) = 32),
  kind TEXT NOT NULL,
  spec TEXT NOT NULL,
  state TEXT NOT NULL,
  attempts INTEGER NOT NULL CHECK(attempts >= 0),
  artifact BLOB REFERENCES artifacts(digest) DEFERRABLE INITIALLY DEFERRED,
  error_class TEXT NOT NULL,
  message TEXT NOT NULL
) STRICT;

CREATE TABLE job_steps(
  job TEXT NOT NULL REFERENCES jobs(id) DEFERRABLE INITIALLY DEFERRED,
  name TEXT NOT NULL,
  ordinal INTEGER NOT NULL,
  variant TEXT NOT NULL,
  key BLOB NOT NULL REFERENCES steps(key) DEFERRABLE INITIALLY DEFERRED,
  reused INTEGER NOT NULL CHECK(reused IN (0, 1)),
  wanted INTEGER NOT NULL CHECK(wanted IN (0, 1)),
  PRIMARY KEY(job, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE attempts(
  key BLOB NOT NULL REFERENCES steps(key) DEFERRABLE INITIALLY DEFERRED,
  epoch INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  worker TEXT NOT NULL,
  started_ms INTEGER NOT NULL,
  ended_ms INTEGER NOT NULL,
  busy_ms INTEGER NOT NULL,
  outcome TEXT NOT NULL,
  error_class TEXT NOT NULL,
  message TEXT NOT NULL,
  PRIMARY KEY(key, epoch)
) STRICT, WITHOUT ROWID;

CREATE TABLE metrics(
  key BLOB NOT NULL REFERENCES steps(key) DEFERRABLE INITIALLY DEFERRED,
  lease_epoch INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  at_ms INTEGER NOT NULL,
  metric_values TEXT NOT NULL,
  PRIMARY KEY(key, lease_epoch, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE snapshots(
  key BLOB PRIMARY KEY NOT NULL REFERENCES steps(key) DEFERRABLE INITIALLY DEFERRED,
  blob BLOB CHECK(length(blob) = 32),
  at_ms INTEGER NOT NULL,
  position TEXT NOT NULL,
  lease_epoch INTEGER NOT NULL,
  sequence INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE artifacts(
  digest BLOB PRIMARY KEY NOT NULL CHECK(length(digest) = 32),
  key BLOB NOT NULL REFERENCES steps(key) DEFERRABLE INITIALLY DEFERRED,
  manifest TEXT NOT NULL,
  bytes INTEGER NOT NULL CHECK(bytes >= 0),
  created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE versions(
  model TEXT NOT NULL,
  version INTEGER NOT NULL CHECK(version > 0),
  artifact BLOB NOT NULL REFERENCES artifacts(digest) DEFERRABLE INITIALLY DEFERRED,
  job TEXT NOT NULL,
  step TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  evidence TEXT NOT NULL,
  PRIMARY KEY(model, version)
) STRICT;

CREATE TABLE aliases(
  model TEXT NOT NULL,
  alias TEXT NOT NULL,
  version INTEGER NOT NULL,
  PRIMARY KEY(model, alias),
  FOREIGN KEY(model, version) REFERENCES versions(model, version) DEFERRABLE INITIALLY DEFERRED
) STRICT, WITHOUT ROWID;

CREATE TABLE events(
  job TEXT NOT NULL REFERENCES jobs(id) DEFERRABLE INITIALLY DEFERRED,
  sequence INTEGER NOT NULL,
  at_ms INTEGER NOT NULL,
  level TEXT NOT NULL,
  step TEXT NOT NULL,
  text TEXT NOT NULL,
  PRIMARY KEY(job, sequence)
) STRICT, WITHOUT ROWID;
)sql";

// Rows that were there before have checksum 0, until migration 4.
constexpr std::string_view kChecksums = R"sql(
ALTER TABLE jobs ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE steps ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job_steps ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempts ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE metrics ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE snapshots ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE artifacts ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE versions ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE aliases ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE events ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE artifacts ADD COLUMN collected_ms INTEGER NOT NULL DEFAULT 0;

CREATE TABLE promotions(
  model TEXT NOT NULL,
  sequence INTEGER NOT NULL CHECK(sequence > 0),
  at_ms INTEGER NOT NULL,
  action TEXT NOT NULL,
  version INTEGER NOT NULL,
  previous INTEGER NOT NULL,
  text TEXT NOT NULL,
  checksum INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY(model, sequence),
  FOREIGN KEY(model, version) REFERENCES versions(model, version) DEFERRABLE INITIALLY DEFERRED
) STRICT, WITHOUT ROWID;
)sql";

// By key, which is a hash, every attempt changed a page of its own twice; by epoch, attempts that begin and end together lie
// together. The columns stay in their order: checksums are over that.
constexpr std::string_view kAttemptsByEpoch = R"sql(
CREATE TABLE attempts_by_epoch(
  key BLOB NOT NULL REFERENCES steps(key) DEFERRABLE INITIALLY DEFERRED,
  epoch INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  worker TEXT NOT NULL,
  started_ms INTEGER NOT NULL,
  ended_ms INTEGER NOT NULL,
  busy_ms INTEGER NOT NULL,
  outcome TEXT NOT NULL,
  error_class TEXT NOT NULL,
  message TEXT NOT NULL,
  checksum INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY(epoch, key)
) STRICT, WITHOUT ROWID;
INSERT INTO attempts_by_epoch SELECT key, epoch, attempt, worker, started_ms, ended_ms, busy_ms, outcome, error_class, message, checksum
  FROM attempts ORDER BY epoch, key;
DROP TABLE attempts;
ALTER TABLE attempts_by_epoch RENAME TO attempts;
)sql";

constexpr std::array<Migration, kSchemaVersion> kMigrations = {{
    {"jobs, steps, metrics and the model registry", kFirst},
    {"a checksum in every row; artifacts that were collected; the history of models", kChecksums},
    {"attempts lie in the order in which they began", kAttemptsByEpoch},
    {"no row without a checksum", "", true},
}};

// Not their SQL, whose text depends on the SQLite that changed it last.
Result<std::vector<std::string>> TablesOf(Database& db) {
  return db.Texts(
      "SELECT m.type, m.name, c.name, c.type, c.\"notnull\", c.pk FROM sqlite_schema m LEFT JOIN pragma_table_info(m.name) c "
      "WHERE m.name NOT LIKE 'sqlite_%' ORDER BY m.name, c.cid");
}

}  // namespace

std::span<const Migration> Migrations() { return kMigrations; }

Result<SchemaVersions> VersionsByTables(Database& db) {
  ASSIGN_OR_RETURN(std::vector<std::string> theirs, TablesOf(db));
  ASSIGN_OR_RETURN(auto fresh, Database::Open(":memory:", Database::Mode::kCreate));
  SchemaVersions versions;
  for (int version = 1; version <= kSchemaVersion; ++version) {
    TRY(fresh->Run(std::string(kMigrations[static_cast<size_t>(version - 1)].sql)));
    ASSIGN_OR_RETURN(std::vector<std::string> ours, TablesOf(*fresh));
    if (ours != theirs) continue;
    if (!versions.known()) versions.oldest = version;
    versions.newest = version;
  }
  return versions;
}

}  // namespace pare::storage
