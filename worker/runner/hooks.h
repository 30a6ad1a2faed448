// StepHooks: what a running step says and asks, at batch boundaries. Called from the thread that runs the step.
#pragma once

#include <optional>

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
};

}  // namespace pare::runner
