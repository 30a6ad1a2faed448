// Oracle: what must hold, checked from outside after every turn of the coordinator and at every message that leaves it. It
// remembers what was acknowledged; the rest it works out anew from the state and the store.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "coordinator/service.h"
#include "recipes/recipe.h"
#include "tests/simulation/scenario.h"
#include "tests/simulation/store.h"
#include "tests/simulation/work.h"

namespace pare::simulation {

class Oracle {
 public:
  Oracle(const Scenario& scenario, DiskIndex& index, DiskBlobs& blobs) : scenario_(scenario), index_(index), blobs_(blobs) {}

  // A recipe that will be submitted: what its steps must leave.
  void Expect(const recipes::ResolvedRecipe& recipe);
  void Submitted(const std::string& job, const std::string& recipe_name) { jobs_[job] = recipe_name; }
  void Promoted(const std::string& model, int64_t version) { promoted_.emplace(model, version); }

  // `state`: of the coordinator, null while there is none.
  void Arrives(const PeerId& peer, bool to_server, std::string_view bytes, const coordinator::State* state);
  void CoordinatorSends(const PeerId& peer, std::string_view bytes, const coordinator::State& state);
  void AfterTurn(const coordinator::Service& service);
  // The coordinator is about to remove blobs.
  void Collecting(const storage::GcPlan& plan, const coordinator::State& state);
  // `whole`: what it knew was durable.
  void CoordinatorDied(const coordinator::State& state, bool whole);
  void CoordinatorStarted(const coordinator::State& state);
  void AgentDied(const PeerId& peer);
  // All is healed and quiet.
  void Finally(const coordinator::State& state);
  // Whether attempts at a step were lost so often that it may have been given up: its job may end otherwise.
  bool GivenUp(const coordinator::State& state, const coordinator::Job& job) const;
  const std::string& ExpectedTotal(const std::string& job) const { return totals_.at(jobs_.at(job)); }

  void Fail(const std::string& what) {
    if (failure_.empty()) failure_ = what;
  }
  const std::string& failure() const { return failure_; }

 private:
  void Reported(const Lease& lease, const PeerId& peer);
  void Answered(const Lease& lease);
  void SnapshotArrives(const SnapshotTaken& snapshot, const coordinator::State* state);
  void NoteCollected(const Digest& artifact, const StepKey& key);
  void NoteCollected(const coordinator::State& state);
  bool WasCollected(const StepKey& key) const { return times_collected_.count(key) != 0; }
  void CheckInStore(const coordinator::State& state, const StepKey& key, const std::string& whose);
  void OnAck(const PeerId& peer, const Ack& ack, const coordinator::State& state);
  void OnGrant(const PeerId& peer, const Grant& grant, const coordinator::State& state);
  void OnCommit(const Commit& commit, const coordinator::State& state);
  void CheckSteps(const coordinator::State& state);
  void CheckStep(const coordinator::State& state, const coordinator::Step& step);
  void CheckGang(const coordinator::State& state, const coordinator::Step& step);
  void CheckFacts(const coordinator::State& state);
  void CheckCounters(const coordinator::State& state);
  void CheckPlacement(const coordinator::State& state);
  void CheckModels(const coordinator::State& state);
  void CheckVersion(const coordinator::ArtifactRecord& record, const Digest& artifact, const std::string& model);
  void CheckMetrics(const coordinator::State& state);
  int64_t SnapshotEpoch(const StepKey& key, const Digest& snapshot);

  const Scenario& scenario_;
  DiskIndex& index_;
  DiskBlobs& blobs_;
  std::string failure_;

  std::map<StepKey, Digest> expected_;
  std::map<std::string, std::string> totals_;  // by recipe name

  // Acknowledged.
  std::map<std::string, std::string> jobs_;  // id → recipe name
  std::set<std::pair<std::string, int64_t>> promoted_;
  std::map<StepKey, Lease> finished_;
  std::map<StepKey, int64_t> snapshots_;  // epoch
  std::map<Lease, int64_t> points_;

  // Under way.
  std::map<Lease, std::set<PeerId>> granted_;
  std::map<Lease, std::set<PeerId>> prepared_;  // of gangs: whose word arrived at the coordinator
  std::map<Lease, PeerId> unanswered_;       // ends of leases that arrived at the coordinator
  std::set<Lease> answered_;                 // … whose answer arrived at the agent
  std::set<PeerId> dead_;
  std::map<std::pair<Lease, int64_t>, int64_t> arrived_snapshots_;  // by sequence: their epoch
  int64_t newest_epoch_ = 0;
  std::set<Lease> revoked_;  // leases that were asked back: what their steps read may be gone

  // Of collections: artifacts without blobs now, and how often each step's was given up so far. It may be made again.
  std::set<Digest> collected_;
  std::map<StepKey, int> times_collected_;

  // Of the present coordinator process.
  int64_t stale_sent_ = 0, lost_before_ = 0;
  std::optional<std::string> durable_;  // what the last one knew
};

}  // namespace pare::simulation
