// Backups: a store of one moment, whatever goes on meanwhile.
#include "storage/backup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "storage/blob_files.h"
#include "tests/storage/world.h"

namespace pare::storage {
namespace {

using testing::HasSubstr;

TEST(BackupTest, IsAStoreWithEverythingInIt) {
  World world;
  TemporaryDirectory directory;
  std::string target = directory / "backup";
  auto report = BackUp(world.paths(), target);
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_EQ(report->blobs, 10);
  EXPECT_EQ(report->copied_blobs, 10);
  EXPECT_TRUE(report->missing.empty());
  EXPECT_TRUE(Fsck(StorePaths(target), false)->clean());
  auto store = Store::Open(target);
  ASSERT_TRUE(store.ok()) << store.error().message;
  EXPECT_EQ((*store)->index().Load()->artifacts, world.Load().artifacts);
  EXPECT_TRUE((*store)->blobs().Get(world.Blob("a/02-retrain")).ok());
}

TEST(BackupTest, IsBroughtUpToDateAndNotMixedWithOtherFiles) {
  World world;
  TemporaryDirectory directory;
  std::string target = directory / "backup";
  ASSERT_TRUE(BackUp(world.paths(), target).ok());
  auto again = BackUp(world.paths(), target);
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ(again->copied_blobs, 0);
  EXPECT_EQ(again->blobs, 10);
  EXPECT_TRUE(Fsck(StorePaths(target), false)->clean());  // leaves nothing that is in the way of the next one
  EXPECT_TRUE(BackUp(world.paths(), target).ok());
  WriteBytes(directory / "backup/notes.txt", "mine");
  auto refused = BackUp(world.paths(), target);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalid);
  EXPECT_THAT(refused.error().message, HasSubstr("notes.txt"));
}

TEST(BackupTest, APlaceInTheStoreItselfIsRefused) {
  World world;
  TemporaryDirectory directory;
  std::filesystem::create_directory_symlink(world.root(), directory / "link");
  for (const std::string& target : {world.root(), world.root() + "/", world.root() + "/backup", world.root() + "/deep/../er/backup", world.root() + "/tmp", directory / "link/backup"}) {
    auto refused = BackUp(world.paths(), target);
    ASSERT_FALSE(refused.ok()) << target;
    EXPECT_EQ(refused.error().code, ErrorCode::kInvalid);
    EXPECT_THAT(refused.error().message, HasSubstr("choose a directory elsewhere")) << target;
  }
  EXPECT_FALSE(std::filesystem::exists(world.root() + "/backup"));
  EXPECT_TRUE(BackUp(world.paths(), world.root() + "-backup").ok()) << "beside it is not in it";
  std::filesystem::remove_all(world.root() + "-backup");
}

TEST(BackupTest, NamesBlobsThatTheStoreLacks) {
  World world;
  TemporaryDirectory directory;
  std::filesystem::remove(world.paths().blob(world.Blob("a/01-prune")));
  auto report = BackUp(world.paths(), directory / "backup");
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->missing, std::vector{world.Blob("a/01-prune").hex()});
}

// Every artifact that the copied index names is whole, although new ones come all the time.
TEST(BackupTest, IsConsistentWhileACoordinatorWrites) {
  World world;
  TemporaryDirectory directory;
  auto store = std::move(Store::Open(world.root())).value();
  std::atomic<bool> end{false};
  std::atomic<int> written{0};
  std::thread writer([&] {
    for (int i = 0; !end && i < 5000; ++i) {
      Json spec = {{"number", i}};
      StepKey key(DigestOf(Canonical(spec)).bytes());
      std::string bytes = "result " + std::to_string(i);
      Artifact artifact{.kind = "checkpoint", .step = key};
      artifact.blobs["checkpoint"] = {*store->blobs().Put(std::string_view(bytes)), static_cast<int64_t>(bytes.size())};
      StepRow step{.key = key, .kind = "train", .spec = spec, .state = "done", .artifact = *PutArtifact(store->blobs(), artifact)};
      ArtifactRow row{.digest = step.artifact, .key = key, .manifest = ToJson(artifact), .bytes = 9, .created_ms = 1};
      CHECK(store->index().Commit(std::vector<Row>{step, row}).ok());
      ++written;
    }
  });
  for (int i = 0; i < 3; ++i) {
    int before = written;
    while (written < before + 3) std::this_thread::yield();
    std::string target = directory / ("backup" + std::to_string(i));
    auto report = BackUp(world.paths(), target);
    EXPECT_TRUE(report.ok()) << report.error().message;
    auto examined = Fsck(StorePaths(target), false);
    EXPECT_TRUE(examined.ok() && examined->clean()) << ToJson(*examined).dump(1);
  }
  end = true;
  writer.join();
}

}  // namespace
}  // namespace pare::storage
