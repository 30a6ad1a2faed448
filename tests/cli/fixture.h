// Runs the built programs as a user does: in a directory of their own, with a small data set that needs no package.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/process.h"

namespace pare::cli {

struct Outcome {
  int code = -1;
  std::string out, err;
};

// A program that was started; its output lies in files.
struct Started {
  std::unique_ptr<Process> process;
  std::string base;  // base.out, base.err
  // Waits for its end (kills it after two minutes).
  Outcome Finish();
  std::string out() const;
  std::string err() const;
};

// The data set of CliTest::WriteData in a recipe that runs in the test's directory, and what that leaves to train on.
inline constexpr const char* kSmallData =
    "data: {format: idx, train: train.idx, train_labels: train_labels.idx, test: test.idx, test_labels: test_labels.idx, validation: 200}\n";
inline constexpr int kSmallValidation = 200, kSmallTraining = 400;

// What a recipe of the tests says; the rest is fixed.
struct SmallRecipe {
  std::string name = "small";
  int epochs = 2;           // of the dense baseline
  double learning_rate = 0.01;
  std::string iterative = "0.5";  // fraction removed in each of two rounds
  std::string train_images = "train.idx";
  std::string more;  // lines at the end
};

class CliTest : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  std::string Path(const std::string& name) const { return directory_ + "/" + name; }
  std::string Write(const std::string& name, const std::string& bytes) const;
  static std::string Read(const std::string& path);
  // The data set (600 + 200 images of `side` x `side`, 4 classes), and a recipe over it.
  void WriteData(int side = 8) const;
  std::string WriteRecipe(const std::string& file, const SmallRecipe& recipe = {}) const;

  // argv[0] is "pare", "pare-coordinator", …. Runs in the test's directory, without PARE_STORE and PARE_COORDINATOR.
  Started Start(std::vector<std::string> argv, const std::string& working_directory = "") const;
  Outcome Run(std::vector<std::string> argv) const { return Start(std::move(argv)).Finish(); }
  // A line for /bin/sh, which finds the built programs.
  Outcome Shell(const std::string& line) const;
  // pare … --store STORE
  Outcome Pare(std::vector<std::string> arguments, const std::string& store) const;
  // The same with --json, parsed; a failure of the test if it does not end with `code`.
  Json Ask(std::vector<std::string> arguments, const std::string& store, int code = 0) const;

  // A coordinator of `store` on a free port of the loopback; `endpoint` is filled when it serves.
  Started StartCoordinator(const std::string& store, std::string* endpoint, const std::string& working_directory = "") const;
  Started StartWorker(const std::string& endpoint) const { return Start({"pare-worker", "--coordinator", endpoint}); }

  // Looks again and again until `done` says so; a failure of the test after a minute.
  static void WaitUntil(const std::string& what, const std::function<bool()>& done);

 private:
  std::string directory_;
  mutable int started_ = 0;
};

// A store with one finished job of the small recipe, "small" promoted: made once, copied by those who change it.
class FinishedStoreTest : public CliTest {
 protected:
  static void SetUpTestSuite();
  static void TearDownTestSuite();
  void SetUp() override;

  const std::string& store() const { return store_; }
  std::string recipe() const { return Path("small.yaml"); }

 private:
  static std::string* finished_;
  std::string store_;
};

Json Parsed(const std::string& text);
// True where the whole chain of programs was built (libtorch).
bool RunnerIsBuilt();

}  // namespace pare::cli
