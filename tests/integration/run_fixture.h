// Real runs of the short recipe in a directory of their own: what tests of whole stores share.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "common/files.h"
#include "common/json.h"
#include "common/process.h"
#include "common/random.h"
#include "tests/integration/short_recipe.h"

namespace pare {

class RunFixture : public ::testing::Test {
 protected:
  struct Outcome {
    int code = -1;
    std::string out;
  };

  void SetUp() override {
    if (!std::filesystem::exists("/usr/share/datasets/fashion-mnist")) GTEST_SKIP() << "needs the Debian package dataset-fashion-mnist";
    directory_ = std::filesystem::temp_directory_path() / ("pare_store_" + std::to_string(::getpid()) + "_" + ::testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
    WriteRecipe(kShortRecipe);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  void WriteRecipe(const std::string& text) const { std::ofstream(directory_ / "recipe.yaml") << text; }
  std::string Path(const std::string& name) const { return (directory_ / name).string(); }

  std::unique_ptr<Process> Start(std::vector<std::string> arguments, const std::string& log) {
    arguments[0] = std::string(PARE_BIN_DIR) + "/" + arguments[0];
    SpawnOptions options;
    options.arguments = std::move(arguments);
    options.output_path = log;
    options.environment["XDG_CACHE_HOME"] = Path("cache");
    auto process = Process::Spawn(options);
    EXPECT_TRUE(process.ok()) << process.error().message;
    return *std::move(process);
  }
  Outcome Call(std::vector<std::string> arguments) {
    std::string log = Path("out." + std::to_string(++calls_));
    auto process = Start(std::move(arguments), log);
    if (!process->Wait(Millis(180'000))) process->Terminate(Millis(100));
    return {process->code(), ReadFile(log).value()};
  }
  // A command on a store of the directory.
  Outcome On(const std::string& store, std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "pare");
    arguments.insert(arguments.end(), {"--store", Path(store)});
    return Call(std::move(arguments));
  }
  std::vector<std::string> RunArguments(const std::string& store, int workers = 2, int threads = 1) const {
    return {"pare", "run", Path("recipe.yaml"), "--store", Path(store), "--workers", std::to_string(workers), "--threads", std::to_string(threads)};
  }
  Outcome Run(const std::string& store) { return Call(RunArguments(store)); }
  std::string DigestOfRun(const std::string& store) {
    Outcome outcome = On(store, {"digest"});
    EXPECT_EQ(outcome.code, 0) << outcome.out;
    return outcome.out;
  }
  Json Report(const std::string& store) {
    Outcome outcome = On(store, {"report", "--json"});
    auto report = ParseJson(outcome.out, "report");
    EXPECT_TRUE(outcome.code == 0 && report.ok()) << outcome.out;
    return report.ok() ? *report : Json::object();
  }
  // The digest of an undisturbed run, in store "reference".
  std::string Reference() {
    Outcome outcome = Run("reference");
    EXPECT_EQ(outcome.code, 0) << outcome.out;
    return DigestOfRun("reference");
  }
  // Files and directories only: a store that a coordinator used has sockets.
  void Copy(const std::string& from, const std::string& to) {
    namespace fs = std::filesystem;
    fs::remove_all(Path(to));
    fs::create_directories(Path(to));
    for (const auto& entry : fs::recursive_directory_iterator(Path(from))) {
      fs::path target = Path(to) / fs::relative(entry.path(), Path(from));
      if (entry.is_directory()) fs::create_directories(target);
      if (entry.is_regular_file()) fs::copy_file(entry.path(), target);
    }
  }

  std::filesystem::path directory_;
  int calls_ = 0;
};

}  // namespace pare
