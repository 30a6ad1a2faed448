// Network: the Transport of a simulation: bytes take time, and until Heal() some are lost, late, doubled, overtaken, or stopped
// by a partition. Messages to a server that is down wait for it, as a DEALER keeps them.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "common/random.h"
#include "common/transport.h"
#include "tests/simulation/scenario.h"
#include "tests/simulation/timeline.h"

namespace pare::simulation {

struct NetworkCounts {
  int64_t sent = 0, delivered = 0, lost = 0, doubled = 0, overtaken = 0, late = 0;
};

class Network {
 public:
  Network(Timeline& timeline, const Scenario& scenario) : timeline_(timeline), scenario_(scenario), random_(scenario.seed, RandomPurpose::kTest, 2) {}

  // One server at a time.
  std::unique_ptr<ServerTransport> Listen(std::function<void()> arrived);
  std::unique_ptr<ClientTransport> Connect(const PeerId& peer, std::function<void()> arrived);

  void CutOff(const PeerId& peer, Millis until) { cut_off_[peer] = until; }
  void Heal() { healed_ = true; }
  const NetworkCounts& counts() const { return counts_; }

  // Every message that arrives, as it arrives.
  std::function<void(const PeerId& peer, bool to_server, std::string_view bytes)> delivered;
  // Every message that the server sends, before anything happens to it.
  std::function<void(const PeerId& peer, std::string_view bytes)> server_sends;

 private:
  class Server;
  class Client;
  struct Inbox {
    std::deque<std::string> messages;
    std::function<void()> arrived;
  };
  void Send(const PeerId& peer, bool to_server, std::string_view bytes);
  void Deliver(const PeerId& peer, bool to_server, const std::string& bytes);
  bool Chance(double probability) { return !healed_ && probability > 0 && random_.Uniform() < probability; }
  Millis Upto(Millis most) { return Millis(static_cast<int64_t>(random_.Below(static_cast<uint64_t>(most.count()) + 1))); }

  Timeline& timeline_;
  const Scenario& scenario_;
  RandomStream random_;
  bool healed_ = false;
  NetworkCounts counts_;
  std::deque<Incoming> to_server_;
  std::function<void()> server_arrived_;  // empty: nobody listens
  std::map<PeerId, Inbox> clients_;
  std::map<PeerId, Millis> cut_off_;
  std::map<std::pair<PeerId, bool>, Millis> newest_;  // arrival of the newest message of a peer and direction
};

}  // namespace pare::simulation
