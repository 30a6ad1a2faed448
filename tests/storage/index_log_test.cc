// The log beside an index: a torn end is legal, damage before it is named, and what lies behind the damage is saved.
#include "storage/index_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "storage/index.h"
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
  }

  void Lay(const std::string& log) {
    for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(path_ + suffix);
    WriteBytes(path_, database_);
    WriteBytes(path_ + "-wal", log);
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
  std::string path_ = directory_ / "index.db", database_, log_;
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

}  // namespace
}  // namespace pare::storage
