#include "common/memory_transport.h"

#include <utility>

namespace pare {

void MemoryNetwork::State::Deliver(const PeerId& peer, bool is_to_server, std::string_view message) {
  if (is_to_server) {
    if (listening) to_server.push_back({peer, std::string(message)});
  } else if (auto queue = to_client.find(peer); queue != to_client.end()) {
    queue->second.emplace_back(message);
  }
}

void MemoryNetwork::State::Pass(const PeerId& peer, bool is_to_server, std::string_view message) {
  int copies = filter ? filter(peer, is_to_server, message) : 1;
  for (int i = 0; i < copies; ++i) Deliver(peer, is_to_server, message);
}

class MemoryServer : public ServerTransport {
 public:
  explicit MemoryServer(std::shared_ptr<MemoryNetwork::State> state) : state_(std::move(state)) { state_->listening = true; }
  ~MemoryServer() override {
    state_->listening = false;
    state_->to_server.clear();
  }

  std::vector<Incoming> Receive(Millis, size_t limit, int) override {
    std::vector<Incoming> received;
    while (received.size() < limit && !state_->to_server.empty()) {
      received.push_back(std::move(state_->to_server.front()));
      state_->to_server.pop_front();
    }
    return received;
  }
  void Send(const PeerId& peer, std::string_view message) override { state_->Pass(peer, false, message); }
  std::string endpoint() const override { return "memory"; }

 private:
  std::shared_ptr<MemoryNetwork::State> state_;
};

class MemoryClient : public ClientTransport {
 public:
  MemoryClient(std::shared_ptr<MemoryNetwork::State> state, PeerId id) : state_(std::move(state)), id_(std::move(id)) {
    state_->to_client.try_emplace(id_);
  }
  ~MemoryClient() override { state_->to_client.erase(id_); }

  void Send(std::string_view message) override { state_->Pass(id_, true, message); }
  std::optional<std::string> Receive(Millis, int) override {
    auto& queue = state_->to_client[id_];
    if (queue.empty()) return std::nullopt;
    std::string message = std::move(queue.front());
    queue.pop_front();
    return message;
  }

 private:
  std::shared_ptr<MemoryNetwork::State> state_;
  PeerId id_;
};

MemoryNetwork::MemoryNetwork() : state_(std::make_shared<State>()) {}
MemoryNetwork::~MemoryNetwork() = default;

void MemoryNetwork::set_filter(Filter filter) { state_->filter = std::move(filter); }

void MemoryNetwork::Deliver(const PeerId& peer, bool to_server, std::string_view message) {
  state_->Deliver(peer, to_server, message);
}

Result<std::unique_ptr<ServerTransport>> MemoryNetwork::Listen() {
  if (state_->listening) return Error{ErrorCode::kConflict, "the memory network has a server already"};
  return std::unique_ptr<ServerTransport>(std::make_unique<MemoryServer>(state_));
}

std::unique_ptr<ClientTransport> MemoryNetwork::Connect() {
  return std::make_unique<MemoryClient>(state_, "client-" + std::to_string(++state_->clients_so_far));
}

}  // namespace pare
