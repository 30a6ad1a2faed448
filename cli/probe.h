// Probe: whether anybody listens at an endpoint, asked of the operating system. A message to nobody waits for somebody; a
// command for a person should say at once that nobody is there.
#pragma once

#include <string>

#include "common/clock.h"
#include "common/result.h"

namespace pare::cli {

// kUnreachable with the reason: refused, no such host, no socket file, no answer within `timeout`. What is not an endpoint
// passes: ConnectZmq has the words for it.
Status Probe(const std::string& endpoint, Millis timeout);

}  // namespace pare::cli
