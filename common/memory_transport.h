// MemoryTransport: a server and its clients in one thread, for tests and the simulator. A filter may lose messages.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "common/transport.h"

namespace pare {

class MemoryNetwork {
 public:
  std::unique_ptr<ServerTransport> Listen();
  std::unique_ptr<ClientTransport> Connect();
  // Called for every message; false loses it.
  std::function<bool(const PeerId& peer, std::string_view message, bool to_server)> filter;

 private:
  friend class MemoryServer;
  friend class MemoryClient;
  struct Queues {
    std::deque<Incoming> to_server;
    std::map<PeerId, std::deque<std::string>> to_client;
  };
  std::shared_ptr<Queues> queues_ = std::make_shared<Queues>();
  int next_peer_ = 1;
};

}  // namespace pare
