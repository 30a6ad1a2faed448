// LocalCluster: the workers that `pare run` starts for itself, and a coordinator where none serves the store. It supervises
// them: what dies is started again, also a coordinator of somebody else's when nobody has held the store for 3 s.
// Children die with this process. Belongs to the main thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/process.h"
#include "common/result.h"

namespace pare::cli {

struct ClusterOptions {
  std::string store;     // of the coordinator to find or start
  std::string endpoint;  // of a coordinator that was named; empty: the store's
  std::string logs;      // directory for the processes' logs
  int workers = 1;
  int threads = 1;
  std::string log_level = "info";
};

inline constexpr int kMaxRestarts = 10;  // in a row, without a finished step in between

class LocalCluster {
 public:
  // Starts the coordinator and one worker, which loads libtorch while the caller goes on; the others follow with the first
  // finished step, or after a second: until then they would only take cores from what the first step waits for. Waits until
  // the coordinator serves (at most 10 s; a previous holder of the store may still be ending).
  static Result<std::unique_ptr<LocalCluster>> Start(const ClusterOptions& options);
  // Asks the workers and then the coordinator to end, and waits.
  ~LocalCluster();

  const std::string& endpoint() const { return endpoint_; }
  // Starts the other workers when it is time, and restarts what died. An error when it dies again and again: names the log.
  Status Supervise();
  void NoteProgress() {
    restarts_ = 0;
    progressed_ = true;
  }

 private:
  explicit LocalCluster(ClusterOptions options) : options_(std::move(options)) {}
  Status FindOrStartCoordinator();
  Status TakeOver();
  Status StartCoordinator();
  Status StartWorker(size_t index);
  std::string LogPath(const std::string& name) const { return options_.logs + "/" + name + ".log"; }

  ClusterOptions options_;
  std::string endpoint_;
  SystemClock clock_;
  Millis started_{0};
  bool progressed_ = false;
  int restarts_ = 0;
  std::optional<Millis> ownerless_since_;
  bool ours_ = false;                     // this command runs the coordinator
  std::unique_ptr<Process> coordinator_;  // null: not ours, or killed while it started
  std::vector<std::unique_ptr<Process>> workers_;
};

}  // namespace pare::cli
