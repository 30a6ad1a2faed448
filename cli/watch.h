// Following a job until it ends: redrawn in place on a terminal, plain lines elsewhere.
#pragma once

#include <functional>
#include <string>

#include "cli/connection.h"

namespace pare::cli {

struct FollowOptions {
  std::string job;
  bool quiet = false;      // --json: nothing but the end
  bool interruptible = true;
  // Called every turn; an error ends following. For `run`: supervision.
  std::function<Status()> every_turn;
  std::function<void()> on_progress;
  bool pause_on_interrupt = false;
};
// The job's last state ("done", "failed", "cancelled", "paused"). kStopped after Ctrl-C. A coordinator that does not answer
// is waited for as long as every_turn has no objection.
Result<std::string> Follow(Connection& connection, const FollowOptions& options);

// Ctrl-C and SIGTERM are counted from here on instead of ending the process.
void CatchInterrupts();
int Interrupts();

}  // namespace pare::cli
