// A scheduling core under random events: jobs over a shared pool of steps, agents that finish, fail, release, fall silent and
// come back as zombies. One turn is a few events, Tick and one commit, as in the event loop.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/random.h"
#include "tests/coordinator/durable_text.h"
#include "tests/coordinator/harness.h"

namespace pare::coordinator {

class RandomWorld {
 public:
  explicit RandomWorld(uint64_t seed);

  void Turn();
  // Agents are well, nothing is lost or cancelled any more: until nothing runs or is ready, at most `turns`.
  void Settle(int turns);
  void Restart();

  const State& state() const { return core->state(); }
  // A core loaded from what is durable; what it wanted to write must be nothing.
  std::unique_ptr<Scheduler> Loaded();

  std::unique_ptr<storage::Index> index;
  std::unique_ptr<Scheduler> core;
  FakeClock clock;
  // Leases whose StepFinished was acknowledged, in order.
  std::vector<Lease> finished;
  std::string history;

 private:
  struct Agent {
    std::optional<Lease> lease;
    std::vector<Lease> old;  // leases it once had
    int64_t points = 0;
    bool greeted = false;
  };
  uint64_t Below(uint64_t n) { return random_.Below(n); }
  void Apply(const Event& event);
  void Commit();
  void RandomEvent();
  void AgentEvent(const std::string& name, Agent& agent);
  void EndStep(const std::string& name, Agent& agent);
  void ZombieEvent(const std::string& name, const Lease& lease);
  void JobEvent();
  void Greet(const std::string& name, Agent& agent);
  recipes::ResolvedRecipe RandomRecipe();
  Message FinishedBy(const Lease& lease);

  RandomStream random_;
  std::map<std::string, Agent> agents_;
  Actions pending_;
  int submitted_ = 0;
};

}  // namespace pare::coordinator
