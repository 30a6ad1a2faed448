// Scenario: what a seed means: the cluster, the jobs and the faults. Every kind of fault is absent in about half of the
// seeds, so that each also meets quiet surroundings (Groce et al., "Swarm Testing", ISSTA 2012).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/random.h"

namespace pare::simulation {

struct PlannedJob {
  std::string recipe;  // YAML
  std::string user;
  int64_t priority = 0;
  Millis submitted{0};
};

struct Scenario {
  uint64_t seed = 0;
  Millis heartbeat{0}, lease_timeout{0};
  double scale = 1;  // of all durations: an epoch takes minutes where heartbeats are a minute apart
  int workers = 2;
  bool sees_processes = false;  // the coordinator notices dead processes of its host
  std::vector<PlannedJob> jobs;
  Millis faults_until{0};  // afterwards everything is healed

  // Of messages: probabilities. Delays up to `latency`, rare long ones up to `longest_delay`.
  Millis latency{0}, longest_delay{0};
  double loss = 0, duplicates = 0, reorder = 0, long_delays = 0;
  // Of everything else: how many there are until `faults_until`.
  int partitions = 0, worker_kills = 0, runner_kills = 0, coordinator_kills = 0, torn_commits = 0, full_disks = 0, stalls = 0,
      wall_jumps = 0, worker_stops = 0, requests = 0, collections = 0;
  double gang_breaks = 0;  // probability that the workers of a gang lose each other
  double hangs = 0;  // probability that a dropped step does not end
};

Scenario ScenarioOf(uint64_t seed);

}  // namespace pare::simulation
