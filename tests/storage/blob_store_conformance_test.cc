// What every BlobStore must do: a directory, memory, and a directory behind the blob service on a socket.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "storage/blob_service.h"
#include "storage/store.h"
#include "tests/storage/files.h"

namespace pare::storage {
namespace {

class BlobStoreTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    StorePaths paths(directory_.path());
    std::filesystem::create_directories(paths.blobs());
    std::filesystem::create_directories(paths.tmp());
    behind_ = OpenBlobDirectory(paths);
    if (GetParam() == "Directory") store_ = OpenBlobDirectory(paths);
    if (GetParam() == "Memory") store_ = NewMemoryBlobStore();
    if (GetParam() == "Remote") {
      server_ = std::move(BlobServer::Start("tcp://127.0.0.1:*", *behind_)).value();
      store_ = std::move(ConnectBlobStore(server_->endpoint())).value();
    }
  }
  void TearDown() override { store_.reset(); }

  TemporaryDirectory directory_;
  std::unique_ptr<BlobStore> behind_;
  std::unique_ptr<BlobServer> server_;
  std::unique_ptr<BlobStore> store_;
};

TEST_P(BlobStoreTest, GivesBackWhatWasPut) {
  // Around the size of a chunk and of the credit as well.
  for (size_t size : {0ul, 1ul, 1000ul, (1ul << 20) - 1, 1ul << 20, (1ul << 20) + 1, (9ul << 20) + 5}) {
    std::string bytes = RandomBytes(size, size);
    auto digest = store_->Put(std::string_view(bytes));
    ASSERT_TRUE(digest.ok()) << size << ": " << digest.error().message;
    EXPECT_EQ(*digest, DigestOf(bytes));
    auto view = store_->Get(*digest);
    ASSERT_TRUE(view.ok()) << size << ": " << view.error().message;
    EXPECT_TRUE(view->text() == bytes) << size;
  }
}

TEST_P(BlobStoreTest, ABlobOutlivesTheStoreThatGaveIt) {
  std::string bytes = RandomBytes(3 << 20, 1);
  Digest digest = *store_->Put(std::string_view(bytes));
  BlobView view = *store_->Get(digest);
  store_.reset();
  EXPECT_TRUE(view.text() == bytes);
}

TEST_P(BlobStoreTest, ABlobOfAnotherSizeIsNotTheOneThatIsMeant) {
  Digest digest = *store_->Put(std::string_view("whole"));
  EXPECT_TRUE(*store_->Holds(digest, 5));
  EXPECT_FALSE(*store_->Holds(DigestOf("nothing"), 7));
  if (GetParam() == "Remote") return;  // it does not ask for sizes
  EXPECT_FALSE(*store_->Holds(digest, 4));
  EXPECT_FALSE(*store_->Holds(digest, 0));
}

TEST_P(BlobStoreTest, TheSameBytesTwiceAreOneBlob) {
  Digest first = *store_->Put(std::string_view("once")), second = *store_->Put(std::string_view("once"));
  EXPECT_EQ(first, second);
  EXPECT_EQ(store_->Get(first)->text(), "once");
}

TEST_P(BlobStoreTest, WhatWasNeverPutIsNotFoundAndNamed) {
  Digest digest = DigestOf("never stored");
  EXPECT_FALSE(*store_->Contains(digest));
  auto view = store_->Get(digest);
  ASSERT_FALSE(view.ok());
  EXPECT_EQ(view.error().code, ErrorCode::kNotFound);
  EXPECT_NE(view.error().message.find(digest.hex()), std::string::npos) << view.error().message;
}

TEST_P(BlobStoreTest, ContainsWhatWasPut) {
  Digest digest = *store_->Put(std::string_view("here"));
  EXPECT_TRUE(*store_->Contains(digest));
}

TEST_P(BlobStoreTest, PiecesBecomeOneBlob) {
  std::string bytes = RandomBytes((10 << 20) + 17, 7);
  auto writer = store_->NewWriter();
  ASSERT_TRUE(writer.ok()) << writer.error().message;
  // Pieces smaller and larger than a chunk and than what may be in flight.
  size_t at = 0;
  for (size_t piece : {1ul, 0ul, 100'000ul, (9ul << 20) + 1, bytes.size()}) {
    Status status = (*writer)->Append(std::string_view(bytes).substr(at, piece));
    ASSERT_TRUE(status.ok()) << status.error().message;
    at = std::min(bytes.size(), at + piece);
  }
  auto digest = (*writer)->Finish();
  ASSERT_TRUE(digest.ok()) << digest.error().message;
  EXPECT_EQ(*digest, DigestOf(bytes));
  EXPECT_TRUE(store_->Get(*digest)->text() == bytes);
}

TEST_P(BlobStoreTest, NoPiecesAreTheEmptyBlob) {
  auto writer = store_->NewWriter();
  EXPECT_EQ(*(*writer)->Finish(), DigestOf(""));
  EXPECT_TRUE(*store_->Contains(DigestOf("")));
}

TEST_P(BlobStoreTest, PiecesOfOtherBytesThanExpectedAreNoBlob) {
  auto writer = store_->NewWriter();
  ASSERT_TRUE((*writer)->Append("what came").ok());
  auto digest = (*writer)->Finish(DigestOf("what should have come"));
  ASSERT_FALSE(digest.ok());
  EXPECT_EQ(digest.error().code, ErrorCode::kCorrupt);
  EXPECT_FALSE(*store_->Contains(DigestOf("what came")));
  EXPECT_FALSE(*store_->Contains(DigestOf("what should have come")));
}

TEST_P(BlobStoreTest, AWriterThatIsDroppedLeavesNoBlob) {
  {
    auto writer = store_->NewWriter();
    ASSERT_TRUE((*writer)->Append("given up").ok());
  }
  EXPECT_FALSE(*store_->Contains(DigestOf("given up")));
}

TEST_P(BlobStoreTest, TwoWritersDoNotMixTheirBytes) {
  std::string a = RandomBytes(3 << 20, 1), b = RandomBytes(3 << 20, 2);
  auto first = store_->NewWriter(), second = store_->NewWriter();
  for (size_t at = 0; at < a.size(); at += 1 << 18) {
    ASSERT_TRUE((*first)->Append(std::string_view(a).substr(at, 1 << 18)).ok());
    ASSERT_TRUE((*second)->Append(std::string_view(b).substr(at, 1 << 18)).ok());
  }
  EXPECT_EQ(*(*second)->Finish(), DigestOf(b));
  EXPECT_EQ(*(*first)->Finish(), DigestOf(a));
}

TEST_P(BlobStoreTest, ThreadsMayPutAndGetAtOnce) {
  constexpr int kThreads = 4, kBlobs = 40;
  std::atomic<int> good{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kBlobs; ++i) {
        // Half of them are the same in all threads.
        std::string bytes = RandomBytes(5000, static_cast<uint64_t>(i % 2 == 0 ? i : 1000 * t + i));
        auto digest = store_->Put(std::string_view(bytes));
        EXPECT_TRUE(digest.ok()) << digest.error().message;
        if (!digest.ok()) continue;
        auto view = store_->Get(*digest);
        EXPECT_TRUE(view.ok()) << view.error().message;
        good += view.ok() && view->text() == bytes;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, kThreads * kBlobs);
}

INSTANTIATE_TEST_SUITE_P(Kinds, BlobStoreTest, testing::Values("Directory", "Memory", "Remote"), [](const auto& kind) { return kind.param; });

}  // namespace
}  // namespace pare::storage
