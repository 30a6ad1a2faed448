// The only file that includes zmq.hpp. ROUTER on the server, DEALER on clients; both queue at most kHighWater messages.
#include <cerrno>
#include <filesystem>
#include <zmq.hpp>

#include "common/transport.h"

namespace pare {
namespace {

constexpr int kHighWater = 100'000;
constexpr size_t kMaxIpcPath = 107;  // sockaddr_un::sun_path

// One I/O context per process, shared by all sockets (libzmq's own advice).
zmq::context_t& Context() {
  static auto* context = new zmq::context_t(1);
  return *context;
}

Status CheckEndpoint(const std::string& endpoint) {
  if (endpoint.rfind("ipc://", 0) == 0) {
    if (endpoint.size() - 6 > kMaxIpcPath) {
      return Error{ErrorCode::kInvalid, "endpoint " + endpoint + ": the path of a local socket has at most 107 bytes"};
    }
    return Ok();
  }
  if (endpoint.rfind("tcp://", 0) == 0) {
    size_t colon = endpoint.rfind(':');
    std::string host = endpoint.substr(6, colon < 6 ? 0 : colon - 6);
    if (host == "127.0.0.1" || host == "localhost" || host == "[::1]") return Ok();
    return Error{ErrorCode::kInvalid, "endpoint " + endpoint + ": only loopback (127.0.0.1) is allowed; connections are not encrypted in this version"};
  }
  return Error{ErrorCode::kInvalid, "'" + endpoint + "' is not an endpoint; use tcp://127.0.0.1:PORT or ipc://PATH"};
}

Error ZmqError(const std::string& what, const zmq::error_t& e) {
  if (e.num() == EADDRINUSE) return Error{ErrorCode::kConflict, what + ": the address is in use by another process; choose another port"};
  return Error{ErrorCode::kIo, what + ": " + e.what()};
}

void SetCommon(zmq::socket_t& socket) {
  socket.set(zmq::sockopt::sndhwm, kHighWater);
  socket.set(zmq::sockopt::rcvhwm, kHighWater);
  socket.set(zmq::sockopt::maxmsgsize, kMaxMessageBytes + 65536);
  socket.set(zmq::sockopt::tcp_keepalive, 1);
}

// True when the socket is readable before the time is over.
bool Poll(zmq::socket_t& socket, Millis timeout, int wake_fd) {
  zmq::pollitem_t items[2] = {{socket.handle(), 0, ZMQ_POLLIN, 0}, {nullptr, wake_fd, ZMQ_POLLIN, 0}};
  try {
    zmq::poll(items, wake_fd >= 0 ? 2u : 1u, timeout);
  } catch (const zmq::error_t&) {
    return false;  // EINTR: a signal; the caller looks at its flags
  }
  return (items[0].revents & ZMQ_POLLIN) != 0;
}

class ZmqServer : public ServerTransport {
 public:
  explicit ZmqServer(zmq::socket_t socket, std::string endpoint) : socket_(std::move(socket)), endpoint_(std::move(endpoint)) {}

  std::vector<Incoming> Receive(Millis timeout, size_t limit) override {
    std::vector<Incoming> batch;
    if (!Poll(socket_, timeout, -1)) return batch;
    try {
      while (batch.size() < limit) {
        zmq::message_t peer, body;
        if (!socket_.recv(peer, zmq::recv_flags::dontwait)) break;
        if (!peer.more() || !socket_.recv(body, zmq::recv_flags::none)) continue;
        bool more = body.more();
        batch.push_back({peer.to_string(), body.to_string()});
        while (more) {  // our peers send two frames; drop what a stranger adds
          zmq::message_t extra;
          if (!socket_.recv(extra, zmq::recv_flags::none)) break;
          more = extra.more();
        }
      }
    } catch (const zmq::error_t&) {
      // EINTR between frames cannot happen (frames of one message arrive together); keep what is complete.
    }
    return batch;
  }

  void Send(const PeerId& peer, std::string_view message) override {
    try {
      zmq::message_t id(peer.data(), peer.size()), body(message.data(), message.size());
      if (!socket_.send(id, zmq::send_flags::sndmore | zmq::send_flags::dontwait)) return;
      (void)socket_.send(body, zmq::send_flags::dontwait);
    } catch (const zmq::error_t&) {
      // The peer is gone (EHOSTUNREACH): at most once, the sender repeats what matters.
    }
  }

  std::string endpoint() const override { return endpoint_; }

 private:
  zmq::socket_t socket_;
  std::string endpoint_;
};

class ZmqClient : public ClientTransport {
 public:
  explicit ZmqClient(zmq::socket_t socket) : socket_(std::move(socket)) {}

  void Send(std::string_view message) override {
    try {
      zmq::message_t body(message.data(), message.size());
      (void)socket_.send(body, zmq::send_flags::dontwait);
    } catch (const zmq::error_t&) {
    }
  }

  std::optional<std::string> Receive(Millis timeout, int wake_fd) override {
    if (!Poll(socket_, timeout, wake_fd)) return std::nullopt;
    try {
      zmq::message_t body;
      if (!socket_.recv(body, zmq::recv_flags::dontwait)) return std::nullopt;
      return body.to_string();
    } catch (const zmq::error_t&) {
      return std::nullopt;
    }
  }

 private:
  zmq::socket_t socket_;
};

}  // namespace

Result<std::unique_ptr<ServerTransport>> ListenZmq(const std::string& endpoint) {
  TRY(CheckEndpoint(endpoint));
  try {
    zmq::socket_t socket(Context(), zmq::socket_type::router);
    SetCommon(socket);
    socket.set(zmq::sockopt::linger, 100);
    socket.set(zmq::sockopt::router_mandatory, true);
    // A socket file of a dead process is in the way; the store's lock says that no living one uses it.
    if (endpoint.rfind("ipc://", 0) == 0) {
      std::error_code ignored;
      std::filesystem::remove(endpoint.substr(6), ignored);
    }
    socket.bind(endpoint);
    std::string bound = socket.get(zmq::sockopt::last_endpoint);
    return std::unique_ptr<ServerTransport>(new ZmqServer(std::move(socket), bound));
  } catch (const zmq::error_t& e) {
    return ZmqError("cannot listen on " + endpoint, e);
  }
}

Result<std::unique_ptr<ClientTransport>> ConnectZmq(const std::string& endpoint) {
  TRY(CheckEndpoint(endpoint));
  try {
    zmq::socket_t socket(Context(), zmq::socket_type::dealer);
    SetCommon(socket);
    socket.set(zmq::sockopt::linger, 500);
    socket.set(zmq::sockopt::reconnect_ivl, 50);
    socket.set(zmq::sockopt::reconnect_ivl_max, 1000);
    socket.connect(endpoint);
    return std::unique_ptr<ClientTransport>(new ZmqClient(std::move(socket)));
  } catch (const zmq::error_t& e) {
    return ZmqError("cannot connect to " + endpoint, e);
  }
}

}  // namespace pare
