// Meters: what this process and this machine tell of time, memory and energy. Each may be replaced in a test. Not thread-safe.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "common/json.h"
#include "common/result.h"

namespace pare::runner {

struct Meters {
  std::function<double()> wall_s;  // never goes back
  std::function<double()> cpu_s;   // of all threads of this process
  // Joules of the whole package since some moment, or why they cannot be read.
  std::function<Result<double>()> energy_j;
  // Forgets the largest memory so far; afterwards PeakBytes counts from what is used now. Errors say why not.
  std::function<Result<int64_t>()> reset_memory;  // bytes in use now
  std::function<Result<int64_t>()> peak_memory;   // largest since
};
// Of this process: monotonic clock, CPU clock, RAPL below `powercap`, /proc/self.
Meters SystemMeters(const std::string& powercap = "/sys/class/powercap");

// {"host", "processor", "cores", "instructions": ["avx2", …], "engine", "pare"}: where a measurement comes from.
Json Machine();

}  // namespace pare::runner
