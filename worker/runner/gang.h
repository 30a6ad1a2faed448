// A training step's meeting with the others of its gang (worker/step_runner.h, GangPlace): every rank runs the whole step, and
// they share out the shards of its training batches (worker/engine/network.h). So each of them can finish, snapshot or go on
// alone. One thread.
#pragma once

#include <memory>
#include <optional>

#include "worker/collective/collective.h"
#include "worker/runner/snapshot.h"
#include "worker/runner/steps.h"

namespace pare::runner {

inline constexpr Millis kBatchPatience{2'000};   // what a stop that keeps a snapshot leaves the batch under way to complete

// Reports StepJoins and waits for the others; null for a step that runs alone. `resume` is what this rank starts from.
// kStopped: on request, because a rank did not come, or because not all of them could read the snapshot; none is left, the step's
// older one stays good. kInternal: this runner cannot be reached at its gang host.
Result<std::shared_ptr<collective::Collective>> MeetGang(StepContext& context, const std::optional<Snapshot>& resume);
// After the last batch rank 0 alone goes on to store the result, and the others are told when it is there; if it is lost they go on
// themselves. kStopped: told.
Status AwaitFirst(StepContext& context, int rank);

}  // namespace pare::runner
