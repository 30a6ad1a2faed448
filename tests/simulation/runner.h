// SimulatedRunner: the StepRunner of a simulation: works on simulated time, epoch by epoch, with real snapshots and artifacts in
// the store.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/random.h"
#include "storage/blob_store.h"
#include "tests/simulation/scenario.h"
#include "tests/simulation/timeline.h"
#include "tests/simulation/work.h"
#include "worker/step_runner.h"

namespace pare::simulation {

class SimulatedRunner;

// Where the runners of gangs meet: the network between them.
class GangHall {
 public:
  std::string NewEndpoint() { return "runner-" + std::to_string(++endpoints_); }
  // The runner waits for `gang.size` of them in the room that is named by the endpoint of rank 0; the last one to come
  // starts all. An error in words: they are no gang.
  std::string Enter(const std::string& room, const worker::Assignment& assignment, SimulatedRunner* runner);
  // Of a room where it is, if it is in one. `done`: it needs the others no more. Else they notice.
  void Leave(SimulatedRunner* runner, bool done);
  int64_t begun() const { return begun_; }
  int64_t broken() const { return broken_; }

 private:
  struct Room {
    worker::Assignment assignment;  // of the first to come
    std::map<int, SimulatedRunner*> runners;  // by rank
    size_t size = 0;
  };
  std::map<std::string, Room> rooms_;
  int64_t endpoints_ = 0, begun_ = 0, broken_ = 0;
};

struct RunnerParts {
  Timeline& timeline;
  const Scenario& scenario;
  storage::BlobStore& blobs;
  RandomStream& random;
  GangHall& gangs;
  std::function<void()> reports;                    // Poll has something
  std::function<void(const std::string&)> problem;  // something that must not happen
};

class SimulatedRunner : public worker::StepRunner {
 public:
  explicit SimulatedRunner(const RunnerParts& parts) : parts_(parts) {}
  ~SimulatedRunner() override {
    *generation_ += 1;
    parts_.gangs.Leave(this, false);
  }

  void Launch(const worker::RunnerSource& source) override;
  void Start(const worker::Assignment& assignment) override;
  void Join(const std::vector<std::string>& endpoints) override;
  void Stop(bool keep) override;
  std::vector<worker::RunnerEvent> Poll() override { return std::exchange(events_, {}); }
  int fd() const override { return -1; }

  // Kills the process, if there is one.
  void Kill(bool out_of_memory);
  bool busy() const { return running_.has_value(); }
  // By the hall: all are there; one has left.
  void GangBegins();
  void GangBroke();

 private:
  struct Running {
    worker::Assignment assignment;
    Work work;
    int64_t epoch = 0;  // finished
    Digest link;
    std::optional<bool> stopping;  // keep
    Millis began{0};
    bool joins = false;  // waits for Join
  };
  void After(Millis delay, std::function<void()> what);
  void Report(worker::RunnerEvent event);
  void NextEpoch();
  void End(worker::RunnerEvent event);  // of the step
  void EpochDone();
  void Finish();
  void Fail(const std::string& error_class, const std::string& message);
  void Stopped();
  int64_t Busy() const { return (parts_.timeline.now() - running_->began).count(); }

  RunnerParts parts_;
  // Grows when what is under way comes to nothing: a launch, a loss, the end of a step.
  std::shared_ptr<int64_t> generation_ = std::make_shared<int64_t>(0);
  bool launched_ = false, alive_ = false;  // the process exists; it is ready
  std::optional<Running> running_;
  std::vector<worker::RunnerEvent> events_;
};

}  // namespace pare::simulation
