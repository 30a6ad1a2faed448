// pare: the command line.
#include <cstdio>
#include <cstring>

#include "cli/commands.h"
#include "common/log.h"
#include "coordinator/coordinator_main.h"
#include "worker/agent/worker_main.h"

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // who reads a pipe or a log file wants each line when it happens
  // The daemons have command lines of their own.
  if (argc > 1 && std::strcmp(argv[1], "coordinator") == 0) return pare::coordinator::CoordinatorMain(argc - 1, argv + 1);
  if (argc > 1 && std::strcmp(argv[1], "worker") == 0) return pare::worker::WorkerMain(argc - 1, argv + 1);
  (void)pare::InitLog("pare", pare::LogLevel::kWarning);
  return pare::cli::RunCommand(argc, argv);
}
