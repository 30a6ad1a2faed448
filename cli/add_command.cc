#include "cli/commands.h"

namespace pare::cli {

CLI::App* AddCommand(CLI::App& app, Context& context, const std::string& name, const std::string& description, const std::string& example) {
  CLI::App* command = app.add_subcommand(name, description);
  command->footer("Example:\n  " + example +
                  "\n\nExit codes: 0 done, 1 failed, 2 bad usage or recipe, 3 not found, 4 cannot reach the coordinator, 130 interrupted and resumable.");
  command->add_option("--store", context.target.store, "store directory; default $PARE_STORE or ~/.local/share/pare");
  command->add_option("--coordinator", context.target.coordinator, "endpoint of a coordinator; default $PARE_COORDINATOR, else the store");
  command->add_flag("--json", context.target.json, "print JSON");
  return command;
}

}  // namespace pare::cli
