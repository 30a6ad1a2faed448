// Garbage collection: the plan keeps all that anything needs, and its execution what somebody wants again meanwhile.
#include "storage/gc.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/time.h>

#include <atomic>
#include <ctime>
#include <optional>
#include <set>
#include <thread>

#include "tests/storage/files.h"
#include "tests/storage/rows.h"

namespace pare::storage {
namespace {

using testing::HasSubstr;

constexpr int64_t kNow = 1'800'000'000'000, kOld = kNow - 10 * kYoungMs;

// A state with one job whose steps left artifacts, and the files that belong to it.
class GcTest : public testing::Test {
 protected:
  GcTest() { state_.jobs.push_back(JobIn("j1", "done", Json())); }

  static JobRow JobIn(const std::string& id, const std::string& state, const Json& keep) {
    JobRow job = JobOf(id);
    job.state = state;
    Json resolved = {{"tree", Json::object()}};
    if (!keep.is_null()) resolved["tree"]["keep"] = keep;
    job.resolved = resolved;
    return job;
  }
  void Keep(const Json& keep) { state_.jobs[0] = JobIn("j1", "done", keep); }

  static Digest BlobOf(const std::string& step) { return DigestOf("blob of " + step); }

  void AddFile(const Digest& digest, int64_t bytes = 1000, int64_t put_ms = kOld) { files_.push_back({digest, bytes, put_ms}); }

  // A finished step of the job, its artifact, its blob.
  ArtifactRow& AddStep(const std::string& name, const std::string& kind = "checkpoint", const Json& results = Json::object()) {
    Artifact artifact{.kind = kind, .step = KeyOf(name), .blobs = {{kind == "evaluation" ? "correct" : "checkpoint", {BlobOf(name), 1000}}}, .results = results};
    if (kind == "decision") artifact.blobs.clear();
    Json manifest = ToJson(artifact);
    Digest digest = DigestOf(Canonical(manifest));
    StepRow step = StepOf(name);
    step.state = "done";
    step.artifact = digest;
    state_.steps.push_back(step);
    state_.artifacts.push_back({.digest = digest, .key = step.key, .manifest = manifest, .bytes = 1000, .created_ms = kOld + 5});
    std::string variant = name.find('/') == std::string::npos ? "" : name.substr(0, name.find('/'));
    state_.job_steps.push_back({.job = "j1", .name = name, .ordinal = static_cast<int64_t>(state_.job_steps.size()), .variant = variant, .key = step.key, .wanted = true});
    AddFile(digest, 200);
    if (kind != "decision") AddFile(BlobOf(name));
    return state_.artifacts.back();
  }
  void Ranking(const std::vector<std::string>& names) {
    Json ranking = Json::array();
    for (const std::string& name : names) ranking.push_back({{"step", name}});
    AddStep("promote", "decision", {{"ranking", ranking}});
  }

  GcPlan Plan() {
    std::sort(files_.begin(), files_.end(), [](const BlobFile& a, const BlobFile& b) { return a.digest < b.digest; });
    return PlanGc(state_, files_, {.now_ms = kNow}, [this](const BlobFile& file) -> std::optional<Artifact> {
      auto found = manifests_.find(file.digest);
      if (found == manifests_.end()) return std::nullopt;
      return found->second;
    });
  }
  // Names of steps whose checkpoint goes.
  std::set<std::string> Removed() {
    GcPlan plan = Plan();
    std::set<Digest> gone;
    for (const GcRemoval& removal : plan.removals) gone.insert(removal.file.digest);
    std::set<std::string> names;
    for (const JobStepRow& step : state_.job_steps) {
      if (gone.erase(BlobOf(step.name)) != 0) names.insert(step.name);
    }
    EXPECT_TRUE(gone.empty()) << "something else goes as well";
    return names;
  }
  using Names = std::set<std::string>;

  StoredState state_;
  std::vector<BlobFile> files_;
  std::map<Digest, Artifact> manifests_;
};

TEST_F(GcTest, WithoutARuleEverythingOfAJobStays) {
  for (const char* name : {"baseline", "a/1", "a/2"}) AddStep(name);
  EXPECT_EQ(Removed(), Names());
}

TEST_F(GcTest, WhatNothingNamesGoesWithItsBytesAndReason) {
  AddStep("baseline");
  AddFile(DigestOf("nobody's"), 777);
  GcPlan plan = Plan();
  ASSERT_EQ(plan.removals.size(), 1u);
  EXPECT_EQ(plan.removals[0].file.digest, DigestOf("nobody's"));
  EXPECT_EQ(plan.removals[0].reason, "nothing names it");
  EXPECT_EQ(plan.bytes, 777);
  EXPECT_EQ(plan.removed.at("nothing names it").bytes, 777);
  EXPECT_TRUE(plan.artifacts.empty());
}

TEST_F(GcTest, WhatNothingNamesYetStaysWhileItIsYoung) {
  AddFile(DigestOf("just put"), 1, kNow - kYoungMs + 1);
  AddFile(DigestOf("put long ago"), 1, kNow - kYoungMs);
  GcPlan plan = Plan();
  ASSERT_EQ(plan.removals.size(), 1u);
  EXPECT_EQ(plan.removals[0].file.digest, DigestOf("put long ago"));
  EXPECT_EQ(plan.kept.at("put a short while ago").blobs, 1);
}

TEST_F(GcTest, TheBestAreTheFirstOfTheRanking) {
  for (const char* name : {"baseline", "a/1", "a/2", "b/1"}) AddStep(name);
  Ranking({"a/2", "b/1", "a/1"});
  Keep({{"policy", "best"}, {"count", 2}});
  EXPECT_EQ(Removed(), (Names{"baseline", "a/1"}));
}

TEST_F(GcTest, WithoutADecisionBestKeepsAll) {
  for (const char* name : {"a/1", "a/2"}) AddStep(name);
  Keep({{"policy", "best"}, {"count", 1}});
  EXPECT_EQ(Removed(), Names());
}

TEST_F(GcTest, TheLastAreThoseOfEveryVariant) {
  for (const char* name : {"baseline", "a/1", "a/2", "a/3", "b/1", "b/2"}) AddStep(name);
  Keep({{"policy", "last"}, {"count", 2}});
  EXPECT_EQ(Removed(), (Names{"a/1"}));
  Keep({{"policy", "last"}, {"count", 1}});
  EXPECT_EQ(Removed(), (Names{"a/1", "a/2", "b/1"}));
}

TEST_F(GcTest, PinnedStepsStay) {
  for (const char* name : {"baseline", "a/01-prune", "a/02-retrain", "b/01-prune"}) AddStep(name);
  Keep({{"policy", "promoted"}, {"pinned", {"base*", "*/01-*"}}});
  EXPECT_EQ(Removed(), (Names{"a/02-retrain"}));
}

TEST_F(GcTest, VersionsOfModelsStay) {
  AddStep("baseline");
  ArtifactRow promoted = AddStep("a/1");
  state_.versions.push_back({.model = "m", .version = 1, .artifact = promoted.digest});
  Keep({{"policy", "promoted"}});
  EXPECT_EQ(Removed(), (Names{"baseline"}));
}

TEST_F(GcTest, EvaluationsDecisionsAndManifestsStay) {
  AddStep("a/1");
  AddStep("a/1/evaluate", "evaluation");
  Ranking({"a/1"});
  Keep({{"policy", "promoted"}});
  EXPECT_EQ(Removed(), (Names{"a/1"}));
}

TEST_F(GcTest, MeasurementsTablesAndComparisonsStay) {
  AddStep("a/1");
  for (const char* kind : {"measurement", "table", "comparison"}) AddStep(std::string("a/1/") + kind, kind);
  Keep({{"policy", "promoted"}});
  EXPECT_EQ(Removed(), (Names{"a/1"}));
  EXPECT_EQ(Plan().artifacts.size(), 1u);
}

TEST_F(GcTest, AnUnfinishedJobKeepsAllWhateverItsRuleAndThatOfOthers) {
  for (const char* name : {"baseline", "a/1"}) AddStep(name);
  Keep({{"policy", "promoted"}});
  for (const char* job_state : {"running", "paused"}) {
    state_.jobs.resize(1);
    state_.jobs.push_back(JobIn("j2", job_state, {{"policy", "promoted"}}));
    state_.job_steps.push_back({.job = "j2", .name = "baseline", .key = KeyOf("baseline"), .wanted = true});
    EXPECT_EQ(Removed(), (Names{"a/1"})) << job_state;
    state_.job_steps.pop_back();
  }
}

TEST_F(GcTest, ACheckpointStaysAsLongAsOneOfItsJobsKeepsIt) {
  AddStep("a/1");
  Keep({{"policy", "promoted"}});
  state_.jobs.push_back(JobIn("j2", "done", Json()));
  state_.job_steps.push_back({.job = "j2", .name = "other/1", .key = KeyOf("a/1"), .wanted = true});
  EXPECT_EQ(Plan().removals.size(), 0u);
}

TEST_F(GcTest, ABlobThatTwoArtifactsShareStaysWithTheOtherOne) {
  ArtifactRow kept = AddStep("a/2");
  AddStep("a/1");
  Json manifest = state_.artifacts[1].manifest.Tree();
  manifest["blobs"]["tensor/embedding"] = {{"digest", BlobOf("a/2").hex()}, {"bytes", 1000}};
  state_.artifacts[1].manifest = manifest;
  Keep({{"policy", "promoted"}, {"pinned", {"a/2"}}});
  EXPECT_EQ(Removed(), (Names{"a/1"}));
}

TEST_F(GcTest, SnapshotsDatasetsWeightsAndWhatStepsNameStay) {
  for (const char* what : {"snapshot", "dataset", "weights", "import"}) AddFile(DigestOf(what));
  state_.snapshots.push_back({.key = KeyOf("x"), .blob = DigestOf("snapshot")});
  state_.jobs[0].resolved = {{"data", {{"blob", DigestOf("dataset").hex()}}}, {"weights", DigestOf("weights").hex()}};
  StepRow step = StepOf("x");
  step.spec = {{"params", {{"weights", DigestOf("import").hex()}}}};
  state_.steps.push_back(step);
  EXPECT_TRUE(Plan().removals.empty());
}

TEST_F(GcTest, AnArtifactThatAStepAdoptsStaysWithItsBlobs) {
  ArtifactRow teacher = AddStep("a/1");
  Keep({{"policy", "promoted"}});
  StepRow step = StepOf("adopt");
  step.spec = {{"params", {{"artifact", teacher.digest.hex()}}}};
  state_.steps.push_back(step);
  GcPlan plan = Plan();
  EXPECT_TRUE(plan.removals.empty());
  EXPECT_TRUE(plan.artifacts.empty());
}

TEST_F(GcTest, TheResultThatARunningStepIsAboutToReportStays) {
  state_.attempts.push_back({.key = KeyOf("running"), .epoch = 1, .started_ms = kOld + 1, .outcome = "running"});  // by a clock ahead of the files'
  for (const char* step : {"running", "other"}) {
    Digest manifest = DigestOf(std::string("manifest of ") + step);
    manifests_[manifest] = {.kind = "checkpoint", .step = KeyOf(step), .blobs = {{"checkpoint", {BlobOf(step), 1000}}}};
    AddFile(manifest);
    AddFile(BlobOf(step));
  }
  std::set<Digest> gone;
  for (const GcRemoval& removal : Plan().removals) gone.insert(removal.file.digest);
  EXPECT_EQ(gone, (std::set<Digest>{DigestOf("manifest of other"), BlobOf("other")}));
}

// The coordinator was away for hours, say, and its worker has gone on.
TEST_F(GcTest, ASnapshotThatARunningStepIsAboutToReportStaysHoweverOld) {
  state_.attempts.push_back({.key = KeyOf("running"), .epoch = 1, .started_ms = kOld, .outcome = "running"});
  Digest known = DigestOf("known"), superseded = DigestOf("superseded"), on_its_way = DigestOf("on its way"), before = DigestOf("before");
  AddFile(before, 1, kOld - 1);
  AddFile(superseded, 1, kOld + 1);
  auto gone = [this] {
    std::set<Digest> digests;
    for (const GcRemoval& removal : Plan().removals) digests.insert(removal.file.digest);
    return digests;
  };
  EXPECT_EQ(gone(), std::set{before});
  AddFile(known, 1, kOld + 2);
  AddFile(on_its_way, 1, kOld + 3);
  state_.snapshots.push_back({.key = KeyOf("running"), .blob = known, .at_ms = kOld + 3});
  EXPECT_EQ(gone(), (std::set{before, superseded}));
  EXPECT_EQ(Plan().kept.at("perhaps a snapshot on its way").blobs, 1);
  // Another one that has told nothing yet.
  state_.attempts.push_back({.key = KeyOf("other"), .epoch = 2, .started_ms = kOld + 1, .outcome = "running"});
  EXPECT_EQ(gone(), std::set{before});
  for (AttemptRow& attempt : state_.attempts) attempt.outcome = "done";
  EXPECT_EQ(gone(), (std::set{before, superseded, on_its_way}));
}

TEST_F(GcTest, ACollectedArtifactIsMarkedAndNamesTheRule) {
  ArtifactRow gone = AddStep("a/1");
  Keep({{"policy", "promoted"}});
  GcPlan plan = Plan();
  EXPECT_EQ(plan.artifacts, std::vector{gone.digest});
  ASSERT_EQ(plan.removals.size(), 1u);
  EXPECT_EQ(plan.removals[0].reason, "job j1 keeps promoted");
  // Marked, but the files are still there: a collection was interrupted.
  state_.artifacts[0].collected_ms = kNow;
  plan = Plan();
  EXPECT_TRUE(plan.artifacts.empty());
  ASSERT_EQ(plan.removals.size(), 1u);
  EXPECT_EQ(plan.removals[0].reason, "left by an interrupted collection");
}

TEST_F(GcTest, WhatWasPutAgainSinceItsRowLetGoOfItStaysForAWhile) {
  AddStep("a/1");
  Keep({{"policy", "promoted"}});
  for (BlobFile& file : files_) {
    if (file.digest == BlobOf("a/1")) file.put_ms = kNow - 1000;
  }
  EXPECT_TRUE(Plan().removals.empty());
}

TEST_F(GcTest, PatternsMatchAnyText) {
  EXPECT_TRUE(MatchesPattern("a*c", "abc"));
  EXPECT_TRUE(MatchesPattern("*", ""));
  EXPECT_TRUE(MatchesPattern("*/03-*", "iterative/03-prune"));
  EXPECT_FALSE(MatchesPattern("a*c", "abd"));
  EXPECT_FALSE(MatchesPattern("abc", "abcd"));
  EXPECT_FALSE(MatchesPattern(std::string(60, '*') + "x", std::string(200, 'a')));
}

TEST_F(GcTest, AHundredThousandBlobsArePlanned) {
  for (int i = 0; i < 33'000; ++i) AddStep("v" + std::to_string(i % 100) + "/" + std::to_string(i));
  for (int i = 0; i < 34'000; ++i) AddFile(DigestOf("garbage " + std::to_string(i)));
  Keep({{"policy", "last"}, {"count", 3}});
  std::sort(files_.begin(), files_.end(), [](const BlobFile& a, const BlobFile& b) { return a.digest < b.digest; });
  std::clock_t before = std::clock();
  GcPlan plan = Plan();
  std::printf("%zu blobs planned in %.2f s of CPU time\n", files_.size(), static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC);
  EXPECT_EQ(plan.removals.size(), 34'000u + 33'000u - 300u);
}

class GcExecutionTest : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(paths_.blobs());
    std::filesystem::create_directories(paths_.tmp());
    blobs_ = OpenBlobDirectory(paths_);
  }
  Digest PutOld(const std::string& text) {
    Digest digest = *blobs_->Put(std::string_view(text));
    timeval old[2] = {{kOld / 1000, 0}, {kOld / 1000, 0}};
    CHECK(::utimes(paths_.blob(digest).c_str(), old) == 0);
    return digest;
  }
  GcPlan PlanAll() {
    GcPlan plan;
    BlobListing listing = *ListBlobs(paths_);
    for (const BlobFile& file : listing.blobs) plan.removals.push_back({file, ""});
    return plan;
  }
  TemporaryDirectory directory_;
  StorePaths paths_{directory_.path()};
  std::unique_ptr<BlobStore> blobs_;
};

TEST_F(GcExecutionTest, RemovesWhatThePlanSays) {
  Digest gone = PutOld("gone"), stays = PutOld("stays");
  GcPlan plan = PlanAll();
  std::erase_if(plan.removals, [&](const GcRemoval& r) { return r.file.digest == stays; });
  auto alone = MaintenanceLock::TakeAlone(paths_);
  auto result = ExecuteGc(paths_, plan, *alone);
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->removed.blobs, 1);
  EXPECT_EQ(result->removed.bytes, 4);
  EXPECT_FALSE(*blobs_->Contains(gone));
  EXPECT_TRUE(blobs_->Get(stays).ok());
}

TEST_F(GcExecutionTest, ABlobThatIsPutAgainAfterThePlanStays) {
  Digest digest = PutOld("wanted again");
  GcPlan plan = PlanAll();
  ASSERT_TRUE(OpenBlobDirectory(paths_)->Put(std::string_view("wanted again")).ok());  // another process
  auto alone = MaintenanceLock::TakeAlone(paths_);
  auto result = ExecuteGc(paths_, plan, *alone);
  EXPECT_EQ(result->removed.blobs, 0);
  EXPECT_EQ(result->changed, 1);
  EXPECT_TRUE(blobs_->Get(digest).ok());
}

TEST_F(GcExecutionTest, ABlobThatWasRemovedIsStoredAgainByWhoHadStoredItBefore) {
  PutOld("removed");
  {
    auto alone = MaintenanceLock::TakeAlone(paths_);
    ASSERT_TRUE(ExecuteGc(paths_, PlanAll(), *alone).ok());
  }
  Digest digest = *blobs_->Put(std::string_view("removed"));  // the same process as before
  EXPECT_EQ(blobs_->Get(digest)->text(), "removed");
}

// A collection that has looked at the old file must not unlink the new one.
TEST_F(GcExecutionTest, ABlobGetsItsNameBeforeOrAfterACollectionNeverDuring) {
  Digest digest = PutOld("written again");
  GcPlan plan = PlanAll();
  auto alone = std::make_optional(*MaintenanceLock::TakeAlone(paths_));
  std::atomic<bool> stored = false;
  std::thread writer([&] {
    auto store = OpenBlobDirectory(paths_);
    auto other = store->NewWriter();
    EXPECT_TRUE((*other)->Append(std::string_view("written again")).ok());
    EXPECT_EQ(*(*other)->Finish(), digest);
    stored = true;
  });
  ::poll(nullptr, 0, 50);
  EXPECT_FALSE(stored);
  EXPECT_EQ(ExecuteGc(paths_, plan, *alone)->removed.blobs, 1);
  alone.reset();
  writer.join();
  EXPECT_EQ(blobs_->Get(digest)->text(), "written again");
}

TEST_F(GcExecutionTest, WhileABackupRunsNothingIsRemoved) {
  auto backup = MaintenanceLock::Share(paths_);
  EXPECT_EQ(CodeOf(MaintenanceLock::TakeAlone(paths_)), ErrorCode::kConflict);
}

}  // namespace
}  // namespace pare::storage
