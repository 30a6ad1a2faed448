// The processes of a simulation: the real shells (AgentLoop, EventLoop over Service) on simulated transport, time and work.
// Destroying one is kill -9.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "common/files.h"
#include "coordinator/event_loop.h"
#include "tests/simulation/network.h"
#include "tests/simulation/runner.h"
#include "tests/simulation/store.h"
#include "worker/agent/agent_loop.h"

namespace pare::simulation {

inline constexpr const char* kHost = "host";

// Takes turns; while stopped (SIGSTOP) it takes none.
class Process {
 public:
  explicit Process(Timeline& timeline) : timeline_(timeline), alarm_(timeline, [this] { Ring(); }) {}
  virtual ~Process() = default;

  void Wake() { alarm_.Now(); }
  void WakeAt(Millis time) { alarm_.At(time); }
  void StopUntil(Millis time) { stopped_until_ = std::max(stopped_until_, time); }

 protected:
  virtual void Turn() = 0;
  Timeline& timeline_;

 private:
  void Ring() {
    if (timeline_.now() < stopped_until_) return alarm_.At(stopped_until_);
    Turn();
  }
  Millis stopped_until_{0};
  Alarm alarm_;
};

class AgentProcess : public Process {
 public:
  struct Parts {
    Network& network;
    RunnerParts runner;
    std::function<void()> ended;  // by itself
  };
  AgentProcess(const Parts& parts, const std::string& name);

  void Terminate();  // SIGTERM
  SimulatedRunner& runner() { return runner_; }
  const std::string& name() const { return name_; }

 protected:
  void Turn() override;

 private:
  Parts parts_;
  std::string name_;
  SimClock clock_;
  UniqueFd signals_, raise_;  // a pipe that the loop takes for a signalfd
  std::unique_ptr<ClientTransport> transport_;
  SimulatedRunner runner_;
  worker::AgentLoop loop_;
  bool ended_ = false;
};

class CoordinatorProcess : public Process {
 public:
  struct Parts {
    Timeline& timeline;
    Network& network;
    DiskIndex& index;
    DiskBlobs& blobs;
    SimClock& clock;
    const Scenario& scenario;
    std::function<bool(int64_t)> process_alive;             // empty: it does not look
    std::function<void(const coordinator::State&)> loaded;  // from what is durable, before anything happens
    std::function<void(CoordinatorProcess&)> after_turn;
    std::function<void(const std::string& reason)> ended;  // by itself
  };
  // kNoSpace and the like: it cannot start now.
  static Result<std::unique_ptr<CoordinatorProcess>> Start(const Parts& parts);

  const coordinator::Service& service() const { return *service_; }
  const coordinator::State& state() const { return service_->scheduler().state(); }

 protected:
  void Turn() override;

 private:
  explicit CoordinatorProcess(const Parts& parts) : Process(parts.timeline), parts_(parts) {}
  Parts parts_;
  std::unique_ptr<coordinator::Service> service_;
  std::unique_ptr<ServerTransport> transport_;
  std::optional<coordinator::EventLoop> loop_;
};

// Sends requests and repeats each until it is answered.
class ClientProcess : public Process {
 public:
  using Answered = std::function<void(const Reply&)>;
  ClientProcess(Timeline& timeline, Network& network, Millis patience);

  void Ask(const std::string& method, Json args, Answered answered);
  bool idle() const { return waiting_.empty(); }

 protected:
  void Turn() override;

 private:
  struct Waiting {
    Request request;
    Answered answered;
    Millis again{0};
  };
  Millis patience_;
  std::unique_ptr<ClientTransport> transport_;
  std::map<int64_t, Waiting> waiting_;
  int64_t next_ = 1;
};

}  // namespace pare::simulation
