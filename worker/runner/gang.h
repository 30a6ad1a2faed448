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

// Reports StepJoins and waits for the others; null for a step that runs alone. `resume` is what this rank starts from: it is
// dropped where not all ranks have the same. kStopped: on request, or because a rank did not come; no snapshot is left, the
// step's older one stays good. kInternal: this runner cannot be reached at its gang host.
Result<std::shared_ptr<collective::Collective>> MeetGang(StepContext& context, std::optional<Snapshot>& resume);

}  // namespace pare::runner
