// Stores of every earlier schema open, keep what they hold, and are told apart from newer ones.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "storage/backup.h"
#include "storage/fsck.h"
#include "storage/index.h"
#include "storage/index_repair.h"
#include "storage/schema.h"
#include "storage/sqlite.h"
#include "tests/storage/files.h"
#include "tests/storage/rows.h"

namespace pare::storage {
namespace {

class MigrationTest : public testing::TestWithParam<int> {
 protected:
  // A database of this version, from the text that a release of that version left.
  void Create(int version) {
    auto db = std::move(Database::Open(path_, Database::Mode::kCreate)).value();
    std::string sql = ReadBytes(PARE_SOURCE_DIR "/tests/storage/golden/index_v" + std::to_string(version) + ".sql");
    ASSERT_FALSE(sql.empty());
    Status status = db->Run(sql);
    ASSERT_TRUE(status.ok()) << status.error().message;
  }
  TemporaryDirectory directory_;
  std::string path_ = directory_ / "index.db";
};

TEST_P(MigrationTest, AnEarlierIndexOpensAndKeepsEveryRow) {
  Create(GetParam());
  auto index = Index::Open(path_);
  ASSERT_TRUE(index.ok()) << index.error().message;
  auto state = (*index)->Load();
  ASSERT_TRUE(state.ok()) << state.error().message;
  ASSERT_EQ(state->jobs.size(), 1u);
  EXPECT_EQ(state->jobs[0].id, "j000000001");
  EXPECT_EQ(state->jobs[0].resolved, Json({{"name", "lenet"}, {"tree", {{"seed", 1}}}}));
  ASSERT_EQ(state->steps.size(), 1u);
  EXPECT_EQ(state->steps[0].key, StepKey(DigestOf(state->steps[0].spec.text()).bytes()));
  ASSERT_EQ(state->artifacts.size(), 1u);
  EXPECT_EQ(DigestOf(state->artifacts[0].manifest.text()), state->artifacts[0].digest);
  EXPECT_EQ(state->artifacts[0].collected_ms, 0);
  EXPECT_EQ(state->job_steps.size(), 1u);
  EXPECT_EQ(state->attempts, std::vector{(AttemptRow{.key = state->steps[0].key, .epoch = 41, .attempt = 1, .worker = "host-7-1", .started_ms = 10, .ended_ms = 20,
                                                     .busy_ms = 9, .outcome = "done"})});
  EXPECT_EQ(state->snapshots.size(), 1u);
  EXPECT_EQ(state->versions.size(), 1u);
  EXPECT_EQ(state->aliases, std::vector{(AliasRow{"lenet", "champion", 1})});
  EXPECT_EQ((*index)->Metrics(state->steps[0].key, 9)->size(), 1u);
  EXPECT_EQ((*index)->Events("j000000001", 0, 9)->size(), 1u);
  EXPECT_TRUE((*index)->Commit(RowOfEveryType()).ok());  // and goes on being used
}

// What was never checked could be changed unseen.
TEST_P(MigrationTest, EveryRowOfAMigratedIndexIsChecked) {
  Create(GetParam());
  ASSERT_TRUE(Index::Open(path_).ok());
  {
    auto db = std::move(Database::Open(path_, Database::Mode::kWrite)).value();
    for (const char* table : {"jobs", "steps", "job_steps", "attempts", "metrics", "snapshots", "artifacts", "versions", "aliases", "promotions", "events"}) {
      EXPECT_EQ(*db->Number(std::string("SELECT count(*) FROM ") + table + " WHERE checksum=0"), 0) << table;
    }
    ASSERT_TRUE(db->Run("UPDATE jobs SET name='another'").ok());
  }
  auto index = Index::Open(path_);
  ASSERT_TRUE(index.ok());
  EXPECT_EQ(CodeOf((*index)->Load()), ErrorCode::kCorrupt);
}

TEST_P(MigrationTest, AMigratedIndexHasTheSchemaOfANewOne) {
  Create(GetParam());
  ASSERT_TRUE(Index::Open(path_).ok());
  ASSERT_TRUE(Index::Open(directory_ / "new.db").ok());
  auto schema = [&](const std::string& path) {
    auto db = std::move(Database::Open(path, Database::Mode::kRead)).value();
    std::vector<std::string> tables, names = *db->Texts("SELECT name FROM sqlite_schema WHERE type='table' AND name NOT LIKE 'sqlite_%' ORDER BY name");
    for (const std::string& name : names) {
      std::vector<std::string> columns = *db->Texts("PRAGMA table_info(" + name + ")");
      for (const std::string& column : columns) tables.push_back(name + "|" + column);
    }
    return tables;
  };
  EXPECT_EQ(schema(path_), schema(directory_ / "new.db"));
}

TEST_P(MigrationTest, ReadersAndExaminationsLeaveItAlone) {
  Create(GetParam());
  std::string before = ReadBytes(path_);
  EXPECT_EQ(CodeOf(Index::OpenForReading(path_)), ErrorCode::kVersion);
  std::filesystem::create_directories(directory_ / "blobs");
  auto report = Fsck(StorePaths(directory_.path()), false);
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(ReadBytes(path_), before);
}

// The store of an earlier release, whose checkpoint is not there.
class EarlierStoreTest : public MigrationTest {
 protected:
  void SetUp() override {
    Create(GetParam());
    for (const std::string& directory : {paths_.blobs(), paths_.tmp()}) std::filesystem::create_directories(directory);
    before_ = ReadBytes(path_);
  }
  static std::string TextOf(const FsckReport& report) { return ToJson(report).dump(1); }
  StorePaths paths_{directory_.path()};
  std::string before_;
};

TEST_P(EarlierStoreTest, IsExaminedAsACopy) {
  auto report = Fsck(paths_, false);
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_THAT(TextOf(*report), testing::HasSubstr("lenet@1"));  // its rows were read
  for (const FsckProblem& problem : report->problems) EXPECT_NE(problem.kind, "index") << problem.text;
  EXPECT_EQ(ReadBytes(path_), before_);
  EXPECT_EQ(FilesIn(paths_.tmp()), 0u);
}

TEST_P(EarlierStoreTest, IsExaminedWhereNothingCanBeWritten) {
  std::filesystem::remove(paths_.tmp());
  auto report = Fsck(paths_, false);
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_THAT(TextOf(*report), testing::HasSubstr("lenet@1"));
  EXPECT_EQ(ReadBytes(path_), before_);
}

TEST_P(EarlierStoreTest, IsBackedUpAsItIsAndTheCopyIsOfThisRelease) {
  TemporaryDirectory elsewhere;
  auto report = BackUp(paths_, elsewhere / "backup");
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_EQ(report->missing.size(), 2u);  // manifest and checkpoint
  EXPECT_EQ(ReadBytes(path_), before_);
  EXPECT_EQ(*Index::SchemaOf(path_), GetParam());
  EXPECT_EQ(*Index::SchemaOf(elsewhere / "backup/index.db"), kSchemaVersion);
  EXPECT_EQ((*Index::OpenForReading(elsewhere / "backup/index.db"))->Load()->versions.size(), 1u);
}

TEST_P(EarlierStoreTest, IsRepaired) {
  auto report = Fsck(paths_, true);
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_EQ(*Index::SchemaOf(path_), kSchemaVersion);
  report = Fsck(paths_, false);
  ASSERT_TRUE(report.ok());
  for (const FsckProblem& problem : report->problems) EXPECT_EQ(problem.kind, "version") << problem.text;
}

// Its number in the header is damaged: the tables say which it is.
TEST_P(EarlierStoreTest, ADamagedVersionIsNamedAndLosesNoRow) {
  ASSERT_TRUE(Index::Open(path_).ok());
  StoredState migrated = std::move((*Index::OpenForReading(path_))->Load()).value();
  for (size_t bit : {0, 1, 2, 3, 16, 31}) {
    std::string damaged = before_;
    damaged[63 - bit / 8] = static_cast<char>(damaged[63 - bit / 8] ^ (1 << bit % 8));
    WriteBytes(path_, damaged);
    EXPECT_EQ(CodeOf(Index::Open(path_)), ErrorCode::kCorrupt) << bit;
    auto report = Fsck(paths_, false);
    ASSERT_TRUE(report.ok()) << report.error().message;
    EXPECT_THAT(TextOf(*report), testing::HasSubstr("schema version")) << bit;
    EXPECT_EQ(ReadBytes(path_), damaged) << bit;
    ASSERT_TRUE(Fsck(paths_, true).ok()) << bit;
    auto index = Index::Open(path_);
    ASSERT_TRUE(index.ok()) << index.error().message;
    auto state = (*index)->Load();
    ASSERT_TRUE(state.ok()) << state.error().message;
    EXPECT_EQ(state->jobs, migrated.jobs) << bit;
    EXPECT_EQ(state->job_steps, migrated.job_steps) << bit;
    EXPECT_EQ(state->attempts, migrated.attempts) << bit;
    EXPECT_EQ(state->versions, migrated.versions) << bit;
    EXPECT_EQ(state->aliases, migrated.aliases) << bit;
    EXPECT_EQ((*index)->Metrics(state->attempts.at(0).key, 9)->size(), 1u) << bit;
    EXPECT_EQ((*index)->Events("j000000001", 0, 9)->size(), 1u) << bit;
  }
}

TEST_P(EarlierStoreTest, ARowThatWasChangedIsFoundIfItHadAChecksum) {
  if (GetParam() == 1) return;
  ASSERT_TRUE((*Database::Open(path_, Database::Mode::kWrite))->Run("UPDATE attempts SET worker='another'").ok());
  auto report = Fsck(paths_, false);
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_THAT(TextOf(*report), testing::HasSubstr("a row of attempts does not match its checksum"));
  report = Fsck(paths_, true);
  ASSERT_TRUE(report.ok()) << report.error().message;
  auto state = (*Index::Open(path_))->Load();
  ASSERT_TRUE(state.ok()) << state.error().message;
  // Its points tell that there was one, and which epoch it had.
  ASSERT_EQ(state->attempts.size(), 1u);
  EXPECT_EQ(state->attempts[0].worker, "unknown");
  EXPECT_EQ(state->jobs.size(), 1u);
}

INSTANTIATE_TEST_SUITE_P(EarlierVersions, EarlierStoreTest, testing::Range(1, kSchemaVersion));

TEST(UpgradedIndexTest, WhatADeadExaminationLeftGoesWhenTheStoreOpensAndALivingOneStays) {
  TemporaryDirectory directory;
  StorePaths paths(directory.path());
  std::filesystem::create_directories(paths.tmp() + "/upgrade-dead");
  WriteBytes(paths.tmp() + "/upgrade-dead/index.db", "x");
  ASSERT_TRUE(Index::Open(paths.index()).ok());
  auto living = UpgradedIndex::Of(paths);
  ASSERT_TRUE(living.ok()) << living.error().message;
  ASSERT_TRUE(Store::Open(directory.path()).ok());
  EXPECT_FALSE(std::filesystem::exists(paths.tmp() + "/upgrade-dead"));
  EXPECT_TRUE(std::filesystem::exists((*living)->path()));
  std::string path = (*living)->path();
  living->reset();
  EXPECT_FALSE(std::filesystem::exists(path));
}

INSTANTIATE_TEST_SUITE_P(EarlierVersions, MigrationTest, testing::Range(1, kSchemaVersion));

TEST(MigrationFailureTest, AMigrationThatFailsLeavesTheVersionBefore) {
  TemporaryDirectory directory;
  std::string path = directory / "index.db";
  {
    auto db = std::move(Database::Open(path, Database::Mode::kCreate)).value();
    ASSERT_TRUE(db->Run(ReadBytes(PARE_SOURCE_DIR "/tests/storage/golden/index_v1.sql")).ok());
    ASSERT_TRUE(db->Run("CREATE TABLE promotions(x)").ok());  // in the way of migration 2, after its first statements
  }
  auto index = Index::Open(path);
  ASSERT_FALSE(index.ok());
  EXPECT_THAT(index.error().message, testing::HasSubstr("migration 2 (a checksum in every row"));
  auto db = std::move(Database::Open(path, Database::Mode::kRead)).value();
  EXPECT_EQ(*db->Number("PRAGMA user_version"), 1);
  EXPECT_EQ(db->Texts("PRAGMA table_info(jobs)")->back().substr(3, 8), "priority");
}

// What storage/schema.h asks of every migration, so that a damaged number is never taken for another release. The fourth was before that.
TEST(MigrationTablesTest, TheTablesTellEveryVersionFromTheFifthOn) {
  auto db = std::move(Database::Open(":memory:", Database::Mode::kCreate)).value();
  EXPECT_FALSE(VersionsByTables(*db)->known());
  for (int version = 1; version <= kSchemaVersion; ++version) {
    ASSERT_TRUE(db->Run(std::string(Migrations()[static_cast<size_t>(version - 1)].sql)).ok());
    auto versions = VersionsByTables(*db);
    ASSERT_TRUE(versions.ok()) << versions.error().message;
    EXPECT_EQ(versions->oldest, version == 4 ? 3 : version);
    EXPECT_EQ(versions->newest, version == 3 ? 4 : version);
  }
  ASSERT_TRUE(db->Run("CREATE INDEX added_later ON jobs(name)").ok());
  EXPECT_FALSE(VersionsByTables(*db)->known());
}

TEST(MigrationNameTest, EveryMigrationHasAName) {
  EXPECT_EQ(Migrations().size(), static_cast<size_t>(kSchemaVersion));
  for (const Migration& migration : Migrations()) EXPECT_FALSE(migration.name.empty());
}

}  // namespace
}  // namespace pare::storage
