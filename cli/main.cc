// pare: the command line.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "cli/commands.h"
#include "common/log.h"
#include "coordinator/coordinator_main.h"
#include "worker/agent/worker_main.h"

namespace pare::cli {

int Main(int argc, char** argv) {
  // The daemons have command lines of their own.
  if (argc > 1 && std::strcmp(argv[1], "coordinator") == 0) return coordinator::CoordinatorMain(argc - 1, argv + 1);
  if (argc > 1 && std::strcmp(argv[1], "worker") == 0) return worker::WorkerMain(argc - 1, argv + 1);
  InitLog("pare", LogLevel::kWarning);
  Context context;
  CLI::App app("Pare makes trained networks smaller and faster: submit a recipe, watch it, resume it, export the best candidate.", "pare");
  app.require_subcommand(1);
  app.footer("Also: pare coordinator --help, pare worker --help.\nExample:\n  pare run recipes/tiny.yaml");
  AddRunCommands(app, context);
  AddPlanCommand(app, context);
  AddJobCommands(app, context);
  AddModelCommands(app, context);
  AddSystemCommands(app, context);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  if (context.target.store.empty()) context.target.store = DefaultStore();
  if (const char* endpoint = std::getenv("PARE_COORDINATOR"); endpoint != nullptr && context.target.coordinator.empty()) context.target.coordinator = endpoint;
  return context.action();
}

}  // namespace pare::cli

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // who reads a pipe or a log file wants each line when it happens
  return pare::cli::Main(argc, argv);
}
