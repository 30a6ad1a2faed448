// RunnerLoop: reads commands from the agent's pipe, runs steps, answers. One thread does all: a stop request is seen at
// the next batch boundary, which costs one poll per batch.
#pragma once

#include "worker/runner/steps.h"
#include "worker/runner_pipe.h"

namespace pare::runner {

// Sends `ready`, then serves until the pipe closes or an exit command comes; returns the process's exit code.
int ServePipe(worker::RunnerPipe& pipe, const Environment& environment);

}  // namespace pare::runner
