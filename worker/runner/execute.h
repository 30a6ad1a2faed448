// ExecuteStep: one assignment, from spec to durable artifact, with every failure as an event. What main() and tests call.
//
// Order: blobs durable, then the manifest, then StepDone. Exceptions of libraries end here. One thread.
#pragma once

#include <string>

#include "worker/runner/steps.h"
#include "worker/step_runner.h"

namespace pare::runner {

// StepDone, StepFailed or StepStopped.
worker::RunnerEvent ExecuteStep(const worker::Assignment& assignment, const Environment& environment, StepHooks& hooks);

// The error class of common/messages.h: diverged, bad_input, no_space, corrupt, internal. A blob that is not there is
// corrupt: the store lost what the coordinator counts on.
std::string ErrorClassOf(ErrorCode code);

// Runs a tiny model forward and backward, so that libraries are loaded and warm before the first step. Errors: the
// device cannot be used.
Status WarmUp(const std::string& device, int threads);

}  // namespace pare::runner
