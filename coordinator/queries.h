// Queries: the read-only requests of docs/protocol.md as functions of the state and the index. They change nothing and
// show what a turn has decided only after its commit, because replies leave with everything else. Belongs to the loop thread.
#pragma once

#include <string>
#include <vector>

#include "coordinator/scheduler.h"
#include "coordinator/state.h"
#include "storage/index.h"

namespace pare::coordinator {

struct QueryContext {
  const State& state;
  storage::Index& index;
  const Planner& planner;
  Now now;
  std::string store;  // directory; empty in tests
  std::string blob_endpoint;
};

// ping, list, describe, watch, logs, why, report, digest, metrics, known, models, model_history, resolve_model.
bool IsQuery(const std::string& method);
// A question, or gc, which makes room: what is answered while the disk is full.
bool IsAnsweredWhileFull(const std::string& method);
// kInvalid: not a query, or bad arguments; kNotFound: no such job, step or model.
Result<Json> Answer(const QueryContext& context, const std::string& method, const Json& args);

// report.cc
Json Report(const QueryContext& context, const Job& job);
// `pare digest`: the same for every run of the same recipe.
Json DigestLines(const State& state, const Job& job);

// The job fields that `list` shows.
Json JobSummary(const State& state, const Job& job);
Json TimeOrNull(int64_t ms);
// `keys` of a known request.
Result<std::vector<StepKey>> KeysOf(const Json& args);

}  // namespace pare::coordinator
