// What a played agent leaves in the store for a step: an artifact of the right shape, a function of the assignment alone.
#pragma once

#include "storage/blob_store.h"
#include "worker/step_runner.h"

namespace pare::coordinator {

// The manifest, stored with its blobs. `accuracy`: what an evaluation finds, in percent. Sparsity and bytes follow from the
// prune steps on the way.
Json PlayStep(storage::BlobStore& blobs, const worker::Assignment& assignment, double accuracy);

}  // namespace pare::coordinator
