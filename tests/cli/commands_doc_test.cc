// docs/commands.md: its option tables are the parser's, every command has its section, every example of a --help stands in it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <set>

#include "cli/commands.h"
#include "common/files.h"

namespace pare::cli {
namespace {

using ::testing::HasSubstr;

const std::string kPath = PARE_SOURCE_DIR "/docs/commands.md";
const std::set<std::string> kCommon = {"--store", "--coordinator", "--json", "--help"};

// With command lines of their own, whose --help stands in the document as it is.
bool HandedOver(const std::string& command) { return command == "coordinator" || command == "worker"; }

// "`--workers N`", "`-f`, `--follow`", "`RECIPE`".
std::string Heading(const CLI::Option& option) {
  if (option.get_positional()) return "`" + option.get_name(true) + "`";
  std::string text;
  for (const std::string& name : option.get_snames()) text += "`-" + name + "`, ";
  for (const std::string& name : option.get_lnames()) text += "`--" + name;
  std::string type = option.get_type_size() == 0 ? "" : option.get_type_name();
  return text + (type.empty() ? "" : " " + type) + "`";
}

bool IsCommon(const CLI::Option& option) { return !option.get_lnames().empty() && kCommon.count("--" + option.get_lnames()[0]) != 0; }

std::string OptionTable(const CLI::App& command, bool common) {
  std::string rows;
  for (const CLI::Option* option : command.get_options()) {
    if (IsCommon(*option) != common) continue;
    rows += "| " + Heading(*option) + " | " + option->get_description() + (option->get_required() ? "; required" : "") + " |\n";
  }
  return rows.empty() ? "" : "| option | |\n| --- | --- |\n" + rows;
}

// The document with every table between `<!-- options: NAME -->` and `<!-- end -->` made anew.
std::string WithTables(const std::string& document, const CLI::App& app) {
  const std::string open = "<!-- options: ", close = "<!-- end -->";
  std::string out;
  size_t at = 0;
  for (size_t begin; (begin = document.find(open, at)) != std::string::npos;) {
    size_t name_end = document.find(" -->\n", begin), end = document.find(close, begin);
    if (name_end == std::string::npos || end == std::string::npos) return out + "an unclosed table";
    std::string name = document.substr(begin + open.size(), name_end - begin - open.size());
    out += document.substr(at, name_end + 5 - at);
    out += name == "common" ? OptionTable(*app.get_subcommand("list"), true) : OptionTable(*app.get_subcommand(name), false);
    at = end;
  }
  return out + document.substr(at);
}

std::vector<const CLI::App*> CommandsOf(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

TEST(CommandsDocumentTest, ItsOptionTablesAreMadeFromTheParser) {
  Context context;
  std::string document = ReadFile(kPath).value(), wanted = WithTables(document, *MakeApp(context));
  const char* accept = std::getenv("PARE_ACCEPT");
  if (accept != nullptr && std::string(accept) == "1") {
    std::ofstream(kPath, std::ios::binary) << wanted;
    return;
  }
  EXPECT_EQ(document, wanted) << kPath << " differs; PARE_ACCEPT=1 rewrites its tables";
}

TEST(CommandsDocumentTest, EveryCommandHasASectionWithItsOptionsAndItsExample) {
  Context context;
  auto app = MakeApp(context);
  std::string document = ReadFile(kPath).value();
  for (const CLI::App* command : CommandsOf(*app)) {
    std::string name = command->get_name();
    size_t begin = document.find("\n### " + name + "\n");
    ASSERT_NE(begin, std::string::npos) << name;
    std::string section = document.substr(begin, document.find("\n### ", begin + 1) - begin);
    EXPECT_THAT(section, HasSubstr("\n$ pare " + name)) << "no example";
    if (HandedOver(name)) continue;
    if (!OptionTable(*command, false).empty()) {
      EXPECT_THAT(section, HasSubstr("<!-- options: " + name + " -->"));
    }
    std::string footer = command->get_footer(), example = footer.substr(footer.find("\n  ") + 3);
    EXPECT_THAT(section, HasSubstr("$ " + example.substr(0, example.find('\n')))) << "the example of its --help";
    EXPECT_THAT(section, HasSubstr(command->get_description())) << "what its --help says";
  }
}

}  // namespace
}  // namespace pare::cli
