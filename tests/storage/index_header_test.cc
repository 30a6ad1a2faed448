// Every bit of the header of an index: it means nothing, or fsck names it and a repair brings back every row.
#include "storage/index_header.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "storage/index_repair.h"
#include "tests/storage/older_store.h"
#include "tests/storage/stored_copy.h"
#include "tests/storage/world.h"

namespace pare::storage {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr size_t kHeaderBytes = 100, kWriteVersionAt = 18, kUserVersionAt = 60;

class IndexHeaderTest : public testing::Test {
 protected:
  IndexHeaderTest() {
    World world;
    for (const char* name : {"index.db", "blobs", "tmp"}) fs::copy(world.root() + "/" + name, live_ / name, fs::copy_options::recursive);
    index_ = ReadBytes(paths_.index());
    state_ = StateText(live_.path());
    CHECK(state_.find("promotion net 1") != std::string::npos);
  }
  void Lay(const std::string& index) {
    for (const char* suffix : {"-wal", "-shm"}) fs::remove(paths_.index() + suffix);
    fs::remove_all(live_ / "quarantine");
    WriteBytes(paths_.index(), index);
  }
  std::string Flipped(size_t at, int bit) const {
    std::string bytes = index_;
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << bit));
    return bytes;
  }
  // Whatever the bit means: what can be opened says what it said before, and after fsck has named it or not, all goes on.
  void Try(size_t at, int bit) {
    SCOPED_TRACE("byte " + std::to_string(at) + " bit " + std::to_string(bit));
    Lay(Flipped(at, bit));
    if (auto reading = Index::OpenForReading(paths_.index()); !reading.ok()) EXPECT_EQ(reading.error().code, ErrorCode::kCorrupt) << reading.error().message;
    else EXPECT_EQ(StateText(live_.path()), state_);
    auto report = Fsck(paths_, false);
    ASSERT_TRUE(report.ok()) << report.error().message;
    if (!report->clean()) {
      EXPECT_EQ(report->problems[0].kind, "index");
      report = Fsck(paths_, true);
      ASSERT_TRUE(report.ok()) << report.error().message;
      EXPECT_TRUE(report->losses.empty()) << ToJson(*report).dump(1);
      report = Fsck(paths_, false);
      EXPECT_TRUE(report.ok() && report->clean());
    }
    EXPECT_EQ(StateText(live_.path()), state_);
    auto index = Index::Open(paths_.index());
    ASSERT_TRUE(index.ok()) << index.error().message;
    EXPECT_TRUE((*index)->Commit(std::vector<Row>{EventRow{.job = "j1", .sequence = 2, .level = "info", .text = "it goes on"}}).ok());
  }
  FsckReport Examine(bool repair) {
    auto report = Fsck(paths_, repair);
    if (!report.ok()) ADD_FAILURE() << report.error().message;
    return report.ok() ? *report : FsckReport();
  }

  TemporaryDirectory live_{TemporaryDirectory::Place::kMemory};
  StorePaths paths_{live_.path()};
  std::string index_, state_;
};

TEST_F(IndexHeaderTest, EveryBitOfTheBytesThatSayMostIsHarmlessOrHealed) {
  for (const auto& [begin, end] : {std::pair(16, 28), std::pair(44, 48), std::pair(56, 72)}) {
    for (int at = begin; at < end; ++at) {
      for (int bit = 0; bit < 8 && !HasFatalFailure(); ++bit) Try(static_cast<size_t>(at), bit);
    }
  }
}

TEST_F(IndexHeaderTest, ABitOfAnyOtherByteIsHarmlessOrHealed) {
  RandomStream random(1, RandomPurpose::kTest);
  for (size_t at = 0; at < kHeaderBytes && !HasFatalFailure(); at += 1 + random.Below(3)) Try(at, static_cast<int>(random.Below(8)));
}

// SQLite opens it for reading only: that is not the user's mode of the file.
TEST_F(IndexHeaderTest, AnUnknownWriteVersionIsDamageAndNoMissingPermission) {
  Lay(Flipped(kWriteVersionAt, 6));
  auto refused = Store::Open(live_.path());
  ASSERT_EQ(CodeOf(refused), ErrorCode::kCorrupt);
  EXPECT_THAT(refused.error().message, HasSubstr("pare fsck --repair"));
  EXPECT_THAT(ToJson(Examine(false)).dump(), HasSubstr("header of its file is damaged in byte 18"));
  (void)Examine(true);
  EXPECT_EQ(StateText(live_.path()), state_);
  EXPECT_TRUE(Store::Open(live_.path()).ok());
}

TEST_F(IndexHeaderTest, AVersionOfZeroIsNoEmptyIndex) {
  std::string bytes = index_;
  bytes.replace(kUserVersionAt, 4, 4, '\0');
  Lay(bytes);
  EXPECT_EQ(CodeOf(Index::OpenForReading(paths_.index())), ErrorCode::kCorrupt);
  EXPECT_THAT(ToJson(Examine(false)).dump(), testing::Not(HasSubstr("is empty")));
  FsckReport report = Examine(true);
  EXPECT_TRUE(report.losses.empty()) << ToJson(report).dump(1);
  EXPECT_EQ(StateText(live_.path()), state_);  // the history of models, metrics, attempts and events with it
}

// Beside tables that are not ours the same number is that of another release.
TEST_F(IndexHeaderTest, AVersionOfANewerReleaseIsDamageBesideOurTablesAlone) {
  std::string bytes = index_;
  bytes[kUserVersionAt + 3] = kSchemaVersion + 1;
  Lay(bytes);
  EXPECT_FALSE(Examine(false).clean());
  EXPECT_TRUE(Examine(true).losses.empty());
  EXPECT_EQ(StateText(live_.path()), state_);
  Lay(index_);
  MakeNewer(paths_.index());
  for (bool repair : {false, true}) EXPECT_EQ(CodeOf(Fsck(paths_, repair)), ErrorCode::kVersion);
}

// The tables of a migrated index do not lie where those of a new one do, so its first page cannot be replaced.
TEST_F(IndexHeaderTest, AHeaderThatIsGoneCostsNoRowOfAMigratedIndex) {
  MakeOlder(paths_.index(), 2);
  ASSERT_TRUE(Index::Open(paths_.index()).ok());
  std::string migrated = StateText(live_.path()), bytes = ReadBytes(paths_.index());
  Lay(bytes.replace(0, kHeaderBytes, kHeaderBytes, '\x5A'));
  EXPECT_FALSE(Examine(false).clean());
  (void)Examine(true);
  EXPECT_EQ(StateText(live_.path()), migrated);
}

// What is written with the first table is in the log alone until that is folded into the file.
TEST_F(IndexHeaderTest, TheFileOfANewIndexIsNotDamaged) {
  auto index = Index::Open(live_ / "new.db");
  ASSERT_TRUE(index.ok());
  EXPECT_EQ(ReadBytes(live_ / "new.db").substr(kUserVersionAt, 4), std::string(4, '\0'));
  EXPECT_EQ(ProblemOfHeader(live_ / "new.db"), "");
  EXPECT_EQ(ProblemOfHeader(live_ / "none.db"), "");
  fs::copy_file(live_ / "new.db", live_ / "killed.db");
  fs::copy_file(live_ / "new.db-wal", live_ / "killed.db-wal");
  EXPECT_TRUE(CheckIndex(live_ / "killed.db").empty());
}

}  // namespace
}  // namespace pare::storage
