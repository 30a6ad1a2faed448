// Versions and champions of a rebuilt index. Versions 1 and 3 of "net" are decisions of two jobs, with one reason; 2 was promoted by
// hand; a rollback made 2 the champion again.
#include "storage/reconcile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <tuple>

#include "storage/registry.h"
#include "tests/storage/rows.h"

namespace pare::storage {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

struct Made {
  std::string job, name, kind, artifact_kind;
  Json results;
  std::string model;        // the step whose checkpoint it reads
  int64_t created_ms = 50;  // of the artifact: not when its version was made, as in an index rebuilt from manifests
  bool on_record = true;    // as a step of its job
};

class ReconcileVersionsTest : public testing::Test {
 protected:
  ReconcileVersionsTest() {
    for (const char* job : {"j1", "j2"}) AddJob(job);
    Promote(1, {.job = "j1", .step = "small", .reason = "smallest"});
    Promote(2, {.job = "j1", .step = "other", .by_hand = true});
    Promote(3, {.job = "j2", .step = "small", .reason = "smallest"});
    rows_.push_back(PromotionRow{.model = "net", .sequence = 4, .at_ms = 104, .action = "rollback", .version = 2, .previous = 3, .text = "by hand"});
    SetAliases(2, 3);
  }

  void AddJob(const std::string& id) {
    rows_.push_back(JobOf(id));
    Add({id, "init", "initialize", "checkpoint", {{"parameters", 10}}, ""});
    Digest small = Add({id, "small", "prune", "checkpoint", {{"parameters", 5}, {"layers", {"fc1"}}}, "init"});
    Add({id, "other", "prune", "checkpoint", {{"parameters", 7}}, "init"});
    Add({id, "small/evaluate", "evaluate", "evaluation", {{"split", "validation"}, {"model", small.hex()}, {"accuracy", 89.5}}, "small"});
    Add({id, "promote", "promote", "decision", DecisionFor(small, "small"), ""});
  }
  static Json DecisionFor(const Digest& artifact, const std::string& chosen) {
    return {{"as", "net"}, {"chosen", chosen}, {"artifact", artifact.hex()}, {"reason", "smallest"}, {"met_goal", true}};
  }
  static StepKey KeyIn(const std::string& job, const std::string& name) { return KeyOf(job + " " + name); }

  Digest Add(const Made& made) {
    StepKey key = KeyIn(made.job, made.name);
    JsonText manifest = ToJson(Artifact{.kind = made.artifact_kind, .step = key, .results = made.results});
    Digest digest = DigestOf(manifest.text());
    Json spec = {{"kind", made.kind}};
    if (!made.model.empty()) spec["inputs"] = {{"model", KeyIn(made.job, made.model).hex()}};
    rows_.push_back(StepRow{.key = key, .kind = made.kind, .spec = spec, .state = "done", .artifact = digest});
    rows_.push_back(ArtifactRow{.digest = digest, .key = key, .manifest = manifest, .created_ms = made.created_ms});
    if (made.on_record) rows_.push_back(JobStepRow{.job = made.job, .name = made.name, .ordinal = static_cast<int64_t>(rows_.size()), .key = key});
    return digest;
  }

  void Promote(int64_t version, const VersionOrigin& origin) {
    int64_t at_ms = 100 + version;
    rows_.push_back(VersionRow{.model = "net", .version = version, .artifact = ArtifactOf(origin.job, origin.step), .job = origin.job, .step = origin.step, .created_ms = at_ms, .evidence = {{"reason", "as written"}}});
    rows_.push_back(PromotionRow{.model = "net", .sequence = version, .at_ms = at_ms, .action = "promote", .version = version, .previous = version - 1, .text = HistoryText(origin)});
    rows_.push_back(EventRow{.job = origin.job, .sequence = version, .at_ms = at_ms, .level = "info", .step = origin.by_hand ? origin.step : "promote", .text = EventText({"net", version, origin})});
  }

  Digest ArtifactOf(const std::string& job, const std::string& name) const {
    for (const Row& row : rows_) {
      if (auto* step = std::get_if<StepRow>(&row); step != nullptr && step->key == KeyIn(job, name)) return step->artifact;
    }
    ADD_FAILURE() << "no step " << name << " of " << job;
    return Digest();
  }

  void SetAliases(int64_t champion, int64_t previous) {
    Lose<AliasRow>();
    rows_.push_back(AliasRow{"net", "champion", champion});
    rows_.push_back(AliasRow{"net", "previous", previous});
  }

  template <typename R>
  void Lose(const std::function<bool(const R&)>& which = [](const R&) { return true; }) {
    std::erase_if(rows_, [&](const Row& row) { return std::holds_alternative<R>(row) && which(std::get<R>(row)); });
  }
  void LoseVersion(int64_t version) {
    Lose<VersionRow>([=](const VersionRow& row) { return row.version == version; });
  }
  void LosePromotion(int64_t sequence) {
    Lose<PromotionRow>([=](const PromotionRow& row) { return row.sequence == sequence; });
  }
  void LoseEvent(int64_t version) {
    Lose<EventRow>([=](const EventRow& row) { return row.sequence == version; });
  }
  void LoseAlias(const std::string& alias) {
    Lose<AliasRow>([=](const AliasRow& row) { return row.alias == alias; });
  }

  // The registry of the rebuilt index; what is said of versions goes to losses_.
  StoredState Rebuilt() {
    std::vector<FsckLoss> losses;
    std::vector<Row> rows = Reconcile(rows_, {}, {.versions_damaged = true, .now_ms = 1000}, losses);
    losses_.clear();
    for (const FsckLoss& loss : losses) {
      if (loss.what == "version") losses_.push_back(loss.name + ": " + loss.text);
    }
    auto index = *Index::OpenInMemory();
    Status status = index->Commit(rows);
    EXPECT_TRUE(status.ok()) << status.error().message;
    return std::move(index->Load()).value();
  }
  static const VersionRow* Find(const StoredState& state, int64_t version) {
    for (const VersionRow& row : state.versions) {
      if (row.version == version) return &row;
    }
    return nullptr;
  }
  void ExpectAsBefore(const VersionRow* row, int64_t version) {
    ASSERT_NE(row, nullptr) << version;
    EXPECT_EQ(row->artifact, ArtifactOf(version == 3 ? "j2" : "j1", version == 2 ? "other" : "small")) << version;
    EXPECT_EQ(row->job, version == 3 ? "j2" : "j1");
    EXPECT_EQ(row->step, version == 2 ? "other" : "small");
    EXPECT_EQ(row->created_ms, 100 + version);
  }

  std::vector<Row> rows_;
  std::vector<std::string> losses_;
};

TEST_F(ReconcileVersionsTest, LostRowsComeBackUnderTheirNumbers) {
  StoredState before = Rebuilt();
  EXPECT_THAT(losses_, IsEmpty());
  Lose<VersionRow>();
  StoredState after = Rebuilt();
  EXPECT_THAT(losses_, IsEmpty());
  ASSERT_EQ(after.versions.size(), 3u);
  for (int64_t version : {1, 2, 3}) ExpectAsBefore(Find(after, version), version);
  EXPECT_EQ(after.aliases, before.aliases);
  EXPECT_EQ(after.promotions, before.promotions);
}

TEST_F(ReconcileVersionsTest, TheModelsHistoryOrTheJobsIsEnough) {
  std::vector<Row> whole = rows_;
  for (int64_t version : {1, 2, 3}) {
    for (bool event_lost : {false, true}) {
      rows_ = whole;
      LoseVersion(version);
      if (event_lost) LoseEvent(version);
      else LosePromotion(version);
      StoredState after = Rebuilt();
      EXPECT_THAT(losses_, IsEmpty()) << version;
      ExpectAsBefore(Find(after, version), version);
    }
  }
}

TEST_F(ReconcileVersionsTest, ALostJobsStepsAreEnough) {
  Lose<VersionRow>();
  Lose<JobRow>();
  StoredState after = Rebuilt();
  EXPECT_THAT(losses_, IsEmpty());
  for (int64_t version : {1, 2, 3}) ExpectAsBefore(Find(after, version), version);
}

TEST_F(ReconcileVersionsTest, AVersionOfADecisionHasItsEvidenceAgain) {
  LoseVersion(1);
  StoredState after = Rebuilt();
  ASSERT_NE(Find(after, 1), nullptr);
  Json lineage = {{{"kind", "prune"}, {"step", KeyIn("j1", "small").hex()}, {"artifact", ArtifactOf("j1", "small").hex()}},
                  {{"kind", "initialize"}, {"step", KeyIn("j1", "init").hex()}, {"artifact", ArtifactOf("j1", "init").hex()}}};
  Json expected = {{"job", "j1"}, {"job_name", "lenet"}, {"validation_accuracy", 89.5}, {"test_accuracy", nullptr}, {"summary", {{"parameters", 5}}},
                   {"reason", "smallest"}, {"met_goal", true}, {"decision", ArtifactOf("j1", "promote").hex()}, {"step_key", KeyIn("j1", "small").hex()}, {"lineage", lineage}};
  EXPECT_EQ(Find(after, 1)->evidence, expected);
}

TEST_F(ReconcileVersionsTest, OfTwoDecisionsOfOneJobTheTimeTellsWhichItWas) {
  // An earlier decision, which the job's steps name no more.
  Add({"j1", "promote before", "promote", "decision", DecisionFor(ArtifactOf("j1", "other"), "other"), "", 101, false});
  LoseVersion(1);
  LoseEvent(1);
  StoredState after = Rebuilt();
  ASSERT_NE(Find(after, 1), nullptr);
  EXPECT_EQ(Find(after, 1)->artifact, ArtifactOf("j1", "other"));
}

TEST_F(ReconcileVersionsTest, ANumberThatNothingExplainsIsLostAndItsNetworkGetsAnother) {
  LoseVersion(3);
  LosePromotion(3);
  LoseEvent(3);
  StoredState after = Rebuilt();
  EXPECT_THAT(losses_, ElementsAre("net@3: its row is lost, and nothing tells which network it was",
                                   "net@4: which number it had is lost: the result of step small of job j2 has this one now",
                                   "net@3: it was the champion before, and is lost: `pare rollback` has nothing to go back to"));
  EXPECT_EQ(Find(after, 3), nullptr);
  ASSERT_NE(Find(after, 4), nullptr);
  EXPECT_EQ(Find(after, 4)->artifact, ArtifactOf("j2", "small"));
  EXPECT_EQ(Find(after, 4)->evidence["validation_accuracy"], 89.5);
  EXPECT_EQ(after.aliases, std::vector({AliasRow{"net", "champion", 2}}));
}

TEST_F(ReconcileVersionsTest, AGapAmongTheNumbersIsALostVersion) {
  LoseVersion(2);
  LoseEvent(2);
  Lose<PromotionRow>();
  SetAliases(3, 1);
  (void)Rebuilt();
  EXPECT_THAT(losses_, ElementsAre("net@2: its row is lost, and nothing tells which network it was"));
}

TEST_F(ReconcileVersionsTest, AVersionWhoseResultIsLostTooIsNamedAndThePreviousIsChampion) {
  LoseVersion(2);
  Lose<ArtifactRow>([this](const ArtifactRow& row) { return row.key == KeyIn("j1", "other"); });
  StoredState after = Rebuilt();
  EXPECT_THAT(losses_, ElementsAre("net@2: its row is lost, and so is the result of step other of job j1: run its recipe again",
                                   "net@3: the champion, version 2, is lost: it is this one now, see `pare promote`",
                                   "net@3: which version was champion before it is lost: `pare rollback` has nothing to go back to"));
  EXPECT_EQ(after.aliases, std::vector({AliasRow{"net", "champion", 3}}));
}

TEST_F(ReconcileVersionsTest, WithoutAnyHistoryDecisionsGetNumbersAndThatIsSaid) {
  Lose<VersionRow>();
  Lose<PromotionRow>();
  Lose<EventRow>();
  Lose<AliasRow>();
  StoredState after = Rebuilt();
  EXPECT_EQ(after.versions.size(), 2u);
  EXPECT_THAT(losses_, testing::Contains(HasSubstr("net@1: which number it had is lost")));
  EXPECT_THAT(losses_, testing::Contains(HasSubstr("net@2: which number it had is lost")));
}

// ---- champions ----

TEST_F(ReconcileVersionsTest, TheHistoryTellsChampionAndPrevious) {
  std::vector<Row> whole = rows_;
  for (const char* alias : {"champion", "previous", "both"}) {
    rows_ = whole;
    LoseAlias(alias);
    if (alias == std::string("both")) Lose<AliasRow>();
    StoredState after = Rebuilt();
    EXPECT_EQ(after.aliases, std::vector({AliasRow{"net", "champion", 2}, AliasRow{"net", "previous", 3}})) << alias;
    EXPECT_THAT(losses_, IsEmpty()) << alias;
  }
}

TEST_F(ReconcileVersionsTest, WithoutAHistoryTheNewestIsChampionAndThePreviousIsNamedAsLost) {
  Lose<AliasRow>();
  Lose<PromotionRow>();
  StoredState after = Rebuilt();
  EXPECT_EQ(after.aliases, std::vector({AliasRow{"net", "champion", 3}}));
  EXPECT_THAT(losses_, ElementsAre("net@3: which version was champion is lost: it is this one now, see `pare promote`",
                                   "net@3: which version was champion before it is lost: `pare rollback` has nothing to go back to"));
}

TEST_F(ReconcileVersionsTest, AHistoryThatLostItsEndDoesNotTellTheChampion) {
  LoseAlias("champion");
  LosePromotion(4);  // what is left says that 3 is champion, which the alias calls the one before
  StoredState after = Rebuilt();
  EXPECT_EQ(after.aliases, std::vector({AliasRow{"net", "champion", 2}, AliasRow{"net", "previous", 3}}));
  EXPECT_THAT(losses_, ElementsAre("net@2: which version was champion is lost: it is this one now, see `pare promote`"));
}

TEST_F(ReconcileVersionsTest, TheHistoryNamesTheHighestNumberAlsoWhenItsVersionIsLost) {
  LosePromotion(4);
  SetAliases(3, 2);
  Lose<ArtifactRow>([this](const ArtifactRow& row) { return row.key == KeyIn("j2", "small"); });
  StoredState after = Rebuilt();
  EXPECT_EQ(Find(after, 3), nullptr);
  ASSERT_EQ(after.promotions.size(), 3u);
  PromotionRow expected{.model = "net", .sequence = 4, .at_ms = 1000, .action = "repair", .version = 2, .previous = 3, .text = "version 3 is lost"};
  EXPECT_EQ(after.promotions.back(), expected);
}

TEST(ReconcileTest, AnAttemptWhoseRowIsLostIsKnownByItsPoints) {
  std::vector<Row> rows = {StepRow{.key = KeyOf("train"), .kind = "train", .spec = Json::object(), .state = "waiting"},
                           AttemptRow{.key = KeyOf("train"), .epoch = 3, .attempt = 1, .worker = "w1", .started_ms = 1, .ended_ms = 9, .outcome = "lost"}};
  for (int64_t epoch : {3, 7}) {
    for (int64_t sequence : {1, 2}) rows.push_back(MetricRow{.key = KeyOf("train"), .lease_epoch = epoch, .sequence = sequence, .at_ms = 10 * epoch + sequence, .values = Json::object()});
  }
  std::vector<FsckLoss> losses;
  std::vector<AttemptRow> attempts;
  for (const Row& row : Reconcile(rows, {}, {}, losses)) {
    if (auto* attempt = std::get_if<AttemptRow>(&row)) attempts.push_back(*attempt);
  }
  ASSERT_EQ(attempts.size(), 2u);
  EXPECT_EQ(attempts[0].outcome, "lost");
  EXPECT_EQ(std::tuple(attempts[1].epoch, attempts[1].attempt, attempts[1].started_ms, attempts[1].ended_ms, attempts[1].outcome),
            std::tuple(int64_t{7}, 2, int64_t{71}, int64_t{72}, std::string("released")));
}

}  // namespace
}  // namespace pare::storage
