// The log beside an index: a torn end is legal, damage before it is named, and what lies behind the damage is saved.
#include "storage/index_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <signal.h>
#include <sys/wait.h>

#include "storage/index.h"
#include "storage/sqlite.h"
#include "tests/storage/world.h"

namespace pare::storage {
namespace {

using testing::HasSubstr;

constexpr size_t kHeader = 32, kFrame = 24 + 4096;
constexpr int kTransactions = 6;

// The files of a coordinator that was killed: transactions of one job each are in the log alone.
class IndexLogTest : public testing::Test {
 protected:
  IndexLogTest() {
    auto index = std::move(Index::Open(directory_ / "living.db")).value();
    for (int i = 0; i < kTransactions; ++i) {
      JobRow job = JobOf("j" + std::to_string(i));
      job.message = RandomBytes(3000, static_cast<size_t>(i));
      for (char& c : job.message) c = static_cast<char>('a' + (c & 15));
      CHECK(index->Commit(std::vector<Row>{job}).ok());
      ends_.push_back(ReadBytes(directory_ / "living.db-wal").size());
    }
    database_ = ReadBytes(directory_ / "living.db");
    log_ = ReadBytes(directory_ / "living.db-wal");
    shared_ = ReadBytes(directory_ / "living.db-shm");
  }

  void Lay(const std::string& log) {
    for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(path_ + suffix);
    WriteBytes(path_, database_);
    WriteBytes(path_ + "-wal", log);
  }
  // As a process leaves it that was killed, while the system lives.
  void LayKilled(const std::string& log, const std::string& shared) {
    Lay(log);
    WriteBytes(path_ + "-shm", shared);
  }
  // 0 where not even the tables are seen.
  size_t Jobs() {
    auto index = Index::OpenForReading(path_);
    if (!index.ok()) return 0;
    auto state = (*index)->Load();
    return state.ok() ? state->jobs.size() : 0;
  }
  static std::string Flipped(std::string bytes, size_t at) {
    bytes[at] = static_cast<char>(bytes[at] ^ 0x10);
    return bytes;
  }

  TemporaryDirectory directory_;
  std::string path_ = directory_ / "index.db", database_, log_, shared_;
  std::vector<size_t> ends_;  // of the log after each transaction
};

TEST_F(IndexLogTest, ASoundOneAndNoneAreNoProblem) {
  EXPECT_EQ(ProblemOfLog(path_), "");
  Lay(log_);
  EXPECT_EQ(ProblemOfLog(path_), "");
  EXPECT_EQ(Jobs(), static_cast<size_t>(kTransactions));
  Lay("");
  EXPECT_EQ(ProblemOfLog(path_), "");
}

TEST_F(IndexLogTest, ATornLastTransactionIsNoProblem) {
  for (size_t size = 0; size <= log_.size(); size += 977) {
    Lay(log_.substr(0, size));
    EXPECT_EQ(ProblemOfLog(path_), "") << size;
  }
  // Any of its frames may be missing while the others are there.
  for (size_t at = ends_[kTransactions - 2]; at + kFrame <= log_.size(); at += kFrame) {
    std::string torn = log_;
    torn.replace(at, kFrame, std::string(kFrame, '\0'));
    Lay(torn);
    EXPECT_EQ(ProblemOfLog(path_), "") << at;
  }
}

// What a power cut leaves that stops the creation of a log, before anything is committed in it.
TEST_F(IndexLogTest, LessThanAHeaderIsNoProblem) {
  for (size_t size = 0; size < kHeader; ++size) {
    Lay(log_.substr(0, size));
    EXPECT_EQ(ProblemOfLog(path_), "") << size;
  }
}

// ---- beside the shared memory of a process that was killed ----

TEST_F(IndexLogTest, ACutWithinWhatIsCommittedIsNamedAfterAKill) {
  LayKilled(log_, shared_);
  EXPECT_EQ(ProblemOfLog(path_), "");
  size_t frames = (log_.size() - kHeader) / kFrame;
  for (size_t size = kHeader; size < log_.size(); size += 977) {
    LayKilled(log_.substr(0, size), shared_);
    size_t left = (size - kHeader) / kFrame;
    EXPECT_THAT(ProblemOfLog(path_), HasSubstr("ends after frame " + std::to_string(left) + " of " + std::to_string(frames))) << size;
    EXPECT_THAT(ProblemOfLog(path_), HasSubstr("up to " + std::to_string(frames - left) + ",")) << size;
  }
  for (size_t end : ends_) {  // between two transactions
    LayKilled(log_.substr(0, end), shared_);
    EXPECT_EQ(ProblemOfLog(path_).empty(), end == log_.size()) << end;
  }
}

TEST_F(IndexLogTest, AFlippedBitInTheLastTransactionIsNamedAfterAKill) {
  for (size_t at = ends_[kTransactions - 2]; at < log_.size(); at += 331) {
    LayKilled(Flipped(log_, at), shared_);
    EXPECT_THAT(ProblemOfLog(path_), HasSubstr("is damaged in frame")) << at;
  }
}

// Another transaction that the kill stopped, and a log of which nothing is known.
TEST_F(IndexLogTest, WhatIsNotCommittedForCertainIsNoProblem) {
  std::string torn = log_ + log_.substr(log_.size() - kFrame, kFrame / 2), cut = log_.substr(0, ends_[2]);
  LayKilled(torn, shared_);
  EXPECT_EQ(ProblemOfLog(path_), "");
  // One copy of the shared header is half written, or both are damaged.
  std::string both = Flipped(Flipped(shared_, 16), 48 + 16);
  for (const std::string& shared : {Flipped(shared_, 48 + 16), both, shared_.substr(0, 60), std::string(), std::string(shared_.size(), '\0')}) {
    LayKilled(cut, shared);
    EXPECT_EQ(ProblemOfLog(path_), "");
  }
  auto another = std::move(Index::Open(directory_ / "another.db")).value();
  LayKilled(ReadBytes(directory_ / "another.db-wal").substr(0, kHeader + kFrame), shared_);
  EXPECT_EQ(ProblemOfLog(path_), "");
}

// Whoever opens the index makes the shared memory anew.
TEST_F(IndexLogTest, TheFirstConnectionForgetsWhatWasCommitted) {
  LayKilled(log_.substr(0, ends_[2]), shared_);
  EXPECT_NE(ProblemOfLog(path_), "");
  EXPECT_EQ(Jobs(), 3u);
  EXPECT_EQ(ProblemOfLog(path_), "");
}

// Commits for ever, into a log that begins anew again and again.
[[noreturn]] void Write(const std::string& path) {
  auto index = std::move(Index::Open(path)).value();
  auto other = std::move(Database::Open(path, Database::Mode::kWrite)).value();
  for (int i = 0;; ++i) {
    CHECK(index->Commit(std::vector<Row>{JobOf("j" + std::to_string(i % 50)), JobOf("k" + std::to_string(i % 50))}).ok());
    if (i % 5 == 4) CHECK(other->Run("PRAGMA wal_checkpoint(RESTART)").ok());
  }
}

// Also seen while the process writes, and not only after its end.
TEST_F(IndexLogTest, AHealthyLogIsNeverCalledDamagedWheneverItsProcessIsKilled) {
  for (int round = 0; round < 12; ++round) {
    TemporaryDirectory directory(TemporaryDirectory::Place::kMemory);
    std::string path = directory / "index.db";
    pid_t child = ::fork();
    if (child == 0) Write(path);
    while (ReadBytes(path + "-shm").size() < 136) ASSERT_EQ(::waitpid(child, nullptr, WNOHANG), 0);
    for (int look = 0; look < 40 + 7 * round; ++look) EXPECT_EQ(ProblemOfLog(path), "");
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    EXPECT_EQ(ProblemOfLog(path), "") << round;
  }
}

// ---- damage before the last transaction ----

TEST_F(IndexLogTest, AnyFlippedBitBeforeTheLastTransactionIsNamedAndCostsAtMostItsPage) {
  for (size_t at = 0; at < ends_[kTransactions - 2]; at += at < kHeader + 24 ? 1 : 331) {
    Lay(Flipped(log_, at));
    EXPECT_NE(ProblemOfLog(path_), "") << at;
    EXPECT_LT(Jobs(), static_cast<size_t>(kTransactions)) << at;  // SQLite says nothing
    ASSERT_TRUE(MendLog(path_).ok());
    EXPECT_EQ(ProblemOfLog(path_), "") << at;
  }
}

// Pages are written again by later transactions: here the table's, so that nothing at all is lost.
TEST_F(IndexLogTest, WhatLiesBehindTheDamageIsReadAgain) {
  Lay(Flipped(log_, ends_[2] - 2000));
  EXPECT_EQ(Jobs(), 2u);
  ASSERT_TRUE(MendLog(path_).ok());
  auto index = Index::Open(path_);
  ASSERT_TRUE(index.ok()) << index.error().message;
  auto events = (*index)->Events("j5", 0, 10);
  EXPECT_TRUE(events.ok());
}

TEST(StoreLogTest, AStoreWithADamagedLogIsNotOpenedUntilItIsRepairedAndKeepsWhatWasPromoted) {
  World world;
  TemporaryDirectory copy;
  {
    auto store = std::move(Store::Open(world.root())).value();
    for (int64_t i = 2; i <= 5; ++i) {
      VersionRow version{.model = "net", .version = i, .artifact = world.Artifact("baseline").digest, .job = "j1", .step = "baseline", .evidence = Json::object()};
      ASSERT_TRUE(store->index().Commit(std::vector<Row>{version, AliasRow{"net", "champion", i}}).ok());
    }
    for (const char* suffix : {"", "-wal"}) std::filesystem::copy_file(world.paths().index() + suffix, copy / (std::string("index.db") + suffix));
  }
  std::string log = ReadBytes(copy / "index.db-wal");
  log[200] ^= 1;
  WriteBytes(world.paths().index(), ReadBytes(copy / "index.db"));
  WriteBytes(world.paths().index() + "-wal", log);
  auto refused = Store::Open(world.root());
  ASSERT_EQ(CodeOf(refused), ErrorCode::kCorrupt);
  EXPECT_THAT(refused.error().message, HasSubstr("fsck --repair"));
  EXPECT_FALSE(world.Examine().clean());
  (void)world.Examine(true);
  EXPECT_TRUE(world.Examine().clean());
  StoredState after = world.Load();
  EXPECT_EQ(after.versions.size(), 5u);
  ASSERT_FALSE(after.aliases.empty());
  EXPECT_EQ(after.aliases[0].version, 5);
}

// The world's store as a coordinator leaves it that was killed, its log cut between two of its last transactions.
class CutLogTest : public testing::Test {
 protected:
  CutLogTest() {
    std::string log;
    size_t end = 0;
    {
      auto store = std::move(Store::Open(world_.root())).value();
      for (int64_t i = 2; i <= 4; ++i) {
        CHECK(store->index().Commit(std::vector<Row>{EventRow{.job = "j1", .sequence = i, .level = "info", .text = "late"}}).ok());
        log = ReadBytes(world_.paths().index() + "-wal");
        if (i == 3) end = log.size();
      }
      shared_ = ReadBytes(world_.paths().index() + "-shm");
      database_ = ReadBytes(world_.paths().index());
    }
    WriteBytes(world_.paths().index(), database_);
    WriteBytes(world_.paths().index() + "-wal", log.substr(0, end));
    WriteBytes(world_.paths().index() + "-shm", shared_);
  }
  size_t Events() { return (*Index::OpenForReading(world_.paths().index()))->Events("j1", 0, 9)->size(); }
  World world_;
  std::string database_, shared_;
};

TEST_F(CutLogTest, AStoreIsNotOpenedUntilItIsRepaired) {
  auto refused = Store::Open(world_.root());
  ASSERT_EQ(CodeOf(refused), ErrorCode::kCorrupt);
  EXPECT_THAT(refused.error().message, HasSubstr("its log ends after frame"));
  EXPECT_THAT(refused.error().message, HasSubstr("pare fsck --repair"));
  FsckReport report = world_.Examine(true);
  ASSERT_EQ(report.problems.size(), 1u);
  EXPECT_THAT(report.problems[0].text, HasSubstr("its log ends after frame"));
  EXPECT_EQ(Events(), 3u);
  EXPECT_TRUE(world_.Examine().clean());
  EXPECT_TRUE(Store::Open(world_.root()).ok());
}

TEST_F(CutLogTest, AnExaminationNamesIt) {
  EXPECT_THAT(ToJson(world_.Examine()).dump(), HasSubstr("its log ends after frame"));
}

}  // namespace
}  // namespace pare::storage
