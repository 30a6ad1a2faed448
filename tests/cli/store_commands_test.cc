// gc, fsck and backup as a user calls them: text, JSON, exit codes. On a store that needs no training.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <map>

#include "common/process.h"
#include "tests/storage/older_store.h"
#include "tests/storage/world.h"

namespace pare::storage {
namespace {

using testing::HasSubstr;

struct Outcome {
  int code = -1;
  std::string out;
};

class StoreCommandsTest : public testing::Test {
 protected:
  Outcome Pare(std::vector<std::string> arguments, const std::string& store = "") {
    std::string log = scratch_ / ("out" + std::to_string(++calls_));
    arguments.insert(arguments.begin(), PARE_BIN_DIR "/pare");
    arguments.insert(arguments.end(), {"--store", store.empty() ? world_.root() : store});
    auto process = Process::Spawn({.arguments = arguments, .environment = {{"PARE_COORDINATOR", ""}}, .output_path = log});
    EXPECT_TRUE(process.ok() && (*process)->Wait(Millis(60'000)).has_value());
    return {(*process)->code(), ReadBytes(log)};
  }
  Json Ask(std::vector<std::string> arguments, int code = 0) {
    arguments.push_back("--json");
    Outcome outcome = Pare(std::move(arguments));
    EXPECT_EQ(outcome.code, code) << outcome.out;
    auto json = ParseJson(outcome.out.substr(0, outcome.out.find('\n')), "output");
    EXPECT_TRUE(json.ok()) << outcome.out;
    return json.ok() ? *json : Json();
  }
  // What `pare doctor` says of the index; a failure of the test if that changes the store.
  Json IndexCheck(const std::string& store) {
    auto files = [&] {
      std::map<std::string, std::string> found;
      for (const auto& entry : std::filesystem::recursive_directory_iterator(store)) found[entry.path()] = entry.is_regular_file() ? ReadBytes(entry.path()) : "";
      return found;
    };
    auto before = files();
    Outcome outcome = Pare({"doctor", "--json"}, store);
    EXPECT_EQ(files(), before);
    auto json = ParseJson(outcome.out.substr(0, outcome.out.find('\n')), "output");
    if (!json.ok() || !json->is_array()) return ADD_FAILURE() << outcome.out, Json::object();
    for (const Json& check : *json) {
      if (check["check"] == "index") return check;
    }
    return ADD_FAILURE() << outcome.out, Json::object();
  }
  void ExpectIndex(const std::string& store, const std::string& level, const std::string& text) {
    Json check = IndexCheck(store);
    EXPECT_EQ(check["level"], level) << check.dump();
    EXPECT_THAT(check.value("text", ""), HasSubstr(text));
  }
  // The world's store as a coordinator leaves it that was killed: what was committed last is in the log alone.
  std::string Killed() {
    std::string copy = scratch_ / ("killed" + std::to_string(++calls_));
    auto store = std::move(Store::Open(world_.root())).value();
    for (int i = 0; i < 5; ++i) {
      JobRow job = JobOf("late" + std::to_string(i));
      CHECK(store->index().Commit(std::vector<Row>{job}).ok());
    }
    std::filesystem::copy(world_.root(), copy, std::filesystem::copy_options::recursive);
    return copy;
  }
  World world_;
  TemporaryDirectory scratch_;
  int calls_ = 0;
};

TEST_F(StoreCommandsTest, DoctorReadsTheIndexAndLeavesNoTrace) {
  ExpectIndex(world_.root(), "ok", "1 job, every row is sound");
  std::string killed = Killed();
  ASSERT_GT(std::filesystem::file_size(killed + "/index.db-wal"), 0u);
  ExpectIndex(killed, "ok", "6 jobs");
  std::filesystem::create_directory(scratch_ / "empty");
  ExpectIndex(scratch_ / "empty", "ok", "nothing was run in this store");
  auto store = std::move(Store::Open(world_.root())).value();
  ASSERT_TRUE(store->Announce({::getpid(), "ipc:///nowhere", "ipc:///nowhere-else", "1"}).ok());
  ExpectIndex(world_.root(), "ok", "in use by the coordinator with pid " + std::to_string(::getpid()));
}

TEST_F(StoreCommandsTest, DoctorTellsWhatIsWrongWithTheIndexAndWhatToDo) {
  std::string killed = Killed(), log = ReadBytes(killed + "/index.db-wal");
  log[32 + 24 + 100] = static_cast<char>(log[32 + 24 + 100] ^ 1);  // in the first page of the log
  WriteBytes(killed + "/index.db-wal", log);
  ExpectIndex(killed, "fail", "its log is damaged in frame 1 of");
  std::filesystem::remove(killed + "/index.db-wal");
  std::string index = ReadBytes(killed + "/index.db"), row = index;
  WriteBytes(killed + "/index.db", "no database at all, and long enough to be looked at as one, which takes a hundred bytes or more of them");
  ExpectIndex(killed, "fail", "`pare fsck --store " + killed + "`");
  for (size_t at = row.find("smallest"); at != std::string::npos; at = row.find("smallest", at)) row[at] = 'S';
  WriteBytes(killed + "/index.db", row);
  ExpectIndex(killed, "fail", "checksum");
  WriteBytes(killed + "/index.db", "");
  ExpectIndex(killed, "fail", "is empty");
  std::string number = index;
  number[63] = kSchemaVersion + 1;  // SQLite's user_version, big-endian at 60
  WriteBytes(killed + "/index.db", number);
  ExpectIndex(killed, "fail", "`pare fsck --store " + killed + "`");
  WriteBytes(killed + "/index.db", index);
  MakeNewer(killed + "/index.db");
  ExpectIndex(killed, "fail", "use the newer Pare that wrote it");
  EXPECT_THAT(IndexCheck(killed).value("text", ""), testing::Not(HasSubstr("--repair")));
  std::filesystem::remove(killed + "/index.db");
  ExpectIndex(killed, "fail", "is gone, but its blobs are there");
}

TEST_F(StoreCommandsTest, AnExaminationLeavesTheStoreOfANewerReleaseToIt) {
  MakeNewer(world_.paths().index());
  Outcome found = Pare({"fsck"});
  EXPECT_EQ(found.code, 1);
  EXPECT_THAT(found.out, HasSubstr("use the newer Pare that wrote it"));
  EXPECT_THAT(found.out, testing::Not(HasSubstr("--repair")));
}

TEST_F(StoreCommandsTest, AnExaminationWithoutPermissionSaysSo) {
  std::string blob = world_.paths().blob(world_.Blob("a/01-prune"));
  std::filesystem::permissions(blob, std::filesystem::perms::none);
  if (::access(blob.c_str(), R_OK) == 0) GTEST_SKIP() << "this user may read everything";  // FsckTest.WhatMayNotBeReadIsNotDamaged does it as another
  for (std::vector<std::string> command : {std::vector<std::string>{"fsck"}, {"fsck", "--repair"}}) {
    Outcome found = Pare(command);
    EXPECT_EQ(found.code, 2);
    EXPECT_THAT(found.out, HasSubstr("no permission to read " + blob));
    EXPECT_FALSE(std::filesystem::exists(world_.root() + "/quarantine"));
  }
}

TEST_F(StoreCommandsTest, OnAReadOnlyFileSystemAnExaminationIsPossibleAndTheRestRefusedWithTheReason) {
  std::string root = world_.root();
  auto run = [&](std::vector<std::string> command) {
    std::string log = scratch_ / ("out" + std::to_string(++calls_));
    std::vector<std::string> arguments = {"/usr/bin/unshare", "--mount", "--map-root-user", "/bin/sh", "-c",
                                          "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec \"$@\"", root};
    arguments.insert(arguments.end(), command.begin(), command.end());
    auto process = Process::Spawn({.arguments = arguments, .environment = {{"PARE_COORDINATOR", ""}}, .output_path = log});
    if (!process.ok() || !(*process)->Wait(Millis(60'000))) return Outcome{};
    return Outcome{(*process)->code(), ReadBytes(log)};
  };
  if (Outcome tried = run({"/bin/true"}); tried.code != 0) GTEST_SKIP() << "this machine lets nobody mount in a namespace of his own: " << tried.out;
  auto pare = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), PARE_BIN_DIR "/pare");
    arguments.insert(arguments.end(), {"--store", root});
    return run(std::move(arguments));
  };
  Outcome examined = pare({"fsck"});
  EXPECT_EQ(examined.code, 0) << examined.out;
  EXPECT_EQ(examined.out, Pare({"fsck"}).out);
  for (std::vector<std::string> command : {std::vector<std::string>{"list"}, {"gc"}, {"cancel", "last"}}) {
    Outcome refused = pare(command);
    EXPECT_NE(refused.code, 0) << command[0];
    EXPECT_THAT(refused.out, HasSubstr("cannot use store " + root));
    EXPECT_THAT(refused.out, HasSubstr("the file system is read-only; a store must be writable: use another --store"));
  }
  EXPECT_THAT(pare({"fsck", "--repair"}).out, HasSubstr("Read-only file system"));
}

TEST_F(StoreCommandsTest, ADryCollectionShowsBytesAndReasonsAndRemovesNothing) {
  auto blobs = OpenBlobDirectory(world_.paths());
  Digest garbage = *blobs->Put(std::string_view("garbage"));
  Json plan = Ask({"gc", "--dry-run", "--min-age", "0"});
  EXPECT_EQ(plan["blobs"], 1);
  EXPECT_EQ(plan["bytes"], 7);
  EXPECT_EQ(plan["remove"][0]["blob"], garbage.hex());
  EXPECT_EQ(plan["remove"][0]["reason"], "nothing names it");
  EXPECT_TRUE(*blobs->Contains(garbage));
  EXPECT_THAT(Pare({"gc", "--dry-run", "--min-age", "0"}).out, HasSubstr(garbage.hex()));
  EXPECT_EQ(Ask({"gc"})["removed_blobs"], 0);  // too young
  EXPECT_EQ(Ask({"gc", "--min-age", "0"})["removed_blobs"], 1);
  EXPECT_FALSE(*blobs->Contains(garbage));
  EXPECT_EQ(Pare({"fsck"}).code, 0);
}

TEST_F(StoreCommandsTest, AnExaminationNamesDamageAndARepairEndsIt) {
  EXPECT_EQ(Pare({"fsck"}).code, 0);
  std::string hex = world_.Blob("a/01-prune").hex();
  WriteBytes(world_.paths().blob(world_.Blob("a/01-prune")), "x");
  Outcome found = Pare({"fsck"});
  EXPECT_EQ(found.code, 1);
  EXPECT_THAT(found.out, HasSubstr("blob " + hex));
  EXPECT_THAT(found.out, HasSubstr("--repair"));
  Json report = Ask({"fsck", "--repair"}, 1);
  EXPECT_EQ(report["clean"], false);
  EXPECT_EQ(report["losses"][0]["name"], "job j1 step a/01-prune");
  EXPECT_EQ(Ask({"fsck"})["clean"], true);
}

TEST_F(StoreCommandsTest, ALostIndexIsToldAndRepaired) {
  std::filesystem::remove(world_.paths().index());
  Outcome list = Pare({"list"});
  EXPECT_EQ(list.code, 1);
  EXPECT_THAT(list.out, HasSubstr("pare fsck --repair"));
  EXPECT_EQ(Pare({"fsck", "--repair"}).code, 1);
  EXPECT_EQ(Pare({"fsck"}).code, 0);
  EXPECT_EQ(Ask({"models"})[0]["name"], "net");
}

TEST_F(StoreCommandsTest, ABackupIsAStore) {
  std::string target = scratch_ / "backup";
  Json report = Ask({"backup", target});
  EXPECT_EQ(report["blobs"], 10);
  EXPECT_EQ(report["directory"], target);
  EXPECT_TRUE(Fsck(StorePaths(target), false)->clean());
  EXPECT_EQ(Pare({"backup", world_.root()}).code, 2);
  Outcome inside = Pare({"backup", world_.root() + "/backup"});
  EXPECT_EQ(inside.code, 2);
  EXPECT_THAT(inside.out, HasSubstr("lies in it"));
}

TEST_F(StoreCommandsTest, TheHistoryOfAModelIsShown) {
  EXPECT_EQ(Ask({"models", "net"})["history"][0]["version"], 1);
  EXPECT_THAT(Pare({"models", "net"}).out, HasSubstr("promote"));
  EXPECT_EQ(Pare({"models", "nobody"}).code, 3);
}

}  // namespace
}  // namespace pare::storage
