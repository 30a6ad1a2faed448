// RunnerPipe: the runner's end of the pipe to its agent (docs/protocol.md, "Runner pipe"). No libtorch.
//
// Belongs to one thread: the one that runs steps calls Receive(Millis(0)) at batch boundaries to see a stop request (one
// poll system call), and Receive with a timeout when idle. kUnreachable: the agent is gone, the runner should end.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "common/clock.h"
#include "common/files.h"
#include "worker/line_channel.h"
#include "worker/step_runner.h"

namespace pare::worker {

struct StartStep { Assignment assignment; };
struct JoinGang { std::vector<std::string> endpoints; };  // by rank
struct StopStep { bool keep = true; };
struct ExitRunner {};
using RunnerCommand = std::variant<StartStep, JoinGang, StopStep, ExitRunner>;
Json ToJson(const RunnerCommand& command);
Result<RunnerCommand> RunnerCommandFromJson(const Json& json);

class RunnerPipe {
 public:
  explicit RunnerPipe(UniqueFd fd) : channel_(std::move(fd)) {}

  // The next command, waiting for it until the time is over.
  Result<std::optional<RunnerCommand>> Receive(Millis timeout);
  // Returns when the system has taken the bytes.
  Status Send(const RunnerEvent& event);
  int fd() const { return channel_.fd(); }

 private:
  LineChannel channel_;
};

}  // namespace pare::worker
