// The commands, one function per family, each adding its subcommands to the parser. A command's callback stores what to
// run; main runs it and returns its exit code.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

#include "cli/connection.h"

namespace pare::cli {

struct Context {
  Target target;
  std::function<int()> action;  // set by the chosen subcommand
};

// Adds a subcommand with --store, --coordinator and --json; `help` ends with an example.
CLI::App* AddCommand(CLI::App& app, Context& context, const std::string& name, const std::string& description, const std::string& example);

void AddRunCommands(CLI::App& app, Context& context);     // run, submit, watch
void AddPlanCommand(CLI::App& app, Context& context);     // plan
void AddJobCommands(CLI::App& app, Context& context);     // list, describe, logs, why, pause, resume, cancel, retry, report, digest
void AddModelCommands(CLI::App& app, Context& context);   // models, promote, rollback, export
void AddSystemCommands(CLI::App& app, Context& context);  // doctor, version

}  // namespace pare::cli
