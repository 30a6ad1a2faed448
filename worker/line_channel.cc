#include "worker/line_channel.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

namespace pare::worker {
namespace {

using Steady = std::chrono::steady_clock;

// poll(2) for one descriptor until `deadline` (nothing: for ever); false when the time is over.
bool WaitFor(int fd, short events, std::optional<Steady::time_point> deadline) {
  for (;;) {
    int timeout = -1;
    if (deadline) {
      auto left = std::chrono::ceil<Millis>(*deadline - Steady::now()).count();
      timeout = static_cast<int>(std::clamp<int64_t>(left, 0, 1 << 30));
    }
    pollfd item{fd, events, 0};
    int ready = poll(&item, 1, timeout);
    if (ready > 0) return true;
    if (ready == 0) return false;
    if (errno != EINTR) return true;  // the read or write that follows reports it
  }
}

std::optional<Steady::time_point> DeadlineAfter(Millis timeout) {
  if (timeout == Millis::max()) return std::nullopt;
  return Steady::now() + timeout;
}

}  // namespace

LineChannel::LineChannel(UniqueFd fd) : fd_(std::move(fd)) {
  int flags = fcntl(fd_.get(), F_GETFL);
  if (flags < 0 || fcntl(fd_.get(), F_SETFL, flags | O_NONBLOCK) < 0) {
    closed_ = SystemError("descriptor " + std::to_string(fd_.get()), errno);
  }
}

Status LineChannel::Send(std::string_view line) {
  outgoing_.append(line);
  outgoing_.push_back('\n');
  return Flush(Millis(0));
}

Status LineChannel::Flush(Millis timeout) {
  auto deadline = DeadlineAfter(timeout);
  while (has_unsent()) {
    ssize_t n = send(fd_.get(), outgoing_.data() + sent_, outgoing_.size() - sent_, MSG_NOSIGNAL);
    if (n >= 0) {
      sent_ += static_cast<size_t>(n);
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      if (timeout <= Millis(0) || !WaitFor(fd_.get(), POLLOUT, deadline)) return Ok();
    } else if (errno != EINTR) {
      return Error{ErrorCode::kUnreachable, SystemError("writing to the pipe between agent and runner", errno).message};
    }
  }
  outgoing_.clear();
  sent_ = 0;
  return Ok();
}

Result<bool> LineChannel::Fill() {
  char buffer[65536];
  for (;;) {
    ssize_t n = recv(fd_.get(), buffer, sizeof buffer, 0);
    if (n > 0) {
      incoming_.append(buffer, static_cast<size_t>(n));
      return true;
    }
    if (n == 0) return Error{ErrorCode::kUnreachable, "the other side closed the pipe between agent and runner"};
    if (errno == EAGAIN || errno == EWOULDBLOCK) return false;
    if (errno != EINTR) {
      return Error{ErrorCode::kUnreachable, SystemError("reading from the pipe between agent and runner", errno).message};
    }
  }
}

Result<std::optional<std::string>> LineChannel::Receive(Millis timeout) {
  auto deadline = DeadlineAfter(timeout);
  for (;;) {
    size_t newline = incoming_.find('\n', scanned_);
    if (newline != std::string::npos) {
      std::string line = incoming_.substr(begin_, newline - begin_);
      begin_ = scanned_ = newline + 1;
      if (begin_ == incoming_.size()) {
        incoming_.clear();
        begin_ = scanned_ = 0;
      }
      return std::optional(std::move(line));
    }
    if (closed_) return *closed_;
    incoming_.erase(0, begin_);
    begin_ = 0;
    scanned_ = incoming_.size();
    if (incoming_.size() > kMaxLineBytes) {
      closed_ = Error{ErrorCode::kInvalid, "a line of more than " + std::to_string(kMaxLineBytes) +
                                               " bytes on the pipe between agent and runner"};
      return *closed_;
    }
    Result<bool> filled = Fill();
    if (!filled.ok()) {
      closed_ = filled.error();
    } else if (!*filled && (timeout <= Millis(0) || !WaitFor(fd_.get(), POLLIN, deadline))) {
      return std::optional<std::string>();
    }
  }
}

}  // namespace pare::worker
