// Examination and repair: everything damaged in turn is named, what can be healed is, and nothing damaged is ever believed.
#include "storage/fsck.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "storage/index_repair.h"
#include "storage/sqlite.h"
#include "tests/storage/older_store.h"
#include "tests/storage/world.h"

namespace pare::storage {
namespace {

using testing::HasSubstr;

std::string TextOf(const FsckReport& report) { return ToJson(report).dump(1); }

TEST(FsckTest, AWholeStoreIsClean) {
  World world;
  FsckReport report = world.Examine();
  EXPECT_TRUE(report.clean()) << TextOf(report);
  EXPECT_EQ(report.blobs, 10);  // 5 manifests, 4 results, a snapshot
}

TEST(FsckTest, ExaminingWritesNothingAndNeedsNoLock) {
  World world;
  auto store = Store::Open(world.root());
  EXPECT_TRUE(world.Examine().clean());
  EXPECT_EQ(CodeOf(Fsck(world.paths(), true)), ErrorCode::kConflict);
}

TEST(FsckTest, WithoutAStoreThereIsNothingToExamine) { EXPECT_EQ(CodeOf(Fsck(StorePaths("/nowhere/store"), false)), ErrorCode::kNotFound); }

TEST(FsckTest, ADamagedCheckpointIsNamedPutAsideAndItsStepRunsAgain) {
  World world;
  std::string path = world.paths().blob(world.Blob("a/01-prune"));
  WriteBytes(path, "something else");
  FsckReport report = world.Examine();
  EXPECT_THAT(TextOf(report), HasSubstr(world.Blob("a/01-prune").hex()));
  EXPECT_THAT(TextOf(report), HasSubstr("job j1 step a/01-prune"));
  EXPECT_TRUE(std::filesystem::exists(path));
  report = world.Examine(true);
  ASSERT_EQ(report.losses.size(), 1u) << TextOf(report);
  EXPECT_EQ(report.losses[0].what, "step");
  EXPECT_EQ(report.losses[0].name, "job j1 step a/01-prune");
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_EQ(ReadBytes(world.root() + "/quarantine/" + world.Blob("a/01-prune").hex()), "something else");
  EXPECT_TRUE(world.Examine().clean()) << TextOf(world.Examine());
  int collected = 0;
  for (const ArtifactRow& row : world.Load().artifacts) collected += row.collected_ms != 0;
  EXPECT_EQ(collected, 1);
}

TEST(FsckTest, AManifestIsWrittenAgainFromItsRow) {
  World world;
  std::filesystem::remove(world.paths().blob(world.Artifact("a/01-prune").digest));
  EXPECT_FALSE(world.Examine().clean());
  FsckReport report = world.Examine(true);
  EXPECT_TRUE(report.losses.empty()) << TextOf(report);
  EXPECT_TRUE(world.Examine().clean());
}

TEST(FsckTest, AVersionThatLostItsCheckpointIsNamedUntilItIsBack) {
  World world;
  std::filesystem::remove(world.paths().blob(world.Blob("a/02-retrain")));
  FsckReport report = world.Examine(true);
  EXPECT_THAT(TextOf(report), HasSubstr("net@1"));
  EXPECT_FALSE(world.Examine().clean());
  // The step has run again.
  auto store = std::move(Store::Open(world.root())).value();
  std::string bytes = World::BytesOf("a/02-retrain");
  ASSERT_TRUE(store->blobs().Put(std::string_view(bytes)).ok());
  ASSERT_TRUE(store->index().Commit(std::vector<Row>{world.Artifact("a/02-retrain")}).ok());
  store.reset();
  EXPECT_TRUE(world.Examine().clean());
}

TEST(FsckTest, ALostSnapshotIsGivenUp) {
  World world;
  std::filesystem::remove(world.paths().blob(DigestOf(std::string_view("a snapshot"))));
  EXPECT_THAT(TextOf(world.Examine(true)), HasSubstr("snapshot"));
  EXPECT_TRUE(world.Examine().clean());
  EXPECT_TRUE(world.Load().snapshots[0].blob.is_none());
}

TEST(FsckTest, AStrangeFileAmongTheBlobsIsPutAside) {
  World world;
  std::filesystem::create_directories(world.root() + "/blobs/zz");
  WriteBytes(world.root() + "/blobs/zz/file", "x");
  WriteBytes(world.root() + "/blobs/other", "y");
  EXPECT_EQ(world.Examine(true).problems.size(), 2u);
  EXPECT_TRUE(world.Examine().clean());
}

// ---- the index ----

// The order of steps and artifacts means nothing.
void Sort(StoredState& state) {
  std::sort(state.steps.begin(), state.steps.end(), [](const StepRow& a, const StepRow& b) { return a.key < b.key; });
  std::sort(state.artifacts.begin(), state.artifacts.end(), [](const ArtifactRow& a, const ArtifactRow& b) { return a.digest < b.digest; });
}

void ExpectSameState(StoredState a, StoredState b) {
  Sort(a);
  Sort(b);
  EXPECT_EQ(a.jobs, b.jobs);
  EXPECT_EQ(a.steps, b.steps);
  EXPECT_EQ(a.job_steps, b.job_steps);
  EXPECT_EQ(a.artifacts, b.artifacts);
  EXPECT_EQ(a.versions, b.versions);
  EXPECT_EQ(a.aliases, b.aliases);
}

TEST(FsckTest, ALostIndexIsRebuiltFromManifests) {
  World world;
  StoredState before = world.Load();
  for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(world.root() + "/index.db" + suffix);
  EXPECT_EQ(CodeOf(Store::Open(world.root())), ErrorCode::kCorrupt);  // never an empty store beside old blobs
  EXPECT_FALSE(world.Examine().clean());
  FsckReport repaired = world.Examine(true);
  EXPECT_TRUE(std::any_of(repaired.losses.begin(), repaired.losses.end(), [](const FsckLoss& loss) { return loss.what == "rows" && loss.name == "jobs"; })) << TextOf(repaired);
  EXPECT_TRUE(world.Examine().clean()) << TextOf(world.Examine());
  StoredState after = world.Load();
  Sort(before);
  Sort(after);
  ASSERT_EQ(after.artifacts.size(), before.artifacts.size());
  for (size_t i = 0; i < after.artifacts.size(); ++i) EXPECT_EQ(after.artifacts[i].manifest, before.artifacts[i].manifest);
  EXPECT_EQ(after.steps.size(), before.steps.size() - 1);  // the one that is not done left no manifest
  for (const StepRow& step : after.steps) EXPECT_EQ(step.state, "done");
  ASSERT_EQ(after.versions.size(), 1u);
  EXPECT_EQ(after.versions[0].model, "net");
  EXPECT_EQ(after.versions[0].artifact, before.versions[0].artifact);
  EXPECT_EQ(after.aliases, before.aliases);
}

TEST(FsckTest, AnEmptiedIndexIsNoNewStore) {
  for (size_t size : {0, 1, 90}) {
    World world;
    Digest promoted = world.Load().versions[0].artifact;
    std::filesystem::remove(world.paths().index() + "-wal");
    WriteBytes(world.paths().index(), ReadBytes(world.paths().index()).substr(0, size));
    EXPECT_EQ(CodeOf(Store::Open(world.root())), ErrorCode::kCorrupt) << size;
    EXPECT_FALSE(world.Examine().clean()) << size;
    (void)world.Examine(true);
    EXPECT_TRUE(world.Examine().clean()) << TextOf(world.Examine());
    ASSERT_EQ(world.Load().versions.size(), 1u) << size;
    EXPECT_EQ(world.Load().versions[0].artifact, promoted);
  }
}

// The three moves of storage/index_repair.h, stopped between any two.
TEST(FsckTest, ARepairThatWasKilledIsFinishedByTheNextOneOrTheNextStart) {
  for (bool log_is_gone : {false, true}) {
    for (bool start : {false, true}) {
      World world;
      StoredState before = world.Load();
      std::filesystem::rename(world.paths().index(), RepairedIndex(world.paths()));
      WriteBytes(world.paths().index(), std::string(9000, 'x'));
      if (!log_is_gone) WriteBytes(world.paths().index() + "-wal", std::string(9000, 'y'));
      if (start) EXPECT_TRUE(Store::Open(world.root()).ok());
      else (void)world.Examine(true);
      EXPECT_TRUE(world.Examine().clean()) << TextOf(world.Examine());
      EXPECT_FALSE(std::filesystem::exists(RepairedIndex(world.paths())));
      ExpectSameState(world.Load(), before);
    }
  }
}

TEST(FsckTest, ATeachersLostWeightsAreNamed) {
  World world;
  Digest weights;
  {
    auto store = std::move(Store::Open(world.root())).value();
    weights = *store->blobs().Put(std::string_view("a teacher"));
    Json spec = {{"kind", "import"}, {"params", {{"weights", weights.hex()}}}};
    StepRow step{.key = StepKey(DigestOf(Canonical(spec)).bytes()), .kind = "import", .spec = spec, .state = "waiting"};
    JobRow job = JobOf("j2");
    job.state = "running";
    ASSERT_TRUE(store->index().Commit(std::vector<Row>{step, job, JobStepRow{.job = "j2", .name = "teacher", .ordinal = 0, .key = step.key, .wanted = true}}).ok());
  }
  EXPECT_TRUE(world.Examine().clean()) << TextOf(world.Examine());
  std::filesystem::remove(world.paths().blob(weights));
  FsckReport report = world.Examine();
  ASSERT_EQ(report.problems.size(), 1u) << TextOf(report);
  EXPECT_EQ(report.problems[0].kind, "input");
  EXPECT_EQ(report.problems[0].name, weights.hex());
  ASSERT_EQ(report.losses.size(), 1u);
  EXPECT_EQ(report.losses[0].name, "j2");
}

TEST(FsckTest, ADamagedHeaderLosesNothing) {
  World world;
  StoredState before = world.Load();
  std::string bytes = ReadBytes(world.paths().index());
  WriteBytes(world.paths().index(), bytes.replace(0, 600, std::string(600, '\x5A')));
  EXPECT_FALSE(world.Examine().clean());
  FsckReport report = world.Examine(true);
  EXPECT_TRUE(report.losses.empty()) << TextOf(report);
  ExpectSameState(world.Load(), before);
}

TEST(FsckTest, ARowWithAFlippedBitIsNeverBelieved) {
  World world;
  std::string bytes = ReadBytes(world.paths().index());
  size_t at = bytes.find("89.5");  // an accuracy
  ASSERT_NE(at, std::string::npos);
  for (; at != std::string::npos; at = bytes.find("89.5", at + 1)) bytes[at] = '9';
  WriteBytes(world.paths().index(), bytes);
  auto index = Index::OpenForReading(world.paths().index());
  auto state = (*index)->Load();
  ASSERT_FALSE(state.ok());
  EXPECT_EQ(state.error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(state.error().message, HasSubstr("checksum"));
  index->reset();
  (void)world.Examine(true);
  for (const ArtifactRow& row : world.Load().artifacts) EXPECT_EQ(DigestOf(row.manifest.text()), row.digest);
  EXPECT_TRUE(world.Examine().clean()) << TextOf(world.Examine());
}

// What a repair says of rows that were changed under their checksums.
FsckReport RepairAfter(World& world, const std::string& sql) {
  EXPECT_TRUE(std::move(Database::Open(world.paths().index(), Database::Mode::kWrite)).value()->Run(sql).ok());
  EXPECT_FALSE(world.Examine().clean());
  return world.Examine(true);
}

TEST(FsckTest, ADamagedVersionComesBackUnderItsNumberAndWhatMayBeMissingIsSaid) {
  World world;
  StoredState before = world.Load();
  FsckReport report = RepairAfter(world, "UPDATE versions SET evidence='{}'");
  ASSERT_EQ(report.losses.size(), 1u) << TextOf(report);
  EXPECT_EQ(report.losses[0].what, "rows");
  EXPECT_EQ(report.losses[0].name, "versions");
  StoredState after = world.Load();
  ASSERT_EQ(after.versions.size(), 1u);
  EXPECT_EQ(after.versions[0].version, 1);
  EXPECT_EQ(after.versions[0].artifact, before.versions[0].artifact);
  EXPECT_EQ(after.versions[0].job, "j1");
  EXPECT_EQ(after.versions[0].step, "a/02-retrain");
  EXPECT_EQ(after.aliases, before.aliases);
  EXPECT_EQ(after.promotions, before.promotions);
  EXPECT_TRUE(world.Examine().clean()) << TextOf(world.Examine());
}

TEST(FsckTest, ADamagedAliasIsTakenFromTheHistory) {
  World world;
  StoredState before = world.Load();
  FsckReport report = RepairAfter(world, "UPDATE aliases SET checksum=checksum+1");
  EXPECT_TRUE(report.losses.empty()) << TextOf(report);
  ExpectSameState(world.Load(), before);
}

TEST(FsckTest, AnIndexOfANewerReleaseIsLeftAlone) {
  World world;
  MakeNewer(world.paths().index());
  std::string before = ReadBytes(world.paths().index());
  for (bool repair : {false, true}) {
    auto refused = Fsck(world.paths(), repair);
    ASSERT_EQ(CodeOf(refused), ErrorCode::kVersion);
    EXPECT_THAT(refused.error().message, HasSubstr("use the newer Pare"));
  }
  EXPECT_EQ(ReadBytes(world.paths().index()), before);
}

TEST(FsckTest, ADatabaseOfSomethingElseIsNoDamagedIndex) {
  World world;
  std::filesystem::remove(world.paths().index());
  ASSERT_TRUE(std::move(Database::Open(world.paths().index(), Database::Mode::kCreate)).value()->Run("CREATE TABLE letters(x)").ok());
  for (bool repair : {false, true}) EXPECT_EQ(CodeOf(Fsck(world.paths(), repair)), ErrorCode::kInvalid);
}

TEST(FsckTest, WhatMayNotBeReadIsNotDamaged) {
  World world;
  std::string blob = world.paths().blob(world.Blob("a/01-prune")), folder = std::filesystem::path(blob).parent_path();
  std::filesystem::permissions(world.root(), std::filesystem::perms::all);
  std::filesystem::permissions(world.paths().blobs(), std::filesystem::perms::all);
  for (const std::string& path : {blob, folder, world.paths().blobs(), world.paths().index()}) {
    auto before = std::filesystem::status(path).permissions();
    std::filesystem::permissions(path, std::filesystem::perms::none);
    for (bool repair : {false, true}) {
      // A repair as somebody else may be kept out by what it must write before.
      int code = AsNobody([&] {
        auto report = Fsck(world.paths(), repair);
        return !report.ok() && (repair || report.error().code == ErrorCode::kInvalid) && (repair || report.error().message.find("no permission to read " + path) != std::string::npos);
      });
      EXPECT_EQ(code, 0) << path << " repair " << repair;
      EXPECT_FALSE(std::filesystem::exists(world.root() + "/quarantine")) << path;
    }
    std::filesystem::permissions(path, before);
  }
  EXPECT_TRUE(world.Examine().clean());
}

TEST(FsckTest, AStoreThatMayBeReadAndNotWrittenIsExamined) {
  World world;
  for (const char* suffix : {"-wal", "-shm"}) std::filesystem::remove(world.paths().index() + suffix);
  std::filesystem::permissions(world.root(), std::filesystem::perms(0555));
  int code = AsNobody([&] {
    auto report = Fsck(world.paths(), false);
    return report.ok() && report->clean();
  });
  std::filesystem::permissions(world.root(), std::filesystem::perms(0755));
  EXPECT_EQ(code, 0);
}

enum class Damage { kFlip, kCut, kDelete };

void Apply(Damage damage, const std::string& path, uint64_t seed) {
  std::string bytes = ReadBytes(path);
  RandomStream random(seed, RandomPurpose::kTest);
  std::filesystem::remove(path);
  if (damage == Damage::kDelete) return;
  if (damage == Damage::kFlip) bytes[random.Below(bytes.size())] ^= static_cast<char>(1u << random.Below(8));
  else bytes.resize(random.Below(bytes.size()));
  WriteBytes(path, bytes);
}

// Whatever was damaged: no reader gets wrong bytes or wrong rows, and after a repair the store opens, loads and is consistent.
void ExpectHealed(const World& world, const StoredState& before, const std::string& what) {
  auto blobs = OpenBlobDirectory(world.paths());
  auto index = Index::OpenForReading(world.paths().index());
  auto state = index.ok() ? (*index)->Load() : Result<StoredState>(index.error());
  std::set<std::string> known;
  for (const ArtifactRow& row : before.artifacts) known.insert(row.manifest.text());
  if (state.ok()) {
    for (const ArtifactRow& row : state->artifacts) EXPECT_TRUE(known.count(row.manifest.text()) != 0) << what;
    for (const VersionRow& row : state->versions) EXPECT_EQ(row, before.versions[0]) << what;
  }
  if (index.ok()) index->reset();
  auto repaired = Fsck(world.paths(), true);
  ASSERT_TRUE(repaired.ok()) << what << ": " << repaired.error().message;
  auto store = Store::Open(world.root());
  ASSERT_TRUE(store.ok()) << what << ": " << store.error().message;
  auto after = (*store)->index().Load();
  ASSERT_TRUE(after.ok()) << what << ": " << after.error().message;
  store->reset();
  for (const ArtifactRow& row : after->artifacts) {
    EXPECT_TRUE(known.count(row.manifest.text()) != 0) << what;
    EXPECT_TRUE(OpenBlobDirectory(world.paths())->Get(row.digest).ok()) << what;
  }
  for (const FsckProblem& problem : world.Examine().problems) EXPECT_EQ(problem.kind, "version") << what << ": " << problem.text;
}

TEST(FsckTest, EveryFileDamagedInTurnIsNamedAndHealed) {
  size_t files = World().Files().size();
  for (size_t i = 0; i < files; ++i) {
    for (Damage damage : {Damage::kFlip, Damage::kCut, Damage::kDelete}) {
      for (uint64_t seed = 1; seed <= (i == 0 ? 15u : 2u); ++seed) {
        World world;
        StoredState before = world.Load();
        std::string file = world.Files()[i], what = file + " damage " + std::to_string(static_cast<int>(damage)) + " seed " + std::to_string(seed);
        Apply(damage, world.root() + "/" + file, seed);
        FsckReport report = world.Examine();
        // A flipped bit of the index may lie where no row is.
        if (i > 0 || damage == Damage::kDelete) {
          EXPECT_FALSE(report.clean()) << what;
          EXPECT_THAT(TextOf(report), HasSubstr(i == 0 ? "index.db" : file.substr(file.size() - 64))) << what;
        }
        ExpectHealed(world, before, what);
        if (HasFatalFailure()) return;
      }
    }
  }
}

// ---- putting rows together ----

TEST(ReconcileTest, SoundRowsStayAsTheyAre) {
  World world;
  StoredState before = world.Load();
  auto salvaged = SalvageIndex(world.paths().index(), world.root() + "/tmp");
  ASSERT_TRUE(salvaged.ok());
  EXPECT_TRUE(salvaged->problems.empty());
  std::vector<FsckLoss> losses;
  std::vector<Row> rows = Reconcile(salvaged->rows, {}, {}, losses);
  EXPECT_TRUE(losses.empty());
  auto memory = *Index::OpenInMemory();
  ASSERT_TRUE(memory->Commit(rows).ok());
  ExpectSameState(*memory->Load(), before);
  EXPECT_EQ(memory->Metrics(World::KeyOfStep("baseline"), 10)->size(), 1u);
  EXPECT_EQ(memory->Events("j1", 0, 10)->size(), 1u);
}

TEST(ReconcileTest, WhatALostRowLeavesDanglingIsCutOrFilledIn) {
  World world;
  auto salvaged = SalvageIndex(world.paths().index(), world.root() + "/tmp");
  // Each row lost in turn: what is left can always be committed.
  for (size_t lost = 0; lost < salvaged->rows.size(); ++lost) {
    std::vector<Row> rows = salvaged->rows;
    rows.erase(rows.begin() + static_cast<ptrdiff_t>(lost));
    std::vector<FsckLoss> losses;
    auto memory = *Index::OpenInMemory();
    Status status = memory->Commit(Reconcile(rows, {}, {.versions_damaged = true}, losses));
    EXPECT_TRUE(status.ok()) << lost << ": " << status.error().message;
  }
}

}  // namespace
}  // namespace pare::storage
