// Style as a test: sizes, quarantine of third-party headers, banned calls, layering, orphan files (docs/architecture.md,
// "House rules"). Reads the source tree; knows nothing of the build.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

struct Source {
  std::string path;  // relative to the root
  std::vector<std::string> lines;
};

const std::vector<Source>& Sources() {
  static const std::vector<Source> sources = [] {
    std::vector<Source> found;
    fs::path root = PARE_SOURCE_DIR;
    for (const char* folder : {"common", "model", "data", "methods", "recipes", "storage", "coordinator", "worker", "cli", "bench", "tests"}) {
      if (!fs::exists(root / folder)) continue;
      for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
        std::string extension = entry.path().extension().string();
        if (extension != ".cc" && extension != ".h") continue;
        Source source{fs::relative(entry.path(), root).string(), {}};
        std::ifstream in(entry.path());
        for (std::string line; std::getline(in, line);) source.lines.push_back(line);
        found.push_back(std::move(source));
      }
    }
    std::sort(found.begin(), found.end(), [](const Source& a, const Source& b) { return a.path < b.path; });
    return found;
  }();
  return sources;
}

bool StartsWith(const std::string& text, const std::string& start) { return text.rfind(start, 0) == 0; }

// The header a line includes, or "".
std::string IncludeOf(const std::string& line) {
  static const std::regex pattern(R"(^\s*#\s*include\s*[<"]([^>"]+)[>"])");
  std::smatch match;
  return std::regex_search(line, match, pattern) ? match[1].str() : "";
}

std::string WithoutComment(const std::string& line) { return line.substr(0, line.find("//")); }

TEST(TidyTest, SourcesStayWithinTheSizeLimit) {
  for (const Source& source : Sources()) {
    EXPECT_LE(source.lines.size(), 500u) << source.path << " has more than 500 lines: split it";
  }
}

TEST(TidyTest, LinesHaveNeitherTabsNorTrailingSpaces) {
  for (const Source& source : Sources()) {
    for (size_t i = 0; i < source.lines.size(); ++i) {
      const std::string& line = source.lines[i];
      bool clean = line.find_first_of("\t\r") == std::string::npos && (line.empty() || line.back() != ' ');
      EXPECT_TRUE(clean) << source.path << ":" << i + 1 << ": a tab, a carriage return, or spaces at the end";
    }
  }
}

TEST(TidyTest, FunctionsStayWithinTheSizeLimit) {
  // A function of ours starts at column 0 (or 2 inside a class) and closes with '}' at the same column.
  for (const Source& source : Sources()) {
    if (StartsWith(source.path, "tests/")) continue;
    for (size_t i = 0; i < source.lines.size(); ++i) {
      const std::string& line = source.lines[i];
      bool opens = !line.empty() && line[0] != ' ' && line[0] != '#' && line[0] != '/' && line.back() == '{' &&
                   line.find('(') != std::string::npos && line.find("= {") == std::string::npos;
      if (!opens) continue;
      size_t end = i + 1;
      while (end < source.lines.size() && !StartsWith(source.lines[end], "}")) ++end;
      EXPECT_LE(end - i + 1, 70u) << source.path << ":" << i + 1 << ": function of more than 70 lines";
    }
  }
}

TEST(TidyTest, ThirdPartyHeadersStayInTheirQuarantine) {
  struct Rule {
    std::string header, allowed, also = "tests/worker/";
  };
  const std::vector<Rule> rules = {{"zmq.hpp", "common/zmq_transport.cc", "worker/collective/zmq_collective.cc"}, {"zmq.h", "common/zmq_transport.cc"},
                                   {"sqlite3.h", "storage/"},              {"yaml-cpp/", "recipes/yaml.cc"},
                                   {"spdlog/", "common/log.cc"},           {"torch/", "worker/"},
                                   {"simdjson.h", "common/json_text.cc"},  {"ATen/", "worker/"},                   {"c10/", "worker/"}};
  std::map<std::string, std::set<std::string>> users;
  for (const Source& source : Sources()) {
    for (const std::string& line : source.lines) {
      std::string header = IncludeOf(line);
      for (const Rule& rule : rules) {
        bool directory = rule.header.back() == '/';
        if (directory ? !StartsWith(header, rule.header) : header != rule.header) continue;
        EXPECT_TRUE(StartsWith(source.path, rule.allowed) || StartsWith(source.path, rule.also))
            << source.path << " includes " << header << ", which is allowed in " << rule.allowed << " only";
        if (header == "sqlite3.h") users[header].insert(source.path);
      }
    }
  }
  EXPECT_LE(users["sqlite3.h"].size(), 1u) << "sqlite3.h is included by more than one file";
}

TEST(TidyTest, NobodySleepsOrReadsClocksOrRandAtWill) {
  const std::regex banned(R"(\b(sleep_for|sleep_until|usleep|nanosleep|system_clock|random_device|mt19937|srand|rand)\b\s*[\(:<])");
  for (const Source& source : Sources()) {
    if (source.path == "common/clock.cc" || source.path == "tests/tidy_test.cc" || StartsWith(source.path, "bench/")) continue;
    for (size_t i = 0; i < source.lines.size(); ++i) {
      EXPECT_FALSE(std::regex_search(WithoutComment(source.lines[i]), banned))
          << source.path << ":" << i + 1 << ": use Clock, RandomStream or wait for an event: " << source.lines[i];
    }
  }
}

TEST(TidyTest, DependenciesPointDownwards) {
  // A folder may include itself and what stands in its list.
  const std::map<std::string, std::vector<std::string>> allowed = {
      {"common/", {}},
      {"model/", {"common/"}},
      {"data/", {"common/", "model/"}},
      {"methods/", {"common/", "model/"}},
      {"recipes/", {"common/", "model/", "data/", "methods/"}},
      {"storage/", {"common/", "model/"}},
      {"coordinator/", {"common/", "model/", "data/", "recipes/", "storage/", "worker/step_runner.h"}},
      {"worker/collective/", {"common/"}},
      {"worker/engine/", {"common/", "model/", "worker/collective/"}},
      {"worker/agent/", {"common/", "storage/", "recipes/step.h", "worker/step_runner.h", "worker/line_channel.h", "worker/runner_pipe.h"}},
      {"worker/runner/", {"common/", "model/", "data/", "methods/", "storage/", "recipes/step.h", "worker/"}},
      {"cli/", {"common/", "model/", "data/", "recipes/", "storage/", "coordinator/", "worker/agent/"}},
  };
  for (const Source& source : Sources()) {
    for (const auto& [folder, list] : allowed) {
      if (!StartsWith(source.path, folder)) continue;
      for (const std::string& line : source.lines) {
        std::string header = IncludeOf(line);
        bool ours = std::any_of(allowed.begin(), allowed.end(), [&](const auto& f) { return StartsWith(header, f.first); }) || StartsWith(header, "worker/");
        if (!ours || StartsWith(header, folder)) continue;
        bool good = std::any_of(list.begin(), list.end(), [&](const std::string& a) { return StartsWith(header, a); });
        EXPECT_TRUE(good) << source.path << " includes " << header << ": not a folder below " << folder;
      }
    }
  }
}

TEST(TidyTest, CoresArePure) {
  // The scheduler and agent cores: no socket, SQL, file, thread, clock, log inside.
  const std::set<std::string> banned = {"common/log.h", "common/files.h", "common/transport.h", "storage/store.h", "thread", "mutex", "fstream", "unistd.h"};
  for (const Source& source : Sources()) {
    if (!StartsWith(source.path, "coordinator/scheduler") && !StartsWith(source.path, "worker/agent/agent_core") &&
        !StartsWith(source.path, "recipes/planner")) continue;
    for (const std::string& line : source.lines) {
      EXPECT_FALSE(banned.count(IncludeOf(line))) << source.path << " is a pure core and includes " << IncludeOf(line);
    }
  }
}

TEST(TidyTest, NoFileIsAnOrphan) {
  // Every source is named in a CMakeLists.txt of its own or a parent folder.
  fs::path root = PARE_SOURCE_DIR;
  for (const Source& source : Sources()) {
    if (fs::path(source.path).extension() != ".cc") continue;
    bool named = false;
    for (fs::path folder = fs::path(source.path).parent_path(); !named; folder = folder.parent_path()) {
      std::ifstream in(root / folder / "CMakeLists.txt");
      std::stringstream text;
      text << in.rdbuf();
      named = text.str().find(fs::path(source.path).filename().string()) != std::string::npos;
      if (folder.empty()) break;
    }
    EXPECT_TRUE(named) << source.path << " is not built by any CMakeLists.txt";
  }
}

TEST(TidyTest, HeadersOpenWithWhatTheyAre) {
  for (const Source& source : Sources()) {
    if (fs::path(source.path).extension() != ".h" || StartsWith(source.path, "tests/")) continue;
    ASSERT_FALSE(source.lines.empty()) << source.path;
    EXPECT_TRUE(StartsWith(source.lines[0], "// ")) << source.path << " does not open with a comment that says what it is";
    bool once = std::find(source.lines.begin(), source.lines.end(), "#pragma once") != source.lines.end();
    EXPECT_TRUE(once) << source.path << " lacks #pragma once";
  }
}

TEST(TidyTest, EveryTestThatTheArchitectureNamesExists) {
  std::ifstream in(fs::path(PARE_SOURCE_DIR) / "docs/architecture.md");
  static const std::regex named(R"(^\|.*\| `(\w+Test)\.(\w+)` \|$)");
  size_t found = 0;
  for (std::string line; std::getline(in, line);) {
    std::smatch match;
    if (!std::regex_match(line, match, named)) continue;
    std::string text = "(" + match[1].str() + ", " + match[2].str() + ")";
    bool exists = std::any_of(Sources().begin(), Sources().end(), [&](const Source& source) {
      return std::any_of(source.lines.begin(), source.lines.end(), [&](const std::string& l) { return StartsWith(l, "TEST") && l.find(text) != std::string::npos; });
    });
    EXPECT_TRUE(exists) << "docs/architecture.md names the test " << match[1] << "." << match[2] << ": there is none";
    found += exists;
  }
  EXPECT_GE(found, 10u);
}

}  // namespace
