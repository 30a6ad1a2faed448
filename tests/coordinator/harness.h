// A coordinator core on an in-memory index, with hand-cranked time and agents played by the test.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/version.h"
#include "coordinator/scheduler.h"
#include "data/dataset.h"
#include "recipes/recipe.h"
#include "storage/artifact.h"
#include "storage/index.h"
#include "worker/step_runner.h"

namespace pare::coordinator {

// One step of a plan written by a test: `inputs` name other steps of it.
struct PlanLine {
  std::string name, kind = "train", variant = "v";
  std::vector<std::string> inputs = {};
  bool candidate = false, local = false;
  int64_t cost = 1;
  int64_t gang = 1;
};

data::DataInfo TestData();
recipes::ResolvedRecipe TestRecipe(const std::string& name, const std::vector<PlanLine>& plan);
// Plans what TestRecipe holds: a step whose input failed is not wanted, a local one once its inputs are known.
Planner TestPlanner();
// The manifest of a step's result: the same whoever makes it.
Json ManifestOf(const StepKey& key);
Digest ArtifactOf(const Json& manifest);
// All that an Actions says, as text: equal texts are equal actions.
std::string TextOf(const Actions& actions);

class Harness {
 public:
  Harness();
  explicit Harness(Config config);

  // Applies, commits the rows, keeps the messages. The same event and what it did go into `history`.
  Actions Do(const Event& event);
  Actions Tick() { return Do(coordinator::Tick{}); }
  // Moves time in small steps with a Tick and the heartbeats of all live agents in each.
  void Pass(Millis time);
  // A new core from what is durable.
  void Restart();

  Reply SubmitPlan(const std::string& name, const std::vector<PlanLine>& plan, bool reuse = true, int64_t priority = 0);
  Reply SubmitPlanAs(const std::string& user, const std::string& name, const std::vector<PlanLine>& plan, int64_t priority = 0);
  Reply Change(ChangeJob::What what, const std::string& job = "last");

  // An agent: says Hello and then Heartbeats as Pass goes on, listing what it was granted.
  void Join(const std::string& worker, const std::vector<Lease>& running = {}, const std::string& device = "cpu");
  void Silence(const std::string& worker) { agents_.erase(worker); }
  // Its newest grant.
  Grant Granted(const std::string& worker);
  // The name of its granted step, in any job.
  std::string NameGranted(const std::string& worker);
  bool HasGrant(const std::string& worker) const { return grants_.count(worker) != 0; }
  Actions FromWorker(const std::string& worker, const Message& message) { return Do(FromAgent{worker, message}); }
  Actions Finish(const std::string& worker);
  Actions FinishAfter(const std::string& worker, Millis time) {
    Pass(time);
    return Finish(worker);
  }
  Actions Abort(const std::string& worker, const std::string& error_class, const std::string& message = "it broke");
  Actions Release(const std::string& worker, const std::string& snapshot = "");

  const Step& StepNamed(const std::string& name, const std::string& job = "last");
  const Job& JobNamed(const std::string& job = "last");
  std::string StateOf(const std::string& name) { return std::string(ToString(StepNamed(name).state)); }
  std::string WorkerOf(const std::string& name) { return StepNamed(name).hold ? StepNamed(name).hold->worker() : ""; }
  std::vector<std::string> EventTexts(const std::string& job = "last");

  FakeClock clock;
  std::unique_ptr<storage::Index> index;
  std::unique_ptr<Scheduler> core;
  std::vector<Send> sent;  // all messages since the last clear
  std::string history;

 private:
  struct Agent {
    std::vector<Lease> running;
    std::vector<Digest> cached;
  };
  Now Time() const { return {clock.Monotonic(), clock.Wall()}; }
  void Learn(const Actions& actions);
  void Over(const std::string& worker);

  Config config_;
  std::map<std::string, Agent> agents_;
  std::map<std::string, Grant> grants_;
};

// The last message of type T sent to a peer.
template <typename T>
const T* LastSent(const std::vector<Send>& sent, const std::string& peer) {
  const T* found = nullptr;
  for (const Send& send : sent) {
    if (send.peer == peer && std::holds_alternative<T>(send.message)) found = &std::get<T>(send.message);
  }
  return found;
}

}  // namespace pare::coordinator
