// The commands, one function per family, each adding its subcommands to the parser. A command's callback stores what to
// run; RunCommand runs it and returns its exit code (docs/commands.md).
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <optional>

#include "cli/connection.h"

namespace pare::cli {

struct Context {
  Target target;
  std::function<int()> action;  // set by the chosen subcommand
};

// The parser of all commands. `context` must live as long.
std::unique_ptr<CLI::App> MakeApp(Context& context);
// Parses and runs; the exit code. `coordinator` and `worker` have command lines of their own and are not among these.
int RunCommand(int argc, char** argv);

// Adds a subcommand with --store, --coordinator and --json; `help` ends with an example.
CLI::App* AddCommand(CLI::App& app, Context& context, const std::string& name, const std::string& description, const std::string& example);
// A whole number within [min, max]; the help does not show the limits, the description does.
CLI::Option* AddCount(CLI::App* command, const std::string& name, std::optional<int>& value, int min, int max, const std::string& description);

void AddRunCommands(CLI::App& app, Context& context);     // run, submit, watch
void AddPlanCommand(CLI::App& app, Context& context);     // plan
void AddJobCommands(CLI::App& app, Context& context);     // list, describe, logs, why, pause, resume, cancel, retry, report, digest
void AddShowCommand(CLI::App& app, Context& context);     // show
void AddModelCommands(CLI::App& app, Context& context);   // models, promote, rollback, export
void AddStoreCommands(CLI::App& app, Context& context);   // gc, fsck, backup
void AddSystemCommands(CLI::App& app, Context& context);  // doctor, version

// One request, its result rendered or, with --json, as it is. The exit code.
int Ask(const Target& target, const std::string& method, const Json& args, const std::function<std::string(const Json&)>& render);

}  // namespace pare::cli
