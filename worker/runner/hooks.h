// StepHooks: what a running step says and asks, at batch boundaries. Called from the thread that runs the step.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/digest.h"
#include "common/json.h"

namespace pare::runner {

struct StopRequest {
  bool keep = true;  // leave a snapshot
};

class StepHooks {
 public:
  virtual ~StepHooks() = default;
  // docs/protocol.md, "Progress values".
  virtual void Progress(Json values) = 0;
  // A snapshot is durable.
  virtual void Snapshot(const Digest& blob, const Json& position) = 0;
  // Once there is a request it stays. Called often: must be cheap.
  virtual std::optional<StopRequest> StopRequested() = 0;
  // A step of a gang is ready to meet the others, who reach it at `endpoint`: once per step.
  virtual void Joins(const std::string& endpoint) = 0;
  // Everybody's endpoints by rank, once all have said Joins; waits for them for `wait` at most, less if anything else comes.
  virtual std::optional<std::vector<std::string>> Joined(Millis wait) = 0;
};

}  // namespace pare::runner
