#include "cli/probe.h"

#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "common/files.h"

namespace pare::cli {
namespace {

// 0, or the errno of a connection attempt.
int TryConnect(const sockaddr* address, socklen_t length, Millis timeout) {
  UniqueFd fd(::socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return errno;
  if (::connect(fd.get(), address, length) == 0 || errno == EAGAIN) return 0;  // EAGAIN: a local socket with a full queue
  if (errno != EINPROGRESS) return errno;
  pollfd item{fd.get(), POLLOUT, 0};
  if (::poll(&item, 1, static_cast<int>(timeout.count())) <= 0) return ETIMEDOUT;
  int error = 0;
  socklen_t size = sizeof error;
  ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  return error;
}

Error Nobody(const std::string& endpoint, int error) {
  return Error{ErrorCode::kUnreachable, "no coordinator answers at " + endpoint + ": " + std::strerror(error) + "; is it running? (pare coordinator --listen " + endpoint + ")"};
}

Status ProbeLocal(const std::string& endpoint) {
  std::string path = endpoint.substr(std::strlen("ipc://"));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) return Ok();
  std::memcpy(address.sun_path, path.data(), path.size());
  int error = TryConnect(reinterpret_cast<const sockaddr*>(&address), sizeof address, Millis(0));
  return error == 0 ? Ok() : Status(Nobody(endpoint, error));
}

}  // namespace

Status Probe(const std::string& endpoint, Millis timeout) {
  if (endpoint.rfind("ipc://", 0) == 0) return ProbeLocal(endpoint);
  size_t colon = endpoint.rfind(':');
  if (endpoint.rfind("tcp://", 0) != 0 || colon <= std::strlen("tcp://")) return Ok();
  std::string host = endpoint.substr(6, colon - 6), port = endpoint.substr(colon + 1);
  if (host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  int failed = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
  if (failed == EAI_SERVICE) return Ok();
  if (failed != 0) return Error{ErrorCode::kUnreachable, "no coordinator answers at " + endpoint + ": host '" + host + "': " + ::gai_strerror(failed)};
  std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, ::freeaddrinfo);
  int error = ECONNREFUSED;
  for (const addrinfo* a = found; a != nullptr && error != 0; a = a->ai_next) error = TryConnect(a->ai_addr, a->ai_addrlen, timeout);
  return error == 0 ? Ok() : Status(Nobody(endpoint, error));
}

}  // namespace pare::cli
