// State: everything the coordinator knows, as plain values: jobs, steps, leases, workers, artifacts, the model registry.
// The scheduler changes it, queries read it, rows persist it. Containers are ordered, so that whoever walks them meets the
// same order on every run; the steps, which are looked up all the time and hardly ever walked, are not. Belongs to the
// loop thread.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "common/box.h"
#include "common/clock.h"
#include "common/flat.h"
#include "common/messages.h"
#include "common/transport.h"
#include "coordinator/packed_text.h"
#include "coordinator/spec_text.h"
#include "recipes/planner.h"
#include "storage/artifact.h"
#include "storage/rows.h"

namespace pare::coordinator {

// The moment at which an event is applied: monotonic for leases and waits, wall for what people read.
struct Now {
  Millis monotonic{0};
  WallTime wall;
};

enum class JobState { kRunning, kPaused, kDone, kFailed, kCancelled };
enum class StepState : uint8_t { kWaiting, kReady, kRunning, kDone, kFailed, kCancelled };
std::string_view ToString(JobState state);
std::string_view ToString(StepState state);
// Of a row's text; nothing for a text that this release does not know.
std::optional<JobState> JobStateOf(std::string_view text);
std::optional<StepState> StepStateOf(std::string_view text);

// A worker under a lease.
struct Member {
  std::string worker;
  Millis confirmed{0};
  bool seen = false;     // it has confirmed the lease: the grant arrived
  bool prepared = false;  // of a gang: its runner waits for the others, or has begun
  std::string endpoint;   // of that runner
};

// The present hold on a step: of one worker, or of a gang that runs it together under one lease. A lease expires when nothing has
// confirmed it for the lease timeout, for any of its members: neither a heartbeat that lists it nor any message that
// carries it. So a grant that got lost, an agent that died and an agent that forgot are one case, and a gang is whole or
// not at all.
struct Hold {
  int64_t epoch = 0;
  std::vector<Member> members;  // by rank; the first one reports progress and takes the snapshots
  int64_t newest_point = 0;  // sequence of the newest metric point
  std::optional<bool> revoked;  // Revoke was sent, with this `keep`
  Millis revoked_at{0};
  std::string reason;  // why it was placed there
  Millis granted{0};   // or the restart
  size_t share = 0;    // of the user that it counts for: index into State::shares

  const std::string& worker() const { return members.front().worker; }
  bool gang() const { return members.size() > 1; }
  Member* Find(const std::string& name);  // null: not one of them
  const Member* Find(const std::string& name) const;
  bool prepared() const;  // every member
};

// Where a ready step stands in the queue: smaller is served first.
//   priority of its job (higher first), age of its job, the longest chain of work that still hangs on the step (longest
//   first: the critical path decides when a job ends, so the iterative variant does not start last), ordinal, key.
// Between users of one priority see ReadyQueue.
struct QueueRank {
  int64_t minus_priority = 0;
  int64_t job = 0;
  int64_t minus_chain = 0;
  int64_t ordinal = 0;
  StepKey key;
  auto operator<=>(const QueueRank&) const = default;
};

struct QueuePlace {
  QueueRank rank;
  size_t share = 0;  // of the user for whom it waits: index into State::shares
};

// What a user has of the workers. Every user with unfinished jobs has one.
struct Share {
  std::string user;
  int64_t jobs = 0;  // unfinished
  int64_t held = 0;  // leases now
  Millis used{0};    // lease time since it has unfinished jobs; starts at the least of the others: nobody saves up
};

// The ready steps of one device class. The highest priority first; within it the user who holds the fewest leases, then
// the one who used the least time, then the oldest; the user's own steps by rank.
struct ReadyQueue {
  std::map<int64_t, std::map<size_t, std::set<QueueRank>>> levels;  // by −priority, then share
  size_t size = 0;
  bool empty() const { return levels.empty(); }
  void Insert(size_t share, const QueueRank& rank);
  void Erase(size_t share, const QueueRank& rank);
  // REQUIRES: !empty().
  const QueueRank& Next(const std::vector<Share>& shares) const;
};

// Why a step failed, is tried again, or is cancelled.
struct Problem {
  std::string error_class, message;
};

// What workers have done for a step. Only what was granted once has a past.
struct Past {
  std::vector<storage::AttemptRow> attempts;  // oldest first
  JsonText progress;                          // newest values of the present or last attempt; null: none yet
};

// The newest state of an unfinished step that a worker has put into the store.
struct Snapshot {
  Digest blob;
  JsonText position;
  std::pair<int64_t, int64_t> order;  // lease epoch and sequence: what is not newer does not replace it
};

// There are 100,000 of them: what most have not yet, or never, is boxed.
struct Step {
  StepKey key;
  SharedText kind, device;  // of State::texts; never null
  SpecText spec;
  Inputs inputs;
  JsonText hints;

  bool local = false;  // decided by the coordinator
  StepState state = StepState::kWaiting;
  int failures = 0;   // attempts that failed or got lost since it last made progress or was retried by hand
  WallTime since;     // when it came into that state; 0: before a restart, and no row tells
  Digest artifact;
  Box<Problem> problem;

  Box<Past> past;
  Box<Hold> hold;  // exactly while running
  Box<Snapshot> snapshot;

  FlatSet<std::string> wanted_by;  // unfinished jobs
  FlatSet<StepKey> consumers;      // steps that have this one among their inputs
  int64_t cost = -1;               // predicted milliseconds; −1: not asked yet
  int64_t chain = 0;               // milliseconds of predicted work from here to the end of the job, itself included
  Millis not_before{0};            // backoff
  Box<QueuePlace> queued;          // in the ready queue, or among the delayed

  const std::vector<storage::AttemptRow>& attempts() const { return past.OrDefault().attempts; }
  const JsonText& progress() const { return past.OrDefault().progress; }
};

struct JobStep {
  std::string name;
  SharedText variant;  // never null; empty: shared by all variants
  int64_t ordinal = 0;
  StepKey key;
  bool reused = false;
  // Of the newest plan; false for steps that a failure or a search's decision made pointless.
  bool wanted = false, candidate = false;
};

struct Job {
  std::string id, name, user;
  int64_t number = 0;  // order of creation
  JobState state = JobState::kRunning;
  int64_t created_ms = 0, finished_ms = 0;
  size_t share = 0;  // of its user, while unfinished
  PackedText recipe_text;
  Digest recipe_digest;
  PackedText resolved;  // JSON
  std::string message;
  int64_t priority = 0;

  std::optional<recipes::ResolvedRecipe> recipe;  // of the jobs planned last (Scheduler::LoadRecipe)
  JsonText data;                                  // for assignments: data::DataInfo
  Digest weights;
  recipes::Outcomes outcomes;                     // while unfinished
  std::vector<JobStep> steps;                     // by ordinal; PutStep adds
  std::vector<uint32_t> by_name, by_key;          // places in `steps` in the order of the names (of the keys) there
  int64_t last_event = 0;
  size_t open = 0;  // steps of the newest plan without an outcome
  bool planned = true;  // false: read by a restart that has not come to it yet; its steps wait

  bool finished() const { return state != JobState::kRunning && state != JobState::kPaused; }
  // A rebuilt index does not know (all of) its steps any more: every job has some, and their ordinals leave nothing out.
  bool lacks_steps() const { return steps.empty() || steps.back().ordinal + 1 != static_cast<int64_t>(steps.size()); }
  const JobStep* Find(const StepKey& key) const;  // the first name of the key
  const JobStep* Find(const std::string& step_name) const;
  // A new name, or another step under a known one.
  JobStep& PutStep(JobStep step);
  void Reserve(size_t size);  // room for so many steps, no more
};

struct ArtifactRecord {
  StepKey key;
  std::string kind;
  // storage::ResultsOf: the planner and the reports need no more, and the whole manifest is a blob.
  JsonText results;
  FlatMap<std::string, storage::BlobReference> blobs;  // by role
  int64_t bytes = 0;
  int64_t created_ms = 0;
  bool collected = false;  // its blobs were given up: only the results are left
};

struct Worker {
  std::string name, host, device;
  PeerId peer;
  int threads = 1;
  Millis heard{0};
  std::vector<Digest> cached;  // newest first
  std::optional<Lease> lease;  // granted and not known to be given back
  Millis not_before{0};        // after it gave a lease back unasked: it is probably draining
};

struct Model {
  std::vector<storage::VersionRow> versions;  // 1, 2, …
  std::map<std::string, int64_t> aliases;     // "champion", "previous"
  std::vector<storage::PromotionRow> history;  // oldest first
  const storage::VersionRow* Find(int64_t version) const;
  const storage::VersionRow* Alias(const std::string& alias) const;
};

struct Counters {
  int64_t stale_refused = 0;   // messages with an old lease
  int64_t leases_lost = 0;
  int64_t retries = 0;
  int64_t steps_done = 0, steps_reused = 0, steps_failed = 0;
  int64_t duplicates = 0;      // repeated messages, acknowledged again
};

// For hash tables: a key is a hash already.
struct HashOfKey {
  size_t operator()(const StepKey& key) const noexcept {
    size_t first = 0;
    std::memcpy(&first, key.bytes().data(), sizeof first);
    return first;
  }
};

struct State {
  std::map<std::string, Job> jobs;
  std::unordered_map<StepKey, Step, HashOfKey> steps;  // nothing may depend on the order in which they are walked
  std::map<Digest, ArtifactRecord> artifacts;
  std::map<std::string, Worker> workers;
  std::map<PeerId, std::string> worker_of_peer;
  // What placement asks of the workers, kept up to date with them: idle ones by device class, those that are left alone
  // for a while, and who has an artifact in memory.
  std::map<std::string, std::set<std::string>> idle;
  std::set<std::pair<Millis, std::string>> resting;
  std::map<Digest, std::set<std::string>> holders;
  std::map<std::string, Model> models;
  Counters counters;
  int64_t last_epoch = 0;
  int64_t last_job_number = 0;
  std::vector<Share> shares;
  std::map<std::string, ReadyQueue> ready;       // by device class
  std::set<std::pair<Millis, StepKey>> delayed;  // ready steps in backoff
  std::set<StepKey> running;                     // steps under a lease
  bool draining = false;                         // no new grants
  TextPool texts;                                // of steps

  // The job of an id, a unique prefix of one, or "last". kNotFound, or kInvalid for an ambiguous prefix.
  Result<const Job*> FindJob(std::string_view text) const;
  const Step* FindStep(const StepKey& key) const;
  // A running job wants the step, and a restart has not come to that job yet.
  bool AwaitsPlan(const Step& step) const;
  const ArtifactRecord* ArtifactOf(const StepKey& key) const;  // null unless done
};

// The worker of an attempt's row, or its gang by rank; never empty.
std::vector<std::string> WorkersOf(const storage::AttemptRow& row);
std::string LinesOf(const std::vector<std::string>& workers);  // for the row
// For people: "w1", "w1 and w2", "w1 and 3 others".
std::string NamesOf(const std::vector<std::string>& workers);

// At most kMaxMessageChars bytes, never cutting a character in two.
std::string ClipText(std::string text);

// Rows, as they are stored.
storage::JobRow RowOf(const Job& job);
storage::StepRow RowOf(const Step& step);

}  // namespace pare::coordinator
