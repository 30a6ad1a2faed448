// Transport: one of the five edge interfaces. Carries JSON messages between a server and many peers, unordered between
// peers, in order per peer, at most once. ZmqTransport (ROUTER/DEALER; zmq.hpp is included by zmq_transport.cc alone) and
// MemoryTransport (tests, simulator). Belongs to one thread.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/json.h"
#include "common/result.h"

namespace pare {

inline constexpr int64_t kMaxMessageBytes = 16 << 20;

using PeerId = std::string;  // opaque bytes; stable for the life of a connection

struct Incoming {
  PeerId peer;
  std::string message;  // bytes as sent; the receiver parses
};

class ServerTransport {
 public:
  virtual ~ServerTransport() = default;
  // Waits until a message or `wake_fd` is readable or the time is over, then returns all that is there (at most
  // `limit`): one loop turn, one transaction.
  virtual std::vector<Incoming> Receive(Millis timeout, size_t limit, int wake_fd = -1) = 0;
  // Queues; a peer that is gone or too slow loses messages (at most once), never blocks the server.
  virtual void Send(const PeerId& peer, std::string_view message) = 0;
  // The endpoint really bound ("tcp://127.0.0.1:41233").
  virtual std::string endpoint() const = 0;
};

class ClientTransport {
 public:
  virtual ~ClientTransport() = default;
  virtual void Send(std::string_view message) = 0;
  // The next message; nothing when the time is over or `wake_fd` (if ≥ 0) becomes readable.
  virtual std::optional<std::string> Receive(Millis timeout, int wake_fd = -1) = 0;
};

struct ListenOptions {
  bool allow_remote = false;  // accept tcp addresses other than loopback
};

// Endpoints: "tcp://HOST:PORT" (when listening, port 0 or * picks one, and HOST must be 127.x.y.z, localhost or [::1]
// unless remote is allowed) and "ipc://PATH". Connecting never waits: messages sent before the other side is there are
// kept (up to a limit) and leave when it is; the connection is repaired for ever, with the same PeerId.
// kConflict: the endpoint is taken by a living process (names it); kInvalid: not an endpoint, or not allowed.
Result<std::unique_ptr<ServerTransport>> ListenZmq(const std::string& endpoint, const ListenOptions& options = {});
Result<std::unique_ptr<ClientTransport>> ConnectZmq(const std::string& endpoint);

}  // namespace pare
