// Child processes: started with their own environment and descriptors, and never outliving the process that started them
// (unless asked to). Not thread-safe; start children from a thread that lives on (the main one): the kernel's parent-death
// signal is bound to the thread. Errors name the executable.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/files.h"
#include "common/result.h"

namespace pare {

struct SpawnOptions {
  std::vector<std::string> arguments;              // [0] is the executable's path
  std::map<std::string, std::string> environment;  // added to ours, or replacing
  int inherited_fd = -1;     // stays open in the child under the same number
  bool pipe_stdout = false;  // Process::stdout_fd() reads it
  std::string output_path;   // stdout (unless piped) and stderr are appended here; empty: ours
  int death_signal = 9;      // sent to the child when this process dies; 0: the child lives on
  bool own_group = false;    // Ctrl-C in the terminal does not reach the child
};

class Process {
 public:
  // Returns when the executable runs in the child, or failed to: kNotFound if there is none.
  static Result<std::unique_ptr<Process>> Spawn(const SpawnOptions& options);
  // Kills the child if it still runs.
  ~Process();

  int pid() const { return pid_; }
  int stdout_fd() const { return stdout_.get(); }
  // How it ended ("exited with code 3", "killed by signal 9 (Killed)"), or nothing while it runs. Never blocks.
  std::optional<std::string> Ended() { return Wait(Millis(0)); }
  // The same, waiting for the end until the time is over.
  std::optional<std::string> Wait(Millis timeout);
  void Signal(int signal);
  // SIGTERM, wait up to `grace`, then SIGKILL; returns when the child is gone.
  void Terminate(Millis grace);
  // Exit code, or 128 + signal. REQUIRES: Ended() has a value.
  int code() const { return code_; }

 private:
  Process() = default;
  void Reap(bool block);

  int pid_ = -1;
  int code_ = 0;
  UniqueFd watch_;  // a pidfd, readable when the child has ended: waiting without polling
  UniqueFd stdout_;
  std::optional<std::string> ended_;
};

}  // namespace pare
