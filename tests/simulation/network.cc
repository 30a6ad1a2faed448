#include "tests/simulation/network.h"

#include <algorithm>
#include <utility>

namespace pare::simulation {

class Network::Server : public ServerTransport {
 public:
  explicit Server(Network& network) : network_(network) {}
  ~Server() override { network_.server_arrived_ = nullptr; }

  std::vector<Incoming> Receive(Millis, size_t limit, int) override {
    std::vector<Incoming> received;
    while (!network_.to_server_.empty() && received.size() < limit) {
      received.push_back(std::move(network_.to_server_.front()));
      network_.to_server_.pop_front();
    }
    return received;
  }
  void Send(const PeerId& peer, std::string_view message) override {
    if (network_.server_sends) network_.server_sends(peer, message);
    network_.Send(peer, false, message);
  }
  std::string endpoint() const override { return "simulated"; }

 private:
  Network& network_;
};

class Network::Client : public ClientTransport {
 public:
  Client(Network& network, PeerId peer) : network_(network), peer_(std::move(peer)) {}
  ~Client() override { network_.clients_.erase(peer_); }

  void Send(std::string_view message) override { network_.Send(peer_, true, message); }
  std::optional<std::string> Receive(Millis, int) override {
    std::deque<std::string>& inbox = network_.clients_.at(peer_).messages;
    if (inbox.empty()) return std::nullopt;
    std::string message = std::move(inbox.front());
    inbox.pop_front();
    return message;
  }

 private:
  Network& network_;
  PeerId peer_;
};

std::unique_ptr<ServerTransport> Network::Listen(std::function<void()> arrived) {
  server_arrived_ = std::move(arrived);
  return std::make_unique<Server>(*this);
}

std::unique_ptr<ClientTransport> Network::Connect(const PeerId& peer, std::function<void()> arrived) {
  clients_[peer].arrived = std::move(arrived);
  return std::make_unique<Client>(*this, peer);
}

void Network::Send(const PeerId& peer, bool to_server, std::string_view bytes) {
  ++counts_.sent;
  auto cut = cut_off_.find(peer);
  bool cut_off = !healed_ && cut != cut_off_.end() && cut->second > timeline_.now();
  if (cut_off || Chance(scenario_.loss)) {
    ++counts_.lost;
    return;
  }
  int copies = Chance(scenario_.duplicates) ? 2 : 1;
  counts_.doubled += copies - 1;
  for (int i = 0; i < copies; ++i) {
    Millis at = timeline_.now() + Upto(scenario_.latency);
    if (Chance(scenario_.long_delays)) at += Upto(scenario_.longest_delay), ++counts_.late;
    Millis& newest = newest_[{peer, to_server}];
    if (Chance(scenario_.reorder)) {
      at += Upto(random_.Below(2) == 0 ? Millis(5'000) : 2 * scenario_.heartbeat);  // the second: longer than an epoch
      ++counts_.overtaken;
    } else {
      newest = at = std::max(at, newest);  // a connection keeps the order
    }
    timeline_.At(at, [this, peer, to_server, message = std::string(bytes)] { Deliver(peer, to_server, message); });
  }
}

void Network::Deliver(const PeerId& peer, bool to_server, const std::string& bytes) {
  if (to_server) {
    ++counts_.delivered;
    if (delivered) delivered(peer, true, bytes);
    to_server_.push_back({peer, bytes});
    if (server_arrived_) server_arrived_();
    return;
  }
  auto client = clients_.find(peer);
  if (client == clients_.end()) return;  // gone
  ++counts_.delivered;
  if (delivered) delivered(peer, false, bytes);
  client->second.messages.push_back(bytes);
  client->second.arrived();
}

}  // namespace pare::simulation
