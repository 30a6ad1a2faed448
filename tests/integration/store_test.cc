// Whole stores in trouble: a full disk, damaged files, collection and backup while jobs run. Real processes, real images.
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/mount.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "tests/integration/run_fixture.h"

namespace pare {
namespace {

namespace fs = std::filesystem;
using testing::AnyOf;
using testing::HasSubstr;

class StoreInTroubleTest : public RunFixture {
 protected:
  void TearDown() override {
    if (mounted_) ::umount2(Path("disk").c_str(), MNT_DETACH);
    RunFixture::TearDown();
  }
  // A disk of this size at "disk"; false, with the reason, where that is not permitted.
  bool Mount(const std::string& size, std::string* why) {
    fs::create_directories(Path("disk"));
    mounted_ = ::mount("tmpfs", Path("disk").c_str(), "tmpfs", 0, ("size=" + size).c_str()) == 0;
    if (!mounted_) *why = std::string("a small tmpfs cannot be mounted: ") + std::strerror(errno);
    return mounted_;
  }
  void Fill() const {
    std::ofstream filler(Path("disk/filler"), std::ios::binary);
    std::string piece(1 << 16, 'x');
    while (filler.write(piece.data(), static_cast<std::streamsize>(piece.size())).flush()) {
    }
  }
  bool mounted_ = false;
};

// The disk fills up at random moments, for long enough that somebody meets it, and has space again.
TEST_F(StoreInTroubleTest, AFullDiskLosesNothingAndWorkGoesOnWhenThereIsSpace) {
  std::string why;
  if (!Mount("80m", &why)) GTEST_SKIP() << why;
  std::string reference = Reference();
  const char* seed_text = std::getenv("PARE_SEED");
  RandomStream random(seed_text == nullptr ? 11 : std::strtoull(seed_text, nullptr, 10), RandomPurpose::kTest);
  bool told = false;
  auto look = [&] {
    std::error_code ignored;
    for (const auto& entry : fs::recursive_directory_iterator(directory_, ignored)) {
      if (entry.path().extension() != ".log") continue;
      auto text = ReadFile(entry.path().string());
      told = told || (text.ok() && (text->find("disk is full") != std::string::npos || text->find("is full: free some space") != std::string::npos));
    }
    return told;
  };
  for (int round = 0; round < 3; ++round) {
    std::string store = "disk/store" + std::to_string(round);
    auto run = Start(RunArguments(store), Path("full.log"));
    for (int i = 0; i < 3 && !run->Wait(Millis(200 + static_cast<int64_t>(random.Below(1500)))); ++i) {
      Fill();
      (void)run->Wait(Millis(300 + static_cast<int64_t>(random.Below(1500))));
      // Once at least, until somebody has met it, however slow this machine is.
      for (int waited = 0; waited < 150 && !look() && !run->Wait(Millis(200)); ++waited) {
      }
      fs::remove(Path("disk/filler"));
    }
    bool ended = run->Wait(Millis(120'000)).has_value();
    EXPECT_TRUE(ended) << ReadFile(Path("full.log")).value();
    if (!ended) run->Terminate(Millis(1'000));
    // A run that gave up says why; the same command goes on.
    if (run->code() != 0) {
      EXPECT_THAT(ReadFile(Path("full.log")).value(), AnyOf(HasSubstr("full"), HasSubstr("space")));
      Outcome again = Run(store);
      EXPECT_EQ(again.code, 0) << again.out;
    }
    EXPECT_EQ(DigestOfRun(store), reference) << "round " << round;
    Outcome examined = On(store, {"fsck"});
    EXPECT_EQ(examined.code, 0) << examined.out;
    look();
    fs::remove_all(Path(store));
  }
  EXPECT_TRUE(told) << "no log says that the disk was full";
}

TEST_F(StoreInTroubleTest, AStartOnAFullDiskSaysSoAndTheSameCommandWorksOnceThereIsSpace) {
  std::string why;
  if (!Mount("80m", &why)) GTEST_SKIP() << why;
  Fill();
  Outcome refused = Run("disk/store");
  EXPECT_EQ(refused.code, 1);
  EXPECT_THAT(refused.out, HasSubstr("is full; free some space"));
  fs::remove(Path("disk/filler"));
  Outcome run = Run("disk/store");
  EXPECT_EQ(run.code, 0) << run.out;
}

void Damage(const std::string& path, size_t kind, RandomStream& random) {
  std::string bytes = ReadFile(path).value();
  fs::remove(path);
  if (kind == 2) return;
  if (kind == 0) bytes[random.Below(bytes.size())] ^= static_cast<char>(1u << random.Below(8));
  else bytes.resize(random.Below(bytes.size()));
  std::ofstream(path, std::ios::binary) << bytes;
}

// PARE_LONG=1: every file; otherwise a sample.
TEST_F(StoreInTroubleTest, AnyFileDamagedInAnyWayIsNamedAndTheSameRunEndsWithTheSameDigest) {
  std::string reference = Reference();
  std::vector<std::string> files = {"index.db", "index.db", "index.db"};
  for (const auto& entry : fs::recursive_directory_iterator(Path("reference/blobs"))) {
    if (entry.is_regular_file()) files.push_back(fs::relative(entry.path(), Path("reference")).string());
  }
  std::sort(files.begin() + 3, files.end());
  // What no row names (a snapshot of a finished step) may go without a word.
  Outcome garbage = On("reference", {"gc", "--dry-run", "--min-age", "0"});
  ASSERT_EQ(garbage.code, 0) << garbage.out;
  bool all = std::getenv("PARE_LONG") != nullptr;
  RandomStream random(23, RandomPurpose::kTest);
  for (size_t i = 0; i < files.size(); ++i) {
    for (size_t kind = 0; kind < 3; ++kind) {
      if (!all && (i < 3 ? kind != i : random.Below(40) != 0)) continue;
      Copy("reference", "damaged");
      std::string what = files[i] + " damage " + std::to_string(kind);
      Damage(Path("damaged/" + files[i]), kind, random);
      Outcome examined = On("damaged", {"fsck"});
      std::string name = fs::path(files[i]).filename().string();
      bool unnamed = kind == 2 && garbage.out.find(name) != std::string::npos;
      if (i >= 3 && !unnamed) {
        EXPECT_EQ(examined.code, 1) << what << "\n" << examined.out;
        EXPECT_THAT(examined.out, HasSubstr(name)) << what;
      }
      // Without a repair: the right digest or a reason, never a crash.
      Copy("damaged", "unrepaired");
      Outcome unrepaired = Run("unrepaired");
      EXPECT_LT(unrepaired.code, 128) << what << "\n" << unrepaired.out;
      if (unrepaired.code == 0) {
        EXPECT_EQ(DigestOfRun("unrepaired"), reference) << what;
      }
      Outcome repaired = On("damaged", {"fsck", "--repair"});
      EXPECT_LE(repaired.code, 1) << what << "\n" << repaired.out;
      Outcome again = Run("damaged");
      EXPECT_EQ(again.code, 0) << what << "\n" << repaired.out << again.out;
      EXPECT_EQ(DigestOfRun("damaged"), reference) << what << "\n" << repaired.out;
      Outcome clean = On("damaged", {"fsck"});
      EXPECT_EQ(clean.code, 0) << what << "\n" << clean.out;
    }
  }
}

// Nothing runs, so nobody but the command itself would read the checkpoint that it recommends.
TEST_F(StoreInTroubleTest, ADamagedPromotedCheckpointIsNoResult) {
  std::string reference = Reference();
  Outcome report = On("reference", {"report", "last", "--json"});
  ASSERT_EQ(report.code, 0) << report.out;
  std::string path = Json::parse(report.out)["promoted"]["path"].get<std::string>(), relative = fs::relative(path, Path("reference")).string();
  RandomStream random(5, RandomPurpose::kTest);
  Copy("reference", "cut");
  fs::resize_file(Path("cut/" + relative), fs::file_size(path) / 2);
  Outcome run = Run("cut");
  EXPECT_EQ(run.code, 0) << run.out;
  EXPECT_EQ(ReadFile(Path("cut/" + relative)).value(), ReadFile(path).value()) << "its step ran again";
  Copy("reference", "flipped");
  Damage(Path("flipped/" + relative), 0, random);
  run = Run("flipped");
  EXPECT_EQ(run.code, 1) << run.out;
  EXPECT_THAT(run.out, HasSubstr("the promoted checkpoint is damaged"));
  EXPECT_LE(On("flipped", {"fsck", "--repair"}).code, 1);
  EXPECT_EQ(Run("flipped").code, 0);
  EXPECT_EQ(DigestOfRun("flipped"), reference);
}

TEST_F(StoreInTroubleTest, CollectionsWhileAJobRunsTakeNothingThatItNeeds) {
  std::string reference = Reference();
  auto run = Start(RunArguments("collected"), Path("collected.log"));
  // With --min-age 0 also blobs go that a submit has stored and no job names yet: the job comes first.
  while (!run->Wait(Millis(50)) && On("collected", {"list"}).out.find("chaos") == std::string::npos) {
  }
  int collections = 0;
  while (!run->Wait(Millis(150))) collections += On("collected", {"gc", "--min-age", "0"}).code == 0;
  EXPECT_EQ(run->code(), 0) << ReadFile(Path("collected.log")).value();
  EXPECT_GT(collections, 2);
  EXPECT_EQ(DigestOfRun("collected"), reference);
  Outcome last = On("collected", {"gc", "--dry-run", "--min-age", "0", "--json"});
  ASSERT_EQ(last.code, 0) << last.out;
  EXPECT_EQ(On("collected", {"fsck"}).code, 0);
}

TEST_F(StoreInTroubleTest, ABackupOfARunningJobGoesOnWhereItWas) {
  std::string reference = Reference();
  auto run = Start(RunArguments("backed"), Path("backed.log"));
  ASSERT_FALSE(run->Wait(Millis(2'000)));
  Outcome backup;
  for (int i = 0; i < 50 && backup.code != 0 && !run->Wait(Millis(100)); ++i) backup = On("backed", {"backup", Path("copy")});
  ASSERT_EQ(backup.code, 0) << backup.out;
  EXPECT_EQ(On("copy", {"fsck"}).code, 0);
  ASSERT_TRUE(run->Wait(Millis(120'000)));
  Outcome resumed = Run("copy");
  EXPECT_EQ(resumed.code, 0) << resumed.out;
  EXPECT_EQ(DigestOfRun("copy"), reference);
  EXPECT_EQ(DigestOfRun("backed"), reference);
}

}  // namespace
}  // namespace pare
