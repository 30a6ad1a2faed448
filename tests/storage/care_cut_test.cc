// Repair, collection and backup on a disk that fails at every single call, and after a power cut at every single call: what was
// acknowledged before or by them is there, and the same command run again finishes.
#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "common/clock.h"
#include "storage/backup.h"
#include "storage/gc.h"
#include "storage/index_repair.h"
#include "tests/storage/every_nth.h"
#include "tests/storage/fault_disk.h"
#include "tests/storage/stored_copy.h"
#include "tests/storage/world.h"

namespace pare::storage {
namespace {

namespace fs = std::filesystem;

// "" or what is wrong with what is left in `root`; `acknowledged`: the work said that it is done.
using Check = std::function<std::string(const std::string& root, bool acknowledged)>;
using Work = std::function<Status(const std::string& root)>;

class CareCutTest : public testing::Test {
 protected:
  void EveryCall(Fault fault, Cut cut) {
    bool more = true, acknowledged = false;
    int64_t call = sample_.First();
    for (; more; call += sample_.step()) {
      TemporaryDirectory live(TemporaryDirectory::Place::kMemory), left(TemporaryDirectory::Place::kMemory);
      fs::copy(from_.path(), live.path(), fs::copy_options::recursive);
      std::string name = "none";
      {
        FaultDisk disk(live.path());
        disk.Arm(fault, call);
        acknowledged = work_(live.path()).ok();
        more = disk.calls() >= call;
        if (more) name = disk.Name(call);
        disk.Leave(cut, static_cast<uint64_t>(call), left.path());
      }
      FaultDisk quick(left.path());  // its fsync costs nothing
      ASSERT_EQ(check_(left.path(), acknowledged), "") << "call " << call << " (" << name << "), acknowledged " << acknowledged;
    }
    EXPECT_GT(call, 20) << "the work is not seen";
    EXPECT_TRUE(acknowledged) << "the undisturbed work does not succeed";
  }
  void EveryCut() {
    for (Cut cut : {Cut::kKill, Cut::kUnsynced, Cut::kNames, Cut::kTorn}) {
      SCOPED_TRACE("cut " + std::to_string(static_cast<int>(cut)));
      EveryCall(Fault::kCrash, cut);
      if (HasFatalFailure()) return;
    }
  }
  void EveryError() {
    for (Fault fault : {Fault::kIoError, Fault::kNoSpace, Fault::kTornWrite}) {
      SCOPED_TRACE("fault " + std::to_string(static_cast<int>(fault)));
      EveryCall(fault, Cut::kUnsynced);
      if (HasFatalFailure()) return;
    }
  }
  // What the undisturbed work leaves.
  std::string AfterWork(const std::string& store) {
    TemporaryDirectory whole(TemporaryDirectory::Place::kMemory);
    fs::copy(from_.path(), whole.path(), fs::copy_options::recursive);
    Status status = work_(whole.path());
    EXPECT_TRUE(status.ok()) << status.error().message;
    return StateText(whole.path() + store);
  }
  EveryNth sample_{17};
  TemporaryDirectory from_;
  Work work_;
  Check check_;
};

// ---- repair ----

class RepairCutTest : public CareCutTest {
 protected:
  // Damaged: rows of the index, a checkpoint, and a manifest that is gone. Committed last: a row that only the log has.
  void SetUp() override {
    World world;
    StoreCopyWithLog(world, from_.path());
    StorePaths paths(from_.path());
    std::string bytes = ReadBytes(paths.index());
    size_t at = bytes.find("89.5");
    ASSERT_NE(at, std::string::npos);
    for (; at != std::string::npos; at = bytes.find("89.5", at + 1)) bytes[at] = '9';
    WriteBytes(paths.index(), bytes);
    blob_ = world.Blob("a/01-prune").hex();
    WriteBytes(paths.blob(world.Blob("a/01-prune")), "something else");
    fs::remove(paths.blob(world.Artifact("baseline").digest));
    work_ = [](const std::string& root) -> Status {
      ASSIGN_OR_RETURN(FsckReport report, Fsck(StorePaths(root), true));
      for (const FsckProblem& problem : report.problems) {
        bool healed = false;
        for (const char* action : {"moved to ", "written again", "given up", "index rebuilt"}) healed = healed || problem.action.starts_with(action);
        if (!healed) return Error{ErrorCode::kIo, problem.text + ": " + problem.action};
      }
      return Ok();
    };
    expected_ = AfterWork("");
    ASSERT_NE(expected_.find("event 2"), std::string::npos) << expected_;
    ASSERT_NE(expected_.find("version net@1"), std::string::npos) << expected_;
    check_ = [this](const std::string& root, bool acknowledged) { return Examine(root, acknowledged); };
  }
  std::string Examine(const std::string& root, bool acknowledged) {
    if (acknowledged) {
      if (std::string problem = ProblemOf(root); !problem.empty()) return "after the repair: " + problem;
      if (!fs::exists(root + "/quarantine/index.db")) return "the damaged index is not in quarantine";
      if (ReadBytes(root + "/quarantine/index.db") != ReadBytes(from_ / "index.db")) return "the damaged index is not whole in quarantine";
    }
    bool kept = ReadBytes(StorePaths(root).blob(*Digest::FromHex(blob_))) == "something else" || ReadBytes(root + "/quarantine/" + blob_) == "something else";
    if (!kept) return "the damaged blob is gone";
    if (auto again = Fsck(StorePaths(root), true); !again.ok()) return "the second repair: " + again.error().message;
    return ProblemOf(root);
  }
  // Of a store that must be repaired.
  std::string ProblemOf(const std::string& root) {
    auto report = Fsck(StorePaths(root), false);
    if (!report.ok()) return report.error().message;
    if (!report->clean()) return ToJson(*report).dump();
    std::string state = StateText(root);
    return state == expected_ ? "" : "another state:\n" + state + "\nexpected:\n" + expected_;
  }
  std::string expected_, blob_;
};

TEST_F(RepairCutTest, NoCutLosesWhatWasCommittedAndTheNextRepairFinishes) { EveryCut(); }
TEST_F(RepairCutTest, NoErrorLosesWhatWasCommittedAndTheNextRepairFinishes) { EveryError(); }

// ---- sealing ----

TEST(SealTest, WhatCannotBeSealedKeepsItsLogAndWhatIsSealedIsWholeWithoutOne) {
  TemporaryDirectory made(TemporaryDirectory::Place::kMemory);
  auto index = std::move(Index::Open(made / "index.db")).value();
  ASSERT_TRUE(index->Commit(RowOfEveryType()).ok());  // in the log
  for (Fault fault : {Fault::kNoSpace, Fault::kFull, Fault::kIoError}) {
    bool more = true, sealed = false;
    for (int64_t call = 1; more; ++call) {
      TemporaryDirectory live(TemporaryDirectory::Place::kMemory);
      std::string path = live / "index.db";
      for (const char* suffix : {"", "-wal"}) fs::copy_file(made / "index.db" + suffix, path + suffix);
      {
        FaultDisk disk(live.path());
        disk.Arm(fault, call);
        Status status = SealDatabase(path);
        sealed = status.ok();
        more = disk.calls() >= call;
        ASSERT_TRUE(sealed || status.error().message.find(path) != std::string::npos) << status.error().message;
      }
      if (sealed) {
        ASSERT_FALSE(fs::exists(path + "-wal")) << call;
        fs::rename(path, live / "moved.db");
        path = live / "moved.db";
      }
      auto opened = Index::Open(path);
      ASSERT_TRUE(opened.ok()) << call << ": " << opened.error().message;
      auto state = (*opened)->Load();
      ASSERT_TRUE(state.ok()) << call << ": " << state.error().message;
      ASSERT_EQ(state->jobs.size(), 1u) << call;
    }
    EXPECT_TRUE(sealed);
  }
}

// ---- collection ----

class CollectionCutTest : public CareCutTest {
 protected:
  void SetUp() override {
    World world;
    StoreCopyWithLog(world, from_.path());
    {
      auto store = std::move(Store::Open(from_.path())).value();
      JobRow job = store->index().Load()->jobs.at(0);
      job.resolved = {{"tree", {{"keep", {{"policy", "promoted"}}}}}};
      ASSERT_TRUE(store->index().Commit(std::vector<Row>{job}).ok());
      ASSERT_TRUE(store->blobs().Put(std::string_view("garbage")).ok());
    }
    fs::remove(from_ / "reserve");
    kept_ = world.Blob("a/02-retrain");
    gone_ = {world.Blob("baseline"), world.Blob("a/01-prune"), DigestOf(std::string_view("garbage"))};
    work_ = Collect;
    expected_ = AfterWork("");
    ASSERT_NE(expected_.find("collected"), std::string::npos) << expected_;
    check_ = [this](const std::string& root, bool acknowledged) { return Examine(root, acknowledged); };
  }
  // As the coordinator does (coordinator/collect.cc).
  static Status Collect(const std::string& root) {
    ASSIGN_OR_RETURN(auto store, Store::Open(root));
    ASSIGN_OR_RETURN(StoredState state, store->index().Load());
    ASSIGN_OR_RETURN(BlobListing listing, ListBlobs(store->paths()));
    GcOptions options{.now_ms = SystemClock().Wall().ms + 60'000, .young_ms = 0};
    GcPlan plan = PlanGc(state, listing.blobs, options, ManifestReader(store->paths()));
    ASSIGN_OR_RETURN(MaintenanceLock alone, MaintenanceLock::TakeAlone(store->paths()));
    std::vector<Row> rows;
    for (ArtifactRow& row : state.artifacts) {
      if (std::find(plan.artifacts.begin(), plan.artifacts.end(), row.digest) == plan.artifacts.end()) continue;
      row.collected_ms = options.now_ms;
      rows.push_back(row);
    }
    TRY(store->index().Commit(rows));
    auto done = ExecuteGc(store->paths(), plan, alone);
    return done.ok() ? Ok() : Status(done.error());
  }
  std::string Examine(const std::string& root, bool acknowledged) {
    auto report = Fsck(StorePaths(root), false);
    if (!report.ok()) return report.error().message;
    if (!report->clean()) return ToJson(*report).dump();  // a row names a blob that is gone
    if (acknowledged && StateText(root) != expected_) return "the marks are gone:\n" + StateText(root);
    if (Status again = Collect(root); !again.ok()) return "the second collection: " + again.error().message;
    if (std::string state = StateText(root); state != expected_) return "another state:\n" + state + "\nexpected:\n" + expected_;
    auto blobs = OpenBlobDirectory(StorePaths(root));
    if (!blobs->Get(kept_).ok()) return "the promoted checkpoint is gone";
    for (const Digest& digest : gone_) {
      if (*blobs->Contains(digest)) return "the second collection leaves " + digest.hex();
    }
    return "";
  }
  std::string expected_;
  Digest kept_;
  std::vector<Digest> gone_;
};

TEST_F(CollectionCutTest, NoCutRemovesWhatARowNamesAndTheNextCollectionFinishes) { EveryCut(); }
TEST_F(CollectionCutTest, NoErrorRemovesWhatARowNamesAndTheNextCollectionFinishes) { EveryError(); }

// ---- backup ----

// The store in `store`, the backup in `deep/backup`; with an older backup there, or without.
class BackupCutTest : public CareCutTest, public testing::WithParamInterface<bool> {
 protected:
  void SetUp() override {
    World world;
    fs::create_directories(from_ / "store");
    fs::copy(world.root(), from_ / "store", fs::copy_options::recursive | fs::copy_options::overwrite_existing);
    work_ = [](const std::string& root) -> Status {
      ASSIGN_OR_RETURN(BackupReport report, BackUp(StorePaths(root + "/store"), root + "/deep/backup"));
      return report.missing.empty() ? Ok() : Status(Error{ErrorCode::kNotFound, "missing " + report.missing[0]});
    };
    if (GetParam()) {
      ASSERT_TRUE(work_(from_.path()).ok());
      older_ = StateText(from_ / "deep/backup");
    }
    AddWork(from_ / "store");
    expected_ = StateText(from_ / "store");
    ASSERT_NE(expected_, older_);
    check_ = [this](const std::string& root, bool acknowledged) { return Examine(root, acknowledged); };
  }
  std::string Examine(const std::string& root, bool acknowledged) {
    std::string target = root + "/deep/backup";
    if (std::string problem = ProblemOf(root + "/store", {expected_}); !problem.empty()) return "the store: " + problem;
    std::set<std::string> whole = {expected_};
    if (!acknowledged) whole.insert(older_);
    if (acknowledged || GetParam()) {
      if (std::string problem = ProblemOf(target, whole); !problem.empty()) return "the backup: " + problem;
    }
    if (Status again = work_(root); !again.ok()) return "the second backup: " + again.error().message;
    if (std::string problem = ProblemOf(target, {expected_}); !problem.empty()) return "the second backup: " + problem;
    return "";
  }
  static std::string ProblemOf(const std::string& store, const std::set<std::string>& states) {
    auto report = Fsck(StorePaths(store), false);
    if (!report.ok()) return report.error().message;
    if (!report->clean()) return ToJson(*report).dump();
    std::string state = StateText(store);
    return states.count(state) != 0 ? "" : "another state:\n" + state;
  }
  std::string expected_, older_;
};

TEST_P(BackupCutTest, NoCutHarmsTheStoreOrAnOlderBackupAndTheNextOneFinishes) { EveryCut(); }
TEST_P(BackupCutTest, NoErrorHarmsTheStoreOrAnOlderBackupAndTheNextOneFinishes) { EveryError(); }

INSTANTIATE_TEST_SUITE_P(OverAnOlderOne, BackupCutTest, testing::Bool());

}  // namespace
}  // namespace pare::storage
