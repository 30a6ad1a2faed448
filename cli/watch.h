// Following a job until it ends: redrawn in place on a terminal, plain lines elsewhere. Main thread.
#pragma once

#include <functional>
#include <string>

#include "cli/connection.h"

namespace pare::cli {

struct FollowOptions {
  std::string job;
  bool quiet = false;               // --json: nothing but the end
  bool pause_on_interrupt = false;  // for `run`; without it an interrupt only ends following
  std::function<Status()> every_turn;   // an error ends following. For `run`: supervision
  std::function<void()> on_progress;  // a step has finished
};
// The job's last state ("done", "failed", "cancelled", "paused"). kStopped after an interrupt. A coordinator that does not
// answer is waited for as long as every_turn is there and has no objection.
Result<std::string> Follow(Connection& connection, const FollowOptions& options);

bool Ended(const std::string& job_state);

// Of the terminal behind a descriptor; kUnlimited where it is none.
size_t TerminalColumns(int fd);

// Ctrl-C and SIGTERM are counted from here on instead of ending the process; the second one ends it at once, with exit code
// 130 and its children with it.
void CatchInterrupts();
int Interrupts();

}  // namespace pare::cli
