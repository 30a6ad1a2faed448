#include "worker/runner/step_train.h"

#include "common/log.h"
#include "model/encoding.h"
#include "model/initialize.h"
#include "worker/runner/gang.h"

namespace pare::runner {
namespace {

// The step's snapshot. One that is gone or damaged costs time, not the step: it starts afresh.
std::optional<Snapshot> LoadSnapshot(StepContext& context) {
  const Digest& digest = context.assignment.snapshot;
  if (digest.is_none()) return std::nullopt;
  auto load = [&]() -> Result<Snapshot> {
    ASSIGN_OR_RETURN(storage::BlobView blob, context.environment.blobs.Get(digest));
    return DecodeSnapshot(blob.bytes, blob.keep_alive, context.assignment.key);
  };
  Result<Snapshot> snapshot = load();
  if (snapshot.ok()) return *std::move(snapshot);
  LogWarning("step " + context.assignment.key.brief() + " starts afresh: snapshot " + digest.brief() + ": " +
             snapshot.error().message);
  return std::nullopt;
}

// Absent or of another type: off. Hints change no result.
double Hint(const Json& hints, const char* name) {
  auto it = hints.is_object() ? hints.find(name) : hints.end();
  return it != hints.end() && it->is_number() ? it->get<double>() : 0.0;
}

}  // namespace

Result<TrainPlan> PlanTraining(StepContext& context, const storage::Checkpoint& model) {
  TrainPlan plan{model, model.tensors, {}, {}};
  if (context.assignment.inputs.contains("rewind")) {
    // Weight rewind: earlier weights under the present masks, buffers included.
    ASSIGN_OR_RETURN(auto rewind, InputCheckpoint(context, "rewind"));
    if (rewind->checkpoint.graph != model.graph) {
      return Error{ErrorCode::kInvalid, "input 'rewind' has another graph than input 'model'"};
    }
    plan.weights = rewind->checkpoint.tensors;
  } else if (context.spec.inputs.contains("rewind")) {
    return Error{ErrorCode::kInvalid, "input 'rewind' is missing"};
  }
  ASSIGN_OR_RETURN(plan.options, TrainOptionsFromJson(context.spec.params));
  ASSIGN_OR_RETURN(plan.range, EpochRangeFromJson(context.spec.params, plan.options));
  return plan;
}

Result<Trained> RunTraining(StepContext& context, const StepData& data, TrainPlan plan) {
  if (plan.frozen.empty()) TRY(model::CheckTrainable(plan.from.graph));
  const model::Graph& graph = plan.graph ? *plan.graph : plan.from.graph;
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(graph));
  TRY(model::CheckWeights(info, plan.weights));
  methods::ApplyMasks(plan.from.masks, plan.weights);
  TrainJob job{graph, info, std::move(plan.weights), plan.from.masks, *data.dataset, data.spec, std::move(plan.options), plan.range,
               std::move(plan.gradual), plan.teacher.get(), std::move(plan.taps), std::move(plan.frozen), context.spec.seed, context.assignment.key};
  job.device = context.environment.device;
  job.threads = context.environment.threads;
  job.snapshot_every_epochs = static_cast<int64_t>(Hint(context.assignment.hints, "snapshot_every_epochs"));
  job.snapshot_every_seconds = Hint(context.assignment.hints, "snapshot_every_seconds");
  std::optional<Snapshot> resume = LoadSnapshot(context);
  ASSIGN_OR_RETURN(job.gang, MeetGang(context, resume));
  TrainServices services{context.hooks, context.snapshots, context.environment.clock, context.stopped};
  int rank = job.gang == nullptr ? 0 : job.gang->rank();
  ASSIGN_OR_RETURN(TrainResult trained, Train(std::move(job), std::move(resume), services));
  TRY(AwaitFirst(context, rank));
  for (const model::TensorSpec& spec : info.tensors) {
    if (plan.from.graph.Find(spec.node) == nullptr) trained.weights.erase(spec.name);
  }
  storage::Checkpoint checkpoint{plan.from.graph, std::move(trained.weights), std::move(trained.masks), plan.from.notes};
  // What the weights expect of a sample, per channel (raw / divisor - offset) * scale: whoever takes the model away needs it.
  const bool bytes = data.dataset->train.samples.dtype() == model::DType::kU8;
  checkpoint.notes["data"] = {{"fingerprint", data.spec.fingerprint.hex()}, {"divisor", bytes ? 255 : 1},
                              {"offset", data.spec.offset}, {"scale", data.spec.scale}};
  return Trained{std::move(checkpoint), std::move(trained.history)};
}

Result<StepOutput> TrainAndStore(StepContext& context, const StepData& data, TrainPlan plan) {
  ASSIGN_OR_RETURN(Trained trained, RunTraining(context, data, std::move(plan)));
  return MakeCheckpoint(context, std::move(trained.checkpoint), &trained.history);
}

Result<StepOutput> RunTrain(StepContext& context) {
  ASSIGN_OR_RETURN(auto input, InputCheckpoint(context, "model"));
  ASSIGN_OR_RETURN(TrainPlan plan, PlanTraining(context, input->checkpoint));
  ASSIGN_OR_RETURN(StepData data, LoadData(context));
  return TrainAndStore(context, data, std::move(plan));
}

Result<StepOutput> RunGradualPrune(StepContext& context) {
  ASSIGN_OR_RETURN(auto input, InputCheckpoint(context, "model"));
  TrainPlan plan{input->checkpoint, input->checkpoint.tensors, {}, {}};
  ASSIGN_OR_RETURN(plan.options, TrainOptionsFromJson(context.spec.params));
  ASSIGN_OR_RETURN(int64_t draw, IntField(context.spec.params, "draw_epoch"));
  plan.range = {0, plan.options.epochs, draw};
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(input->checkpoint.graph));
  ASSIGN_OR_RETURN(plan.gradual, GradualPruningFromJson(context.spec.params, input->checkpoint.graph, info, plan.options.epochs));
  ASSIGN_OR_RETURN(StepData data, LoadData(context));
  return TrainAndStore(context, data, std::move(plan));
}

}  // namespace pare::runner
