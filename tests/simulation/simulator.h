// Simulator: one seed: a cluster of real cores in their real shells, on simulated time, transport and work, with faults until
// a moment and none after it. Safety is checked at every step, liveness after healing. A function of the seed alone.
#pragma once

#include <cstdint>
#include <string>

#include "common/digest.h"
#include "tests/simulation/network.h"

namespace pare::simulation {

struct Outcome {
  std::string failure;  // empty: all held
  Digest history;       // of every message that arrived, when and where
  double job_hours = 0;
  int64_t turns = 0, commits = 0, steps = 0, jobs = 0, given_up = 0, attempts = 0, lost = 0, coordinator_starts = 0, worker_starts = 0, runner_losses = 0, collected = 0, gangs = 0, broken_gangs = 0;
  NetworkCounts network;
};
// `trace`: says on standard output what happens.
Outcome Simulate(uint64_t seed, bool trace = false);

}  // namespace pare::simulation
