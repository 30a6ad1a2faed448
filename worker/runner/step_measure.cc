// measure: the network of this step against the dense baseline, both in this process and in turn. Results, artifact
// "measurement": docs/formats.md. The one step whose results are no pure function of its inputs.
#include <numeric>

#include "model/counts.h"
#include "worker/engine/execution.h"
#include "worker/runner/evaluation.h"
#include "worker/runner/measurement.h"
#include "worker/runner/steps.h"

namespace pare::runner {
namespace {

struct Settings {
  int64_t batch = 1, threads = 1;
  MeasureLimits limits;
  double price_per_hour = 0;
};

Result<Settings> SettingsOf(const Json& params) {
  Settings s;
  ASSIGN_OR_RETURN(s.batch, IntField(params, "batch"));
  ASSIGN_OR_RETURN(s.threads, IntField(params, "threads"));
  ASSIGN_OR_RETURN(s.limits.runs, IntField(params, "runs"));
  for (const char* field : {"seconds", "price_per_hour"}) {
    if (params.contains(field) && !params[field].is_number()) return Error{ErrorCode::kInvalid, std::string("params: field '") + field + "' must be a number"};
  }
  s.limits.seconds = params.value("seconds", s.limits.seconds);
  s.price_per_hour = params.value("price_per_hour", 0.0);
  if (s.batch < 1 || s.threads < 1 || s.threads > 4096 || s.limits.runs < 1) {
    return Error{ErrorCode::kInvalid, "params: fields 'batch', 'threads' and 'runs' must be at least 1, 'threads' at most 4096"};
  }
  return s;
}

// One network that takes part, and what was found out about it.
struct Entrant {
  std::string name, what;
  const storage::Checkpoint* checkpoint;
  engine::ExecutionPlan plan;
  std::unique_ptr<engine::Network> network = nullptr;
  Json memory = nullptr, energy = nullptr;
};

class Bench {
 public:
  Bench(StepContext& context, const Settings& settings, const Meters& meters, const StepData& data) : context_(context), settings_(settings), meters_(meters) {
    rows_ = data::CutValidation(data.dataset->train.labels.size(), data.spec.validation, data.spec.split_seed).validation;
    std::vector<uint32_t> batch(static_cast<size_t>(settings.batch));
    auto size = static_cast<uint32_t>(data.dataset->train.labels.size());
    for (size_t i = 0; i < batch.size(); ++i) batch[i] = rows_.empty() ? static_cast<uint32_t>(i) % size : rows_[i % rows_.size()];
    labels_.assign(batch.size(), 0);
    samples_.resize(batch.size() * static_cast<size_t>(data.dataset->train.samples.size() / size));
    SamplesOf(data.dataset->train, data.spec, batch)(0, settings.batch, samples_);
  }

  // Shards as threads have work.
  int Shards() const { return static_cast<int>(std::min(settings_.threads, settings_.batch)); }
  const std::vector<uint32_t>& rows() const { return rows_; }

  Result<std::unique_ptr<engine::Network>> Make(const Entrant& e, int64_t max_batch) const {
    engine::NetworkOptions options;
    options.device = context_.environment.device;
    options.threads = static_cast<int>(settings_.threads);
    options.shards = Shards();
    options.max_batch = max_batch;
    options.execution = e.plan;
    return engine::Network::Create(e.checkpoint->graph, e.checkpoint->tensors, options);
  }

  void RunOnce(engine::Network& network) { network.EvaluateBatch(samples_, labels_, {}); }

  // Builds the network and runs it a little, for its memory.
  Status Open(Entrant& e, Json& not_measured) {
    Result<int64_t> before = meters_.reset_memory();
    ASSIGN_OR_RETURN(e.network, Make(e, settings_.batch));
    for (int i = 0; i < 3; ++i) RunOnce(*e.network);
    Result<int64_t> peak = before.ok() ? meters_.peak_memory() : before;
    if (peak.ok()) e.memory = std::max<int64_t>(0, *peak - *before);
    else not_measured["peak_memory"] = peak.error().message;
    return Ok();
  }

  // Joules of `runs` runs one after the other: counters tick too rarely for single runs.
  void Energy(Entrant& e, int64_t runs, Json& not_measured) {
    Result<double> before = meters_.energy_j();
    for (int64_t i = 0; before.ok() && i < runs; ++i) RunOnce(*e.network);
    Result<double> after = before.ok() ? meters_.energy_j() : before;
    if (after.ok()) e.energy = (*after - *before) * 1000 / static_cast<double>(runs * settings_.batch);
    else not_measured["energy"] = after.error().message;
  }

 private:
  StepContext& context_;
  const Settings& settings_;
  const Meters& meters_;
  std::vector<uint32_t> rows_;  // of validation
  std::vector<int64_t> labels_;
  std::vector<float> samples_;
};

Result<std::vector<engine::LayerExecution>> Choose(const StepContext& context, const storage::Checkpoint& c, int64_t batch) {
  if (context.environment.device != "cpu") return std::vector<engine::LayerExecution>();  // the ways are the CPU's
  return engine::MeasureExecution(c.graph, c.tensors, {.batch = batch});
}

Json LinesOf(const std::vector<engine::LayerExecution>& layers) {
  Json lines = Json::array();
  for (const engine::LayerExecution& l : layers) {
    lines.push_back({{"layer", l.node}, {"way", l.way}, {"density", l.density}, {"milliseconds", l.milliseconds}, {"reason", l.reason}});
  }
  return lines;
}

Json LineOf(const Entrant& e, const Timing& t, double eager_s, const Settings& s) {
  auto batch = static_cast<double>(s.batch);
  Json line = {{"name", e.name}, {"what", e.what}, {"p50_ms", t.p50_s * 1e3}, {"p95_ms", t.p95_s * 1e3}, {"min_ms", t.min_s * 1e3},
               {"speedup", eager_s / t.p50_s}, {"cpu_s_per_1000", t.cpu_s * 1000 / batch}, {"peak_memory_bytes", e.memory}, {"energy_j_per_1000", e.energy}};
  if (s.price_per_hour > 0) line["cost_per_million"] = s.price_per_hour / 3600 * t.p50_s / batch * 1e6;
  return line;
}

Json SizesOf(const LoadedCheckpoint& loaded) {
  Json sizes = Json::object();
  for (const char* field : {"checkpoint_bytes", "parameters", "parameters_nonzero", "multiply_adds", "multiply_adds_nonzero"}) {
    sizes[field] = loaded.artifact.results.value(field, Json());
  }
  return sizes;
}

double NumberOf(const Json& object, const char* field) {
  auto it = object.find(field);
  return it != object.end() && it->is_number() ? it->get<double>() : 0.0;
}

// Of validation samples, executed as planned; null without any.
Result<Json> AccuracyOf(const Bench& bench, const storage::Checkpoint& checkpoint, const engine::ExecutionPlan& plan, const StepData& data) {
  if (bench.rows().empty()) return Json();
  ASSIGN_OR_RETURN(auto network, bench.Make({"", "", &checkpoint, plan}, kEvaluationBatch));
  EvaluationCounts counts = EvaluateRows(*network, data.dataset->train, data.spec, bench.rows(), nullptr);
  return Json(Percent(counts.correct, counts.total));
}

}  // namespace

Result<StepOutput> RunMeasure(StepContext& context) {
  ASSIGN_OR_RETURN(Settings settings, SettingsOf(context.spec.params));
  ASSIGN_OR_RETURN(auto model, InputCheckpoint(context, "model"));
  ASSIGN_OR_RETURN(auto baseline, InputCheckpoint(context, "baseline"));
  ASSIGN_OR_RETURN(StepData data, LoadData(context));
  for (const storage::Checkpoint* c : {&model->checkpoint, &baseline->checkpoint}) {
    ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(c->graph));
    TRY(CheckFits(c->graph, info, *data.dataset, data.spec));
  }
  const Meters& meters = context.environment.meters;
  Bench bench(context, settings, meters, data);
  int64_t slice = (settings.batch + bench.Shards() - 1) / bench.Shards();  // what one thread gets
  ASSIGN_OR_RETURN(auto dense, Choose(context, baseline->checkpoint, slice));
  ASSIGN_OR_RETURN(auto chosen, Choose(context, model->checkpoint, slice));
  engine::ExecutionPlan dense_plan = engine::PlanOf(dense), plan = engine::PlanOf(chosen);
  for (auto& [node, way] : dense_plan) way = way == "sparse" ? "encoded" : way;
  std::vector<Entrant> entrants;
  entrants.push_back({"eager", "the baseline, float32", &baseline->checkpoint, {}});
  entrants.push_back({"dense", "the baseline, each layer in its fastest dense execution", &baseline->checkpoint, dense_plan});
  entrants.push_back({"stored", "this network as its encodings say", &model->checkpoint, {}});
  entrants.push_back({"chosen", "this network, each layer in its fastest execution", &model->checkpoint, plan});
  Json not_measured = Json::object();
  std::vector<Contender> contenders;
  for (Entrant& e : entrants) {
    TRY(bench.Open(e, not_measured));
    contenders.push_back({e.name, [&bench, &e] { bench.RunOnce(*e.network); }});
  }
  ASSIGN_OR_RETURN(Timings timings, MeasureInTurn(contenders, settings.limits, meters, [&] { return context.hooks.StopRequested().has_value(); }));
  Json lines = Json::array();
  for (size_t i = 0; i < entrants.size(); ++i) {
    bench.Energy(entrants[i], timings.runs, not_measured);
    lines.push_back(LineOf(entrants[i], timings.of[i], timings.of[0].p50_s, settings));
  }
  // Alone a layer may gain what the layers around it lose.
  bool as_stored = timings.of[2].p50_s < timings.of[3].p50_s;
  const Timing& best = timings.of[as_stored ? 2 : 3];
  if (as_stored) plan.clear();
  double best_dense_s = std::min(timings.of[0].p50_s, timings.of[1].p50_s);
  Json sizes = SizesOf(*model), before = SizesOf(*baseline);
  Gains gains{best_dense_s / best.p50_s, NumberOf(before, "checkpoint_bytes") / std::max(1.0, NumberOf(sizes, "checkpoint_bytes"))};
  SpeedFacts facts{gains.time, best_dense_s, best.p50_s, settings.batch, settings.threads, NumberOf(sizes, "multiply_adds") < NumberOf(before, "multiply_adds"),
                   NumberOf(model->artifact.results.value("sparsity", Json::object()), "pruned_layers"), false};
  for (const auto& [node, way] : plan) facts.any_sparse = facts.any_sparse || way == "sparse";
  ASSIGN_OR_RETURN(Json accuracy, AccuracyOf(bench, model->checkpoint, plan, data));
  StepOutput output;
  output.kind = "measurement";
  output.results = {{"model", context.assignment.inputs.at("model").hex()}, {"baseline", context.assignment.inputs.at("baseline").hex()},
                    {"batch", settings.batch}, {"threads", settings.threads}, {"label", context.spec.params.value("label", "")},
                    {"runs", timings.runs}, {"warm_up_runs", timings.warm_up_runs}, {"settled", timings.settled},
                    {"ladder", std::move(lines)}, {"execution", plan}, {"choices", LinesOf(chosen)},
                    {"p50_ms", best.p50_s * 1e3}, {"p95_ms", best.p95_s * 1e3}, {"min_ms", best.min_s * 1e3}, {"speedup", gains.time},
                    {"smaller", gains.space}, {"gives", GivesOf(gains)}, {"finding", FindingOf(facts)}, {"accuracy_as_executed", accuracy},
                    {"sizes", std::move(sizes)}, {"baseline_sizes", std::move(before)}, {"not_measured", std::move(not_measured)}, {"machine", Machine()}};
  return output;
}

}  // namespace pare::runner
