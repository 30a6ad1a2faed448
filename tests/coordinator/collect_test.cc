// Collected checkpoints: reports stay what they are, and a job that needs one has it made again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "storage/gc.h"
#include "tests/coordinator/service_site.h"

namespace pare::coordinator {
namespace {

using testing::HasSubstr;

class CollectTest : public testing::Test {
 protected:
  CollectTest() {
    site.Join("w1");
    job = site.Submit(kSmallRecipe);
    site.FinishAll();
  }
  // What a collection that keeps versions only does: marks, then blobs.
  void CollectCheckpoints() {
    storage::StoredState stored = std::move(site.index.Load()).value();
    std::vector<storage::Row> rows;
    for (storage::ArtifactRow row : stored.artifacts) {
      bool registered = row.digest == stored.versions.at(0).artifact;
      if (row.manifest.Tree()["kind"] != "checkpoint" || registered) continue;
      row.collected_ms = 5;
      rows.push_back(row);
      Json manifest = row.manifest.Tree();
      for (const Json& blob : manifest["blobs"]) site.blobs.lost.insert(*Digest::FromHex(blob["digest"].get<std::string>()));
    }
    ASSERT_GT(rows.size(), 3u);
    ASSERT_TRUE(site.index.Commit(rows).ok());
    site.Restart();
    site.Join("w1");
  }
  ServiceSite site;
  std::string job;
};

TEST_F(CollectTest, ReportDigestAndModelStayWhatTheyWere) {
  Json report = site.Get("report", {{"job", job}}), digest = site.Get("digest", {{"job", job}}), model = site.Get("models");
  CollectCheckpoints();
  EXPECT_EQ(site.Get("report", {{"job", job}})["candidates"], report["candidates"]);
  EXPECT_EQ(site.Get("digest", {{"job", job}}), digest);
  EXPECT_EQ(site.Get("models"), model);
}

TEST_F(CollectTest, AJobThatWantsThemHasThemMadeAgainWithTheSameDigest) {
  Json digest = site.Get("digest", {{"job", job}});
  CollectCheckpoints();
  EXPECT_TRUE(site.Get("known", {{"keys", Json::array({digest["lines"][0]["key"]})}})[digest["lines"][0]["key"].get<std::string>()] != "done" ||
              digest["lines"][0]["name"] == "promote");
  site.blobs.lost.clear();
  int before = site.finished;
  std::string again = site.Submit(kSmallRecipe);
  site.FinishAll();
  EXPECT_GT(site.finished, before);
  EXPECT_EQ(site.Get("digest", {{"job", again}})["total"], digest["total"]);
  EXPECT_EQ(site.Get("list")[0]["state"], "done");
  storage::StoredState stored = std::move(site.index.Load()).value();
  for (const storage::ArtifactRow& row : stored.artifacts) EXPECT_EQ(row.collected_ms, 0);
}

TEST_F(CollectTest, ACollectedCheckpointIsNotPromoted) {
  CollectCheckpoints();
  Reply reply = site.Ask("promote", {{"name", "small"}, {"job", job}, {"step", "baseline"}});
  EXPECT_EQ(reply.code, "conflict");
  EXPECT_THAT(reply.message, HasSubstr("was collected"));
}

TEST_F(CollectTest, AStoreDirectoryThatIsNotThereIsNamed) {
  Reply reply = site.Ask("gc");
  EXPECT_EQ(reply.code, "not_found");
  EXPECT_THAT(reply.message, HasSubstr("/store/"));
}

}  // namespace
}  // namespace pare::coordinator
