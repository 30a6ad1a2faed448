// Config: the named limits and times of the scheduling core. Everything bounded is bounded here, with its unit; a full
// queue refuses and says which limit it met.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "common/clock.h"
#include "recipes/planner.h"

namespace pare::coordinator {

struct Config {
  Millis heartbeat{500};        // what agents are asked for
  Millis lease_timeout{5'000};  // a lease that nobody confirms for so long is taken away
  // Steps of jobs that a restart, and every turn after it, reads the recipes of and plans: with many jobs the first are served
  // before the last are planned. At least one job each time.
  size_t planned_at_once = 1'000;
};

inline constexpr size_t kMaxUnfinishedJobs = 1'000;
inline constexpr size_t kMaxStepsPerJob = recipes::kMaxPlannedSteps;  // a recipe of more is refused; a search may grow
inline constexpr size_t kMaxQueuedSteps = 500'000;    // of all unfinished jobs
inline constexpr size_t kMaxRecipesInMemory = 64;      // parsed, with their plans; the others are read again when needed
inline constexpr size_t kMaxPlannedInMemory = 2'000;   // steps of those, beside the newest
inline constexpr size_t kMaxFailedAttempts = 1'000;   // of one step, whatever their classes
inline constexpr size_t kMaxWorkers = 4'096;
inline constexpr Millis kPreparePatience{60'000};     // from a gang's grant until all are prepared; or two lease timeouts
inline constexpr int64_t kMaxEventsPerJob = 100'000;  // further lines of a job's history are not kept
inline constexpr size_t kMaxRecipeBytes = 1 << 20;
inline constexpr size_t kMaxUserBytes = 200;
inline constexpr size_t kMaxMessageChars = 2'000;   // of an error message kept with a step
inline constexpr int64_t kMaxRowsPerReply = 10'000;  // events, metrics
inline constexpr size_t kMaxCachedPerWorker = 64;

// What happens to a step whose attempt ended without a result, by error class.
struct RetryPolicy {
  int retries;          // failures of this class that are tolerated since the step last made progress
  Millis first_backoff;  // doubles with every further failure of the class, up to kMaxBackoff
};
inline constexpr int kUnlimitedRetries = 1 << 30;
inline constexpr Millis kMaxBackoff{60'000};
// An unknown class is taken for "internal".
RetryPolicy RetryPolicyOf(std::string_view error_class);
// The failure is a function of the step: the same recipe fails again, bit for bit, whoever runs it. Bad input is not: what a
// worker found there may be mended.
bool FailsAgain(std::string_view error_class);
Millis BackoffOf(const RetryPolicy& policy, int failures);

}  // namespace pare::coordinator
