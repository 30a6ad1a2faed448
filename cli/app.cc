// The parser: what all commands share, and what is said about arguments that do not parse.
#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "cli/commands.h"
#include "common/version.h"
#include "recipes/schema.h"
#include "storage/store.h"

namespace pare::cli {
namespace {

constexpr const char* kExitCodes =
    "Exit codes: 0 done, 1 failed, 2 bad usage or recipe, 3 not found, 4 cannot reach the coordinator, 130 interrupted and resumable.";

std::vector<std::string> CommandNames(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) names.push_back(command->get_name());
  return names;
}

// "; did you mean 'list'? " or "; ".
std::string DidYouMean(const std::string& word, const std::vector<std::string>& known) {
  std::string nearest = recipes::Nearest(word, known);
  return nearest.empty() ? "; " : "; did you mean '" + nearest + "'? ";
}

// "--workers" of "--workers=3".
std::string OptionName(const std::string& argument) { return argument.substr(0, argument.find('=')); }

// The parser reports the last consequence of a mistake ("RECIPE is required"); the user wants the mistake.
std::string Complaint(const CLI::App& app, const std::vector<std::string>& arguments, const CLI::ParseError& error) {
  if (arguments.empty()) return "a command is required; `pare --help` lists them";
  const std::string& name = arguments[0];
  if (name.rfind('-', 0) == 0) return "'" + name + "' before the command: write pare COMMAND [OPTIONS]; `pare --help` lists the commands";
  std::vector<std::string> commands = CommandNames(app);
  if (std::find(commands.begin(), commands.end(), name) == commands.end()) {
    return "there is no command '" + name + "'" + DidYouMean(name, commands) + "`pare --help` lists all";
  }
  const CLI::App* command = app.get_subcommand(name);
  std::string help = "see `pare " + name + " --help`";
  std::vector<std::string> known;
  for (const CLI::Option* option : command->get_options()) {
    for (const std::string& option_name : option->get_lnames()) known.push_back("--" + option_name);
  }
  for (size_t i = 1; i < arguments.size() && arguments[i] != "--"; ++i) {
    std::string option = OptionName(arguments[i]);
    if (option.size() < 2 || option[0] != '-' || std::isdigit(static_cast<unsigned char>(option[1]))) continue;
    if (command->get_option_no_throw(option) == nullptr) return name + ": there is no option " + option + DidYouMean(option, known) + help;
  }
  return name + ": " + error.what() + "; " + help;
}

}  // namespace

CLI::App* AddCommand(CLI::App& app, Context& context, const std::string& name, const std::string& description, const std::string& example) {
  CLI::App* command = app.add_subcommand(name, description);
  command->footer("Example:\n  " + example + "\n\n" + kExitCodes);
  // A variable that is not set in a script must not become the default.
  auto named = [](const std::string& text) { return std::string(text.empty() ? "its value is empty; leave the option out for the default" : ""); };
  command->add_option("--store", context.target.store, "store directory; default $PARE_STORE, else ~/.local/share/pare")->type_name("DIR")->check(named);
  command->add_option("--coordinator", context.target.coordinator, "endpoint of a coordinator; default $PARE_COORDINATOR, else the store's")
      ->type_name("ENDPOINT")
      ->check(named);
  command->add_flag("--json", context.target.json, "print JSON for machines");
  return command;
}

CLI::Option* AddCount(CLI::App* command, const std::string& name, std::optional<int>& value, int min, int max, const std::string& description) {
  auto parse = [&value, name, min, max](const CLI::results_t& texts) {
    int number = 0;
    if (!CLI::detail::lexical_cast(texts[0], number) || number < min || number > max) {
      throw CLI::ValidationError(name, "'" + texts[0] + "' is not a whole number from " + std::to_string(min) + " to " + std::to_string(max));
    }
    value = number;
    return true;
  };
  return command->add_option(name, CLI::callback_t(parse), description)->type_name("N");
}

std::unique_ptr<CLI::App> MakeApp(Context& context) {
  auto app = std::make_unique<CLI::App>("Pare makes trained networks smaller and faster: submit a recipe, watch it, resume it, export the best candidate.", "pare");
  app->get_formatter()->column_width(26);
  app->get_formatter()->label("REQUIRED", "");
  app->set_help_flag("-h,--help", "print this help");
  app->set_version_flag("--version", "pare " + std::string(kPareVersion), "print the version");
  app->require_subcommand(1);
  app->footer("Example:\n  pare run recipes/tiny.yaml\n\nA job is named by its id, a unique prefix of it, or 'last'. `pare COMMAND --help` tells more.");
  AddRunCommands(*app, context);
  AddPlanCommand(*app, context);
  AddJobCommands(*app, context);
  AddShowCommand(*app, context);
  AddModelCommands(*app, context);
  AddStoreCommands(*app, context);
  AddSystemCommands(*app, context);
  // For the list only: main hands these two over before it parses anything.
  app->add_subcommand("coordinator", "Serves a store: schedules jobs over workers. `pare coordinator --help`")->group("Cluster");
  app->add_subcommand("worker", "Runs steps for a coordinator. `pare worker --help`")->group("Cluster");
  return app;
}

int RunCommand(int argc, char** argv) {
  Context context;
  std::unique_ptr<CLI::App> app = MakeApp(context);
  try {
    app->parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app->exit(e);  // --help, --version
    std::vector<std::string> arguments(argv + 1, argv + argc);
    bool json = std::find(arguments.begin(), arguments.end(), "--json") != arguments.end();
    return Fail({ErrorCode::kInvalid, Complaint(*app, arguments, e)}, json);
  }
  const std::string& command = app->get_subcommands().front()->get_name();
  if (!context.target.store.empty() && !context.target.coordinator.empty() && command != "doctor") {
    return Fail({ErrorCode::kInvalid, command + ": give either --store or --coordinator: a coordinator has a store of its own; see `pare " + command + " --help`"}, context.target.json);
  }
  // What was typed beats the environment.
  const char* endpoint = std::getenv("PARE_COORDINATOR");
  if (endpoint != nullptr && context.target.coordinator.empty() && context.target.store.empty()) context.target.coordinator = endpoint;
  if (context.target.store.empty()) context.target.store = storage::DefaultStore();
  int code = context.action();
  // Whoever pipes the output into a file must learn that it is not there.
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return code;
  int failed = Fail(SystemError("cannot write standard output", errno), false);
  return code == 0 ? failed : code;
}

int Ask(const Target& target, const std::string& method, const Json& args, const std::function<std::string(const Json&)>& render) {
  auto connection = Connect(target);
  if (!connection.ok()) return Fail(connection.error(), target.json);
  auto result = (*connection)->Call(method, args);
  if (!result.ok()) return Fail(result.error(), target.json);
  std::fputs((target.json ? Canonical(*result) + "\n" : render(*result)).c_str(), stdout);
  return 0;
}

}  // namespace pare::cli
