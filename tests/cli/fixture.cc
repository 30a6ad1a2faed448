#include "tests/cli/fixture.h"

#include <poll.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>

#include "common/clock.h"
#include "common/files.h"

namespace pare::cli {
namespace {

namespace fs = std::filesystem;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr Millis kLongestCommand{600'000};  // ten times slower
#else
constexpr Millis kLongestCommand{120'000};
#endif
constexpr Millis kLongestWait{60'000};
constexpr int kClasses = 4;

std::string Idx(const std::vector<uint32_t>& shape, const std::string& data) {
  std::string out = {0, 0, 8, static_cast<char>(shape.size())};
  for (uint32_t d : shape) {
    for (int shift : {24, 16, 8, 0}) out += static_cast<char>(d >> shift);
  }
  return out + data;
}

// Class c lights the c-th quarter of the rows; the rest is a fixed pattern that says nothing.
std::string Images(uint32_t count, int side) {
  std::string pixels;
  for (uint32_t i = 0; i < count; ++i) {
    for (int y = 0; y < side; ++y) {
      for (int x = 0; x < side; ++x) {
        bool lit = y * kClasses / side == static_cast<int>(i % kClasses);
        pixels += static_cast<char>((lit ? 120 : 0) + (i * 31 + static_cast<uint32_t>(y * 7 + x * 13)) % 100);
      }
    }
  }
  return Idx({count, static_cast<uint32_t>(side), static_cast<uint32_t>(side)}, pixels);
}

std::string Labels(uint32_t count) {
  std::string labels;
  for (uint32_t i = 0; i < count; ++i) labels += static_cast<char>(i % kClasses);
  return Idx({count}, labels);
}

std::string NewDirectory() {
  std::string directory = testing::TempDir() + "/pare_cli_XXXXXX";
  CHECK(mkdtemp(directory.data()) != nullptr);
  return fs::canonical(directory).string();
}

}  // namespace

Json Parsed(const std::string& text) {
  auto json = ParseJson(text, "output");
  EXPECT_TRUE(json.ok()) << text;
  return json.ok() ? *json : Json();
}

bool RunnerIsBuilt() { return fs::exists(std::string(PARE_BIN_DIR) + "/pare-runner"); }

std::string Started::out() const { return ReadFile(base + ".out").value(); }
std::string Started::err() const { return ReadFile(base + ".err").value(); }

Outcome Started::Finish() {
  if (!process->Wait(kLongestCommand)) {
    process->Terminate(Millis(100));
    ADD_FAILURE() << "still runs after " << kLongestCommand.count() / 1000 << " s: " << err();
  }
  return {process->code(), out(), err()};
}

void CliTest::SetUp() { directory_ = NewDirectory(); }
void CliTest::TearDown() { fs::remove_all(directory_); }

std::string CliTest::Write(const std::string& name, const std::string& bytes) const {
  std::ofstream(Path(name), std::ios::binary) << bytes;
  return Path(name);
}

std::string CliTest::Read(const std::string& path) { return ReadFile(path).value(); }

void CliTest::WriteData(int side) const {
  Write("train.idx", Images(600, side));
  Write("train_labels.idx", Labels(600));
  Write("test.idx", Images(200, side));
  Write("test_labels.idx", Labels(200));
}

std::string CliTest::WriteRecipe(const std::string& file, const SmallRecipe& r) const {
  return Write(file, "version: 1\nname: " + r.name + "\nseed: 1\nmodel: {architecture: mlp, hidden: [16]}\ndata: {format: idx, train: " + Path(r.train_images) +
                         ", train_labels: " + Path("train_labels.idx") + ", test: " + Path("test.idx") + ", test_labels: " + Path("test_labels.idx") +
                         ", validation: 200}\ntrain: {epochs: " + std::to_string(r.epochs) + ", batch_size: 32, optimizer: sgd, learning_rate: " +
                         std::to_string(r.learning_rate) + "}\ngoal: {max_accuracy_drop: 100.0, minimize: bytes}\n" + R"(variants:
  iterative:
    - repeat: {times: 2}
      steps:
        - prune: {fraction_of_remaining: )" + r.iterative + R"(}
        - retrain: {epochs: 1}
  one-shot:
    - prune: {sparsity: 0.8}
    - retrain: {epochs: 1}
promote: {as: )" + r.name + "}\n" + r.more);
}

Started CliTest::Start(std::vector<std::string> argv, const std::string& working_directory) const {
  Started started;
  started.base = Path("run." + std::to_string(++started_));
  if (argv[0].find('/') == std::string::npos) argv[0] = std::string(PARE_BIN_DIR) + "/" + argv[0];
  SpawnOptions options;
  options.arguments = {"/bin/sh", "-c", "cd \"$1\" && shift && exec \"$@\" >\"$0.out\" 2>\"$0.err\"", started.base,
                       working_directory.empty() ? directory_ : working_directory};
  options.arguments.insert(options.arguments.end(), argv.begin(), argv.end());
  options.environment = {{"HOME", directory_}, {"XDG_CACHE_HOME", Path("cache")}, {"PARE_STORE", ""}, {"PARE_COORDINATOR", ""}, {"TERM", "dumb"}};
  // There at once, also before the shell has started.
  std::ofstream(started.base + ".out"), std::ofstream(started.base + ".err");
  auto process = Process::Spawn(options);
  CHECK(process.ok());
  started.process = *std::move(process);
  return started;
}

Outcome CliTest::Shell(const std::string& line) const {
  return Run({"/bin/sh", "-c", "PATH=" + std::string(PARE_BIN_DIR) + ":$PATH; " + line});
}

Outcome CliTest::Pare(std::vector<std::string> arguments, const std::string& store) const {
  arguments.insert(arguments.begin(), "pare");
  arguments.insert(arguments.end(), {"--store", store});
  return Run(std::move(arguments));
}

Json CliTest::Ask(std::vector<std::string> arguments, const std::string& store, int code) const {
  arguments.push_back("--json");
  Outcome outcome = Pare(arguments, store);
  EXPECT_EQ(outcome.code, code) << arguments[0] << ": " << outcome.err;
  return Parsed(outcome.out);
}

Started CliTest::StartCoordinator(const std::string& store, std::string* endpoint, const std::string& working_directory) const {
  Started coordinator = Start({"pare-coordinator", "--store", store, "--listen", "tcp://127.0.0.1:0", "--lease-timeout-ms", "2000"}, working_directory);
  WaitUntil("the coordinator serves", [&] { return coordinator.process->Ended() || coordinator.out().find('\n') != std::string::npos; });
  std::string line = coordinator.out();
  EXPECT_EQ(line.rfind("ready ", 0), 0u) << coordinator.err();
  *endpoint = line.rfind("ready ", 0) == 0 ? Parsed(line.substr(6)).value("endpoint", "") : "";
  return coordinator;
}

void CliTest::WaitUntil(const std::string& what, const std::function<bool()>& done) {
  SystemClock clock;
  Millis deadline = clock.Monotonic() + kLongestWait;
  while (!done()) {
    ASSERT_LT(clock.Monotonic(), deadline) << "never: " << what;
    ::poll(nullptr, 0, 20);
  }
}

std::string* FinishedStoreTest::finished_ = nullptr;

void FinishedStoreTest::SetUpTestSuite() { finished_ = new std::string(); }

void FinishedStoreTest::TearDownTestSuite() {
  if (!finished_->empty()) fs::remove_all(*finished_);
  delete finished_;
}

void FinishedStoreTest::SetUp() {
  CliTest::SetUp();
  if (!RunnerIsBuilt()) GTEST_SKIP() << "needs pare-runner (libtorch)";
  WriteData();
  WriteRecipe("small.yaml");
  store_ = Path("store");
  if (!finished_->empty()) {
    fs::copy(*finished_, store_, fs::copy_options::recursive);
    return;
  }
  Outcome made = Pare({"run", "small.yaml", "--workers", "1"}, store_);
  ASSERT_EQ(made.code, 0) << made.err;
  *finished_ = NewDirectory();
  for (const char* socket : {"coordinator.sock", "blobs.sock"}) fs::remove(store_ + "/" + socket);  // they cannot be copied
  fs::copy(store_, *finished_, fs::copy_options::recursive);
}

}  // namespace pare::cli
