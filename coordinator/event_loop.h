// EventLoop: the coordinator's only shell. One turn: receive a batch, apply all of it, Tick, ONE commit, then send. Belongs
// to one thread.
//
// A full disk (or a locked database) blocks the loop: the commit is tried again every kBlockedRetry, requests are answered
// with the reason, and everything else waits unacknowledged with its sender. Any other failure of the commit ends the
// loop: a restart from what is durable is the normal path.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "common/clock.h"
#include "common/transport.h"
#include "coordinator/service.h"

namespace pare::coordinator {

inline constexpr size_t kMessagesPerTurn = 4'096;
inline constexpr Millis kLongestWait{1'000};
inline constexpr Millis kBlockedRetry{500};

struct LoopParts {
  Service* service = nullptr;
  ServerTransport* transport = nullptr;
  const Clock* clock = nullptr;
  int wake_fd = -1;  // readable: the caller of Turn wants to look around
  // Whether a process of this host is alive; empty: nobody looks. Agents here are missed at once instead of after the
  // lease timeout.
  std::function<bool(int64_t pid)> process_alive;
};

class EventLoop {
 public:
  explicit EventLoop(const LoopParts& parts);

  // One turn, waiting at most `wait` for messages. Error: the commit failed for good.
  Status Turn(Millis wait = kLongestWait);
  // A shutdown request was answered.
  bool stopping() const { return parts_.service->stopping(); }

 private:
  void Handle(const Incoming& incoming);
  Status TurnBlocked();
  Status Commit();
  void Block(const std::string& why);
  void Post(const Send& send);
  void LookForDeadWorkers();
  Millis WaitFor(Millis longest) const;

  LoopParts parts_;
  Millis looked_{0};
  std::optional<std::string> blocked_why_;
  // Workers of this host whose process was seen alive: only those can be seen to die (another container has other pids).
  std::map<std::string, int64_t> watched_;
};

// "host-pid-slot" → pid, if `host` is this one.
std::optional<int64_t> LocalPidOf(const std::string& worker, const std::string& host);

}  // namespace pare::coordinator
