// Scheduler: the coordinator's core. Apply(event, now) → actions. Pure: no socket, SQL, file, thread, clock, randomness or
// log; the same events give the same actions byte for byte. Belongs to the loop thread. It never fails: what cannot be
// done is answered (Reply, Refused, Stale) or kept as a reason.
//
// One turn of the shell is: any number of events, then Tick, which expires leases, plans jobs that changed and places
// ready steps; then one commit; then the messages.
//
// Step (shared by all jobs that want its key; `kMoves` in scheduler_steps.cc is the table)
//
//                 1             3              4
//      waiting ──────▶ ready ──────▶ running ──────▶ done
//       ▲  ▲  ◀────── │   ▲  ◀────── │    │          │
//       │  │     2    │        5          │6         │8
//       │  └───────── │ ──── failed ◀─────┘          │
//       │      7      ▼9                             │
//       └──────── cancelled ◀── waiting, running, done (9)
//
//   1 every input is done                        6 failed for good: its class is not worth another attempt
//   2 an input's artifact got lost               7 retried by hand, or wanted by a new job
//   3 granted                                    8 its artifact got lost
//   4 its result is durable                      9 no unfinished job wants it any more
//   5 released, lost, or failed and worth another attempt
//   (local steps go from waiting or ready to done without a lease; so do steps of stored state)
//
// Job
//              1 pause           3 every wanted step has an outcome
//      running ──────▶ paused    running ──────▶ done, failed
//         ▲  ◀──────────┘        running, paused ──4 cancel──▶ cancelled
//         │    2 resume                                           │
//         └───── 5 retry ◀── done (with failed steps), failed, ◀──┘
//
// A lease is fenced by its epoch: a counter over all grants, made durable with the attempt's row before the Grant leaves.
// Only one message type ends a lease once; a repetition is acknowledged again, anything else with an old epoch is Stale.
//
// A gang is several workers under one lease (one epoch, one attempt), in two phases: the grant asks all of them to prepare, and when
// the last one has (Prepared) all of them begin (Commit). They compute the same bits, so each may end the attempt; whatever ends it,
// or the loss of any of them, ends it for all in the same turn.
#pragma once

#include <functional>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "coordinator/config.h"
#include "coordinator/events.h"
#include "coordinator/placement.h"
#include "coordinator/state.h"
#include "storage/artifact.h"

namespace pare::coordinator {

// The pure functions of recipes/, as values so that tests can plan graphs of their own.
struct Planner {
  std::function<recipes::PlannedSteps(const recipes::ResolvedRecipe&, const recipes::Outcomes&)> next;
  std::function<Json(const recipes::PlannedStep&, const recipes::ResolvedRecipe&, const recipes::Outcomes&)> decide;
  // Predicted milliseconds of a step, for the critical path.
  std::function<int64_t(const recipes::PlannedStep&, const recipes::ResolvedRecipe&)> cost;
  // While a step that it wants has no outcome yet, `next` gives the same steps whatever others were done, and none of them
  // is local unless it is the only one without outcome. Then a job is planned again only when a step failed or the last one
  // ended, not after every step.
  bool waits_for_all = false;
};
Planner RecipePlanner();

// What a Welcome tells agents about the store.
struct Site {
  std::string store, host, blob_endpoint;
};

class Scheduler {
 public:
  Scheduler(Config config, Site site, Planner planner);

  // Rebuilds the state of a stored coordinator. Attempts that were running keep their leases for one lease timeout, so
  // that their workers come back and lose nothing. REQUIRES: called first, once.
  Actions Restore(storage::StoredState stored, Now now);

  Actions Apply(const Event& event, Now now);

  // When Tick has something to do even if no message arrives; nothing: whenever.
  std::optional<Millis> NextDeadline() const;

  const State& state() const { return state_; }
  const Config& config() const { return config_; }
  const Planner& planner() const { return planner_; }
  void set_blob_endpoint(std::string endpoint) { site_.blob_endpoint = std::move(endpoint); }
  const Site& site() const { return site_; }

  // Finished steps that unfinished jobs build on: the shell looks whether their blobs are still there.
  std::vector<StepKey> StepsInUse() const;

 private:
  // scheduler.cc: dispatch
  void On(const FromAgent& event);
  void On(const Submit& event);
  void On(const ChangeJob& event);
  void On(const PromoteVersion& event);
  void On(const PromoteCandidate& event);
  void On(const Rollback& event);
  void On(const Shut& event);
  void On(const Drain& event);
  void On(const WorkerGone& event);
  void On(const BadResult& event);
  void On(const ArtifactsLost& event);
  void On(const ArtifactsCollected& event);
  void On(const Tick& event);

  // scheduler_workers.cc: who is there
  void OnAgent(const PeerId& peer, const Hello& hello);
  void OnAgent(const PeerId& peer, const Heartbeat& heartbeat);
  void OnAgent(const PeerId& peer, const Goodbye& goodbye);
  Worker* WorkerAt(const PeerId& peer);
  void Listen(Worker& worker, const std::vector<Lease>& running, std::vector<Lease>* stale);
  void RemoveWorker(const std::string& name, const std::string& reason);
  void ExpireSilent();
  void ExpireSilent(Step& step);
  void GiveUpUnprepared(Step& step);
  void ForgiveOwnAbsence();
  // All changes of a worker that placement asks about, and the end of its rest.
  void SetLease(Worker& worker, std::optional<Lease> lease);
  std::optional<Lease> HoldOf(const std::string& worker) const;
  void Rest(Worker& worker, Millis until);
  void SetCached(Worker& worker, std::vector<Digest> cached);
  void AddCached(Worker& worker, const Digest& artifact);  // the newest
  void DropHolder(const Digest& artifact, const std::string& worker);
  void UpdateIdle(const Worker& worker);
  void WakeResting();

  // scheduler_leases.cc: what workers report about leases
  void OnAgent(const PeerId& peer, const Progress& progress);
  void OnAgent(const PeerId& peer, const SnapshotTaken& snapshot);
  void OnAgent(const PeerId& peer, const StepFinished& finished);
  void OnAgent(const PeerId& peer, const StepAborted& aborted);
  void OnAgent(const PeerId& peer, const Prepared& prepared);
  void OnAgent(const PeerId& peer, const Released& released);
  // `problem`: what is wrong with the result, if the shell knows; empty: nothing.
  void Conclude(const PeerId& peer, const StepFinished& finished, std::string problem);
  void CompareWithGang(const StepFinished& finished);
  void OnUnknownPeer(const PeerId& peer);
  Step* Held(const Lease& lease);
  // Answers a message whose lease is not the present one: Ack for a repetition of the message that ended it, else Stale.
  void AnswerOld(const PeerId& peer, const Lease& lease, const std::string& type, const std::string& outcome);
  void Acknowledge(const PeerId& peer, const Lease& lease, const std::string& of, int64_t sequence);
  void FreeWorker(const PeerId& peer, const Lease& lease);
  void Confirm(Member& member);
  void ConfirmAt(const PeerId& peer, Hold& hold);  // by a message of the worker at this peer
  void TakeSnapshot(Step& step, std::pair<int64_t, int64_t> order, const Digest& blob, const JsonText& position);
  // Of a gang: what one of its workers is left with, where nothing newer is known.
  void TakeSurvivors(const Released& released);
  void DropSnapshot(Step& step);
  void Grant(Step& step, const Placed& placed);
  JsonText AssignmentOf(const Step& step, int rank) const;
  void RevokeLease(Step& step, bool keep, const std::string& reason);
  void SayRevoke(const Step& step, const std::string& reason);
  void RepeatRevokes();
  // Those who are still busy with the attempt that `ended`. Each keeps the lease until it says that it has stopped.
  void DismissGang(Step& step, const storage::AttemptRow& ended);
  // Ends the attempt: the row, the hold, for every worker of a gang. The caller moves the step on.
  void EndAttempt(Step& step, const std::string& outcome, const std::string& error_class, const std::string& message,
                  int64_t busy_ms);
  // `gone`: who is not busy with it any more. arrived: false if the worker lives and never had the step, which is no failure of the step.
  void LoseLease(Step& step, const std::string& gone, const std::string& message, bool arrived = true);

  // scheduler_steps.cc: the life of a step
  void Move(Step& step, StepState to);
  // `content`: what the manifest says, but for the results.
  void Finish(Step& step, const Digest& artifact, const JsonText& manifest, storage::Artifact content);
  void FailOrRetry(Step& step, const std::string& error_class, const std::string& message);
  void FailForGood(Step& step, const std::string& error_class, const std::string& message);
  void CancelStep(Step& step, const std::string& reason);
  void Reopen(Step& step);
  void GiveBack(Step& step);  // a step whose attempt is over and that somebody may still want
  void RefreshInputs(Step& step);
  void Enqueue(Step& step);
  void WakeDelayed();
  void LoseArtifact(Step& step);
  void RunAgain(Step& step);  // a done one, without its artifact
  void TellJobs(Step& step);
  void ForgetOutcome(Step& step);
  void StoreArtifact(Step& step, const Digest& digest, const JsonText& manifest, storage::Artifact content);

  // scheduler_jobs.cc: requests about jobs
  void PauseJob(Job& job);
  void ResumeJob(Job& job);
  void CancelJob(Job& job);
  Status RetryJob(Job& job, std::vector<std::string>& left_alone);  // left_alone: names of failed steps that would fail again
  std::string NewJobId(const Submit& submit) const;
  void SubmitReply(const Submit& submit, const Job& job, bool resumed);
  void SetJobState(Job& job, JobState state, const std::string& message);
  void OpenShare(Job& job);  // of a job that begins, or is unfinished again

  // scheduler_plan.cc: from recipe to wanted steps
  void MarkDirty(const Job& job) { dirty_.insert(job.id); }  // to be planned again at the end of the turn
  void ReplanDirty();
  void PlanRestored();  // some of the jobs that were read at the restart, in the order in which they are served
  void Replan(Job& job);
  void GiveUp(Job& job, const std::string& why);  // it fails and wants nothing any more
  size_t OpenSteps(const Job& job, const recipes::PlannedSteps& plan) const;
  bool AdoptPlan(Job& job, const recipes::PlannedSteps& plan, bool first);  // first: since a restart
  // With an outcome: there is nothing to learn. `at`: its place in the plan.
  bool Adopted(const Job& job, const recipes::PlannedStep& planned, size_t at) const;
  Step& AdoptStep(Job& job, const recipes::PlannedStep& planned);
  bool Collected(const StepKey& key) const;  // done, and only its results are left
  // Steps of the plan without their checkpoints run again if the checkpoints are needed (recipes::MadeAgain). True: some do.
  bool MakeAgain(Job& job, const recipes::PlannedSteps& plan);
  const StepKey* PromotedWithoutBlobs(const Json& results) const;
  void RunCollected(Job& job, const std::set<StepKey>& keys);
  void TakeSpec(Step& step, const recipes::PlannedStep& planned);
  JobStep& AdoptName(Job& job, Step& step, const recipes::PlannedStep& planned);
  void SetWanted(Job& job, JobStep& in_job, bool wanted);
  void WriteName(const Job& job, const JobStep& in_job);
  void DropUnwanted(Job& job, const recipes::PlannedSteps& plan);
  std::map<StepKey, StepKey> FailedBefore(const Job& job) const;
  bool DecideLocal(Job& job, const recipes::PlannedSteps& plan);
  void UpdateChains(Job& job, const recipes::PlannedSteps& plan);
  void CheckFinished(Job& job);
  // Recipes and plans are trees that take kilobytes a step: only those of the jobs planned last stay in memory.
  bool LoadRecipe(Job& job);  // false: job.message says why it cannot be read
  void KeepRecipe(Job& job);
  void DropRecipe(Job& job);
  void Want(Job& job, Step& step);
  void Unwant(Job& job, Step& step, const std::string& reason);

  // scheduler_registry.cc: versions of named models
  void RegisterDecision(Job& job, const recipes::PlannedStep& planned, const Json& results);
  int64_t AddVersion(const std::string& model, const Digest& artifact, const std::string& job, const std::string& step,
                     Json evidence);
  void SetChampion(const std::string& model, int64_t version, const std::string& action, const std::string& why);
  // False, with the reason sent: the champion is not the expected one.
  bool ChampionIs(const Caller& caller, const std::string& model, std::optional<int64_t> expected);
  Json LineageOf(const Digest& artifact) const;

  // scheduler_placement.cc: Tick's last part
  void Place();
  void NoteShared(const Step& step);  // a running one
  void FitGangs();
  bool Grows(const Step& step) const;
  bool Shrinks(const Step& step) const;

  // scheduler_restore.cc
  void RestoreSteps(storage::StoredState& stored);
  void RestoreJobs(storage::StoredState& stored);
  void RestoreHold(Step& step, int64_t newest_point);
  WallTime RecordedSince(const Step& step) const;
  void RestoreLostSteps(Job& job);

  // Writing and answering.
  void Write(storage::Row row) { actions_.rows.push_back(std::move(row)); }
  void WriteStep(const Step& step) { Write(RowOf(step)); }
  void WriteJob(const Job& job) { Write(RowOf(job)); }
  void Say(const PeerId& peer, Message message);
  void ReplyOk(const Caller& caller, Json result);
  void ReplyError(const Caller& caller, const Error& error);
  void Note(Job& job, const std::string& level, const std::string& step, std::string text);
  void NoteForAll(const Step& step, const std::string& level, const std::string& text);
  // The step's name in a job; its brief key where it has none.
  static std::string NameIn(const Job& job, const StepKey& key);
  Job* FindJobById(const std::string& id);

  Config config_;
  Site site_;
  Planner planner_;
  State state_;
  Now now_;
  std::optional<Millis> last_tick_;
  Millis calm_until_{0};  // no lease and no worker can be silent for too long before
  std::set<std::string> dirty_;        // jobs to plan again
  std::set<std::tuple<int64_t, int64_t, std::string>> unplanned_;  // −priority, number, id of jobs that are not planned yet
  std::set<StepKey> revoked_;          // steps whose hold was revoked
  std::set<StepKey> shared_;           // running steps that a gang runs, or may
  std::vector<std::string> recipes_;   // jobs with a recipe in memory, the last used one at the end
  Actions actions_;
};

}  // namespace pare::coordinator
