// The parser: helps with examples that parse, and what is said about arguments that do not.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <iterator>
#include <sstream>

#include "cli/commands.h"

namespace pare::cli {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;

// With command lines of their own; only listed by `pare --help`.
bool HandedOver(const std::string& command) { return command == "coordinator" || command == "worker"; }

std::vector<std::string> Commands() {
  Context context;
  auto app = MakeApp(context);
  std::vector<std::string> names;
  for (const CLI::App* command : app->get_subcommands([](const CLI::App*) { return true; })) {
    if (!HandedOver(command->get_name())) names.push_back(command->get_name());
  }
  return names;
}

std::string HelpOf(const std::string& command) {
  Context context;
  return MakeApp(context)->get_subcommand(command)->help();
}

// The line after "Example:", in words.
std::vector<std::string> ExampleOf(const std::string& help) {
  size_t at = help.find("Example:\n  ");
  if (at == std::string::npos) return {};
  std::istringstream line(help.substr(at + 11, help.find('\n', at + 11) - at - 11));
  return {std::istream_iterator<std::string>(line), {}};
}

// What the command prints on standard error, and its exit code.
std::pair<int, std::string> RunWith(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "pare");
  std::vector<char*> argv;
  for (std::string& a : arguments) argv.push_back(a.data());
  argv.push_back(nullptr);
  ::testing::internal::CaptureStderr();
  int code = RunCommand(static_cast<int>(arguments.size()), argv.data());
  return {code, ::testing::internal::GetCapturedStderr()};
}

class EveryCommandTest : public ::testing::TestWithParam<std::string> {};

TEST_P(EveryCommandTest, HelpHoldsAnExampleThatParses) {
  std::vector<std::string> words = ExampleOf(HelpOf(GetParam()));
  ASSERT_GE(words.size(), 2u);
  EXPECT_EQ(words[0], "pare");
  EXPECT_EQ(words[1], GetParam());
  Context context;
  auto app = MakeApp(context);
  std::vector<std::string> reversed(words.rbegin(), words.rend() - 1);  // as CLI11 takes them
  EXPECT_NO_THROW(app->parse(reversed));
  EXPECT_TRUE(context.action);
}

TEST_P(EveryCommandTest, HelpTellsTheExitCodesAndWhereTheStoreIs) {
  std::string help = HelpOf(GetParam());
  for (const char* part : {"Exit codes: 0 done, 1 failed, 2", "--store DIR", "$PARE_STORE", "--coordinator ENDPOINT", "$PARE_COORDINATOR", "--json"}) {
    EXPECT_THAT(help, HasSubstr(part));
  }
}

TEST_P(EveryCommandTest, RefusesAnUnknownOptionByName) {
  auto [code, text] = RunWith({GetParam(), "--jsno"});
  EXPECT_EQ(code, 2);
  EXPECT_EQ(text, "pare: " + GetParam() + ": there is no option --jsno; did you mean '--json'? see `pare " + GetParam() + " --help`\n");
}

INSTANTIATE_TEST_SUITE_P(All, EveryCommandTest, ::testing::ValuesIn(Commands()), [](const auto& test) { return test.param; });

TEST(AppTest, HasTheCommandsOfTheManual) {
  std::vector<std::string> wanted = {"run", "plan", "submit", "list", "describe", "watch", "logs", "why", "show", "pause", "resume", "cancel", "retry",
                                     "report", "digest", "models", "promote", "rollback", "export", "gc", "fsck", "backup", "doctor", "version"};
  EXPECT_THAT(Commands(), ::testing::UnorderedElementsAreArray(wanted));
}

TEST(AppTest, HelpListsEveryCommandOnOneScreen) {
  Context context;
  auto app = MakeApp(context);
  std::string help = app->help();
  for (const std::string& name : Commands()) EXPECT_THAT(help, HasSubstr("\n  " + name + " "));
  for (const char* name : {"coordinator", "worker"}) EXPECT_THAT(help, HasSubstr(std::string("\n  ") + name + " "));
  EXPECT_LE(std::count(help.begin(), help.end(), '\n'), 50);
}

struct BadCall {
  const char* name;
  std::vector<std::string> arguments;
  const char* message;
};

class BadCallTest : public ::testing::TestWithParam<BadCall> {};

TEST_P(BadCallTest, SaysWhatIsWrong) {
  auto [code, text] = RunWith(GetParam().arguments);
  EXPECT_EQ(code, 2);
  EXPECT_EQ(text, std::string("pare: ") + GetParam().message + "\n");
}

INSTANTIATE_TEST_SUITE_P(
    Calls, BadCallTest,
    ::testing::Values(BadCall{"NoCommand", {}, "a command is required; `pare --help` lists them"},
                      BadCall{"UnknownCommand", {"lits"}, "there is no command 'lits'; did you mean 'list'? `pare --help` lists all"},
                      BadCall{"NothingNear", {"frobnicate"}, "there is no command 'frobnicate'; `pare --help` lists all"},
                      BadCall{"OptionFirst", {"--store", "x", "list"}, "'--store' before the command: write pare COMMAND [OPTIONS]; `pare --help` lists the commands"},
                      BadCall{"NoRecipe", {"run"}, "run: RECIPE is required; see `pare run --help`"},
                      // The mistake, not its consequence (2 would be the recipe).
                      BadCall{"MisspeltOption", {"run", "--wrokers", "2", "r.yaml"}, "run: there is no option --wrokers; did you mean '--workers'? see `pare run --help`"},
                      BadCall{"OptionWithValue", {"run", "r.yaml", "--worker=2"}, "run: there is no option --worker; did you mean '--workers'? see `pare run --help`"},
                      BadCall{"NoWorkers", {"run", "r.yaml", "--workers", "0"}, "run: --workers: '0' is not a whole number from 1 to 256; see `pare run --help`"},
                      BadCall{"NegativeWorkers", {"run", "r.yaml", "--workers", "-3"}, "run: --workers: '-3' is not a whole number from 1 to 256; see `pare run --help`"},
                      BadCall{"WordForNumber", {"run", "r.yaml", "--threads", "all"}, "run: --threads: 'all' is not a whole number from 1 to 256; see `pare run --help`"},
                      BadCall{"BothWays", {"promote", "m", "--version", "1", "--step", "s"}, "promote: give either --version N, or --step STEP (and --job JOB)"},
                      BadCall{"NeitherWay", {"promote", "m"}, "promote: give either --version N, or --step STEP (and --job JOB)"},
                      BadCall{"EmptyStore", {"list", "--store", ""}, "list: --store: its value is empty; leave the option out for the default; see `pare list --help`"},
                      BadCall{"EmptyCoordinator", {"run", "r.yaml", "--coordinator", ""}, "run: --coordinator: its value is empty; leave the option out for the default; see `pare run --help`"},
                      BadCall{"StoreAndCoordinator", {"list", "--store", "s", "--coordinator", "tcp://127.0.0.1:1"}, "list: give either --store or --coordinator: a coordinator has a store of its own; see `pare list --help`"},
                      BadCall{"BadVersion", {"export", "m@x", "/nowhere/out"}, "'m@x': expected NAME or NAME@VERSION with a version number"},
                      BadCall{"BadEndpoint", {"list", "--coordinator", "foo:1"}, "'foo:1' is not an endpoint: it begins with neither tcp:// nor ipc://; write tcp://HOST:PORT or ipc://PATH"}),
    [](const auto& test) { return test.param.name; });

TEST(AppTest, BadCallsWithJsonGiveAnErrorObject) {
  ::testing::internal::CaptureStdout();
  auto [code, text] = RunWith({"run", "--json"});
  auto json = ParseJson(::testing::internal::GetCapturedStdout(), "output");
  EXPECT_EQ(code, 2);
  ASSERT_TRUE(json.ok());
  EXPECT_EQ((*json)["error"]["code"], "invalid");
  EXPECT_EQ((*json)["error"]["message"], "run: RECIPE is required; see `pare run --help`");
}

TEST(AppTest, TooManyArgumentsAreNamed) {
  auto [code, text] = RunWith({"watch", "last", "surplus"});
  EXPECT_EQ(code, 2);
  EXPECT_THAT(text, HasSubstr("surplus"));
  EXPECT_THAT(text, EndsWith("see `pare watch --help`\n"));
}

}  // namespace
}  // namespace pare::cli
