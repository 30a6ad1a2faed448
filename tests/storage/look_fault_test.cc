// Reading a store on a disk that fails at every single read, mmap, flock and readdir: the answer is the right one or an error that
// says what was tried, and nothing is lost by it.
#include <gtest/gtest.h>

#include "storage/backup.h"
#include "storage/gc.h"
#include "tests/storage/every_nth.h"
#include "tests/storage/fault_disk.h"
#include "tests/storage/stored_copy.h"

namespace pare::storage {
namespace {

namespace fs = std::filesystem;

class LookFaultTest : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(from_ / "store");
    StoreCopyWithLog(world_, from_ / "store");
    TemporaryDirectory whole(TemporaryDirectory::Place::kMemory);
    fs::copy(from_.path(), whole.path(), fs::copy_options::recursive);
    state_ = StateText(whole / "store");
    ASSERT_NE(state_.find("event 2"), std::string::npos) << state_;
    blobs_ = ListBlobs(StorePaths(whole / "store"))->blobs;
    ASSERT_EQ(blobs_.size(), 10u);
  }

  // "" or a wrong answer. Answers that are errors are counted.
  std::string LookAtAll(const std::string& root) {
    StorePaths paths(root + "/store");
    if (std::string wrong = OpenAndRead(paths); !wrong.empty()) return wrong;
    auto listing = ListBlobs(paths);
    if (!Failed(listing) && listing->blobs.size() != blobs_.size()) return "blobs are missing from a listing";
    auto report = Fsck(paths, false);
    if (!Failed(report)) errors_ += report->clean() ? 0 : 1;
    auto backup = BackUp(paths, root + "/backup");
    if (!Failed(backup) && !backup->missing.empty()) return "a backup lacks " + backup->missing[0];
    backed_up_ = backup.ok();
    return "";
  }
  std::string OpenAndRead(const StorePaths& paths) {
    if (std::string state = StateText(paths.root); state != state_) {
      if (!state.starts_with("unreadable: ")) return "another state:\n" + state;
      ++errors_;
    }
    auto store = Store::Open(paths.root);
    if (Failed(store)) return "";
    auto state = (*store)->index().Load();
    if (!Failed(state) && state->artifacts.size() != 5) return "rows are missing";
    for (const BlobFile& blob : blobs_) {
      auto view = (*store)->blobs().Get(blob.digest);
      if (!view.ok() && view.error().code == ErrorCode::kNotFound) return "a blob that is there is said to be missing";
      if (!Failed(view) && DigestOf(view->bytes) != blob.digest) return "wrong bytes";
      auto put = view.ok() ? (*store)->blobs().Put(view->bytes) : Result<Digest>(blob.digest);
      if (!Failed(put) && *put != blob.digest) return "another digest";
    }
    return "";
  }
  template <typename T>
  bool Failed(const Result<T>& result) {
    if (result.ok()) return false;
    ++errors_;
    if (result.error().message.size() < 10) ADD_FAILURE() << "no clear error: " << result.error().message;
    return true;
  }
  // After the fault: all is there, in the store and in a backup that was acknowledged.
  std::string Examine(const std::string& root) {
    for (const char* name : {"/store", "/backup"}) {
      if (name == std::string("/backup") && !backed_up_) continue;
      auto report = Fsck(StorePaths(root + name), false);
      if (!report.ok()) return report.error().message;
      if (!report->clean()) return name + ToJson(*report).dump();
      if (StateText(root + name) != state_) return name + std::string(" has another state:\n") + StateText(root + name);
    }
    auto blobs = OpenBlobDirectory(StorePaths(root + "/store"));
    for (const BlobFile& blob : blobs_) {
      if (!blobs->Get(blob.digest).ok()) return "a blob is gone";
    }
    return "";
  }
  template <typename Work>
  void EveryLook(Fault fault, Work work) {
    bool more = true;
    static EveryNth sample(5);
    int64_t look = sample.First();
    for (; more; look += sample.step()) {
      TemporaryDirectory live(TemporaryDirectory::Place::kMemory);
      fs::copy(from_.path(), live.path(), fs::copy_options::recursive);
      std::string name = "none", wrong;
      errors_ = 0;
      backed_up_ = false;
      {
        FaultDisk disk(live.path());
        disk.Arm(fault, look);
        wrong = work(live.path());
        more = disk.looks() >= look;
        if (more) name = disk.LookName(look);
        disk.Arm(Fault::kNone, 0);
        if (wrong.empty()) wrong = Examine(live.path());
      }
      ASSERT_EQ(wrong, "") << "look " << look << " (" << name << ")";
      bool may_fail = fault == Fault::kReadError && more;
      ASSERT_TRUE(may_fail || errors_ == 0) << "look " << look << " (" << name << ")";
    }
    EXPECT_GT(look, 50) << "the work is not seen";
  }

  World world_;
  TemporaryDirectory from_;
  std::string state_;
  std::vector<BlobFile> blobs_;
  int errors_ = 0;
  bool backed_up_ = false;
};

TEST_F(LookFaultTest, AReadErrorIsAnErrorAndNeverAWrongAnswer) {
  EveryLook(Fault::kReadError, [this](const std::string& root) { return LookAtAll(root); });
}

TEST_F(LookFaultTest, AShortReadIsContinued) {
  EveryLook(Fault::kShortRead, [this](const std::string& root) { return LookAtAll(root); });
}

// What cannot be read once is not damaged.
TEST_F(LookFaultTest, ARepairWithAReadErrorLosesNothing) {
  EveryLook(Fault::kReadError, [this](const std::string& root) {
    (void)Failed(Fsck(StorePaths(root + "/store"), true));
    errors_ = 0;
    return std::string();
  });
}

TEST_F(LookFaultTest, BlobsThatCannotBeListedAreNoNewStore) {
  TemporaryDirectory live(TemporaryDirectory::Place::kMemory);
  fs::copy(from_ / "store", live.path(), fs::copy_options::recursive);
  for (const char* suffix : {"", "-wal"}) fs::remove(live / "index.db" + suffix);
  bool more = true;
  for (int64_t look = 1; more; ++look) {
    FaultDisk disk(live.path());
    disk.Arm(Fault::kReadError, look);
    ASSERT_FALSE(Store::Open(live.path()).ok()) << look;
    more = disk.looks() >= look;
    ASSERT_FALSE(fs::exists(live / "index.db")) << look;
  }
}

}  // namespace
}  // namespace pare::storage
