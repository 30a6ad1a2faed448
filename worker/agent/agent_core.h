// AgentCore: the agent's side of the protocol (docs/protocol.md), as a pure state machine: Apply(event, now) → actions. No
// socket, process, clock or log inside; the shell (agent_loop) performs the actions in order. Owned by one thread.
//
// Connection                                      Runner
//   greeting  ──1 Welcome──▶ welcomed               none ──6 source known──▶ loading ──7 RunnerReady──▶ ready
//      ▲                        │                               ▲                                        │
//      └──2 silence > 2 heartbeats, or Refused not_found        └──9 backoff over── waiting ◀──8 RunnerLost (any state)
//
// Step                                            Life
//   none ──3 Grant──▶ pending ──ready──▶ running    serving ──10 StopRequested or Shutdown──▶ stopping ──▶ ended
//     ▲        4 Revoke, Stale, drop ──▶ stopping     (ended: nothing left to say, or the grace period is over)
//     └──5 done, failed, stopped, runner lost
//
// A step of a gang waits in the runner: StepJoins goes to the coordinator as Prepared, its Commit to the runner as Join.
//
// 1 sends again all that is unacknowledged. 2 holds everything but Hello back; the runner goes on. 3 a repeated Grant of the
// same lease is ignored. 4 a pending step ends at once; a dropped one ends without a word (Stale, drop) or with Released
// (Revoke). 5 the outcome goes to the outbox, which repeats it until it is acknowledged. 8 aborts the step. Failing is
// bounded: after kMaxFailedLaunches launches without RunnerReady the agent gives up.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "common/clock.h"
#include "common/messages.h"
#include "worker/agent/outbox.h"
#include "worker/step_runner.h"

namespace pare::worker {

struct AgentConfig {
  std::string worker;  // unique per process
  std::string host;
  std::string device = "cpu";
  int threads = 1;
  std::string store;     // a store directory given by the user: the runner starts before the Welcome
  Millis grace{10'000};  // from StopRequested to the end, whatever is unfinished then
};

// ---- events ----
// A message of the coordinator. Of a Welcome the shell keeps `store` only if the agent can use that directory.
struct Received { Message message; };
struct RunnerReported { RunnerEvent event; };
struct Tick {};  // time went on; at the latest at NextDeadline
struct StopRequested { std::string reason; };  // a second one ends the agent at once
struct WrongVersion { std::string message; };  // the coordinator speaks another protocol version
using AgentEvent = std::variant<Received, RunnerReported, Tick, StopRequested, WrongVersion>;

// ---- actions ----
struct SendMessage { Message message; };
struct LaunchRunner { RunnerSource source; };
struct BeginStep { Assignment assignment; };
struct JoinStep { std::vector<std::string> endpoints; };  // of its gang, by rank
struct EndStep { bool keep = true; };
struct EndAgent { bool failed = false; std::string message; };
struct Note { bool warning = false; std::string text; };  // for the log
using AgentAction = std::variant<SendMessage, LaunchRunner, BeginStep, JoinStep, EndStep, EndAgent, Note>;

inline constexpr Millis kFirstHelloInterval{500};
inline constexpr Millis kLongestHelloInterval{5'000};  // or the heartbeat, if that is longer
inline constexpr Millis kConflictPatience{30'000};  // how long a Hello is repeated while the name is in use
inline constexpr Millis kDropPatience{10'000};      // a dropped step that has not ended by then: the runner is restarted
inline constexpr Millis kFirstBackoff{500};         // between launches that fail, doubling
inline constexpr Millis kLongestBackoff{8'000};
inline constexpr int kMaxFailedLaunches = 5;
inline constexpr size_t kMaxReportBytes = 8192;  // of an error message sent to the coordinator

class AgentCore {
 public:
  explicit AgentCore(AgentConfig config) : config_(std::move(config)) {}

  // The first call (any event) says Hello. After EndAgent nothing must be applied any more.
  std::vector<AgentAction> Apply(const AgentEvent& event, Millis now);

  // When Tick has something to do even if nothing else happens; may lie in the past.
  Millis NextDeadline() const;

 private:
  enum class RunnerState { kNone, kLoading, kReady, kWaiting };
  struct Step {
    Lease lease;
    Assignment assignment;
    std::optional<Millis> began;    // in the runner; nothing: pending
    std::optional<Millis> stopped;  // EndStep was sent
    bool keep = true;               // of that EndStep
    bool silent = false;            // the coordinator does not want to hear of it any more
  };

  // Events.
  void On(const Received& event);
  void On(const RunnerReported& event);
  void On(const Tick&) {}
  void On(const StopRequested& event) { BeginStopping(event.reason); }
  void On(const WrongVersion& event) { End(true, event.message); }
  // Messages; those that only coordinators receive are ignored.
  void OnMessage(const Welcome& welcome);
  void OnMessage(const Refused& refused);
  void OnMessage(const Grant& grant);
  void OnMessage(const Commit& commit);
  void OnMessage(const Revoke& revoke);
  void OnMessage(const Ack& ack) { outbox_.Acknowledge(ack); }
  void OnMessage(const Stale& stale) { Drop(stale.lease, stale.reason); }
  void OnMessage(const Shutdown& shutdown) { BeginStopping("the coordinator ends: " + shutdown.reason); }
  template <typename T>
  void OnMessage(const T&) { Warn("ignored a message that agents do not receive"); }
  // Runner events.
  void OnRunner(const RunnerReady& ready);
  void OnRunner(const StepJoins& joins);
  void OnRunner(const StepProgress& progress);
  void OnRunner(const StepSnapshot& snapshot);
  void OnRunner(const StepDone& done);
  void OnRunner(const StepFailed& failed);
  void OnRunner(const StepStopped& stopped);
  void OnRunner(const RunnerLost& lost);

  void SayHello();
  void UseSource(RunnerSource source);
  void Launch();
  void BeginPendingStep();
  void StopStep(bool keep);
  void Drop(const Lease& lease, const std::string& reason);
  // The step is over: what there is to say about it (unless it is silent), and room for the next.
  void FinishStep(Message end);
  void Abort(const Lease& lease, const std::string& error_class, const std::string& message, Millis busy);
  void Release(const Lease& lease);
  void BeginStopping(const std::string& reason);
  void End(bool failed, std::string message);
  // What the passing of time asks for, after every event.
  void Advance();
  void AdvanceConnection();
  void AdvanceRunner();
  void AdvanceStopping();

  std::vector<Lease> Running() const;
  void Remember(const Digest& artifact);
  void Do(AgentAction action) { actions_.push_back(std::move(action)); }
  void Send(Message message) { Do(SendMessage{std::move(message)}); }
  void Warn(std::string text) { Do(Note{true, std::move(text)}); }
  void Info(std::string text) { Do(Note{false, std::move(text)}); }

  AgentConfig config_;
  Millis now_{0};
  std::vector<AgentAction> actions_;
  Outbox outbox_;
  bool ended_ = false;

  bool welcomed_ = false;
  bool known_ = false;  // was welcomed at least once: the coordinator waits for a Goodbye
  Millis heartbeat_{1000};
  Millis heard_{0};  // last message of the coordinator
  Millis heartbeat_sent_{0};
  std::optional<Millis> hello_sent_;
  Millis hello_interval_ = kFirstHelloInterval;
  std::optional<Millis> conflict_since_;

  RunnerState runner_ = RunnerState::kNone;
  std::optional<RunnerSource> source_;  // the newest known
  RunnerSource launched_;               // what the runner was launched with
  int failed_launches_ = 0;
  Millis backoff_ = kFirstBackoff;
  Millis launch_at_{0};  // in kWaiting

  std::optional<Step> step_;
  std::optional<Grant> next_;       // granted while an older step is still ending
  std::vector<Digest> cached_;      // newest first
  std::optional<Millis> end_by_;    // set: stopping
};

}  // namespace pare::worker
