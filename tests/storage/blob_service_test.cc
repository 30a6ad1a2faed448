// The blob service's protocol without a socket: bad requests, lost and repeated messages, services that forget.
#include "storage/blob_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <functional>

#include "storage/store.h"
#include "tests/storage/files.h"

namespace pare::storage {
namespace {

using testing::HasSubstr;

// A client's side of a network that ends in a service. Time passes when the client waits in vain.
class Wire : public ClientTransport {
 public:
  explicit Wire(BlobStore& blobs) : service(std::make_unique<BlobService>(blobs)), clock(std::make_shared<FakeClock>()) {}

  void Send(std::string_view message) override {
    if (lose_request && lose_request(sent++)) return;
    if (before) before(message);
    std::string reply = service->Handle(message);
    largest = std::max({largest, message.size(), reply.size()});
    if (lose_reply && lose_reply(replied++)) return;
    inbox.push_back(std::move(reply));
  }
  std::optional<std::string> Receive(Millis timeout, int) override {
    if (inbox.empty()) {
      clock->Advance(timeout);
      return std::nullopt;
    }
    std::string reply = std::move(inbox.front());
    inbox.pop_front();
    return reply;
  }

  std::unique_ptr<BlobService> service;
  std::shared_ptr<FakeClock> clock;
  std::function<bool(int)> lose_request, lose_reply;
  std::function<void(std::string_view)> before;
  std::deque<std::string> inbox;
  size_t largest = 0;
  int sent = 0, replied = 0;
};

class BlobServiceTest : public testing::Test {
 protected:
  BlobServiceTest() {
    auto wire = std::make_unique<Wire>(*blobs_);
    wire_ = wire.get();
    std::shared_ptr<const Clock> clock = wire->clock;
    remote_ = NewRemoteBlobStore(std::move(wire), Millis(10'000), clock);
  }
  std::string Ask(const std::string& request) { return wire_->service->Handle(request); }

  std::unique_ptr<BlobStore> blobs_ = NewMemoryBlobStore();
  Wire* wire_;
  std::unique_ptr<BlobStore> remote_;
  const std::string large_ = RandomBytes((20 << 20) + 3, 1);
};

TEST_F(BlobServiceTest, NoMessageIsMuchLargerThanAChunk) {
  Digest digest = *remote_->Put(std::string_view(large_));
  EXPECT_TRUE(remote_->Get(digest)->text() == large_);
  EXPECT_LT(wire_->largest, static_cast<size_t>(kBlobChunk) + 1000);
}

TEST_F(BlobServiceTest, LostRequestsAreRepeated) {
  wire_->lose_request = [](int i) { return i % 3 == 1; };
  auto digest = remote_->Put(std::string_view(large_));
  ASSERT_TRUE(digest.ok()) << digest.error().message;
  auto view = remote_->Get(*digest);
  ASSERT_TRUE(view.ok()) << view.error().message;
  EXPECT_TRUE(view->text() == large_);
}

TEST_F(BlobServiceTest, LostRepliesAreAskedForAgain) {
  wire_->lose_reply = [](int i) { return i % 3 == 1; };
  auto writer = remote_->NewWriter();
  ASSERT_TRUE((*writer)->Append(large_).ok());
  auto digest = (*writer)->Finish();
  ASSERT_TRUE(digest.ok()) << digest.error().message;
  EXPECT_TRUE(blobs_->Get(*digest)->text() == large_);
  EXPECT_TRUE(remote_->Get(*digest)->text() == large_);
}

TEST_F(BlobServiceTest, ALostReplyToACommitIsNoError) {
  std::string last;
  int lost = 0;
  wire_->before = [&](std::string_view message) { last = std::string(message.substr(0, 200)); };
  wire_->lose_reply = [&](int) { return last.find("\"commit\"") != std::string::npos && lost++ == 0; };
  EXPECT_TRUE(remote_->Put(std::string_view("small")).ok());
  EXPECT_EQ(lost, 2);
  EXPECT_TRUE(*blobs_->Contains(DigestOf("small")));
}

TEST_F(BlobServiceTest, AServiceThatNeverAnswersIsUnreachableInTheEnd) {
  wire_->lose_request = [](int) { return true; };
  auto view = remote_->Get(DigestOf("x"));
  ASSERT_FALSE(view.ok());
  EXPECT_EQ(view.error().code, ErrorCode::kUnreachable);
  EXPECT_EQ(wire_->clock->Monotonic(), Millis(10'000));
}

TEST_F(BlobServiceTest, AnUploadThatTheServiceForgotStartsAgain) {
  int chunks = 0;
  wire_->before = [&](std::string_view message) {
    if (message.substr(0, 200).find("\"chunk\"") != std::string_view::npos && ++chunks == 5) wire_->service = std::make_unique<BlobService>(*blobs_);
  };
  auto digest = remote_->Put(std::string_view(large_));
  ASSERT_TRUE(digest.ok()) << digest.error().message;
  EXPECT_TRUE(blobs_->Get(*digest)->text() == large_);
}

TEST_F(BlobServiceTest, AWriterOfAServiceThatRestartedFailsRatherThanLosingBytes) {
  auto writer = remote_->NewWriter();
  ASSERT_TRUE((*writer)->Append(large_).ok());
  wire_->service = std::make_unique<BlobService>(*blobs_);
  auto digest = (*writer)->Finish();
  ASSERT_FALSE(digest.ok());
  EXPECT_EQ(digest.error().code, ErrorCode::kNotFound);
}

TEST_F(BlobServiceTest, AnInterruptedUploadGoesOnWhereItStopped) {
  std::string head = "{\"id\":1,\"op\":\"begin\",\"digest\":\"" + DigestOf("0123456789").hex() + "\",\"size\":10}\n";
  EXPECT_THAT(Ask(head), HasSubstr("\"upload\":1,\"offset\":0"));
  EXPECT_THAT(Ask("{\"id\":2,\"op\":\"chunk\",\"upload\":1,\"offset\":0}\n01234"), HasSubstr("\"offset\":5"));
  EXPECT_THAT(Ask(head), HasSubstr("\"upload\":1,\"offset\":5"));
  EXPECT_THAT(Ask("{\"id\":3,\"op\":\"chunk\",\"upload\":1,\"offset\":3}\n3456789"), HasSubstr("\"offset\":10"));  // overlaps
  EXPECT_THAT(Ask("{\"id\":4,\"op\":\"commit\",\"upload\":1}\n"), HasSubstr("\"ok\":true"));
  EXPECT_EQ(blobs_->Get(DigestOf("0123456789"))->text(), "0123456789");
}

TEST_F(BlobServiceTest, AChunkAfterALostOneIsNotStoredInItsPlace) {
  Ask("{\"id\":1,\"op\":\"begin\",\"digest\":\"" + DigestOf("0123456789").hex() + "\",\"size\":10}\n");
  EXPECT_THAT(Ask("{\"id\":2,\"op\":\"chunk\",\"upload\":1,\"offset\":5}\n56789"), HasSubstr("\"ok\":true,\"offset\":0"));
}

TEST_F(BlobServiceTest, OtherBytesThanTheDigestNamesAreRefused) {
  Ask("{\"id\":1,\"op\":\"begin\",\"digest\":\"" + DigestOf("good").hex() + "\",\"size\":4}\n");
  Ask("{\"id\":2,\"op\":\"chunk\",\"upload\":1,\"offset\":0}\nevil");
  EXPECT_THAT(Ask("{\"id\":3,\"op\":\"commit\",\"upload\":1}\n"), HasSubstr("\"code\":\"corrupt\""));
  EXPECT_FALSE(*blobs_->Contains(DigestOf("good")));
  EXPECT_FALSE(*blobs_->Contains(DigestOf("evil")));
}

TEST_F(BlobServiceTest, TheOldestOfTooManyUploadsIsDropped) {
  for (size_t i = 0; i < kMaxUploads + 1; ++i) EXPECT_THAT(Ask("{\"id\":1,\"op\":\"begin\"}\n"), HasSubstr("\"ok\":true"));
  EXPECT_THAT(Ask("{\"id\":2,\"op\":\"chunk\",\"upload\":1,\"offset\":0}\nx"), HasSubstr("\"code\":\"not_found\""));
  EXPECT_THAT(Ask("{\"id\":2,\"op\":\"chunk\",\"upload\":2,\"offset\":0}\nx"), HasSubstr("\"ok\":true"));
}

// The service over a directory that holds one blob, "fine".
class BlobServiceOfDirectoryTest : public BlobServiceTest {
 protected:
  BlobServiceOfDirectoryTest() {
    std::filesystem::create_directories(paths_.tmp());
    digest_ = *behind_->Put(std::string_view("fine"));
    wire_->service = std::make_unique<BlobService>(*behind_);
  }

  TemporaryDirectory directory_;
  StorePaths paths_{directory_.path()};
  std::unique_ptr<BlobStore> behind_ = OpenBlobDirectory(paths_);
  Digest digest_;
};

TEST_F(BlobServiceOfDirectoryTest, ADamagedBlobIsToldAsSuch) {
  WriteBytes(paths_.blob(digest_), "evil");
  EXPECT_EQ(CodeOf(remote_->Get(digest_)), ErrorCode::kCorrupt);
}

TEST_F(BlobServiceOfDirectoryTest, ADamagedBlobIsReplacedByOneThatIsPut) {
  WriteBytes(paths_.blob(digest_), "evil");
  EXPECT_EQ(remote_->Put(std::string_view("fine")).value(), digest_);
  auto view = behind_->Get(digest_);
  ASSERT_TRUE(view.ok()) << view.error().message;
  EXPECT_EQ(view->text(), "fine");
}

// As a Put in the directory itself: who collects garbage leaves it alone.
TEST_F(BlobServiceOfDirectoryTest, ABlobThatIsThereIsPutAgain) {
  auto long_ago = std::filesystem::last_write_time(paths_.blob(digest_)) - std::chrono::hours(5);
  std::filesystem::last_write_time(paths_.blob(digest_), long_ago);
  EXPECT_EQ(remote_->Put(std::string_view("fine")).value(), digest_);
  EXPECT_GT(std::filesystem::last_write_time(paths_.blob(digest_)), long_ago + std::chrono::hours(4));
}

TEST_F(BlobServiceTest, WhatIsNotARequestIsAnswered) {
  std::string digest = DigestOf("x").hex();
  (void)blobs_->Put(std::string_view("x"));
  const std::vector<std::string> requests = {
      "", "\n", "{", "{}", "{}\n", "[]\n", "null\n", "{\"op\":7}\n", "{\"id\":1,\"op\":\"fly\"}\n", "{\"id\":1,\"op\":\"get\"}\n",
      "{\"id\":1,\"op\":\"get\",\"digest\":\"abc\",\"offset\":0,\"length\":1}\n",
      "{\"id\":1,\"op\":\"get\",\"digest\":\"" + digest + "\",\"offset\":-1,\"length\":1}\n",
      "{\"id\":1,\"op\":\"get\",\"digest\":\"" + digest + "\",\"offset\":2,\"length\":1}\n",
      "{\"id\":1,\"op\":\"get\",\"digest\":\"" + digest + "\",\"offset\":0,\"length\":9223372036854775807}\n",
      "{\"id\":1,\"op\":\"begin\",\"digest\":\"" + digest + "\",\"size\":-5}\n",
      "{\"id\":1,\"op\":\"begin\",\"digest\":\"" + DigestOf("y").hex() + "\",\"size\":9223372036854775807}\n",
      "{\"id\":1,\"op\":\"chunk\",\"upload\":99,\"offset\":0}\nx", "{\"id\":1,\"op\":\"commit\",\"upload\":99}\n",
  };
  for (const std::string& request : requests) EXPECT_THAT(Ask(request), HasSubstr("\"ok\":false")) << request;
}

TEST_F(BlobServiceTest, ChunksOutsideAnUploadAreRefused) {
  Ask("{\"id\":1,\"op\":\"begin\",\"digest\":\"" + DigestOf("0123").hex() + "\",\"size\":4}\n");
  for (const char* offset : {"-1", "5", "9223372036854775807", "1"}) {
    EXPECT_THAT(Ask("{\"id\":2,\"op\":\"chunk\",\"upload\":1,\"offset\":" + std::string(offset) + "}\n0123"), HasSubstr("\"code\":\"invalid\"")) << offset;
  }
  EXPECT_THAT(Ask("{\"id\":2,\"op\":\"chunk\",\"upload\":1,\"offset\":0}\n" + std::string(kBlobChunk + 1, 'x')), HasSubstr("\"code\":\"invalid\""));
}

TEST_F(BlobServiceTest, AnyBytesAreAnsweredWithAReplyOfTheProtocol) {
  RandomStream random(5, RandomPurpose::kTest);
  const std::string good = "{\"digest\":\"" + DigestOf("x").hex() + "\",\"id\":1,\"length\":10,\"offset\":0,\"op\":\"get\"}\n";
  for (int i = 0; i < 2000; ++i) {
    std::string request = good;
    for (uint64_t n = random.Below(4) + 1; n > 0; --n) request[random.Below(request.size())] = static_cast<char>(random.Bits());
    std::string reply = Ask(request);
    auto head = ParseJson(std::string_view(reply).substr(0, reply.find('\n')), "reply");
    ASSERT_TRUE(head.ok() && head->contains("ok") && head->contains("id")) << reply;
  }
}

}  // namespace
}  // namespace pare::storage
