// Store, index and blobs on a disk that fails at every single call, and after a power cut at every single call: what was
// acknowledged is there, nothing is there in part, and the store works on.
#include <gtest/gtest.h>

#include <set>

#include "storage/fsck.h"
#include "storage/store.h"
#include "tests/storage/every_nth.h"
#include "tests/storage/fault_disk.h"
#include "tests/storage/files.h"
#include "tests/storage/rows.h"

namespace pare::storage {
namespace {

constexpr int kTurns = 2;

std::string BytesOfTurn(int turn, const std::string& what) { return what + RandomBytes(3000 + static_cast<size_t>(turn), static_cast<uint64_t>(turn)); }

struct Turn {
  StepRow step;
  ArtifactRow artifact;
};

// A step and its artifact, which names both blobs of the turn.
Turn TurnOf(int turn) {
  Turn rows;
  rows.step = StepRow{.kind = "train", .spec = {{"turn", turn}}, .state = "done"};
  rows.step.key = StepKey(DigestOf(rows.step.spec.text()).bytes());
  Artifact artifact{.kind = "checkpoint", .step = rows.step.key};
  for (const char* what : {"put", "piece"}) {
    std::string bytes = BytesOfTurn(turn, what);
    artifact.blobs[what] = {DigestOf(std::string_view(bytes)), static_cast<int64_t>(bytes.size())};
  }
  rows.artifact = {.digest = DigestOf(Canonical(ToJson(artifact))), .key = rows.step.key, .manifest = ToJson(artifact), .bytes = 1};
  rows.step.artifact = rows.artifact.digest;
  return rows;
}

struct Told {
  std::set<Digest> blobs;
  std::set<int> turns;
};

Status WriteInPieces(BlobStore& blobs, const std::string& bytes) {
  ASSIGN_OR_RETURN(auto writer, blobs.NewWriter());
  TRY(writer->Append(bytes.substr(0, 1000)));
  TRY(writer->Append(bytes.substr(1000)));
  TRY(writer->Finish());
  return Ok();
}

// What a coordinator and a runner do in one turn; notes what they were told is durable. A failure ends the turn, not the next.
Status RunTurn(Store& store, int turn, Told& told) {
  ASSIGN_OR_RETURN(Digest put, store.blobs().Put(std::string_view(BytesOfTurn(turn, "put"))));
  told.blobs.insert(put);
  std::string piece = BytesOfTurn(turn, "piece");
  TRY(WriteInPieces(store.blobs(), piece));
  told.blobs.insert(DigestOf(std::string_view(piece)));
  TRY(store.blobs().Put(std::string_view(BytesOfTurn(turn, "put"))));  // is there already
  Turn rows = TurnOf(turn);
  TRY(store.blobs().Put(std::string_view(rows.artifact.manifest.text())));
  TRY(store.index().Commit(std::vector<Row>{rows.step, rows.artifact}));
  told.turns.insert(turn);
  return Ok();
}

void RunAll(const std::string& root, Told& told) {
  for (int first : {0, 1}) {  // opened twice: closing moves the log into the file
    auto store = Store::Open(root);
    if (!store.ok()) continue;
    for (int turn = first; turn < (first == 0 ? 1 : kTurns); ++turn) (void)RunTurn(**store, turn, told);
  }
}

// What is wrong with what is left; "" if nothing.
std::string Examine(const std::string& root, const Told& told) {
  auto store = Store::Open(root);
  if (!store.ok()) return "it does not open: " + store.error().message;
  auto state = (*store)->index().Load();
  if (!state.ok()) return "it does not load: " + state.error().message;
  std::set<StepKey> there;
  for (const StepRow& step : state->steps) there.insert(step.key);
  if (there.size() != state->artifacts.size()) return "half of a transaction";
  for (int turn : told.turns) {
    if (there.count(TurnOf(turn).step.key) == 0) return "turn " + std::to_string(turn) + " was committed and is gone";
  }
  for (const Digest& digest : told.blobs) {
    auto view = (*store)->blobs().Get(digest);
    if (!view.ok()) return "blob was stored: " + view.error().message;
  }
  Told more;
  Status status = RunTurn(**store, kTurns, more);
  if (!status.ok()) return "it does not work on: " + status.error().message;
  store->reset();
  auto report = Fsck(StorePaths(root), false);
  if (!report.ok()) return report.error().message;
  return report->clean() ? "" : "fsck: " + report->problems[0].kind + " " + report->problems[0].name + ": " + report->problems[0].text;
}

class PowerCutTest : public testing::Test {
 protected:
  // Runs the workload with a fault at this call, cuts, and examines what is left; "" or what is wrong. False from `more`: the
  // workload makes fewer calls.
  std::string Try(Fault fault, int64_t call, Cut cut, bool* more) {
    TemporaryDirectory live(TemporaryDirectory::Place::kMemory), left(TemporaryDirectory::Place::kMemory);
    Told told;
    std::string name;
    {
      FaultDisk disk(live.path());
      disk.Arm(fault, call);
      RunAll(live.path(), told);
      bool look = OfLooks(fault);
      *more = (look ? disk.looks() : disk.calls()) >= call;
      if (*more) name = look ? disk.LookName(call) : disk.Name(call);
      disk.Leave(cut, static_cast<uint64_t>(call), left.path());
      last_ = told;
    }
    FaultDisk quick(left.path());  // its fsync costs nothing
    std::string problem = Examine(left.path(), told);
    return problem.empty() ? "" : "call " + std::to_string(call) + " (" + name + "): " + problem;
  }

  static bool OfLooks(Fault fault) { return fault == Fault::kReadError || fault == Fault::kShortRead; }

  void EveryCall(Fault fault, Cut cut, EveryNth sample = EveryNth(1)) {
    bool more = true;
    int64_t call = sample.First();
    for (; more; call += sample.step()) {
      std::string problem = Try(fault, call, cut, &more);
      ASSERT_EQ(problem, "");
    }
    EXPECT_GT(call, OfLooks(fault) ? 20 : 60) << "the workload is not seen";
    EXPECT_EQ(last_.turns.size(), static_cast<size_t>(kTurns)) << "the undisturbed workload does not succeed";
  }
  Told last_;
};

TEST_F(PowerCutTest, AKillAfterAnyCallLosesNothing) { EveryCall(Fault::kCrash, Cut::kKill); }
TEST_F(PowerCutTest, APowerCutThatDropsAllThatIsNotSyncedLosesNothingAcknowledged) { EveryCall(Fault::kCrash, Cut::kUnsynced); }
TEST_F(PowerCutTest, APowerCutThatKeepsNamesAndDropsBytesLosesNothingAcknowledged) { EveryCall(Fault::kCrash, Cut::kNames, EveryNth(3)); }
TEST_F(PowerCutTest, APowerCutThatKeepsPartsLosesNothingAcknowledged) { EveryCall(Fault::kCrash, Cut::kTorn, EveryNth(3)); }
TEST_F(PowerCutTest, ATornWriteIsNeverTakenForAWholeOne) {
  EveryCall(Fault::kTornWrite, Cut::kKill, EveryNth(3));
  EveryCall(Fault::kTornWrite, Cut::kTorn, EveryNth(3));
}
TEST_F(PowerCutTest, AShortWriteIsContinued) { EveryCall(Fault::kShortWrite, Cut::kUnsynced, EveryNth(3)); }
TEST_F(PowerCutTest, AnErrorOfAnyCallLosesNothingAcknowledged) { EveryCall(Fault::kIoError, Cut::kUnsynced, EveryNth(3)); }
TEST_F(PowerCutTest, ADiskThatIsFullAtAnyCallLosesNothingAcknowledged) { EveryCall(Fault::kNoSpace, Cut::kUnsynced, EveryNth(3)); }

TEST_F(PowerCutTest, AReadErrorOfAnyCallLosesNothingAcknowledged) { EveryCall(Fault::kReadError, Cut::kUnsynced); }
TEST_F(PowerCutTest, AShortReadOfAnyCallIsContinued) { EveryCall(Fault::kShortRead, Cut::kUnsynced); }

// A disk that lies about fsync can lose what it acknowledged. What is left is never wrong, and a repair makes it work again.
TEST_F(PowerCutTest, ALostSyncNeverMakesAWrongResult) {
  bool more = true;
  for (int64_t call = 1; more; ++call) {
    TemporaryDirectory live(TemporaryDirectory::Place::kMemory), left(TemporaryDirectory::Place::kMemory);
    Told told;
    {
      FaultDisk disk(live.path());
      disk.Arm(Fault::kLostSync, call);
      RunAll(live.path(), told);
      more = disk.calls() >= call;
      disk.Leave(Cut::kUnsynced, 1, left.path());
    }
    auto blobs = OpenBlobDirectory(StorePaths(left.path()));
    for (int turn = 0; turn < kTurns; ++turn) {
      std::string bytes = BytesOfTurn(turn, "put");
      auto view = blobs->Get(DigestOf(std::string_view(bytes)));
      ASSERT_TRUE(!view.ok() || view->text() == bytes);
    }
    std::filesystem::create_directories(left.path() + "/blobs");
    std::filesystem::create_directories(left.path() + "/tmp");
    FaultDisk quick(left.path());
    ASSERT_TRUE(Fsck(StorePaths(left.path()), true).ok()) << call;
    ASSERT_EQ(Examine(left.path(), Told()), "") << call;
  }
}

}  // namespace
}  // namespace pare::storage
