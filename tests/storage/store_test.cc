// The store's directory: one coordinator, its announcement, its reserve, places where it cannot be.
#include "storage/store.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/files.h"
#include "tests/storage/files.h"
#include "tests/storage/rows.h"

// What statfs says of every file system while it is set. The linker prefers this one to the C library's.
static int64_t pretended_magic = 0;
extern "C" int statfs(const char* path, struct statfs* info) noexcept {
  long code = ::syscall(SYS_statfs, path, info);
  if (code == 0 && pretended_magic != 0) info->f_type = pretended_magic;
  return static_cast<int>(code);
}

namespace pare::storage {
namespace {

using testing::HasSubstr;

class StoreTest : public testing::Test {
 protected:
  std::unique_ptr<Store> Open() { return std::move(Store::Open(root_)).value(); }

  TemporaryDirectory directory_;
  std::string root_ = directory_ / "deep/er/store";
};

TEST_F(StoreTest, ANewStoreHasItsFilesAndIsOpenedAgain) {
  {
    auto store = Open();
    EXPECT_TRUE(store->index().Commit(RowOfEveryType()).ok());
    EXPECT_TRUE(store->blobs().Put(std::string_view("blob")).ok());
  }
  for (const char* name : {"index.db", "blobs", "tmp", "reserve", "lock"}) EXPECT_TRUE(std::filesystem::exists(root_ + "/" + name)) << name;
  auto store = Open();
  EXPECT_EQ(store->index().Load()->jobs.size(), 1u);
  EXPECT_EQ(store->blobs().Get(DigestOf("blob"))->text(), "blob");
}

TEST_F(StoreTest, ASecondCoordinatorIsRefusedAndToldOfTheFirst) {
  auto store = Open();
  ASSERT_TRUE(store->Announce({4711, "tcp://127.0.0.1:5555", "tcp://127.0.0.1:5556", "1"}).ok());
  auto second = Store::Open(root_);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, ErrorCode::kConflict);
  EXPECT_THAT(second.error().message, HasSubstr("pid 4711 at tcp://127.0.0.1:5555"));
  EXPECT_THAT(second.error().message, HasSubstr(root_));
}

TEST_F(StoreTest, RemovingTheLockFileOfALivingCoordinatorLetsNoSecondOneIn) {
  auto store = Open();
  std::filesystem::remove(root_ + "/lock");
  auto second = Store::Open(root_);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, ErrorCode::kConflict);
  EXPECT_THAT(second.error().message, HasSubstr("whose lock file somebody has removed; end that process"));
  store.reset();
  EXPECT_TRUE(Store::Open(root_).ok());
}

TEST_F(StoreTest, ACoordinatorThatHasNotAnnouncedItselfHoldsTheStoreAsWell) {
  auto store = Open();
  EXPECT_EQ(CodeOf(Store::Open(root_)), ErrorCode::kConflict);
  EXPECT_EQ(*FindCoordinator(root_), std::nullopt);
}

TEST_F(StoreTest, ANetworkFileSystemIsRefusedByItsNameAndWithWhatToDo) {
  struct Kind {
    int64_t magic;
    const char* name;
  };
  for (Kind kind : {Kind{0x6969, "NFS"}, {0xFF534D42, "CIFS"}, {0x01021997, "9P"}, {0x00C36400, "Ceph"}, {0x19830326, "BeeGFS"}}) {
    pretended_magic = kind.magic;
    auto store = Store::Open(root_);
    pretended_magic = 0;
    ASSERT_FALSE(store.ok()) << kind.name;
    EXPECT_EQ(store.error().code, ErrorCode::kInvalid);
    EXPECT_THAT(store.error().message, HasSubstr(std::string("network file system (") + kind.name + ")"));
    EXPECT_THAT(store.error().message, HasSubstr("local disk"));
    EXPECT_FALSE(std::filesystem::exists(root_ + "/index.db"));
  }
  // Behind FUSE is what the mount says; one that is not known to be local is not trusted.
  pretended_magic = 0x65735546;
  EXPECT_EQ(CodeOf(Store::Open(root_)), ErrorCode::kInvalid);
  pretended_magic = 0;
  EXPECT_TRUE(Store::Open(root_).ok());
}

TEST_F(StoreTest, TheLivingCoordinatorIsFound) {
  auto store = Open();
  ASSERT_TRUE(store->Announce({4711, "tcp://a:1", "tcp://a:2", "1.2"}).ok());
  auto found = FindCoordinator(root_);
  ASSERT_TRUE(found.ok() && found->has_value());
  EXPECT_EQ((*found)->pid, 4711);
  EXPECT_EQ((*found)->endpoint, "tcp://a:1");
  EXPECT_EQ((*found)->blob_endpoint, "tcp://a:2");
  EXPECT_EQ((*found)->version, "1.2");
  ASSERT_TRUE(store->Announce({1, "x", "y", "z"}).ok());  // shorter than the one before
  EXPECT_EQ((**FindCoordinator(root_)).endpoint, "x");
  store.reset();
  EXPECT_EQ(*FindCoordinator(root_), std::nullopt);
}

TEST_F(StoreTest, WithoutAStoreNoCoordinatorIsFoundAndNothingIsCreated) {
  EXPECT_EQ(*FindCoordinator(root_), std::nullopt);
  EXPECT_FALSE(std::filesystem::exists(root_));
}

TEST_F(StoreTest, LookingForACoordinatorDoesNotKeepOneFromStarting) {
  { auto store = Open(); }
  UniqueFd looking(::open((root_ + "/lock").c_str(), O_RDONLY));
  EXPECT_EQ(*FindCoordinator(root_), std::nullopt);
  EXPECT_TRUE(Store::Open(root_).ok());
}

TEST_F(StoreTest, TheLockOfAKilledCoordinatorIsNoObstacle) {
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  pid_t child = ::fork();
  if (child == 0) {
    auto store = Store::Open(root_);
    bool good = store.ok() && (*store)->Announce({::getpid(), "tcp://dead:1", "", ""}).ok();
    if (!good || ::write(ready[1], "x", 1) != 1) ::_exit(1);
    for (;;) ::pause();
  }
  ::close(ready[1]);
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  ::close(ready[0]);
  EXPECT_EQ(CodeOf(Store::Open(root_)), ErrorCode::kConflict);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_EQ(*FindCoordinator(root_), std::nullopt);
  EXPECT_TRUE(Store::Open(root_).ok());
}

TEST_F(StoreTest, WhatADeadProcessLeftInTheTemporaryDirectoryIsRemoved) {
  { auto store = Open(); }
  WriteBytes(root_ + "/tmp/1-2-3", "leftover");
  auto store = Open();
  EXPECT_EQ(FilesIn(root_ + "/tmp"), 0u);
}

TEST_F(StoreTest, AFileWhereTheStoreShouldBeIsNamed) {
  WriteBytes(directory_ / "file", "");
  auto store = Store::Open(directory_ / "file");
  ASSERT_FALSE(store.ok());
  EXPECT_EQ(store.error().code, ErrorCode::kIo);
  EXPECT_THAT(store.error().message, HasSubstr(directory_ / "file"));
}

TEST_F(StoreTest, ADamagedIndexIsTold) {
  { auto store = Open(); }
  WriteBytes(root_ + "/index.db", RandomBytes(8192, 9));
  auto store = Store::Open(root_);
  ASSERT_FALSE(store.ok());
  EXPECT_EQ(store.error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(store.error().message, HasSubstr(root_ + "/index.db"));
}

TEST_F(StoreTest, AStoreThatMayNotBeWrittenSaysSo) {
  { auto store = Open(); }
  std::filesystem::permissions(directory_.path(), std::filesystem::perms::all);
  for (const char* name : {"", "/lock", "/index.db", "/blobs", "/tmp"}) {
    ::chmod((root_ + name).c_str(), std::filesystem::is_directory(root_ + name) ? 0555 : 0444);
  }
  int code = AsNobody([&] {
    auto store = Store::Open(root_);
    return !store.ok() && store.error().code == ErrorCode::kIo && store.error().message.find("may not write there") != std::string::npos &&
           store.error().message.find(root_) != std::string::npos;
  });
  EXPECT_EQ(code, 0);
}

TEST_F(StoreTest, OfAStoreThatMayNotBeEnteredThePathIsNamedAndWhatToDo) {
  { auto store = Open(); }
  std::filesystem::permissions(directory_.path(), std::filesystem::perms::all);
  ::chmod(root_.c_str(), 0);
  int code = AsNobody([&] {
    auto living = FindCoordinator(root_);
    return !living.ok() && living.error().code == ErrorCode::kIo && living.error().message.find("change the owner or the mode of " + root_) != std::string::npos &&
           living.error().message.find("--store") != std::string::npos;
  });
  ::chmod(root_.c_str(), 0755);
  EXPECT_EQ(code, 0);
}

TEST_F(StoreTest, AStoreThatMayNotBeWrittenCanStillBeRead) {
  {
    auto store = Open();
    ASSERT_TRUE(store->index().Commit(RowOfEveryType()).ok());
    ASSERT_TRUE(store->blobs().Put(std::string_view("blob")).ok());
  }
  std::filesystem::permissions(directory_.path(), std::filesystem::perms::all);
  ::chmod(root_.c_str(), 0555);
  int code = AsNobody([&] {
    auto index = Index::OpenForReading(root_ + "/index.db");
    return index.ok() && (*index)->Load()->jobs.size() == 1 && OpenBlobDirectory(StorePaths(root_))->Get(DigestOf("blob")).ok();
  });
  ::chmod(root_.c_str(), 0755);
  EXPECT_EQ(code, 0);
}

TEST_F(StoreTest, TheReserveHoldsRealBlocks) {
  auto store = Open();
  struct stat info{};
  ASSERT_EQ(::stat((root_ + "/reserve").c_str(), &info), 0);
  EXPECT_EQ(info.st_size, kReserveBytes);
  EXPECT_GE(info.st_blocks * 512, kReserveBytes);
}

// An index on a disk that is full until the reserve's space is given back.
class FullDisk : public Index {
 public:
  explicit FullDisk(std::string reserve) : reserve_(std::move(reserve)) {}
  Status Commit(std::span<const Row>) override {
    ++tries;
    if (std::filesystem::file_size(reserve_) > 0) return Error{ErrorCode::kNoSpace, "database or disk is full"};
    ++committed;
    return Ok();
  }
  Result<StoredState> Load() override { return StoredState(); }
  Result<std::vector<MetricRow>> Metrics(const StepKey&, int64_t) override { return std::vector<MetricRow>(); }
  Result<std::vector<EventRow>> Events(std::string_view, int64_t, int64_t) override { return std::vector<EventRow>(); }
  int tries = 0, committed = 0;

 private:
  std::string reserve_;
};

TEST_F(StoreTest, OnAFullDiskACommitSpendsTheReserveAndSucceeds) {
  std::string path = directory_ / "reserve";
  Reserve reserve(path, 1 << 20);
  ASSERT_TRUE(reserve.Keep().ok());
  auto inner = std::make_unique<FullDisk>(path);
  FullDisk* disk = inner.get();
  auto index = NewReservedIndex(std::move(inner), reserve);
  EXPECT_TRUE(index->Commit(std::vector<Row>{JobOf("j1")}).ok());
  EXPECT_EQ(disk->committed, 1);
  EXPECT_FALSE(reserve.held());
  EXPECT_EQ(std::filesystem::file_size(path), 0u);
  EXPECT_TRUE(reserve.Keep().ok());  // there is space again
  EXPECT_TRUE(reserve.held());
  EXPECT_EQ(std::filesystem::file_size(path), 1u << 20);
}

TEST_F(StoreTest, AReserveThatDoesNotFitLeavesNothingBehindAndSaysHowMuchIsMissing) {
  // More than any disk has.
  std::string path = directory_ / "reserve";
  Reserve reserve(path, int64_t{1} << 42);
  Status status = reserve.Keep();
  ASSERT_FALSE(status.ok());
  EXPECT_THAT(status.error().message, HasSubstr("4194304 MiB for the reserve " + path));
  EXPECT_FALSE(reserve.held());
  EXPECT_EQ(std::filesystem::file_size(path), 0u);
}

}  // namespace
}  // namespace pare::storage
