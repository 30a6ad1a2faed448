// ClientFleet: many clients of one server in one object, each with a connection and a PeerId of its own: what a load test is
// made of. Belongs to one thread. Endpoints, errors and what happens to messages: as for ConnectZmq (common/transport.h).
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/clock.h"
#include "common/result.h"

namespace pare {

class ClientFleet {
 public:
  virtual ~ClientFleet() = default;
  virtual void Send(size_t client, std::string_view message) = 0;
  // Waits until a client has a message or the time is over, then returns all that is there: (client, message).
  virtual std::vector<std::pair<size_t, std::string>> Receive(Millis timeout) = 0;
};

Result<std::unique_ptr<ClientFleet>> ConnectFleetZmq(const std::string& endpoint, size_t clients);

}  // namespace pare
