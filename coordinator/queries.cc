#include "coordinator/queries.h"

#include <unistd.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "common/version.h"
#include "coordinator/measurements.h"

namespace pare::coordinator {
namespace {

constexpr int64_t kEventsPerWatch = 100;  // a live view polls often
constexpr int64_t kEventsPerLog = 1'000;  // unless asked for otherwise

using Query = Result<Json> (*)(const QueryContext&, const Json&);

Result<const Job*> JobOf(const QueryContext& context, const Json& args) {
  ASSIGN_OR_RETURN(std::string text, StringField(args, "job"));
  return context.state.FindJob(text);
}

Result<int64_t> IntOr(const Json& args, const char* field, int64_t otherwise) {
  if (!args.contains(field)) return otherwise;
  return IntField(args, field);
}

std::string StateIn(const JobStep& in_job, const Step& step) {
  return std::string(in_job.wanted ? ToString(step.state) : ToString(StepState::kCancelled));
}

Json AttemptsOf(const Step& step) {
  Json list = Json::array();
  for (const storage::AttemptRow& row : step.attempts()) {
    list.push_back({{"attempt", row.attempt},
                    {"epoch", row.epoch},
                    {"worker", WorkersOf(row).front()},
                    {"workers", WorkersOf(row)},
                    {"started", TimeOrNull(row.started_ms)},
                    {"ended", TimeOrNull(row.ended_ms)},
                    {"busy_ms", row.busy_ms},
                    {"outcome", row.outcome},
                    {"error_class", row.error_class},
                    {"message", row.message}});
  }
  return list;
}

Json EventsAsJson(const std::vector<storage::EventRow>& rows) {
  Json list = Json::array();
  for (const storage::EventRow& row : rows) {
    list.push_back({{"sequence", row.sequence}, {"at", TimeOrNull(row.at_ms)}, {"level", row.level}, {"step", row.step}, {"text", row.text}});
  }
  return list;
}

std::string ReasonOf(const Decision& decision) {
  return std::visit([](const auto& d) { return d.reason; }, decision);
}

// ---- jobs ----

Result<Json> Ping(const QueryContext& context, const Json&) {
  const Counters& c = context.state.counters;
  Json counters = {{"stale_refused", c.stale_refused}, {"duplicates", c.duplicates}, {"leases_lost", c.leases_lost}, {"retries", c.retries},
                   {"steps_done", c.steps_done}, {"steps_reused", c.steps_reused}, {"steps_failed", c.steps_failed}};
  return Json{{"version", kPareVersion}, {"protocol", kProtocolVersion}, {"store", context.store}, {"blob_endpoint", context.blob_endpoint},
              {"pid", ::getpid()}, {"workers", context.state.workers.size()}, {"counters", std::move(counters)}};
}

Result<Json> List(const QueryContext& context, const Json&) {
  std::vector<const Job*> jobs;
  for (const auto& [id, job] : context.state.jobs) jobs.push_back(&job);
  std::sort(jobs.begin(), jobs.end(), [](const Job* a, const Job* b) { return a->number > b->number; });
  Json list = Json::array();
  for (const Job* job : jobs) list.push_back(JobSummary(context.state, *job));
  return list;
}

Result<Json> Describe(const QueryContext& context, const Json& args) {
  ASSIGN_OR_RETURN(const Job* job, JobOf(context, args));
  Json result = JobSummary(context.state, *job);
  result["user"] = job->user;
  result["recipe"] = job->recipe_text.Text();
  result["recipe_digest"] = job->recipe_digest.hex();
  Json steps = Json::array();
  for (const JobStep& in_job : job->steps) {
    const Step& step = *context.state.FindStep(in_job.key);
    bool told = in_job.wanted || step.state == StepState::kCancelled;  // then its reason is there
    std::string reason = told ? ReasonOf(Explain(context.state, step, context.now)) : "not needed by this job any more";
    steps.push_back({{"name", in_job.name},
                     {"variant", *in_job.variant},
                     {"kind", *step.kind},
                     {"key", step.key.hex()},
                     {"state", StateIn(in_job, step)},
                     {"reused", in_job.reused},
                     {"artifact", step.artifact.is_none() ? Json() : Json(step.artifact.hex())},
                     {"error_class", step.problem.OrDefault().error_class},
                     {"message", step.problem.OrDefault().message},
                     {"progress", step.progress().Tree()},
                     {"reason", std::move(reason)},
                     {"attempts", AttemptsOf(step)}});
  }
  result["steps"] = std::move(steps);
  Json workers = Json::array();
  for (const auto& [name, worker] : context.state.workers) {
    const Job* any = job;
    Json running = worker.lease ? Json(any->Find(worker.lease->step) == nullptr ? worker.lease->step.brief() : any->Find(worker.lease->step)->name) : Json();
    workers.push_back({{"name", name}, {"host", worker.host}, {"device", worker.device}, {"threads", worker.threads}, {"step", running}});
  }
  result["workers"] = std::move(workers);
  return result;
}

Result<Json> Watch(const QueryContext& context, const Json& args) {
  ASSIGN_OR_RETURN(const Job* job, JobOf(context, args));
  ASSIGN_OR_RETURN(int64_t after, IntOr(args, "after", 0));
  ASSIGN_OR_RETURN(std::vector<storage::EventRow> events, context.index.Events(job->id, after, kEventsPerWatch));
  Json steps = Json::array();
  for (const JobStep& in_job : job->steps) {
    if (!in_job.wanted) continue;
    const Step& step = *context.state.FindStep(in_job.key);
    const ArtifactRecord* artifact = context.state.ArtifactOf(in_job.key);
    Json line = {{"name", in_job.name},     {"variant", *in_job.variant}, {"kind", *step.kind},
                 {"state", ToString(step.state)}, {"reused", in_job.reused},   {"progress", step.progress().Tree()},
                 {"results", artifact == nullptr ? Json() : artifact->results.Tree()}};
    const Problem& problem = step.problem.OrDefault();
    if (step.state == StepState::kFailed) line["error_class"] = problem.error_class, line["message"] = problem.message;
    steps.push_back(std::move(line));
  }
  auto busy = std::count_if(context.state.workers.begin(), context.state.workers.end(), [](const auto& w) { return w.second.lease.has_value(); });
  return Json{{"job", JobSummary(context.state, *job)}, {"steps", std::move(steps)}, {"events", EventsAsJson(events)},
              {"workers", context.state.workers.size()}, {"busy_workers", busy}};
}

Result<Json> Logs(const QueryContext& context, const Json& args) {
  ASSIGN_OR_RETURN(const Job* job, JobOf(context, args));
  ASSIGN_OR_RETURN(int64_t after, IntOr(args, "after", 0));
  ASSIGN_OR_RETURN(int64_t limit, IntOr(args, "limit", kEventsPerLog));
  ASSIGN_OR_RETURN(std::vector<storage::EventRow> events, context.index.Events(job->id, after, std::clamp<int64_t>(limit, 1, kMaxRowsPerReply)));
  return EventsAsJson(events);
}

Result<Json> MetricsOf(const QueryContext& context, const Json& args) {
  ASSIGN_OR_RETURN(const Job* job, JobOf(context, args));
  ASSIGN_OR_RETURN(std::string name, StringField(args, "step"));
  const JobStep* in_job = job->Find(name);
  if (in_job == nullptr) return Error{ErrorCode::kNotFound, "job " + job->id + " has no step '" + name + "'"};
  ASSIGN_OR_RETURN(std::vector<storage::MetricRow> rows, context.index.Metrics(in_job->key, kMaxRowsPerReply));
  Json list = Json::array();
  for (const storage::MetricRow& row : rows) {
    Json values = row.values.Tree(), epoch = At(values, {"epoch"});
    list.push_back({{"at", TimeOrNull(row.at_ms)}, {"epoch", std::move(epoch)}, {"values", std::move(values)}});
  }
  return list;
}

// ---- why ----

struct Named {
  const Step* step = nullptr;
  std::string name;
};

// By name in the given job, else in the newest job that has it; by key or a unique prefix of one.
Result<Named> StepOf(const QueryContext& context, const Json& args) {
  ASSIGN_OR_RETURN(std::string text, StringField(args, "step"));
  const Job* job = nullptr;
  if (args.contains("job")) {
    ASSIGN_OR_RETURN(job, JobOf(context, args));
  } else {
    for (const auto& [id, candidate] : context.state.jobs) {
      if (candidate.Find(text) != nullptr && (job == nullptr || candidate.number > job->number)) job = &candidate;
    }
  }
  if (job != nullptr && job->Find(text) != nullptr) return Named{context.state.FindStep(job->Find(text)->key), text};
  Named found;
  for (const auto& [key, step] : context.state.steps) {
    if (text.size() < 4 || !key.hex().starts_with(text)) continue;
    if (found.step != nullptr) return Error{ErrorCode::kInvalid, "'" + text + "' fits several steps: write more digits of the key"};
    found = {&step, key.brief()};
  }
  if (found.step == nullptr) {
    return Error{ErrorCode::kNotFound, "there is no step '" + text + "': write its name (with --job), or at least 4 digits of its key"};
  }
  return found;
}

Result<Json> Why(const QueryContext& context, const Json& args) {
  ASSIGN_OR_RETURN(Named named, StepOf(context, args));
  Decision decision = Explain(context.state, *named.step, context.now);
  constexpr const char* kNames[] = {"placed", "not_now", "infeasible"};
  Json waiting = Json::array();
  if (auto* wait = std::get_if<NotNow>(&decision)) waiting = wait->waiting_for;
  return Json{{"step", named.name},        {"key", named.step->key.hex()},        {"state", ToString(named.step->state)}, {"decision", kNames[decision.index()]},
              {"reason", ReasonOf(decision)}, {"since", TimeOrNull(named.step->since.ms)}, {"waiting_for", std::move(waiting)}};
}

// ---- plan ----

// What the store knows of steps that a job would want: done ones are reused, diverged ones would diverge again (AdoptName), collected
// ones are done unless their checkpoints are needed (recipes::MadeAgain).
Result<Json> Known(const QueryContext& context, const Json& args) {
  ASSIGN_OR_RETURN(std::vector<StepKey> keys, KeysOf(args));
  Json states = Json::object();
  for (const StepKey& key : keys) {
    const Step* step = context.state.FindStep(key);
    if (step == nullptr) continue;
    const ArtifactRecord* record = context.state.ArtifactOf(key);
    if (step->state == StepState::kDone) states[key.hex()] = record != nullptr && record->collected ? "collected" : "done";
    if (step->state == StepState::kFailed && FailsAgain(step->problem.OrDefault().error_class)) states[key.hex()] = "failed";
  }
  return states;
}

// ---- models ----

// A decision is taken before the test split is read; afterwards its accuracy belongs to what the version rests on.
Json EvidenceOf(const State& state, const storage::VersionRow& row) {
  Json evidence = row.evidence;
  auto job = state.jobs.find(row.job);
  if (!At(evidence, {"test_accuracy"}).is_null() || job == state.jobs.end()) return evidence;
  evidence["test_accuracy"] = EvidenceOf(state, job->second, row.artifact)["test_accuracy"];
  return evidence;
}

Result<Json> Models(const QueryContext& context, const Json&) {
  Json list = Json::array();
  for (const auto& [name, model] : context.state.models) {
    if (model.versions.empty()) continue;
    Json versions = Json::array();
    for (const storage::VersionRow& row : model.versions) {
      Json aliases = Json::array();
      for (const auto& [alias, version] : model.aliases) {
        if (version == row.version) aliases.push_back(alias);
      }
      versions.push_back({{"version", row.version}, {"artifact", row.artifact.hex()}, {"job", row.job}, {"step", row.step},
                          {"created", TimeOrNull(row.created_ms)}, {"aliases", std::move(aliases)}, {"evidence", EvidenceOf(context.state, row)}});
    }
    list.push_back({{"name", name}, {"versions", std::move(versions)}});
  }
  return list;
}

Result<Json> ModelHistory(const QueryContext& context, const Json& args) {
  ASSIGN_OR_RETURN(std::string name, StringField(args, "name"));
  auto model = context.state.models.find(name);
  if (model == context.state.models.end() || model->second.versions.empty()) {
    return Error{ErrorCode::kNotFound, "there is no model '" + name + "': `pare models` lists what was promoted"};
  }
  Json list = Json::array();
  for (const storage::PromotionRow& row : model->second.history) {
    list.push_back({{"sequence", row.sequence}, {"at", TimeOrNull(row.at_ms)}, {"action", row.action}, {"version", row.version},
                    {"previous", row.previous == 0 ? Json() : Json(row.previous)}, {"text", row.text}});
  }
  return Json{{"name", name}, {"history", std::move(list)}};
}

Result<Json> ResolveModel(const QueryContext& context, const Json& args) {
  ASSIGN_OR_RETURN(std::string name, StringField(args, "name"));
  ASSIGN_OR_RETURN(int64_t version, IntOr(args, "version", 0));
  auto model = context.state.models.find(name);
  if (model == context.state.models.end() || model->second.versions.empty()) {
    return Error{ErrorCode::kNotFound, "there is no model '" + name + "': `pare models` lists what was promoted"};
  }
  const storage::VersionRow* row = version == 0 ? model->second.Alias("champion") : model->second.Find(version);
  if (row == nullptr) {
    return Error{ErrorCode::kNotFound, "model " + name + " has no version " + std::to_string(version) + ": its newest is " +
                                           std::to_string(model->second.versions.back().version)};
  }
  return Json{{"name", name}, {"version", row->version}, {"artifact", row->artifact.hex()}, {"evidence", EvidenceOf(context.state, *row)}};
}

Result<Json> ReportOf(const QueryContext& context, const Json& args) {
  ASSIGN_OR_RETURN(const Job* job, JobOf(context, args));
  return Report(context, *job);
}

Result<Json> DigestOfJob(const QueryContext& context, const Json& args) {
  ASSIGN_OR_RETURN(const Job* job, JobOf(context, args));
  return DigestLines(context.state, *job);
}

const std::map<std::string, Query>& Queries() {
  static const std::map<std::string, Query> queries = {
      {"ping", Ping},     {"list", List},           {"describe", Describe},  {"watch", Watch},   {"logs", Logs},
      {"why", Why},       {"report", ReportOf},     {"digest", DigestOfJob}, {"metrics", MetricsOf}, {"known", Known},
      {"models", Models}, {"model_history", ModelHistory}, {"resolve_model", ResolveModel}};
  return queries;
}

}  // namespace

bool IsQuery(const std::string& method) { return Queries().count(method) != 0; }

bool IsAnsweredWhileFull(const std::string& method) { return IsQuery(method) || method == "gc"; }

Result<Json> Answer(const QueryContext& context, const std::string& method, const Json& args) {
  auto query = Queries().find(method);
  if (query == Queries().end()) return Error{ErrorCode::kInvalid, "there is no request '" + method + "'"};
  return query->second(context, args);
}

Result<std::vector<StepKey>> KeysOf(const Json& args) {
  if (!args.contains("keys") || !args["keys"].is_array() || args["keys"].size() > recipes::kMaxPlannedSteps) {
    return Error{ErrorCode::kInvalid, "field 'keys': expected an array of at most " + std::to_string(recipes::kMaxPlannedSteps) + " step keys"};
  }
  std::vector<StepKey> keys;
  for (const Json& text : args["keys"]) {
    ASSIGN_OR_RETURN(StepKey key, StepKey::FromHex(text.is_string() ? text.get<std::string>() : ""));
    keys.push_back(key);
  }
  return keys;
}

Json TimeOrNull(int64_t ms) { return ms == 0 ? Json() : Json(Iso8601({ms})); }

Json JobSummary(const State& state, const Job& job) {
  int64_t total = 0, done = 0;
  for (const JobStep& in_job : job.steps) {
    if (!in_job.wanted) continue;
    ++total;
    done += state.FindStep(in_job.key)->state == StepState::kDone ? 1 : 0;
  }
  bool unknown = job.steps.empty() || (job.finished() && job.lacks_steps());
  return {{"id", job.id},
          {"name", job.name},
          {"state", ToString(job.state)},
          {"created", TimeOrNull(job.created_ms)},
          {"finished", TimeOrNull(job.finished_ms)},
          {"steps_done", unknown ? Json() : Json(done)},
          {"steps_total", unknown ? Json() : Json(total)},
          {"message", job.message}};
}

}  // namespace pare::coordinator
