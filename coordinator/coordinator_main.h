// The program pare-coordinator; `pare coordinator …` runs the same function. Belongs to the main thread: it blocks SIGTERM and
// SIGINT before any other thread starts.
#pragma once

namespace pare::coordinator {

// Exit codes: 0 ended on request, 1 could not start or go on (store in use, port taken, disk), 2 bad usage.
int CoordinatorMain(int argc, char** argv);

}  // namespace pare::coordinator
