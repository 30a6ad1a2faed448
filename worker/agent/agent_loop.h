// AgentLoop: the shell of the agent: gathers events from transport, runner and signals, applies the core, performs its
// actions. One thread.
#pragma once

#include <functional>
#include <string>

#include "common/clock.h"
#include "common/files.h"
#include "common/transport.h"
#include "worker/agent/agent_core.h"

namespace pare::worker {

struct AgentParts {
  ClientTransport* transport = nullptr;
  StepRunner* runner = nullptr;
  const Clock* clock = nullptr;
  int signal_fd = -1;  // a signalfd of the signals that stop the agent; −1: none
  // Whether this store directory of the coordinator, on that host, can be used directly.
  std::function<bool(const std::string& store, const std::string& host)> store_usable;
};

class AgentLoop {
 public:
  // The parts must outlive the loop.
  AgentLoop(AgentConfig config, AgentParts parts);

  // Turns until the core ends the agent. The exit code of the process: 0 stopped on request, 1 given up.
  int Run();
  // One turn: waits at most `timeout` for something to happen. Nothing, or the exit code.
  std::optional<int> Turn(Millis timeout);
  // When the next turn is needed even if nothing happens; may lie in the past.
  Millis NextDeadline() const { return core_.NextDeadline(); }

 private:
  void Apply(const AgentEvent& event);
  void Perform(const AgentAction& action);
  void ReceiveMessage(const std::string& bytes);
  void ReadSignals();
  // Whoever started it with a wrong endpoint would wait for ever without knowing.
  void TellSilence();
  // A store that was named and is another one than the coordinator's would be filled with results that nobody finds.
  bool RefuseOtherStore(const Welcome& welcome);

  AgentParts parts_;
  std::string named_store_;
  bool heard_ = false;  // something of a coordinator
  Millis silent_since_, told_after_;
  AgentCore core_;
  UniqueFd wake_;  // an epoll of the runner and the signals
  std::optional<int> exit_code_;
};

// Whether `store` lies on this host and can be read and written.
bool StoreUsableHere(const std::string& store, const std::string& host);
std::string HostName();

}  // namespace pare::worker
