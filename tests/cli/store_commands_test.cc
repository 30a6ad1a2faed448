// gc, fsck and backup as a user calls them: text, JSON, exit codes. On a store that needs no training.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/process.h"
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
  Outcome Pare(std::vector<std::string> arguments) {
    std::string log = scratch_ / ("out" + std::to_string(++calls_));
    arguments.insert(arguments.begin(), PARE_BIN_DIR "/pare");
    arguments.insert(arguments.end(), {"--store", world_.root()});
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
  World world_;
  TemporaryDirectory scratch_;
  int calls_ = 0;
};

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
}

TEST_F(StoreCommandsTest, TheHistoryOfAModelIsShown) {
  EXPECT_EQ(Ask({"models", "net"})["history"][0]["version"], 1);
  EXPECT_THAT(Pare({"models", "net"}).out, HasSubstr("promote"));
  EXPECT_EQ(Pare({"models", "nobody"}).code, 3);
}

}  // namespace
}  // namespace pare::storage
