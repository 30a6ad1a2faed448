// LineChannel: lines of text over a connected stream socket, both ways: what agent and runner talk through.
//
// Belongs to one thread. kUnreachable: the other side is gone; kInvalid: it sent a line longer than kMaxLineBytes. After an
// error the channel is of no further use.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "common/clock.h"
#include "common/files.h"
#include "common/result.h"

namespace pare::worker {

inline constexpr size_t kMaxLineBytes = 8 << 20;

class LineChannel {
 public:
  // Makes the descriptor non-blocking.
  explicit LineChannel(UniqueFd fd);

  // Queues the line and sends what the system takes at once. REQUIRES: no newline in it.
  Status Send(std::string_view line);
  // Sends what is queued until nothing is left or the time is over (Millis::max(): for ever).
  Status Flush(Millis timeout);
  // The next complete line, waiting for it until the time is over. Lines that arrived before the other side went are
  // returned before the error.
  Result<std::optional<std::string>> Receive(Millis timeout);
  bool has_unsent() const { return sent_ < outgoing_.size(); }
  int fd() const { return fd_.get(); }

 private:
  // Reads what is there; false when there was nothing.
  Result<bool> Fill();

  UniqueFd fd_;
  std::string incoming_;
  size_t begin_ = 0;    // of the first line not yet returned
  size_t scanned_ = 0;  // no newline before this position
  std::string outgoing_;
  size_t sent_ = 0;
  std::optional<Error> closed_;
};

}  // namespace pare::worker
