// The directory of blobs on disk: names, damage, several processes.
#include <gtest/gtest.h>
#include <sys/file.h>
#include <unistd.h>

#include "common/files.h"
#include "storage/store.h"
#include "tests/storage/files.h"

namespace pare::storage {
namespace {

class BlobDirectoryTest : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(paths_.blobs());
    std::filesystem::create_directories(paths_.tmp());
    store_ = OpenBlobDirectory(paths_);
  }
  TemporaryDirectory directory_;
  StorePaths paths_{directory_.path()};
  std::unique_ptr<BlobStore> store_;
};

TEST_F(BlobDirectoryTest, ABlobLiesUnderItsDigest) {
  Digest digest = *store_->Put(std::string_view("abc"));
  // SHA-256 of "abc" (FIPS 180-2, appendix B.1).
  EXPECT_EQ(ReadBytes(directory_ / "blobs/ba/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"), "abc");
  EXPECT_EQ(paths_.blob(digest), directory_ / "blobs/ba/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(FilesIn(directory_.path()), 2u) << "the blob, and maintenance.lock";
}

TEST_F(BlobDirectoryTest, EveryDamageIsSeenByAnOpenStoreAndByANewOne) {
  std::string bytes = RandomBytes(1000, 1);
  Digest digest = *store_->Put(std::string_view(bytes));
  ASSERT_TRUE(store_->Get(digest).ok());
  std::string flipped = bytes;
  flipped[500] = static_cast<char>(flipped[500] ^ 1);
  for (const std::string& damaged : {flipped, bytes.substr(0, 999), std::string(), bytes + "x"}) {
    std::filesystem::remove(paths_.blob(digest));  // another inode: the time of change is too coarse for a test
    WriteBytes(paths_.blob(digest), damaged);
    for (BlobStore* store : {store_.get(), OpenBlobDirectory(paths_).release()}) {
      auto view = store->Get(digest);
      ASSERT_FALSE(view.ok()) << damaged.size();
      EXPECT_EQ(view.error().code, ErrorCode::kCorrupt);
      EXPECT_NE(view.error().message.find(digest.hex()), std::string::npos);
      if (store != store_.get()) delete store;
    }
  }
}

TEST_F(BlobDirectoryTest, PuttingTheBytesAgainHealsADamagedBlob) {
  std::string bytes = RandomBytes(1000, 2), damaged = bytes;
  Digest digest = *store_->Put(std::string_view(bytes));
  damaged[7] = static_cast<char>(damaged[7] ^ 0x40);  // of the same length
  std::filesystem::remove(paths_.blob(digest));
  WriteBytes(paths_.blob(digest), damaged);
  ASSERT_FALSE(store_->Get(digest).ok());
  ASSERT_TRUE(store_->Put(std::string_view(bytes)).ok());
  EXPECT_EQ(store_->Get(digest)->text(), bytes);
}

TEST_F(BlobDirectoryTest, NothingStaysInTheTemporaryDirectory) {
  (void)store_->Put(std::string_view("put"));
  {
    auto writer = store_->NewWriter();
    (void)(*writer)->Append("written");
    EXPECT_EQ(FilesIn(paths_.tmp()), 1u);
    (void)(*writer)->Finish();
    auto dropped = store_->NewWriter();
    (void)(*dropped)->Append("dropped");
    auto refused = store_->NewWriter();
    (void)(*refused)->Append("refused");
    EXPECT_FALSE((*refused)->Finish(DigestOf("other")).ok());
  }
  EXPECT_EQ(FilesIn(paths_.tmp()), 0u);
}

TEST_F(BlobDirectoryTest, ACoordinatorThatOpensTheStoreLeavesAFileInProgressAlone) {
  auto writer = store_->NewWriter();
  ASSERT_TRUE((*writer)->Append("in prog").ok());
  WriteBytes(paths_.tmp() + "/4711-1-1", "of a dead process");
  auto opened = Store::Open(directory_.path());
  ASSERT_TRUE(opened.ok()) << opened.error().message;
  EXPECT_EQ(FilesIn(paths_.tmp()), 1u);
  ASSERT_TRUE((*writer)->Append("ress").ok());
  Digest digest = *(*writer)->Finish();
  EXPECT_EQ((*opened)->blobs().Get(digest)->text(), "in progress");
}

TEST_F(BlobDirectoryTest, ABlobOfAnotherProcessIsSeenAtOnce) {
  auto other = OpenBlobDirectory(paths_);
  Digest digest = DigestOf("theirs");
  EXPECT_FALSE(*store_->Contains(digest));
  ASSERT_TRUE(other->Put(std::string_view("theirs")).ok());
  EXPECT_TRUE(*store_->Contains(digest));
  EXPECT_EQ(store_->Get(digest)->text(), "theirs");
}

TEST_F(BlobDirectoryTest, ADirectoryThatCannotBeWrittenIsNamed) {
  std::filesystem::remove(paths_.tmp());
  WriteBytes(paths_.tmp(), "a file where the directory should be");
  auto digest = store_->Put(std::string_view("nowhere"));
  ASSERT_FALSE(digest.ok());
  EXPECT_EQ(digest.error().code, ErrorCode::kIo);
  EXPECT_NE(digest.error().message.find(paths_.tmp()), std::string::npos) << digest.error().message;
}

}  // namespace
}  // namespace pare::storage
