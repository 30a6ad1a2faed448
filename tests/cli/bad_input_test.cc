// Malformed input: each a message that says what, where and what to do, the documented exit code, and nothing half done.
// None of these needs a runner: they end before a step starts, or fail in it.
#include <gmock/gmock.h>

#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "model/architectures.h"
#include "model/initialize.h"
#include "model/safetensors.h"
#include "tests/cli/fixture.h"
#include "tests/storage/older_store.h"

namespace pare::cli {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class BadInputTest : public CliTest {
 protected:
  void SetUp() override {
    CliTest::SetUp();
    WriteData();
    WriteRecipe("small.yaml");
  }
  // Refused before anything was made, by every command that takes a recipe.
  void ExpectRefused(const ::testing::Matcher<const std::string&>& message, const std::string& file = "small.yaml") {
    for (const char* command : {"run", "plan", "submit"}) {
      Outcome outcome = Pare({command, file}, Path("store"));
      EXPECT_EQ(outcome.code, 2) << command << ": " << outcome.err;
      EXPECT_EQ(outcome.out, "") << command;
      EXPECT_THAT(outcome.err, message) << command;
      EXPECT_FALSE(fs::exists(Path("store"))) << command << " left a store behind";
    }
  }
  void Replace(const std::string& file, const std::string& what, const std::string& with) {
    std::string text = Read(Path(file));
    ASSERT_NE(text.find(what), std::string::npos);
    Write(file, text.replace(text.find(what), what.size(), with));
  }
};

// ---- the recipe ----

TEST_F(BadInputTest, MissingRecipe) { ExpectRefused("pare: recipe: cannot open none.yaml: No such file or directory\n", "none.yaml"); }

TEST_F(BadInputTest, RecipeThatIsADirectory) {
  fs::create_directory(Path("dir"));
  ExpectRefused(AllOf(StartsWith("pare: recipe: "), HasSubstr("dir")), "dir");
}

TEST_F(BadInputTest, UnknownFieldWithItsPlaceAndTheNearestName) {
  Replace("small.yaml", "train: {epochs", "train: {epoch");
  ExpectRefused(AllOf(StartsWith("pare: small.yaml:6:9: "), HasSubstr("epoch"), HasSubstr("did you mean 'epochs'?")));
}

TEST_F(BadInputTest, WrongType) {
  Replace("small.yaml", "epochs: 2", "epochs: two");
  ExpectRefused(AllOf(StartsWith("pare: small.yaml:6:"), HasSubstr("epochs"), HasSubstr("two")));
}

TEST_F(BadInputTest, OutOfRange) {
  Replace("small.yaml", "sparsity: 0.8", "sparsity: 1.8");
  ExpectRefused(AllOf(StartsWith("pare: small.yaml:15:"), HasSubstr("sparsity"), HasSubstr("1.8")));
}

TEST_F(BadInputTest, ALabelThatLeavesClassesWithoutASample) {
  std::string labels = Read(Path("train_labels.idx"));
  labels[8 + 17] = static_cast<char>(250);
  Write("train_labels.idx", labels);
  ExpectRefused(AllOf(StartsWith("pare: small.yaml:"), HasSubstr("training sample 17 has label 250, but none has label 4")));
}

TEST_F(BadInputTest, APipeIsNoDataFile) {
  fs::remove(Path("train.idx"));
  ASSERT_EQ(Shell("mkfifo train.idx").code, 0);
  ExpectRefused(AllOf(StartsWith("pare: small.yaml:"), HasSubstr("train.idx is not a regular file")));
}

TEST_F(BadInputTest, OutputThatCannotBeWritten) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "needs /dev/full";
  Outcome outcome = Shell("pare plan small.yaml > /dev/full");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("cannot write standard output"));
}

TEST_F(BadInputTest, ATypedStoreBeatsTheEnvironment) {
  Outcome outcome = Shell("PARE_COORDINATOR=tcp://127.0.0.1:1 pare list --store nowhere");
  EXPECT_EQ(outcome.code, 3) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("there is no store in"));
}

TEST_F(BadInputTest, LogsThatCannotBeOpened) {
  for (const char* command : {"pare-coordinator --store store", "pare-worker --runner /bin/true --coordinator tcp://127.0.0.1:1"}) {
    Outcome outcome = Shell(std::string(command) + " --log-file nowhere/log");
    EXPECT_EQ(outcome.code, 2) << command;
    EXPECT_THAT(outcome.err, HasSubstr("--log-file: cannot open nowhere/log")) << command;
  }
}

// F32 tensors of one value each, as safetensors.
std::string Weights(const std::vector<std::pair<std::string, std::vector<int>>>& tensors, float value) {
  std::string header, data;
  for (const auto& [name, shape] : tensors) {
    size_t count = 1;
    std::string dimensions;
    for (int d : shape) count *= static_cast<size_t>(d), dimensions += (dimensions.empty() ? "" : ",") + std::to_string(d);
    size_t begin = data.size();
    for (size_t i = 0; i < count; ++i) data.append(reinterpret_cast<const char*>(&value), sizeof value);
    header += (header.empty() ? "{\"" : ",\"") + name + "\":{\"dtype\":\"F32\",\"shape\":[" + dimensions + "],\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(data.size()) + "]}";
  }
  header += "}";
  uint64_t size = header.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof size) + header + data;
}

TEST_F(BadInputTest, WeightsOfAnotherShapeAndWeightsThatAreNoNumbers) {
  Replace("small.yaml", "hidden: [16]", "hidden: [16], weights: w.safetensors");
  Write("w.safetensors", Weights({{"fc1.weight", {32, 64}}, {"fc1.bias", {32}}, {"fc2.weight", {4, 32}}, {"fc2.bias", {4}}}, 0.5f));
  ExpectRefused(AllOf(StartsWith("pare: small.yaml:"), HasSubstr("w.safetensors"), HasSubstr("fc1"), HasSubstr("name the architecture")));
  Write("w.safetensors", Weights({{"fc1.weight", {16, 64}}, {"fc1.bias", {16}}, {"fc2.weight", {4, 16}}, {"fc2.bias", {4}}}, std::nanf("")));
  ExpectRefused(AllOf(StartsWith("pare: small.yaml:"), HasSubstr("w.safetensors"), HasSubstr("NaN"), HasSubstr("give other weights")));
}

TEST_F(BadInputTest, UsageErrorsOfTheDaemonsSayWhoseTheyAre) {
  for (const char* daemon : {"coordinator", "worker"}) {
    for (const char* arguments : {" --frobnicate", " --log-level loud", " --store ''"}) {
      Outcome outcome = Shell("pare " + std::string(daemon) + (daemon[0] == 'w' ? " --coordinator tcp://127.0.0.1:1" : "") + arguments);
      EXPECT_EQ(outcome.code, 2) << daemon << arguments;
      EXPECT_EQ(outcome.out, "") << daemon << arguments;
      EXPECT_THAT(outcome.err, StartsWith("pare-" + std::string(daemon) + ": ")) << arguments;
    }
  }
  EXPECT_THAT(Run({"pare-coordinator", "--heartbeat-ms", "5"}).err, AllOf(HasSubstr("--heartbeat-ms"), HasSubstr("see `pare coordinator --help`")));
}

TEST_F(BadInputTest, AWarningHasItsPlace) {
  Replace("small.yaml", "validation: 200", "validation: 20");
  Replace("small.yaml", "max_accuracy_drop: 100.0", "max_accuracy_drop: 0.1");
  Json submitted = Ask({"submit", "small.yaml"}, Path("store"));
  ASSERT_FALSE(submitted["warnings"].empty());
  EXPECT_EQ(submitted["warnings"], Ask({"plan", "small.yaml"}, Path("store"))["warnings"]);
  std::string warning = submitted["warnings"][0];
  EXPECT_THAT(warning, AllOf(StartsWith("small.yaml:5:"), HasSubstr("validation")));
  EXPECT_THAT(Pare({"submit", "small.yaml"}, Path("store")).err, HasSubstr("warning: " + warning + "\n"));
  EXPECT_THAT(Pare({"report"}, Path("store")).out, HasSubstr("\nwarning: recipe" + warning.substr(warning.find(':')) + "\n"));
}

TEST_F(BadInputTest, AWorkersNameWithControlCharacters) {
  Outcome outcome = Run({"pare-worker", "--coordinator", "tcp://127.0.0.1:1", "--name", "a\x1b[31mb"});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("--name: control characters are not allowed"));
}

TEST_F(BadInputTest, PatternWithoutAMatch) {
  Replace("small.yaml", "sparsity: 0.8", "sparsity: 0.8, targets: [conv9]");
  ExpectRefused(AllOf(StartsWith("pare: small.yaml:15:"), HasSubstr("conv9")));
}

// ---- the data ----

TEST_F(BadInputTest, MissingFile) {
  fs::remove(Path("train.idx"));
  ExpectRefused(AllOf(StartsWith("pare: small.yaml:5:"), HasSubstr(Path("train.idx"))));
}

TEST_F(BadInputTest, TruncatedFile) {
  fs::resize_file(Path("train.idx"), 1000);
  ExpectRefused(AllOf(StartsWith("pare: small.yaml:5:"), HasSubstr(Path("train.idx"))));
}

TEST_F(BadInputTest, CorruptFile) {
  Write("train.idx", "this is no idx file");
  ExpectRefused(AllOf(StartsWith("pare: small.yaml:5:"), HasSubstr(Path("train.idx"))));
}

TEST_F(BadInputTest, EmptyFile) {
  Write("test_labels.idx", "");
  ExpectRefused(AllOf(StartsWith("pare: small.yaml:5:"), HasSubstr(Path("test_labels.idx"))));
}

TEST_F(BadInputTest, CorruptNpy) {
  Replace("small.yaml", "format: idx", "format: npy");
  ExpectRefused(AllOf(StartsWith("pare: small.yaml:5:"), HasSubstr(Path("train.idx"))));
}

TEST_F(BadInputTest, FewerLabelsThanImages) {
  fs::copy_file(Path("test_labels.idx"), Path("train_labels.idx"), fs::copy_options::overwrite_existing);
  ExpectRefused(AllOf(StartsWith("pare: small.yaml:5:"), HasSubstr("600"), HasSubstr("200")));
}

TEST_F(BadInputTest, LabelsOutsideTheClasses) {
  std::string labels = Read(Path("test_labels.idx"));
  labels.back() = 9;  // training knows 0 to 3
  Write("test_labels.idx", labels);
  ExpectRefused(AllOf(StartsWith("pare: small.yaml:5:"), HasSubstr("test split has label 9"), HasSubstr("0 to 3")));
}

TEST_F(BadInputTest, ImagesOfAnotherSizeThanTheModelTakes) {
  Replace("small.yaml", "{architecture: mlp, hidden: [16]}", "{architecture: lenet5}");
  ExpectRefused(AllOf(StartsWith("pare: small.yaml:4:"), HasSubstr("8")));
}

TEST_F(BadInputTest, WeightsThatAreNoSafetensors) {
  Write("weights.safetensors", "junk");
  Replace("small.yaml", "hidden: [16]}", "hidden: [16], weights: weights.safetensors}");
  ExpectRefused(AllOf(HasSubstr("weights.safetensors"), StartsWith("pare: small.yaml:4:")));
}

// ---- teachers ----

TEST_F(BadInputTest, TeacherThatIsNotThere) {
  Replace("small.yaml", "- retrain: {epochs: 1}\npromote", "- distill: {teacher: baselin, epochs: 1}\npromote");
  ExpectRefused(AllOf(StartsWith("pare: small.yaml:16:"), HasSubstr("there is no step 'baselin'"), HasSubstr("; did you mean 'baseline'? Name baseline, init")));
}

TEST_F(BadInputTest, TeacherOfADirectoryThatIsNotThere) {
  Replace("small.yaml", "- retrain: {epochs: 1}\npromote", "- distill: {teacher: ./exported, epochs: 1}\npromote");
  ExpectRefused(AllOf(StartsWith("pare: small.yaml:16:"), HasSubstr("teacher ./exported"), HasSubstr("there is no directory " + Path("exported")), HasSubstr("graph.json and model.safetensors")));
  fs::create_directory(Path("exports"));
  ExpectRefused(HasSubstr("; did you mean './exports'? It should hold graph.json"));
  fs::create_directory(Path("exported"));
  Write("exported/model.safetensors", "");
  ExpectRefused(AllOf(HasSubstr("there is no graph.json in " + Path("exported")), HasSubstr("which holds model.safetensors")));
}

TEST_F(BadInputTest, TeacherFileThatIsNotThere) {
  Write("teachers.safetensors", "");
  Replace("small.yaml", "- retrain: {epochs: 1}\npromote", "- distill: {teacher: teacher.safetensors, epochs: 1}\npromote");
  ExpectRefused(AllOf(StartsWith("pare: small.yaml:16:"), HasSubstr("there is no file " + Path("teacher.safetensors")), HasSubstr("; did you mean 'teachers.safetensors'? Paths start")));
}

TEST_F(BadInputTest, TeacherFileWithAWeightThatIsNotANumber) {
  auto graph = model::BuildArchitecture("mlp", {{"hidden", {8}}}, {1, 8, 8}, 4);
  ASSERT_TRUE(graph.ok()) << graph.error().message;
  model::TensorMap tensors = model::InitializeWeights(*graph, *model::Analyze(*graph), 1);
  model::Tensor bias(model::DType::kF32, tensors.at("fc1.bias").shape());
  bias.mutable_values<float>()[2] = std::nanf("");
  tensors.insert_or_assign("fc1.bias", bias);
  Write("sick.safetensors", model::EncodeSafetensors(tensors));
  Replace("small.yaml", "- retrain: {epochs: 1}\npromote", "- distill: {teacher: sick.safetensors, teacher_model: {architecture: mlp, hidden: [8]}, epochs: 1}\npromote");
  ExpectRefused(AllOf(StartsWith("pare: small.yaml:16:"), HasSubstr("teacher sick.safetensors"), HasSubstr("tensor 'fc1.bias' holds NaN at element 2"), HasSubstr("name another teacher")));
}

TEST_F(BadInputTest, TeacherFileThatIsNoSafetensors) {
  Write("big.safetensors", "junk");
  Replace("small.yaml", "- retrain: {epochs: 1}\npromote", "- distill: {teacher: big.safetensors, epochs: 1}\npromote");
  ExpectRefused(AllOf(StartsWith("pare: small.yaml:16:"), HasSubstr("teacher big.safetensors")));
}

TEST_F(BadInputTest, TeacherOfARegistryWithoutAStore) {
  Replace("small.yaml", "- retrain: {epochs: 1}\npromote", "- distill: {teacher: big@champion, epochs: 1}\npromote");
  Outcome outcome = Pare({"run", "small.yaml"}, Path("store"));
  EXPECT_EQ(outcome.code, 3);
  EXPECT_THAT(outcome.err, AllOf(StartsWith("pare: small.yaml:16:"), HasSubstr("teacher big@champion"), HasSubstr("there is no store in " + Path("store"))));
  EXPECT_FALSE(fs::exists(Path("store")));
}

// What was remembered of a file is not believed when the file has changed.
TEST_F(BadInputTest, FileThatWasGoodLastTime) {
  ASSERT_EQ(Pare({"plan", "small.yaml"}, Path("store")).code, 0);
  fs::resize_file(Path("train.idx"), 1000);
  ExpectRefused(HasSubstr(Path("train.idx")));
}

TEST_F(BadInputTest, NumbersTurnedNaNFailTheirVariantsAndTheJobEnds) {
  if (!RunnerIsBuilt()) GTEST_SKIP() << "needs pare-runner (libtorch)";
  Replace("small.yaml", "- prune: {sparsity: 0.8}\n    - retrain: {epochs: 1}", "- prune: {sparsity: 0.8}\n    - retrain: {epochs: 1, learning_rate: 1e6, weight_decay: 1.0}");
  Json report = Ask({"run", "small.yaml", "--workers", "1"}, Path("store"), 0);
  EXPECT_EQ(report["state"], "done");
  ASSERT_EQ(report["failed"].size(), 1u);
  EXPECT_EQ(report["failed"][0]["step"], "one-shot/02-retrain");
  EXPECT_EQ(report["failed"][0]["error_class"], "diverged");
  EXPECT_EQ(report["promoted"]["step"], "iterative/04-retrain");
  std::string why = Pare({"why", "one-shot/02-retrain"}, Path("store")).out;
  EXPECT_THAT(why, AllOf(HasSubstr("diverged: "), testing::Not(HasSubstr("training diverged")), HasSubstr("lower learning_rate, raise warmup_epochs or set clip_norm"), HasSubstr("a retry cannot help")));
  EXPECT_THAT(Pare({"why", "one-shot/02-retrain/evaluate"}, Path("store")).out, HasSubstr("what it builds on failed for good: one-shot/02-retrain: diverged: "));
  Outcome retried = Pare({"retry"}, Path("store"));
  EXPECT_EQ(retried.code, 1);
  EXPECT_THAT(retried.err, HasSubstr("it cannot be retried: one-shot/02-retrain diverged, and the same recipe diverges again"));
  Outcome planned = Pare({"plan", "small.yaml"}, Path("store"));
  EXPECT_EQ(planned.code, 0);
  EXPECT_THAT(planned.out, AllOf(HasSubstr("\n0 steps to run"), HasSubstr("nor what builds on it: one-shot/02-retrain: it failed for good: diverged: ")));
}

TEST_F(BadInputTest, AJobWithoutAnyResultFails) {
  if (!RunnerIsBuilt()) GTEST_SKIP() << "needs pare-runner (libtorch)";
  WriteRecipe("wild.yaml", {.name = "wild", .learning_rate = 1e6});
  Outcome outcome = Pare({"run", "wild.yaml", "--workers", "1"}, Path("store"));
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.out, AllOf(HasSubstr("wild: failed\n"), HasSubstr("baseline: diverged: ")));
  EXPECT_EQ(Pare({"watch"}, Path("store")).code, 1);
  EXPECT_EQ(Pare({"digest"}, Path("store")).code, 1);
}

// ---- the store ----

TEST_F(BadInputTest, NoStoreYet) {
  for (const char* command : {"list", "describe", "models", "digest"}) {
    Outcome outcome = Pare({command}, Path("store"));
    EXPECT_EQ(outcome.code, 3);
    EXPECT_EQ(outcome.err, "pare: there is no store in " + Path("store") + "; `pare run RECIPE` makes one (or give --store DIR or --coordinator ENDPOINT)\n");
    EXPECT_FALSE(fs::exists(Path("store")));
  }
}

TEST_F(BadInputTest, StoreThatCannotBeMade) {
  Write("file", "");
  for (const char* command : {"run", "submit"}) {
    Outcome outcome = Pare({command, "small.yaml"}, Path("file/store"));
    EXPECT_EQ(outcome.code, 1) << command;
    EXPECT_THAT(outcome.err, HasSubstr(Path("file/store"))) << command;
  }
}

TEST_F(BadInputTest, StoreOfANewerRelease) {
  ASSERT_EQ(Pare({"submit", "small.yaml"}, Path("store")).code, 0);
  storage::MakeNewer(Path("store/index.db"));
  std::string index = Read(Path("store/index.db"));
  for (std::vector<std::string> command : {std::vector<std::string>{"list"}, {"run", "small.yaml"}, {"submit", "small.yaml"}}) {
    Outcome outcome = Pare(command, Path("store"));
    EXPECT_EQ(outcome.code, 1) << command[0];
    EXPECT_THAT(outcome.err, AllOf(HasSubstr(Path("store")), HasSubstr("newer"))) << command[0];
    EXPECT_EQ(Read(Path("store/index.db")), index) << "left as it was";
  }
}

// Bytes of SQLite's header: the write version, and the schema's version, big-endian at 60.
TEST_F(BadInputTest, StoreWithADamagedHeader) {
  ASSERT_EQ(Pare({"submit", "small.yaml"}, Path("store")).code, 0);
  std::string index = Read(Path("store/index.db")), jobs = Pare({"list"}, Path("store")).out;
  for (size_t at : {18, 60, 63}) {
    std::string damaged = index;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x40);
    Write("store/index.db", damaged);
    Outcome outcome = Pare({"list"}, Path("store"));
    EXPECT_EQ(outcome.code, 1) << at;
    EXPECT_THAT(outcome.err, AllOf(HasSubstr("header"), HasSubstr("pare fsck --repair --store " + Path("store")))) << at;
    EXPECT_EQ(Pare({"fsck"}, Path("store")).code, 1) << at;
    Pare({"fsck", "--repair"}, Path("store"));
    EXPECT_EQ(Pare({"fsck"}, Path("store")).code, 0) << at;
    EXPECT_EQ(Pare({"list"}, Path("store")).out, jobs) << at;
  }
}

TEST_F(BadInputTest, StoreThatIsNoDatabase) {
  fs::create_directory(Path("store"));
  Write("store/index.db", "this is not a database, and long enough to be looked at as one by whoever opens it");
  Outcome outcome = Pare({"list"}, Path("store"));
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr(Path("store/index.db")));
}

// A file system of its own, so that only this store's disk is full; needs user namespaces.
TEST_F(BadInputTest, NoSpaceForTheStore) {
  if (Shell("unshare -rm mount -t tmpfs none /mnt").code != 0) GTEST_SKIP() << "needs unprivileged mounts (unshare -rm)";
  fs::create_directory(Path("small"));
  Outcome outcome = Shell("unshare -rm sh -c 'mount -t tmpfs -o size=8m none small && pare run small.yaml --store small/store; code=$?; pare list --json --store small/store; exit $code'");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("No space left on device"), HasSubstr(Path("small/store")), HasSubstr("free at least that much")));
  EXPECT_EQ(outcome.out, "[]\n") << "no job was made";
}

// As on a disk with less space than the reserve, which is a file.
TEST_F(BadInputTest, NoSpaceForTheReserve) {
  fs::create_directories(Path("store/reserve"));
  Outcome outcome = Pare({"submit", "small.yaml"}, Path("store"));
  EXPECT_EQ(outcome.code, 1);
  EXPECT_EQ(outcome.out, "");
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("the store takes no writes now, so nothing is accepted"), HasSubstr("free some space"), HasSubstr(Path("store/reserve"))));
  EXPECT_EQ(Pare({"list", "--json"}, Path("store")).out, "[]\n") << "questions are answered, and no job was made";
}

TEST_F(BadInputTest, NoSpaceForASubmittedJob) {
  if (Shell("unshare -rm mount -t tmpfs none /mnt").code != 0) GTEST_SKIP() << "needs unprivileged mounts (unshare -rm)";
  fs::create_directory(Path("small"));
  Outcome outcome = Shell("unshare -rm sh -c 'mount -t tmpfs -o size=3m none small && pare submit small.yaml --store small/store; code=$?; pare list --json --store small/store; exit $code'");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("No space left on device"), HasSubstr("free at least that much")));
  EXPECT_EQ(outcome.out, "[]\n") << "no job was made";
}

TEST_F(BadInputTest, StoreThatMayNoLongerBeWritten) {
  ASSERT_EQ(Pare({"submit", "small.yaml"}, Path("store")).code, 0);
  fs::create_directory(Path("store/logs"));
  fs::permissions(Path(""), fs::perms::all);
  std::string as = ::geteuid() == 0 ? "setpriv --reuid=65534 --regid=65534 --clear-groups " : "";
  if (Shell(as + "pare version").code != 0) GTEST_SKIP() << "needs setpriv, and programs that others may run";
  for (fs::perms mode : {fs::perms(0), fs::perms(0555)}) {
    fs::permissions(Path("store/logs"), fs::perms(0555));
    fs::permissions(Path("store"), mode);
    Outcome outcome = Shell(as + "pare run small.yaml --store store");
    fs::permissions(Path("store"), fs::perms(0755));
    EXPECT_EQ(outcome.code, 1) << outcome.err;
    EXPECT_THAT(outcome.err, AllOf(HasSubstr("cannot use store store"), HasSubstr("Permission denied"), HasSubstr("may not write there: change the owner or the mode of " + Path("store")), HasSubstr("--store")));
  }
}

TEST_F(BadInputTest, StoreThatMayNotBeWritten) {
  fs::create_directory(Path("locked"));
  fs::permissions(Path("locked"), fs::perms::owner_read | fs::perms::owner_exec | fs::perms::others_read | fs::perms::others_exec);
  fs::permissions(Path(""), fs::perms::all);
  // Root may write everywhere: then as somebody else.
  std::string as = ::geteuid() == 0 ? "setpriv --reuid=65534 --regid=65534 --clear-groups " : "";
  if (Shell(as + "pare version").code != 0) GTEST_SKIP() << "needs setpriv, and programs that others may run";
  for (const char* command : {"run", "submit"}) {
    Outcome outcome = Shell(as + "pare " + command + " small.yaml --store locked/store");
    EXPECT_EQ(outcome.code, 1) << command;
    EXPECT_THAT(outcome.err, AllOf(HasSubstr("locked/store"), HasSubstr("Permission denied"), HasSubstr("--store"))) << command;
    EXPECT_FALSE(fs::exists(Path("locked/store")));
  }
}

// ---- the coordinator ----

TEST_F(BadInputTest, NobodyListens) {
  std::string endpoint;
  {
    Started gone = StartCoordinator(Path("other"), &endpoint);
    gone.process->Terminate(Millis(5'000));
  }
  // All at once: each waits a while for somebody who listens.
  std::vector<std::pair<std::string, Started>> commands;
  for (std::vector<std::string> command : {std::vector<std::string>{"list", "--json"}, {"watch"}, {"submit", "small.yaml"}, {"run", "small.yaml"}, {"plan", "small.yaml"}}) {
    std::string name = command[0];
    command.insert(command.begin(), {"/usr/bin/env", "PARE_STORE=" + Path("store"), std::string(PARE_BIN_DIR) + "/pare"});
    command.insert(command.end(), {"--coordinator", endpoint});
    commands.emplace_back(name, Start(command));
  }
  for (auto& [name, command] : commands) {
    Outcome outcome = command.Finish();
    EXPECT_EQ(outcome.code, 4) << name << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr("no coordinator answers at " + endpoint + ": Connection refused")) << name;
    if (name == "list") {
      EXPECT_EQ(Parsed(outcome.out)["error"]["code"], "unreachable");
    }
  }
  EXPECT_FALSE(fs::exists(Path("store")));
}

TEST_F(BadInputTest, NoSuchSocket) {
  Outcome outcome = Run({"pare", "list", "--coordinator", "ipc://" + Path("none.sock")});
  EXPECT_EQ(outcome.code, 4);
  EXPECT_THAT(outcome.err, HasSubstr("No such file or directory"));
}

TEST_F(BadInputTest, TheBlobPortIsNoPortForCommands) {
  std::string endpoint;
  Started coordinator = StartCoordinator(Path("store"), &endpoint);
  std::string blobs = Parsed(coordinator.out().substr(6)).value("blob_endpoint", "");
  for (std::vector<std::string> command : {std::vector<std::string>{"list"}, {"submit", "small.yaml"}}) {
    command.insert(command.begin(), "pare");
    command.insert(command.end(), {"--coordinator", blobs});
    Outcome outcome = Run(command);
    EXPECT_EQ(outcome.code, 4) << outcome.err;
    EXPECT_THAT(outcome.err, AllOf(HasSubstr(blobs + " is a coordinator's blob port (--blob-listen)"), HasSubstr("`ready` line"), HasSubstr("--listen")));
  }
}

TEST_F(BadInputTest, PortTaken) {
  std::string endpoint;
  Started first = StartCoordinator(Path("first"), &endpoint);
  Outcome second = Run({"pare", "coordinator", "--store", Path("second"), "--listen", endpoint});
  EXPECT_EQ(second.code, 1);
  EXPECT_EQ(second.out, "");
  EXPECT_THAT(second.err, AllOf(HasSubstr("cannot listen on " + endpoint), HasSubstr("another process is listening there")));
}

TEST_F(BadInputTest, StoreHeldByALivingCoordinator) {
  std::string endpoint;
  Started first = StartCoordinator(Path("store"), &endpoint);
  Outcome second = Run({"pare", "coordinator", "--store", Path("store")});
  EXPECT_EQ(second.code, 1);
  EXPECT_THAT(second.err, AllOf(HasSubstr(Path("store")), HasSubstr(std::to_string(first.process->pid())), HasSubstr(endpoint)));
  // Commands on the store find the coordinator by themselves.
  EXPECT_EQ(Pare({"list"}, Path("store")).out, "no jobs yet; start one with: pare run RECIPE\n");
}

}  // namespace
}  // namespace pare::cli
