// A real pare-coordinator process on a store of its own, as a load test sees it: started, asked, watched, restarted. And what
// every figure is read beside: the machine, and the time its disk takes for an fsync. Not thread-safe. Failures end the
// program with a message: a benchmark has nobody to report to.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/client_fleet.h"
#include "common/json.h"
#include "common/process.h"
#include "common/transport.h"

namespace pare::bench {

[[noreturn]] void Die(const std::string& why);
double Now();  // seconds, monotonic

// In milliseconds, of sorted samples.
struct Percentiles {
  double p50 = 0, p99 = 0;
};
Percentiles PercentilesOf(std::vector<double> milliseconds);

// 4 KiB appended and made durable, again and again, as the log of a database is.
Percentiles FsyncTimes(const std::string& directory);
// Processor, cores, kernel, file system of `directory`, version of Pare.
std::string Machine(const std::string& directory);

class Cluster {
 public:
  // `program`: the pare-coordinator executable. The store is made below `directory`.
  Cluster(std::string program, std::string directory);
  ~Cluster();

  // Returns when it serves; how long that took, in seconds.
  double Start();
  void Stop();  // SIGTERM

  Json Call(const std::string& method, Json args);
  // Submits a recipe over data that nobody loads; the id of the job.
  std::string Submit(const std::string& yaml);
  std::unique_ptr<ClientFleet> Fleet(size_t clients) const;

  const std::string& store() const { return store_; }
  double CpuSeconds() const;
  double ResidentMegabytes() const;

 private:
  std::string program_, store_, endpoint_;
  std::unique_ptr<Process> process_;
  std::unique_ptr<ClientTransport> client_;
  int64_t next_request_ = 1;
};

}  // namespace pare::bench
