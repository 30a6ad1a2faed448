// What the scheduling core is told and what it answers: plain values. The shell turns messages, requests and time into
// events; it performs actions in this order: blobs, rows (one transaction), and only after the commit the messages.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "common/messages.h"
#include "common/transport.h"
#include "recipes/recipe.h"
#include "storage/rows.h"

namespace pare::coordinator {

// ---- events ----

struct FromAgent {  // any message that agents send
  PeerId peer;
  Message message;
};
struct Caller {  // who waits for the Reply of a client's request
  PeerId peer;
  int64_t id = 0;
};
struct Submit {
  Caller caller;
  std::string user;
  std::string recipe_text;
  recipes::ResolvedRecipe recipe;
  bool reuse = true;  // an unfinished job of the same resolved recipe is resumed instead
  int64_t priority = 0;
  size_t steps = 0;  // of its full plan: what it adds to the queue
};
struct ChangeJob {
  enum class What { kPause, kResume, kCancel, kRetry };
  Caller caller;
  What what = What::kPause;
  std::string job;
};
// `expected`: the champion that the caller believes in (0: none yet); if it is another, somebody was faster and nothing changes.
struct PromoteVersion {
  Caller caller;
  std::string model;
  int64_t version = 0;
  std::optional<int64_t> expected;
};
struct PromoteCandidate {
  Caller caller;
  std::string model, job, step;
  std::optional<int64_t> expected;
};
struct Rollback {
  Caller caller;
  std::string model;
  std::optional<int64_t> expected;
};
struct Shut {  // shutdown request
  Caller caller;
  bool workers = false;  // end the workers as well
};
struct Drain {};  // place nothing more, take back what runs with a snapshot
struct WorkerGone {  // the shell knows that this process is dead
  std::string worker, reason;
};
struct BadResult {  // the shell found that a finished step's result is not what it says
  PeerId peer;
  StepFinished finished;
  std::string problem;
};
struct ArtifactsLost {  // blobs of these finished steps are not in the store any more
  std::vector<StepKey> steps;
};
struct ArtifactsCollected {  // their blobs are about to be given up; the rows say so already
  std::vector<Digest> artifacts;
};
struct Tick {};  // ends every turn: expires leases, plans, places
using Event = std::variant<FromAgent, Submit, ChangeJob, PromoteVersion, PromoteCandidate, Rollback, Shut, Drain, WorkerGone,
                           BadResult, ArtifactsLost, ArtifactsCollected, Tick>;

// ---- actions ----

struct Send {
  PeerId peer;
  Message message;
};
struct Actions {
  std::vector<std::string> blobs;  // manifests of decisions: durable before the rows that name them
  std::vector<storage::Row> rows;
  std::vector<Send> sends;
  bool stop = false;  // the process ends after this turn

  void Append(Actions more);
};

}  // namespace pare::coordinator
