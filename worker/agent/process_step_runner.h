// ProcessStepRunner: the StepRunner over a pare-runner child and a socket pair (docs/protocol.md, "Runner pipe").
//
// The child never outlives this object or this process. Whatever goes wrong with it (cannot be started, crash, garbage on
// the pipe) is a RunnerLost event. Belongs to one thread, the main one.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/process.h"
#include "worker/line_channel.h"
#include "worker/step_runner.h"

namespace pare::worker {

struct RunnerOptions {
  std::string executable;
  int threads = 1;
  std::string device = "cpu";
  std::string log_level = "info";
};

class ProcessStepRunner : public StepRunner {
 public:
  // kIo if the system has no descriptors left.
  static Result<std::unique_ptr<ProcessStepRunner>> Create(RunnerOptions options);
  ~ProcessStepRunner() override;

  void Launch(const RunnerSource& source) override;
  void Start(const Assignment& assignment) override;
  void Join(const std::vector<std::string>& endpoints) override;
  void Stop(bool keep) override;
  std::vector<RunnerEvent> Poll() override;
  int fd() const override { return epoll_.get(); }
  // −1 while there is no child.
  int pid() const { return process_ ? process_->pid() : -1; }

 private:
  explicit ProcessStepRunner(RunnerOptions options) : options_(std::move(options)) {}
  Status Spawn(const RunnerSource& source);
  void Send(const Json& command);
  void Lose(const std::string& reason);
  void Watch(bool writable);
  int64_t MemoryKills() const;

  RunnerOptions options_;
  UniqueFd epoll_;  // stable over restarts: watches the pipe and `wake_`
  UniqueFd wake_;   // an eventfd: there are events although nothing is on the pipe
  std::unique_ptr<Process> process_;
  std::unique_ptr<LineChannel> channel_;  // null: no runner
  int64_t memory_kills_ = 0;              // of our control group when the child was started
  std::vector<RunnerEvent> events_;
};

}  // namespace pare::worker
