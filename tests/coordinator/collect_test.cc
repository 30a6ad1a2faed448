// Collected checkpoints: reports stay what they are, and a job that needs one has it made again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "storage/gc.h"
#include "tests/coordinator/service_site.h"

namespace pare::coordinator {
namespace {

using testing::HasSubstr;

class CollectTest : public testing::Test {
 protected:
  explicit CollectTest(const std::string& recipe = kSmallRecipe) {
    site.Join("w1");
    job = site.Submit(recipe);
    site.FinishAll();
  }
  // What a collection that keeps versions only does: marks, then blobs.
  void CollectCheckpoints() {
    storage::StoredState stored = std::move(site.index.Load()).value();
    std::vector<storage::Row> rows;
    for (storage::ArtifactRow row : stored.artifacts) {
      bool registered = !stored.versions.empty() && row.digest == stored.versions[0].artifact;
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
  // Steps of a job whose checkpoints are not there.
  std::set<std::string> WithoutCheckpoint(const std::string& id) {
    storage::StoredState stored = std::move(site.index.Load()).value();
    std::set<StepKey> collected;
    for (const storage::ArtifactRow& row : stored.artifacts) {
      if (row.collected_ms != 0) collected.insert(row.key);
    }
    std::set<std::string> names;
    for (const storage::JobStepRow& row : stored.job_steps) {
      if (row.job == id && collected.count(row.key) != 0) names.insert(row.name);
    }
    return names;
  }
  std::string StateOfNewest() { return site.Get("list")[0]["state"].get<std::string>(); }
  ServiceSite site;
  std::string job;
};

constexpr const char* kKeepsPromoted = "keep: {policy: promoted}\n";

// The recipe with one variant more.
std::string WithThird(std::string recipe) {
  recipe.insert(recipe.find("promote:"), "  third:\n    - prune: {sparsity: 0.7}\n    - retrain: {epochs: 1}\n");
  return recipe;
}

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

TEST_F(CollectTest, WhatNothingReadsAndTheRecipeDoesNotKeepStaysCollected) {
  CollectCheckpoints();
  std::set<std::string> before = WithoutCheckpoint(job);
  ASSERT_EQ(before.count("baseline"), 1u);
  std::string again = site.Submit(std::string(kSmallRecipe) + kKeepsPromoted);
  EXPECT_EQ(site.Granted("w1"), nullptr);
  EXPECT_EQ(StateOfNewest(), "done");
  EXPECT_EQ(WithoutCheckpoint(again), before);
  EXPECT_EQ(site.Get("digest", {{"job", again}})["total"], site.Get("digest", {{"job", job}})["total"]);
}

TEST_F(CollectTest, OnlyWhatAnOpenStepReadsIsMadeAgain) {
  CollectCheckpoints();
  std::set<std::string> before = WithoutCheckpoint(job);
  std::string more = site.Submit(WithThird(kSmallRecipe) + kKeepsPromoted);
  const Job& in_core = site.service->scheduler().state().jobs.at(more);
  EXPECT_FALSE(in_core.Find("baseline")->reused);
  EXPECT_TRUE(in_core.Find("half/01-prune")->reused);
  site.blobs.lost.clear();
  site.FinishAll();
  EXPECT_EQ(StateOfNewest(), "done");
  std::set<std::string> after = WithoutCheckpoint(more);
  EXPECT_EQ(after.count("baseline"), 0u);
  EXPECT_EQ(after.count("half/01-prune"), 1u);
  EXPECT_EQ(after.count("half/02-retrain"), 1u);
  EXPECT_LT(after.size(), before.size());
}

// The marks are in the rows: an unfinished job finds them after a restart as well.
TEST_F(CollectTest, AnUnfinishedJobHasWhatItReadsMadeAgainAfterARestart) {
  std::string more = site.Submit(WithThird(kSmallRecipe) + kKeepsPromoted);
  CollectCheckpoints();  // as a repair does whose blobs are damaged
  site.blobs.lost.clear();
  site.FinishAll();
  for (int i = 0; i < 20; ++i) {  // until the lease of before the restart is over, and the pause after it
    site.clock.Advance(Millis(1'000));
    site.Turn();
    site.Say("w1", Heartbeat{"w1", {}, {}});
    site.FinishAll();
  }
  EXPECT_EQ(StateOfNewest(), "done");
  EXPECT_EQ(WithoutCheckpoint(more).count("baseline"), 0u);
  EXPECT_EQ(WithoutCheckpoint(more).count("half/01-prune"), 1u);
}

TEST_F(CollectTest, TheStoreSaysWhichStepsAreWithoutCheckpoint) {
  CollectCheckpoints();
  Json digest = site.Get("digest", {{"job", job}}), keys = Json::array();
  for (const Json& line : digest["lines"]) keys.push_back(line["key"]);
  Json known = site.Get("known", {{"keys", keys}});
  std::map<std::string, std::string> states;
  for (const Json& line : digest["lines"]) states[line["name"].get<std::string>()] = known[line["key"].get<std::string>()].get<std::string>();
  EXPECT_EQ(states["baseline"], "collected");
  EXPECT_EQ(states["baseline/evaluate"], "done");
  EXPECT_EQ(states["promote"], "done");
}

// A job that promoted nothing, and one that promotes what the first one made.
class UnpromotedTest : public CollectTest {
 protected:
  UnpromotedTest() : CollectTest(std::string(kSmallRecipe).substr(0, std::string(kSmallRecipe).find("promote:"))) {}
};

TEST_F(UnpromotedTest, AVersionHasItsCheckpoint) {
  CollectCheckpoints();
  std::string again = site.Submit(std::string(kSmallRecipe) + kKeepsPromoted);
  EXPECT_EQ(site.Get("models").size(), 0u) << "registered before its checkpoint is there";
  site.blobs.lost.clear();
  site.FinishAll();
  EXPECT_EQ(StateOfNewest(), "done");
  storage::StoredState stored = std::move(site.index.Load()).value();
  ASSERT_EQ(stored.versions.size(), 1u);
  std::set<std::string> missing = WithoutCheckpoint(again);
  EXPECT_EQ(missing.count(stored.versions[0].step), 0u);
  EXPECT_EQ(missing.count("half/02-retrain") + missing.count("most/02-retrain"), 1u);
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
