#include "common/memory_transport.h"

namespace pare {

class MemoryServer : public ServerTransport {
 public:
  explicit MemoryServer(MemoryNetwork* network) : network_(network), queues_(network->queues_) {}
  std::vector<Incoming> Receive(Millis, size_t limit) override {
    std::vector<Incoming> batch;
    while (!queues_->to_server.empty() && batch.size() < limit) {
      batch.push_back(std::move(queues_->to_server.front()));
      queues_->to_server.pop_front();
    }
    return batch;
  }
  void Send(const PeerId& peer, std::string_view message) override {
    auto it = queues_->to_client.find(peer);
    if (it == queues_->to_client.end()) return;
    if (network_->filter && !network_->filter(peer, message, false)) return;
    it->second.emplace_back(message);
  }
  std::string endpoint() const override { return "memory"; }

 private:
  MemoryNetwork* network_;
  std::shared_ptr<MemoryNetwork::Queues> queues_;
};

class MemoryClient : public ClientTransport {
 public:
  MemoryClient(MemoryNetwork* network, PeerId peer) : network_(network), queues_(network->queues_), peer_(std::move(peer)) {
    queues_->to_client[peer_];
  }
  ~MemoryClient() override { queues_->to_client.erase(peer_); }
  void Send(std::string_view message) override {
    if (network_->filter && !network_->filter(peer_, message, true)) return;
    queues_->to_server.push_back({peer_, std::string(message)});
  }
  std::optional<std::string> Receive(Millis, int) override {
    auto& queue = queues_->to_client[peer_];
    if (queue.empty()) return std::nullopt;
    std::string message = std::move(queue.front());
    queue.pop_front();
    return message;
  }

 private:
  MemoryNetwork* network_;
  std::shared_ptr<MemoryNetwork::Queues> queues_;
  PeerId peer_;
};

std::unique_ptr<ServerTransport> MemoryNetwork::Listen() { return std::make_unique<MemoryServer>(this); }
std::unique_ptr<ClientTransport> MemoryNetwork::Connect() {
  return std::make_unique<MemoryClient>(this, "peer" + std::to_string(next_peer_++));
}

}  // namespace pare
