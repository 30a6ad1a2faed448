// ZmqTransport: ROUTER on the server, DEALER on the clients. Only this file and worker/collective/zmq_collective.cc include zmq.hpp.
//
// A client names itself with a random routing id, kept for the life of the object: after a lost connection libzmq connects
// again under the same id, and ROUTER_HANDOVER gives the id to the newer connection when the server has not noticed the
// loss yet. So a PeerId stays good across reconnects. Guessing another client's id is as hard as guessing 128 bits.
//
// Every socket has a context (one I/O thread) of its own: closing one never waits for another.
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <utility>
#include <zmq.hpp>

#include "common/client_fleet.h"
#include "common/files.h"
#include "common/log.h"
#include "common/transport.h"

namespace pare {
namespace {

constexpr int kServerQueue = 10'000;  // messages per peer and direction
constexpr int kClientQueue = 1'000;
constexpr Millis kClientLinger{500};  // so that the last message of a client leaves
constexpr Millis kReconnectFirst{50};
constexpr Millis kReconnectMost{1000};
constexpr Millis kProbeInterval{5'000};  // finds connections that died without a word
constexpr Millis kProbeTimeout{20'000};

int Count(Millis time) { return static_cast<int>(std::clamp<int64_t>(time.count(), 0, INT32_MAX)); }

// ---- endpoints ----

struct Address {
  bool ipc = false;
  std::string host, path;
  int port = 0;  // 0: any
  std::string text() const {
    if (ipc) return "ipc://" + path;
    return "tcp://" + host + ":" + (port == 0 ? "*" : std::to_string(port));
  }
};

Error NotAnEndpoint(const std::string& endpoint, const std::string& why) {
  return Error{ErrorCode::kInvalid,
               "'" + endpoint + "' is not an endpoint: " + why + "; write tcp://HOST:PORT or ipc://PATH"};
}

Result<Address> ParseAddress(const std::string& endpoint) {
  Address address;
  if (endpoint.rfind("ipc://", 0) == 0) {
    address.ipc = true;
    address.path = endpoint.substr(6);
    constexpr size_t kLongest = sizeof(sockaddr_un::sun_path) - 1;
    if (address.path.empty()) return NotAnEndpoint(endpoint, "the path is missing");
    if (address.path.size() > kLongest) {
      return NotAnEndpoint(endpoint, "the path has " + std::to_string(address.path.size()) + " bytes, a local socket takes " +
                                         std::to_string(kLongest) + " (choose a shorter directory)");
    }
    return address;
  }
  if (endpoint.rfind("tcp://", 0) != 0) return NotAnEndpoint(endpoint, "it begins with neither tcp:// nor ipc://");
  size_t colon = endpoint.rfind(':');
  if (colon <= 6) return NotAnEndpoint(endpoint, colon == 6 ? "the host is missing" : "the port is missing");
  address.host = endpoint.substr(6, colon - 6);
  std::string port = endpoint.substr(colon + 1);
  if (port != "*") {
    auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), address.port);
    if (port.empty() || error != std::errc() || end != port.data() + port.size() || address.port < 0 || address.port > 65535) {
      return NotAnEndpoint(endpoint, "'" + port + "' is not a port (0 to 65535)");
    }
  }
  if (address.host == "localhost") address.host = "127.0.0.1";  // libzmq binds to numbers and interfaces only
  return address;
}

bool IsLoopback(const std::string& host) { return host.rfind("127.", 0) == 0 || host == "[::1]"; }

// libzmq removes whatever lies at the path before it binds, also the socket of a living process: ask it first.
bool SomebodyListensAt(const std::string& path) {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return fd.valid() && (connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 || errno == EAGAIN);
}

Error TransportError(const std::string& what, const zmq::error_t& e) {
  if (e.num() == EADDRINUSE) {
    return Error{ErrorCode::kConflict, what + ": another process is listening there; choose another port, or port 0 for any"};
  }
  return Error{SystemError("", e.num()).code, what + ": " + e.what()};
}

// ---- sockets ----

void SetCommonOptions(zmq::socket_t& socket, const Address& address, int queue) {
  socket.set(zmq::sockopt::sndhwm, queue);
  socket.set(zmq::sockopt::rcvhwm, queue);
  socket.set(zmq::sockopt::maxmsgsize, kMaxMessageBytes);
  socket.set(zmq::sockopt::ipv6, address.host.rfind('[', 0) == 0);
  socket.set(zmq::sockopt::tcp_keepalive, 1);
  socket.set(zmq::sockopt::heartbeat_ivl, Count(kProbeInterval));
  socket.set(zmq::sockopt::heartbeat_timeout, Count(kProbeTimeout));
}

// Waits for a message, `wake_fd` or the end of the time. A signal ends the wait too: the caller's loop looks around.
void Wait(zmq::socket_t& socket, Millis timeout, int wake_fd) {
  zmq::pollitem_t items[2] = {{socket.handle(), 0, ZMQ_POLLIN, 0}, {nullptr, wake_fd, ZMQ_POLLIN, 0}};
  try {
    zmq::poll(items, wake_fd >= 0 ? 2u : 1u, Millis(Count(timeout)));
  } catch (const zmq::error_t& e) {
    if (e.num() != EINTR) LogError("waiting for messages: " + std::string(e.what()));
  }
}

bool Fits(std::string_view message) {
  if (message.size() <= static_cast<size_t>(kMaxMessageBytes)) return true;
  LogError("a message of " + std::to_string(message.size()) + " bytes is not sent: at most " +
           std::to_string(kMaxMessageBytes) + " are allowed");
  return false;
}

// All frames of one message, or nothing if there is no message now.
std::vector<zmq::message_t> ReceiveFrames(zmq::socket_t& socket) {
  std::vector<zmq::message_t> frames;
  zmq::message_t frame;
  if (!socket.recv(frame, zmq::recv_flags::dontwait)) return frames;
  bool more = frame.more();
  frames.push_back(std::move(frame));
  while (more) {  // the frames of a message arrive together, so these do not wait
    zmq::message_t next;
    if (!socket.recv(next)) break;
    more = next.more();
    if (frames.size() < 3) frames.push_back(std::move(next));
  }
  return frames;
}

class ZmqServer : public ServerTransport {
 public:
  static Result<std::unique_ptr<ServerTransport>> Listen(const std::string& endpoint, const ListenOptions& options) {
    ASSIGN_OR_RETURN(Address address, ParseAddress(endpoint));
    if (!address.ipc && !options.allow_remote && !IsLoopback(address.host)) {
      return Error{ErrorCode::kInvalid, "listening on " + endpoint +
                                            " would let other hosts in: only loopback (127.0.0.1, localhost, [::1]) is allowed"};
    }
    if (address.ipc && SomebodyListensAt(address.path)) {
      return Error{ErrorCode::kConflict, "cannot listen on " + endpoint + ": another process is listening there"};
    }
    try {
      auto server = std::make_unique<ZmqServer>();
      SetCommonOptions(server->socket_, address, kServerQueue);
      server->socket_.set(zmq::sockopt::linger, 0);
      server->socket_.set(zmq::sockopt::router_mandatory, true);
      server->socket_.set(zmq::sockopt::router_handover, true);
      server->socket_.bind(address.text());
      server->endpoint_ = server->socket_.get(zmq::sockopt::last_endpoint);
      return std::unique_ptr<ServerTransport>(std::move(server));
    } catch (const zmq::error_t& e) {
      return TransportError("cannot listen on " + endpoint, e);
    }
  }

  std::vector<Incoming> Receive(Millis timeout, size_t limit, int wake_fd) override {
    Wait(socket_, timeout, wake_fd);
    std::vector<Incoming> received;
    try {
      for (size_t looked = 0; received.size() < limit && looked < 2 * limit; ++looked) {
        std::vector<zmq::message_t> frames = ReceiveFrames(socket_);
        if (frames.empty()) break;
        // Ours are [peer, bytes]; anything else comes from a stranger and is dropped.
        if (frames.size() == 2) received.push_back({frames[0].to_string(), frames[1].to_string()});
      }
    } catch (const zmq::error_t& e) {
      if (e.num() != EINTR) LogError("receiving on " + endpoint_ + ": " + e.what());
    }
    return received;
  }

  void Send(const PeerId& peer, std::string_view message) override {
    if (peer.empty() || !Fits(message)) return;
    try {
      // With ROUTER_MANDATORY: EHOSTUNREACH for a peer that is gone, EAGAIN for one whose queue is full; both lose it.
      if (!socket_.send(zmq::buffer(peer), zmq::send_flags::sndmore | zmq::send_flags::dontwait)) return;
      (void)socket_.send(zmq::buffer(message), zmq::send_flags::dontwait);
    } catch (const zmq::error_t& e) {
      if (e.num() != EHOSTUNREACH && e.num() != EINTR) LogError("sending on " + endpoint_ + ": " + e.what());
    }
  }

  std::string endpoint() const override { return endpoint_; }

 private:
  zmq::context_t context_{1};
  zmq::socket_t socket_{context_, zmq::socket_type::router};
  std::string endpoint_;
};

Result<Address> ParseServerAddress(const std::string& endpoint) {
  ASSIGN_OR_RETURN(Address address, ParseAddress(endpoint));
  if (!address.ipc && (address.port == 0 || address.host == "*")) return NotAnEndpoint(endpoint, "connecting needs a host and a port");
  return address;
}

// A DEALER under a routing id of its own, on its way to the server.
Status ConnectDealer(zmq::socket_t& socket, const Address& address) {
  std::string id(16, '\0');
  if (getrandom(id.data(), id.size(), 0) != static_cast<ssize_t>(id.size())) return SystemError("getrandom", errno);
  id[0] = static_cast<char>(id[0] | 1);  // ids that begin with a zero byte are libzmq's own
  SetCommonOptions(socket, address, kClientQueue);
  socket.set(zmq::sockopt::linger, Count(kClientLinger));
  socket.set(zmq::sockopt::routing_id, id);
  socket.set(zmq::sockopt::reconnect_ivl, Count(kReconnectFirst));
  socket.set(zmq::sockopt::reconnect_ivl_max, Count(kReconnectMost));
  socket.connect(address.text());
  return Ok();
}

void SendNow(zmq::socket_t& socket, std::string_view message) {
  if (!Fits(message)) return;
  try {
    (void)socket.send(zmq::buffer(message), zmq::send_flags::dontwait);
  } catch (const zmq::error_t& e) {
    if (e.num() != EINTR) LogError("sending: " + std::string(e.what()));
  }
}

class ZmqClient : public ClientTransport {
 public:
  static Result<std::unique_ptr<ClientTransport>> Connect(const std::string& endpoint) {
    ASSIGN_OR_RETURN(Address address, ParseServerAddress(endpoint));
    try {
      auto client = std::make_unique<ZmqClient>();
      TRY(ConnectDealer(client->socket_, address));
      return std::unique_ptr<ClientTransport>(std::move(client));
    } catch (const zmq::error_t& e) {
      return TransportError("cannot connect to " + endpoint, e);
    }
  }

  void Send(std::string_view message) override { SendNow(socket_, message); }

  std::optional<std::string> Receive(Millis timeout, int wake_fd) override {
    try {
      for (bool waited = false;; waited = true) {
        std::vector<zmq::message_t> frames = ReceiveFrames(socket_);
        if (frames.size() == 1) return frames[0].to_string();
        if (frames.empty() && waited) return std::nullopt;
        if (frames.empty()) Wait(socket_, timeout, wake_fd);
      }
    } catch (const zmq::error_t& e) {
      if (e.num() != EINTR) LogError("receiving: " + std::string(e.what()));
      return std::nullopt;
    }
  }

 private:
  zmq::context_t context_{1};
  zmq::socket_t socket_{context_, zmq::socket_type::dealer};
};

class ZmqFleet : public ClientFleet {
 public:
  static Result<std::unique_ptr<ClientFleet>> Connect(const std::string& endpoint, size_t clients) {
    ASSIGN_OR_RETURN(Address address, ParseServerAddress(endpoint));
    try {
      auto fleet = std::make_unique<ZmqFleet>();
      fleet->context_.set(zmq::ctxopt::max_sockets, static_cast<int>(clients) + 1);
      for (size_t i = 0; i < clients; ++i) {
        fleet->sockets_.emplace_back(fleet->context_, zmq::socket_type::dealer);
        TRY(ConnectDealer(fleet->sockets_.back(), address));
      }
      for (zmq::socket_t& socket : fleet->sockets_) fleet->items_.push_back({socket.handle(), 0, ZMQ_POLLIN, 0});
      return std::unique_ptr<ClientFleet>(std::move(fleet));
    } catch (const zmq::error_t& e) {
      return TransportError("cannot connect to " + endpoint, e);
    }
  }

  void Send(size_t client, std::string_view message) override { SendNow(sockets_[client], message); }

  std::vector<std::pair<size_t, std::string>> Receive(Millis timeout) override {
    std::vector<std::pair<size_t, std::string>> received;
    try {
      zmq::poll(items_, Millis(Count(timeout)));
      for (size_t i = 0; i < items_.size(); ++i) {
        if ((items_[i].revents & ZMQ_POLLIN) == 0) continue;
        for (auto frames = ReceiveFrames(sockets_[i]); !frames.empty(); frames = ReceiveFrames(sockets_[i])) {
          if (frames.size() == 1) received.emplace_back(i, frames[0].to_string());
        }
      }
    } catch (const zmq::error_t& e) {
      if (e.num() != EINTR) LogError("receiving: " + std::string(e.what()));
    }
    return received;
  }

 private:
  zmq::context_t context_{1};
  std::vector<zmq::socket_t> sockets_;
  std::vector<zmq::pollitem_t> items_;
};

}  // namespace

Result<std::unique_ptr<ServerTransport>> ListenZmq(const std::string& endpoint, const ListenOptions& options) {
  return ZmqServer::Listen(endpoint, options);
}

Result<std::unique_ptr<ClientTransport>> ConnectZmq(const std::string& endpoint) { return ZmqClient::Connect(endpoint); }

Result<std::unique_ptr<ClientFleet>> ConnectFleetZmq(const std::string& endpoint, size_t clients) { return ZmqFleet::Connect(endpoint, clients); }

}  // namespace pare
