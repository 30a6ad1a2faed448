// A store of an earlier release whose job is not finished: it opens, and the job goes on to the same end.
#include <gtest/gtest.h>

#include <map>
#include <memory>

#include "common/version.h"
#include "coordinator/service.h"
#include "storage/fsck.h"
#include "storage/index.h"
#include "tests/coordinator/harness.h"
#include "tests/coordinator/played_steps.h"
#include "tests/coordinator/service_site.h"
#include "tests/storage/older_store.h"

namespace pare::coordinator {
namespace {

// A coordinator on a store directory, and the one agent "w1", played.
class StoreSite {
 public:
  explicit StoreSite(const std::string& root, const std::vector<Lease>& running = {}) : service_(std::move(Service::Open(root, {.config = {}, .host = "here"})).value()) {
    Say("w1", Hello{"w1", std::string(kPareVersion), "here", "cpu", 1, running, {}});
  }
  void Say(const std::string& peer, const Message& message) {
    service_->Receive(peer, message);
    service_->Tick();
    Status status = service_->Flush();
    EXPECT_TRUE(status.ok()) << status.error().message;
    for (Send& send : service_->TakeSends()) {
      if (auto* granted = std::get_if<Grant>(&send.message)) grant = *granted;
      if (auto* reply = std::get_if<Reply>(&send.message)) reply_ = *reply;
    }
  }
  Json Get(const std::string& method, Json args) {
    Request request;
    request.id = 1;
    request.method = method;
    request.args = std::move(args);
    Say("client", request);
    EXPECT_TRUE(reply_.ok) << method << ": " << reply_.message;
    return reply_.result;
  }
  void Submit() {
    data::DataInfo info = TestData();
    info.blob = *blobs().Put(std::string_view("the images"));
    Get("submit", {{"recipe", kSmallRecipe}, {"recipe_name", "test.yaml"}, {"data", data::ToJson(info)}, {"weights", ""}});
  }
  void Finish() {
    Grant done = *std::exchange(grant, std::nullopt);
    auto assignment = worker::AssignmentFromText(done.assignment);
    ASSERT_TRUE(assignment.ok());
    Json manifest = PlayStep(blobs(), *assignment, 90.0);
    Say("w1", StepFinished{done.lease, ArtifactOf(manifest), manifest, 100});
  }
  void FinishAll() {
    while (grant) Finish();
  }
  storage::BlobStore& blobs() { return service_->store()->blobs(); }

  std::optional<Grant> grant;

 private:
  std::unique_ptr<Service> service_;
  Reply reply_;
};

class OlderStoreTest : public testing::TestWithParam<int> {};

TEST_P(OlderStoreTest, AnUnfinishedJobGoesOnToTheSameEnd) {
  storage::TemporaryDirectory directory;
  Json digest, report;
  {
    StoreSite undisturbed(directory / "undisturbed");
    undisturbed.Submit();
    undisturbed.FinishAll();
    digest = undisturbed.Get("digest", {{"job", "last"}});
  }
  std::string root = directory / "store";
  Grant running;
  {
    StoreSite before(root);
    before.Submit();
    for (int i = 0; i < 4; ++i) before.Finish();
    running = before.grant.value();
    before.Say("w1", Progress{running.lease, 0, {{.sequence = 1, .values = {{"epoch", 0.5}, {"loss", 1.5}}}}});
    before.Say("w1", SnapshotTaken{running.lease, 1, *before.blobs().Put(std::string_view("a snapshot")), {{"epoch", 1}, {"batch", 0}}});
  }
  storage::MakeOlder(root + "/index.db", GetParam());
  ASSERT_EQ(*storage::Index::SchemaOf(root + "/index.db"), GetParam());
  {
    StoreSite after(root, {running.lease});  // its worker has waited
    EXPECT_EQ(after.Get("list", Json::object())[0]["state"], "running");
    EXPECT_FALSE(after.grant.has_value()) << "the running step is given out a second time";
    after.grant = running;
    after.FinishAll();
    EXPECT_EQ(after.Get("list", Json::object())[0]["state"], "done");
    Json now = after.Get("digest", {{"job", "last"}});
    EXPECT_EQ(now["total"], digest["total"]);
    EXPECT_EQ(now["complete"], true);
    EXPECT_EQ(after.Get("models", Json::object())[0]["versions"].size(), 1u);
  }
  EXPECT_EQ(*storage::Index::SchemaOf(root + "/index.db"), storage::kSchemaVersion);
  auto examined = storage::Fsck(storage::StorePaths(root), false);
  ASSERT_TRUE(examined.ok()) << examined.error().message;
  EXPECT_TRUE(examined->clean()) << storage::ToJson(*examined).dump(1);
}

// Its worker is gone: the step begins again from the snapshot that the older release recorded.
TEST_P(OlderStoreTest, ASnapshotIsWhereTheStepGoesOn) {
  storage::TemporaryDirectory directory;
  std::string root = directory / "store";
  Digest snapshot;
  StepKey step;
  {
    StoreSite before(root);
    before.Submit();
    for (int i = 0; i < 4; ++i) before.Finish();
    snapshot = *before.blobs().Put(std::string_view("a snapshot"));
    step = before.grant->lease.step;
    before.Say("w1", SnapshotTaken{before.grant->lease, 1, snapshot, {{"epoch", 1}, {"batch", 0}}});
    before.Say("w1", Released{before.grant->lease, snapshot, {{"epoch", 1}, {"batch", 0}}, 5});
  }
  storage::MakeOlder(root + "/index.db", GetParam());
  StoreSite after(root);
  for (int i = 0; i < 20 && after.grant && after.grant->lease.step != step; ++i) after.Finish();
  ASSERT_TRUE(after.grant.has_value());
  auto assignment = worker::AssignmentFromText(after.grant->assignment);
  ASSERT_TRUE(assignment.ok());
  EXPECT_EQ(assignment->snapshot, snapshot);
}

INSTANTIATE_TEST_SUITE_P(EarlierVersions, OlderStoreTest, testing::Range(1, storage::kSchemaVersion));

}  // namespace
}  // namespace pare::coordinator
