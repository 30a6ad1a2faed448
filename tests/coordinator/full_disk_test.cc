// A coordinator whose disk has no room for the reserve: nothing new is accepted, what is known is told, and garbage can go.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/memory_transport.h"
#include "coordinator/event_loop.h"
#include "storage/store.h"
#include "tests/storage/fault_disk.h"
#include "tests/storage/files.h"

namespace pare::coordinator {
namespace {

using storage::Fault;
using storage::FaultDisk;
using testing::HasSubstr;

class FullDiskTest : public testing::Test {
 protected:
  void SetUp() override {
    {
      auto store = std::move(storage::Store::Open(root_)).value();
      garbage_ = *store->blobs().Put(std::string_view("garbage"));
    }
    std::filesystem::remove(root_ + "/reserve");
    disk_.emplace(root_);
    disk_->Arm(Fault::kNearlyFull, 1);
    service_ = std::move(Service::Open(root_, {.config = {}, .host = "here"})).value();
    transport_ = std::move(network_.Listen()).value();
    client_ = network_.Connect();
    loop_.emplace(LoopParts{service_.get(), transport_.get(), &clock_, -1, {}});
    ASSERT_TRUE(loop_->Turn().ok());
  }
  Reply Ask(const std::string& method, Json args) {
    Request request;
    request.id = ++asked_;
    request.method = method;
    request.args = std::move(args);
    client_->Send(Encode(request));
    EXPECT_TRUE(loop_->Turn().ok());
    auto bytes = client_->Receive(Millis(0));
    auto message = bytes ? Decode(*bytes) : Result<Message>(Error{});
    if (message.ok() && std::holds_alternative<Reply>(*message)) return std::get<Reply>(*message);
    ADD_FAILURE() << method << " is not answered";
    return {};
  }

  storage::TemporaryDirectory directory_;
  std::string root_ = directory_ / "store";
  Digest garbage_;
  std::optional<FaultDisk> disk_;
  SystemClock clock_;
  MemoryNetwork network_;
  std::unique_ptr<ServerTransport> transport_;
  std::unique_ptr<ClientTransport> client_;
  std::unique_ptr<Service> service_;
  std::optional<EventLoop> loop_;
  int64_t asked_ = 0;
};

TEST_F(FullDiskTest, ChangesAreRefusedAndQuestionsAnswered) {
  Reply refused = Ask("pause", {{"job", "last"}});
  EXPECT_EQ(refused.code, "no_space");
  EXPECT_THAT(refused.message, HasSubstr("free some space"));
  for (const char* query : {"list", "models", "ping"}) EXPECT_TRUE(Ask(query, Json::object()).ok) << query;
}

TEST_F(FullDiskTest, GarbageCanBeCollectedAndThenChangesAreAcceptedAgain) {
  Reply dry = Ask("gc", {{"dry_run", true}, {"young_ms", 0}});
  ASSERT_TRUE(dry.ok) << dry.message;
  EXPECT_EQ(dry.result["blobs"], 1);
  Reply collected = Ask("gc", {{"young_ms", 0}});
  ASSERT_TRUE(collected.ok) << collected.message;
  EXPECT_EQ(collected.result["removed_blobs"], 1);
  EXPECT_FALSE(*service_->store()->blobs().Contains(garbage_));
  disk_->Arm(Fault::kNone, 0);  // that made room
  ASSERT_TRUE(loop_->Turn().ok());
  EXPECT_EQ(Ask("pause", {{"job", "last"}}).code, "not_found");  // heard: there is no job
}

}  // namespace
}  // namespace pare::coordinator
