// The registry after a repair of the index: what the coordinator wrote is what storage/reconcile_versions.cc reads.
#include <gmock/gmock.h>

#include "storage/fsck.h"
#include "tests/coordinator/service_site.h"

namespace pare::coordinator {
namespace {

using storage::Row;

// Version 1 by a decision, 2 and 3 by hand; a rollback made 2 the champion again.
class RegistryRepairTest : public testing::Test {
 protected:
  RegistryRepairTest() {
    site_.accuracy = [](const std::string& step) { return step.find("most") == 0 ? 89.9 : 90.0; };
    site_.Join("w1");
    site_.Submit(kSmallRecipe);
    site_.FinishAll();
    for (const char* step : {"half/02-retrain/evaluate", "baseline"}) site_.Get("promote", {{"name", "small"}, {"job", "last"}, {"step", step}});
    site_.Get("rollback", {{"name", "small"}});
    models_ = site_.Get("models");
    ReadRows();
  }

  void ReadRows() {
    storage::StoredState state = std::move(site_.index.Load()).value();
    auto add = [this](const auto& rows) { rows_.insert(rows_.end(), rows.begin(), rows.end()); };
    add(state.jobs);
    add(state.steps);
    add(state.job_steps);
    add(state.artifacts);
    add(state.versions);
    add(state.aliases);
    add(state.promotions);
    for (const storage::JobRow& job : state.jobs) add(*site_.index.Events(job.id, 0, 1000));
  }

  template <typename R, typename F>
  void Lose(F which) {
    size_t lost = std::erase_if(rows_, [&](const Row& row) { return std::holds_alternative<R>(row) && which(std::get<R>(row)); });
    EXPECT_GT(lost, 0u);
  }

  // A coordinator on what a repair makes of the rows.
  void Repair() {
    losses_.clear();
    std::vector<Row> rows = storage::Reconcile(rows_, {}, {.versions_damaged = true}, losses_);
    ASSERT_TRUE(rebuilt_.index.Commit(rows).ok());
    rebuilt_.Restart();
  }
  std::vector<int64_t> Sequences(ServiceSite& site) {
    std::vector<int64_t> sequences;
    const Json answer = site.Get("model_history", {{"name", "small"}});
    for (const Json& line : answer["history"]) sequences.push_back(line["sequence"]);
    return sequences;
  }

  ServiceSite site_, rebuilt_;
  Json models_;
  std::vector<Row> rows_;
  std::vector<storage::FsckLoss> losses_;
};

TEST_F(RegistryRepairTest, LostVersionsComeBackAsTheyWere) {
  Lose<storage::VersionRow>([](const storage::VersionRow&) { return true; });
  Repair();
  EXPECT_EQ(rebuilt_.Get("models"), models_);
  EXPECT_TRUE(losses_.empty());
}

TEST_F(RegistryRepairTest, LostVersionsComeBackFromTheHistoriesOfJobsAlone) {
  Lose<storage::VersionRow>([](const storage::VersionRow&) { return true; });
  Lose<storage::PromotionRow>([](const storage::PromotionRow& row) { return row.action == "promote"; });
  Repair();
  EXPECT_EQ(rebuilt_.Get("models"), models_);
  EXPECT_TRUE(losses_.empty());
}

TEST_F(RegistryRepairTest, AfterLostAliasesARollbackFindsThePrevious) {
  Lose<storage::AliasRow>([](const storage::AliasRow&) { return true; });
  Repair();
  EXPECT_EQ(rebuilt_.Get("models"), models_);
  EXPECT_EQ(rebuilt_.Get("rollback", {{"name", "small"}})["version"], 3);
}

TEST_F(RegistryRepairTest, AHistoryWithAGapGoesOnAfterItsEnd) {
  Lose<storage::PromotionRow>([](const storage::PromotionRow& row) { return row.sequence == 2; });
  Repair();
  EXPECT_THAT(Sequences(rebuilt_), testing::ElementsAre(1, 3, 4));
  rebuilt_.Get("promote", {{"name", "small"}, {"version", 1}});
  EXPECT_THAT(Sequences(rebuilt_), testing::ElementsAre(1, 3, 4, 5));
  rebuilt_.Restart();
  EXPECT_THAT(Sequences(rebuilt_), testing::ElementsAre(1, 3, 4, 5));
}

TEST_F(RegistryRepairTest, ALostVersionsNumberIsNotGivenAgain) {
  Digest lost;
  Lose<storage::VersionRow>([&lost](const storage::VersionRow& row) { return row.version == 3 && (lost = row.artifact, true); });
  Lose<storage::ArtifactRow>([&lost](const storage::ArtifactRow& row) { return row.digest == lost; });
  Repair();
  EXPECT_EQ(rebuilt_.Get("promote", {{"name", "small"}, {"job", "last"}, {"step", "most/01-prune"}})["version"], 4);
}

}  // namespace
}  // namespace pare::coordinator
