#include "storage/schema.h"

#include <array>

namespace pare::storage {
namespace {

// Ids and digests are hexadecimal text, JSON is text: a store can be read with the sqlite3 shell alone.
constexpr std::string_view kInitial = R"sql(
CREATE TABLE jobs (
  id TEXT PRIMARY KEY, name TEXT NOT NULL, user TEXT NOT NULL, state TEXT NOT NULL, created_ms INTEGER NOT NULL,
  finished_ms INTEGER NOT NULL, recipe_text TEXT NOT NULL, recipe_digest TEXT NOT NULL, resolved TEXT NOT NULL,
  message TEXT NOT NULL, priority INTEGER NOT NULL) STRICT;
CREATE TABLE steps (
  key TEXT PRIMARY KEY, kind TEXT NOT NULL, spec TEXT NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL,
  artifact TEXT NOT NULL, error_class TEXT NOT NULL, message TEXT NOT NULL) STRICT;
CREATE TABLE job_steps (
  job TEXT NOT NULL REFERENCES jobs(id), name TEXT NOT NULL, ordinal INTEGER NOT NULL, variant TEXT NOT NULL,
  key TEXT NOT NULL REFERENCES steps(key), reused INTEGER NOT NULL, wanted INTEGER NOT NULL,
  PRIMARY KEY (job, name)) STRICT, WITHOUT ROWID;
CREATE TABLE attempts (
  key TEXT NOT NULL REFERENCES steps(key), epoch INTEGER NOT NULL, attempt INTEGER NOT NULL, worker TEXT NOT NULL,
  started_ms INTEGER NOT NULL, ended_ms INTEGER NOT NULL, busy_ms INTEGER NOT NULL, outcome TEXT NOT NULL,
  error_class TEXT NOT NULL, message TEXT NOT NULL, PRIMARY KEY (key, epoch)) STRICT, WITHOUT ROWID;
CREATE TABLE metrics (
  key TEXT NOT NULL, lease_epoch INTEGER NOT NULL, sequence INTEGER NOT NULL, at_ms INTEGER NOT NULL,
  "values" TEXT NOT NULL, PRIMARY KEY (key, lease_epoch, sequence)) STRICT, WITHOUT ROWID;
CREATE TABLE snapshots (
  key TEXT PRIMARY KEY REFERENCES steps(key), blob TEXT NOT NULL, at_ms INTEGER NOT NULL, position TEXT NOT NULL) STRICT;
CREATE TABLE artifacts (
  digest TEXT PRIMARY KEY, key TEXT NOT NULL, manifest TEXT NOT NULL, bytes INTEGER NOT NULL,
  created_ms INTEGER NOT NULL) STRICT;
CREATE TABLE versions (
  model TEXT NOT NULL, version INTEGER NOT NULL, artifact TEXT NOT NULL, job TEXT NOT NULL, step TEXT NOT NULL,
  created_ms INTEGER NOT NULL, evidence TEXT NOT NULL, PRIMARY KEY (model, version)) STRICT, WITHOUT ROWID;
CREATE TABLE aliases (
  model TEXT NOT NULL, alias TEXT NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (model, alias)) STRICT, WITHOUT ROWID;
CREATE TABLE events (
  job TEXT NOT NULL REFERENCES jobs(id), sequence INTEGER NOT NULL, at_ms INTEGER NOT NULL, level TEXT NOT NULL,
  step TEXT NOT NULL, text TEXT NOT NULL, PRIMARY KEY (job, sequence)) STRICT, WITHOUT ROWID;
)sql";

constexpr std::array<Migration, 1> kMigrations = {{{1, "initial", kInitial}}};

}  // namespace

std::span<const Migration> Migrations() { return kMigrations; }

}  // namespace pare::storage
