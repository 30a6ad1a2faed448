// StepRunner: one of the five edge interfaces: between the agent (protocol) and whatever executes steps.
//
// Implementations: ProcessStepRunner (a pare-runner child over a socket pair; worker/agent), and FakeStepRunner (tests,
// simulator). One step at a time per runner. Events are collected with Poll by the agent's thread; nothing calls back.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "common/digest.h"
#include "common/json.h"
#include "common/json_text.h"
#include "common/result.h"

namespace pare::worker {

inline constexpr int64_t kMaxGangSize = 64;

// A worker's place among those that run one step together; alone: rank 0 of 1.
struct GangPlace {
  int rank = 0;
  int size = 1;
  bool operator==(const GangPlace&) const = default;
};

// What a runner needs to execute one step. JSON on the agent–runner pipe and inside a grant.
struct Assignment {
  StepKey key;
  int64_t lease_epoch = 0;               // fencing token of the lease
  int attempt = 1;
  Json spec;                             // recipes::StepSpec
  std::map<std::string, Digest> inputs;  // role → artifact of the input step
  Json data;                             // data::DataInfo: where the dataset is (blob or path); null if none
  Digest weights;                        // import: blob of the starting weights
  Json hints = Json::object();           // recipes::PlannedStep::hints
  Digest snapshot;                       // resume from here; none: start afresh
  GangPlace gang;                        // of size > 1: StepJoins is reported, and the work begins with Join
};
Json ToJson(Assignment assignment);
Result<Assignment> AssignmentFromJson(const Json& json);
// As Canonical(ToJson(…)), of three parts that are texts already; those of `assignment` are not looked at.
JsonText ToText(const Assignment& assignment, const JsonText& spec, const JsonText& data, const JsonText& hints);
Result<Assignment> AssignmentFromText(const JsonText& text);

// What a runner reports. `values` of progress: see docs/protocol.md, "Progress".
struct RunnerReady { std::string device; };
struct StepJoins { std::string endpoint; };  // once per step of a gang: others reach this runner here (only rank 0 has an endpoint); it waits for Join
struct StepProgress { Json values; };
struct StepSnapshot { Digest blob; Json position; };
struct StepDone { Digest artifact; Json manifest; int64_t busy_ms = 0; };
struct StepFailed { std::string error_class; std::string message; int64_t busy_ms = 0; };
struct StepStopped { Digest snapshot; Json position; int64_t busy_ms = 0; };  // after Stop; snapshot may be none
// The runner itself is gone; only Launch brings it back. out_of_memory: the system killed it for memory.
struct RunnerLost { std::string message; bool out_of_memory = false; };
using RunnerEvent = std::variant<RunnerReady, StepJoins, StepProgress, StepSnapshot, StepDone, StepFailed, StepStopped, RunnerLost>;
Json ToJson(const RunnerEvent& event);
Result<RunnerEvent> RunnerEventFromJson(const Json& json);

// Where a runner reads and writes blobs: a store directory on this host if `store` is not empty, else the blob service.
struct RunnerSource {
  std::string store;
  std::string blob_endpoint;
  bool operator==(const RunnerSource&) const = default;
};

class StepRunner {
 public:
  virtual ~StepRunner() = default;
  // (Re)starts the runner, ending whatever ran before without an event of it. RunnerReady or RunnerLost follows.
  virtual void Launch(const RunnerSource& source) = 0;
  // REQUIRES: ready (RunnerReady was polled) and idle. Failures arrive as events.
  virtual void Start(const Assignment& assignment) = 0;
  // To a step that reported StepJoins: everybody is there, endpoints by rank. Elsewhere it does nothing.
  virtual void Join(const std::vector<std::string>& endpoints) = 0;
  // Ends the step at the next batch boundary; keep: with a snapshot (StepStopped), else as fast as possible. Without a
  // step it does nothing; a step that ends at this moment may still report StepDone or StepFailed instead.
  virtual void Stop(bool keep) = 0;
  // Events since the last call, in order. Never blocks.
  virtual std::vector<RunnerEvent> Poll() = 0;
  // A descriptor that becomes readable when Poll has something, or −1.
  virtual int fd() const = 0;
};

}  // namespace pare::worker
