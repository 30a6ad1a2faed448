// Every command of README.md, docs/ and bench/*/README.md is executed here, as a reader would type it: in a directory that looks like
// a checkout, with a HOME of its own. A command that is not run is named below with its reason; any other must end with the exit
// code that the text promises, and its JSON must have the fields that the text shows.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "common/clock.h"
#include "common/files.h"
#include "common/json.h"
#include "common/process.h"
#include "tests/integration/docs_commands.h"

namespace pare {
namespace {

namespace fs = std::filesystem;
using docs::Command;

constexpr Millis kLongestCommand{240'000};

struct NotRun {
  const char* begins;
  const char* reason;
};
constexpr NotRun kNotRun[] = {
    {"./scripts/demo", "builds everything, then runs the main job"},
    {"./scripts/test", "runs this test"},
    {"PARE_PRESET=asan ./scripts/test", "builds everything once more"},
    {"PARE_PRESET=tsan ./scripts/test", "builds everything once more"},
    {"./scripts/setup", "installs packages"},
};

// Run, but with less to do.
struct Shortened {
  const char* begins;
  const char* more;
};
constexpr Shortened kShortened[] = {{"python3 bench/overhead/overhead.py build/dev/bin", " --recipe recipes/tiny.yaml"},
                                    {"python3 bench/startup/startup.py build/dev/bin", " --runs 2"},
                                    {"python3 recipes/make_tokens.py tokens", " --train 2000 --test 200"}};

const NotRun* WhyNotRun(const std::string& command) {
  for (const NotRun& entry : kNotRun) {
    if (command.rfind(entry.begins, 0) == 0) return &entry;
  }
  return nullptr;
}

// Daemons run until the end of the document, as in shells of their own.
bool IsDaemon(const std::string& command) { return !command.empty() && command.back() == '&'; }

int FreePort() {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  EXPECT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  return ntohs(address.sin_port);
}

std::string Replaced(std::string text, const std::string& what, const std::string& with) {
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += with.size()) text.replace(at, what.size(), with);
  return text;
}

std::vector<std::string> Documents() {
  std::vector<std::string> found = {"README.md"};
  for (const auto& entry : fs::directory_iterator(PARE_SOURCE_DIR "/docs")) {
    if (entry.path().extension() == ".md") found.push_back("docs/" + entry.path().filename().string());
  }
  for (const auto& entry : fs::directory_iterator(PARE_SOURCE_DIR "/bench")) {
    std::string readme = entry.path().filename().string() + "/README.md";
    if (fs::exists(PARE_SOURCE_DIR "/bench/" + readme)) found.push_back("bench/" + readme);
  }
  for (const auto& entry : fs::directory_iterator(PARE_SOURCE_DIR "/recipes")) {
    if (entry.path().extension() == ".yaml") found.push_back("recipes/" + entry.path().filename().string());
  }
  std::sort(found.begin(), found.end());
  return found;
}

// A measurement takes minutes, and some of them Python's torch: here only that what it starts is there.
bool IsMeasurement(const std::string& document) { return document.rfind("bench/", 0) == 0; }

class DocsCommandsTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/pare_docs_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = fs::canonical(pattern).string();
    fs::create_directories(directory_ + "/home");
    fs::create_directories(directory_ + "/checkout/build");
    for (const char* name : {"recipes", "bench", "docs", "scripts"}) fs::create_symlink(std::string(PARE_SOURCE_DIR "/") + name, directory_ + "/checkout/" + name);
    fs::create_symlink(fs::path(PARE_BIN_DIR).parent_path(), directory_ + "/checkout/build/dev");
    port_ = std::to_string(FreePort());
    environment_ = {{"HOME", directory_ + "/home"}, {"XDG_CACHE_HOME", ""}, {"PARE_STORE", ""}, {"PARE_COORDINATOR", ""}, {"TERM", "dumb"},
                    {"PATH", std::string(PARE_BIN_DIR) + ":" + std::getenv("PATH")}};
  }
  void TearDown() override {
    for (auto daemon = daemons_.rbegin(); daemon != daemons_.rend(); ++daemon) (*daemon)->Terminate(Millis(10'000));
    fs::remove_all(directory_);
  }

  std::unique_ptr<Process> Start(const std::string& command, const std::string& redirections) {
    SpawnOptions options;
    options.arguments = {"/bin/sh", "-c", "cd " + directory_ + "/checkout && exec " + redirections + " && " + command};
    options.environment = environment_;
    auto process = Process::Spawn(options);
    EXPECT_TRUE(process.ok());
    return process.ok() ? *std::move(process) : nullptr;
  }

  void Execute(const Command& command) {
    SCOPED_TRACE(command.where + ": " + command.text);
    std::string text = Replaced(command.text, "127.0.0.1:7070", "127.0.0.1:" + port_);
    for (const Shortened& entry : kShortened) {
      if (text.rfind(entry.begins, 0) == 0) text += entry.more;
    }
    if (text.rfind("export ", 0) == 0) {
      size_t equals = text.find('=');
      environment_[text.substr(7, equals - 7)] = text.substr(equals + 1);
      return;
    }
    std::string base = directory_ + "/" + std::to_string(++count_);
    if (IsDaemon(text)) {
      daemons_.push_back(Start("exec " + text.substr(0, text.size() - 1), ">" + base + ".out 2>" + base + ".err"));
      return;
    }
    auto process = Start(text, ">" + base + ".out 2>" + base + ".err </dev/null");
    if (!process->Wait(kLongestCommand)) process->Terminate(Millis(100));
    std::string out = ReadFile(base + ".out").value();
    EXPECT_EQ(process->code(), command.exit_code) << out << ReadFile(base + ".err").value();
    if (!command.help.empty()) ExpectHelp(command, out);
    if (command.json.empty()) return;
    auto shown = ParseJson(command.json, "the document"), printed = ParseJson(out, "standard output");
    ASSERT_TRUE(shown.ok()) << shown.error().message;
    ASSERT_TRUE(printed.ok()) << printed.error().message;
    for (const std::string& difference : docs::FieldDifferences(*shown, *printed)) ADD_FAILURE() << difference;
  }

  // What a program says of itself stands in the document word for word; PARE_ACCEPT=1 writes it there.
  static void ExpectHelp(const Command& command, const std::string& out) {
    const char* accept = std::getenv("PARE_ACCEPT");
    if (accept == nullptr || std::string(accept) != "1") {
      EXPECT_EQ(command.help, out);
      return;
    }
    std::string path = std::string(PARE_SOURCE_DIR "/") + GetParam(), text = ReadFile(path).value();
    std::ofstream(path, std::ios::binary) << Replaced(text, "```text\n" + command.help, "```text\n" + out);
  }

  // The programs and scripts that a measurement names.
  void ExpectProgramsExist(const Command& command) {
    std::istringstream words(command.text);
    for (std::string word; words >> word;) {
      bool ours = word.rfind("bench/", 0) == 0 || word.rfind("build/dev/", 0) == 0 || word.rfind("./build/dev/", 0) == 0 || word.rfind("recipes/", 0) == 0 ||
                  word.rfind("./scripts/", 0) == 0;
      if (!ours) continue;
      EXPECT_TRUE(fs::exists(directory_ + "/checkout/" + word)) << command.where << ": " << word;
    }
  }

  std::string directory_, port_;
  std::map<std::string, std::string> environment_;
  std::vector<std::unique_ptr<Process>> daemons_;
  int count_ = 0;
};

TEST_P(DocsCommandsTest, EveryCommandRuns) {
  std::vector<Command> commands = docs::CommandsOf(GetParam(), ReadFile(std::string(PARE_SOURCE_DIR "/") + GetParam()).value());
  bool data = fs::exists("/usr/share/datasets/fashion-mnist");
  if (commands.empty()) return;
  if (!data) GTEST_SKIP() << "needs the Debian package dataset-fashion-mnist";
  std::map<std::string, std::string> outside = environment_;
  int block = -1;
  for (const Command& command : commands) {
    if (command.block != std::exchange(block, command.block)) environment_ = outside;  // another shell
    bool shortened = std::any_of(std::begin(kShortened), std::end(kShortened), [&](const Shortened& s) { return command.text.rfind(s.begins, 0) == 0; });
    if (WhyNotRun(command.text) != nullptr || (IsMeasurement(GetParam()) && !shortened)) ExpectProgramsExist(command);
    else Execute(command);
    if (HasFailure()) return;  // what follows builds on it
  }
}

INSTANTIATE_TEST_SUITE_P(All, DocsCommandsTest, ::testing::ValuesIn(Documents()), [](const auto& test) {
  std::string name = test.param;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
});

TEST(DocsCommandsListTest, NothingIsListedThatNoDocumentHas) {
  std::string all;
  for (const std::string& document : Documents()) all += ReadFile(std::string(PARE_SOURCE_DIR "/") + document).value();
  for (const NotRun& entry : kNotRun) EXPECT_NE(all.find(entry.begins), std::string::npos) << entry.begins << " (" << entry.reason << ")";
}

TEST(DocsCommandsListTest, TheDocumentsHaveCommands) {
  for (const auto& [document, least] : {std::pair("README.md", 6), std::pair("docs/commands.md", 40), std::pair("docs/operations.md", 20), std::pair("docs/recipes.md", 2)}) {
    EXPECT_GE(docs::CommandsOf(document, ReadFile(std::string(PARE_SOURCE_DIR "/") + document).value()).size(), static_cast<size_t>(least)) << document;
  }
}

TEST(DocsCommandsParserTest, ReadsConsoleAndShellBlocks) {
  std::vector<Command> commands = docs::CommandsOf("d.md", "text\n```console\n$ pare a \\\n  b   # exit code 3\noutput\n$ pare c --json\n```\n\n```json\n{}\n```\n```sh\n# comment\nx  # why\n```\n");
  ASSERT_EQ(commands.size(), 3u);
  EXPECT_EQ(commands[0].text, "pare a b");
  EXPECT_EQ(commands[0].exit_code, 3);
  EXPECT_EQ(commands[0].where, "d.md:3");
  EXPECT_EQ(commands[1].json, "{}\n");
  EXPECT_EQ(commands[2].text, "x");
  EXPECT_NE(commands[1].block, commands[2].block);
}

TEST(DocsCommandsParserTest, FieldsMustBeTheSame) {
  Json shown = Json::parse(R"({"a": 1, "b": [{"c": "x"}, {"c": "y", "d": null}], "e": "…"})");
  EXPECT_TRUE(docs::FieldDifferences(shown, Json::parse(R"({"a": 2.5, "b": [{"c": "z", "d": 4}], "e": {"f": 1}})")).empty());
  EXPECT_TRUE(docs::FieldDifferences(shown, Json::parse(R"({"a": null, "b": [], "e": 0})")).empty());
  EXPECT_EQ(docs::FieldDifferences(shown, Json::parse(R"({"b": [{"c": 1, "d": 4, "g": 1}], "e": 0})")).size(), 3u);  // a, b.c, b.g
}

}  // namespace
}  // namespace pare
