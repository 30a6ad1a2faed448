// Work: what steps do in a simulation. A training step is a chain of digests, one link an epoch: the result depends on every
// epoch having been done once, on the right inputs and, after a resume, on the right snapshot. So equal artifacts mean exact
// resume. The same functions, applied without any cluster, say what a job must end with.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "common/clock.h"
#include "recipes/planner.h"
#include "storage/artifact.h"
#include "worker/step_runner.h"

namespace pare::simulation {

struct Work {
  int64_t epochs = 1;
  Millis epoch_time{0};
  bool diverges = false;  // in its last epoch, always
};
Work WorkOf(const StepKey& key, const Json& spec, double scale);

// The state after `epoch` epochs, from the state one epoch before; 0: the beginning.
Digest NextLink(const StepKey& key, const std::map<std::string, Digest>& inputs, int64_t epoch, const Digest& before);

// {"step", "epoch", "link"}: a snapshot's bytes.
std::string SnapshotOf(const StepKey& key, int64_t epoch, const Digest& link);
struct Resumed {
  int64_t epoch = 0;
  Digest link;
};
std::optional<Resumed> ReadSnapshot(const StepKey& key, std::string_view bytes);

// What the step leaves; `input`: results of the "model" input, null if it has none. `blob`: the bytes of its only blob.
storage::Artifact ResultOf(const StepKey& key, const Json& spec, const std::map<std::string, Digest>& inputs, const Json& input, const Digest& link,
                           std::string* blob);

// The artifacts that an undisturbed run of the recipe leaves, by step key, failed steps missing, and the total of its digest.
struct Undisturbed {
  std::map<StepKey, Digest> artifacts;
  std::string total;
};
Undisturbed RunUndisturbed(const recipes::ResolvedRecipe& recipe, double scale);

}  // namespace pare::simulation
