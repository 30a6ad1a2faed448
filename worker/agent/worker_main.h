// The worker program: `pare-worker …` and `pare worker …` run the same code.
#pragma once

namespace pare::worker {

// Parses the arguments (argv[0] is the program's name), runs the agent until it is stopped, and returns the exit code: see
// `pare-worker --help`.
int WorkerMain(int argc, char** argv);

}  // namespace pare::worker
