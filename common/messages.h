// Messages between coordinator, agents and clients: JSON objects {"v": kProtocolVersion, "type": …, …}. This header is the
// protocol; docs/protocol.md explains the conversations. Parsing is strict and total: bytes from the wire become one of
// these values or an Error, never anything else. A none id is "" on the wire; a field that its message does not know is
// refused.
//
// A lease is (step key, lease epoch). The epoch grows with every grant of any step; what carries an epoch that is not the
// step's present one is stale, and is refused and counted.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "common/digest.h"
#include "common/json.h"
#include "common/json_text.h"
#include "common/result.h"

namespace pare {

struct Lease {
  StepKey step;
  int64_t epoch = 0;
  auto operator<=>(const Lease&) const = default;
};

// ---- agent → coordinator ----

// First message of an agent, and again after every reconnect: who it is and what it is running right now.
struct Hello {
  std::string worker;  // chosen by the agent, unique per process: "host-pid-slot"
  std::string pare_version;
  std::string host;
  std::string device;  // "cpu", "cuda:0"
  int threads = 1;
  std::vector<Lease> running;   // at most one now; a re-attached lease goes on if it is still the present one
  std::vector<Digest> cached;   // artifacts in the agent's or runner's memory, newest first, at most 64
  bool operator==(const Hello&) const = default;
};
struct Heartbeat {
  std::string worker;
  std::vector<Lease> running;
  std::vector<Digest> cached;
  bool operator==(const Heartbeat&) const = default;
};
// Metric points of a running step. Acknowledged once durable; unacknowledged ones are sent again.
struct MetricPoint {
  int64_t sequence = 0;  // 1, 2, … within the lease
  JsonText values;
  bool operator==(const MetricPoint&) const = default;
};
struct Progress {
  Lease lease;
  // Sequence of the last point before `points` that the coordinator needs: those between were dropped by the agent. Who does
  // not have it has lost a message, and leaves this one unacknowledged.
  int64_t after = 0;
  std::vector<MetricPoint> points;
  bool operator==(const Progress&) const = default;
};
struct SnapshotTaken {
  Lease lease;
  int64_t sequence = 0;  // 1, 2, … within the lease: an older one that comes late must not replace a newer one
  Digest blob;  // durable in the store already
  JsonText position;
  bool operator==(const SnapshotTaken&) const = default;
};
struct StepFinished {
  Lease lease;
  Digest artifact;  // durable in the store already
  JsonText manifest;
  int64_t busy_ms = 0;
  bool operator==(const StepFinished&) const = default;
};
// error_class: diverged, bad_input, out_of_memory, no_space, runner_lost, corrupt, internal.
struct StepAborted {
  Lease lease;
  std::string error_class;
  std::string message;
  int64_t busy_ms = 0;
  bool operator==(const StepAborted&) const = default;
};
// Of a step that several workers run together: this one's runner waits for the others and is reached at `endpoint` (of rank 0; the others
// call it, and may leave theirs empty).
struct Prepared {
  Lease lease;
  std::string endpoint;
  bool operator==(const Prepared&) const = default;
};
// After a revoke, a pause or SIGTERM: the lease is given back; `snapshot` may be none.
struct Released {
  Lease lease;
  Digest snapshot;
  JsonText position;
  int64_t busy_ms = 0;
  bool operator==(const Released&) const = default;
};
struct Goodbye {  // the agent ends on purpose and holds no lease
  std::string worker;
  bool operator==(const Goodbye&) const = default;
};

// ---- coordinator → agent ----

struct Welcome {
  int64_t heartbeat_ms = 0;      // send a Heartbeat at least this often
  int64_t lease_timeout_ms = 0;  // silence after which leases are taken away
  std::string store;             // store directory, for agents on the coordinator's host
  std::string host;              // the coordinator's host name
  std::string blob_endpoint;     // blob service, for all others
  std::vector<Lease> drop;       // leases of Hello.running that are not the present ones: abandon them
  bool operator==(const Welcome&) const = default;
};
struct Refused {  // of a Hello: other version, or name in use by a living agent
  std::string code;  // ErrorCode name
  std::string message;
  bool operator==(const Refused&) const = default;
};
struct Grant {
  Lease lease;
  int attempt = 1;
  JsonText assignment;  // worker::Assignment; with a gang of more than one it asks to prepare: Prepared, then Commit
  bool operator==(const Grant&) const = default;
};
struct Commit {  // all workers of a gang are prepared: their runners begin
  Lease lease;
  std::vector<std::string> endpoints;  // by rank
  bool operator==(const Commit&) const = default;
};
struct Revoke {
  Lease lease;
  bool keep = true;  // true: stop at the next batch boundary with a snapshot, then Released; false: drop at once
  std::string reason;
  bool operator==(const Revoke&) const = default;
};
// Of Progress (sequence = the newest durable point), SnapshotTaken (its sequence), StepFinished, StepAborted, Released (0),
// and of Heartbeat (lease none, 0): the agent hears that the coordinator is alive.
struct Ack {
  Lease lease;
  std::string of;  // type of the message acknowledged
  int64_t sequence = 0;
  bool operator==(const Ack&) const = default;
};
struct Stale {  // the lease is not the present one: forget it, stop the step, send nothing more of it
  Lease lease;
  std::string reason;
  bool operator==(const Stale&) const = default;
};
struct Shutdown {  // end: drain, release, say Goodbye
  std::string reason;
  bool operator==(const Shutdown&) const = default;
};

// ---- client ↔ coordinator ----

// `method` and the shapes of `args` and `result`: docs/protocol.md, "Client requests".
struct Request {
  int64_t id = 0;  // chosen by the client; repeated in the reply
  std::string method;
  Json args = Json::object();
  bool operator==(const Request&) const = default;
};
struct Reply {
  int64_t id = 0;
  bool ok = true;
  Json result;          // if ok
  std::string code;     // ErrorCode name, if not
  std::string message;  // if not
  bool operator==(const Reply&) const = default;
};

using Message = std::variant<Hello, Heartbeat, Progress, SnapshotTaken, StepFinished, StepAborted, Prepared, Released, Goodbye,
                             Welcome, Refused, Grant, Commit, Revoke, Ack, Stale, Shutdown, Request, Reply>;

// "hello", "heartbeat", "progress", "snapshot_taken", "step_finished", "step_aborted", "prepared", "released", "goodbye", "welcome",
// "refused", "grant", "commit", "revoke", "ack", "stale", "shutdown", "request", "reply".
std::string_view TypeOf(const Message& message);
std::string Encode(const Message& message);
// kVersion for another protocol version (the message says both), kInvalid for anything else that does not fit.
Result<Message> Decode(std::string_view bytes);

}  // namespace pare
