// MemoryNetwork: the in-memory Transport: one server at a time and any number of clients, in one thread, for tests and the
// simulator. Receive never waits. Messages to a server that is not there, or to a client that is gone, are lost.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "common/transport.h"

namespace pare {

class MemoryNetwork {
 public:
  // How many copies of a message arrive: 0 loses it, 2 duplicates it.
  using Filter = std::function<int(const PeerId& peer, bool to_server, std::string_view message)>;

  MemoryNetwork();
  ~MemoryNetwork();

  // Without a filter every message arrives once.
  void set_filter(Filter filter);
  // Delivers past the filter: a message that a filter kept, later (delay) or in another order.
  void Deliver(const PeerId& peer, bool to_server, std::string_view message);

  // kConflict while an earlier server lives.
  Result<std::unique_ptr<ServerTransport>> Listen();
  std::unique_ptr<ClientTransport> Connect();

 private:
  friend class MemoryServer;
  friend class MemoryClient;
  struct State {
    Filter filter;
    bool listening = false;
    int64_t clients_so_far = 0;
    std::deque<Incoming> to_server;
    std::map<PeerId, std::deque<std::string>> to_client;

    void Deliver(const PeerId& peer, bool is_to_server, std::string_view message);
    void Pass(const PeerId& peer, bool is_to_server, std::string_view message);
  };
  std::shared_ptr<State> state_;  // outlives the network while transports do
};

}  // namespace pare
