// initialize, import, one-shot prune and every other method: the steps that do not train.
#include "model/initialize.h"
#include "model/safetensors.h"
#include "worker/runner/steps.h"
#include "worker/runner/toolbox.h"

namespace pare::runner {
namespace {

Result<model::Graph> GraphParam(const Json& params) {
  auto graph = params.find("graph");
  if (graph == params.end()) return Error{ErrorCode::kInvalid, "params: field 'graph' is missing"};
  Result<model::Graph> parsed = model::GraphFromJson(*graph);
  if (!parsed.ok()) return parsed.error().With("params: field 'graph'");
  return parsed;
}

}  // namespace

Result<StepOutput> RunInitialize(StepContext& context) {
  storage::Checkpoint checkpoint;
  if (context.spec.inputs.contains("like")) {
    ASSIGN_OR_RETURN(auto input, InputCheckpoint(context, "like"));
    checkpoint.graph = input->checkpoint.graph;
  } else {
    ASSIGN_OR_RETURN(checkpoint.graph, GraphParam(context.spec.params));
  }
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(checkpoint.graph));
  uint64_t seed = context.spec.seed;
  if (context.spec.params.contains("seed")) {
    ASSIGN_OR_RETURN(int64_t other, IntField(context.spec.params, "seed"));
    seed = static_cast<uint64_t>(other);
  }
  checkpoint.tensors = model::InitializeWeights(checkpoint.graph, info, seed);
  return MakeCheckpoint(context, std::move(checkpoint), nullptr);
}

Result<StepOutput> RunImport(StepContext& context) {
  storage::Checkpoint checkpoint;
  ASSIGN_OR_RETURN(checkpoint.graph, GraphParam(context.spec.params));
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(checkpoint.graph));
  ASSIGN_OR_RETURN(Digest weights, DigestField(context.spec.params, "weights"));
  auto blob = context.environment.blobs.Get(weights);
  if (!blob.ok()) return blob.error().With("params: field 'weights'");
  auto tensors = model::DecodeSafetensors(blob->bytes, blob->keep_alive);
  if (!tensors.ok()) return tensors.error().With("params: field 'weights': blob " + weights.brief());
  TRY(model::CheckWeights(info, *tensors));
  checkpoint.tensors = *std::move(tensors);
  return MakeCheckpoint(context, std::move(checkpoint), nullptr);
}

Result<StepOutput> RunPrune(StepContext& context) {
  ASSIGN_OR_RETURN(std::string schedule, StringField(context.spec.params, "schedule"));
  if (schedule == "linear" || schedule == "cubic") return RunGradualPrune(context);
  if (schedule != "one_shot") {
    return Error{ErrorCode::kInvalid, "params: field 'schedule': '" + schedule + "' is not one of one_shot, linear, cubic"};
  }
  return RunRewrite(context);
}

Result<StepOutput> RunRewrite(StepContext& context) {
  const methods::Method* method = methods::FindMethod(context.spec.kind);
  CHECK(method != nullptr);
  ASSIGN_OR_RETURN(auto input, InputCheckpoint(context, "model"));
  RunnerToolbox toolbox(context);
  ASSIGN_OR_RETURN(methods::Model made, method->apply(ModelOf(input->checkpoint), context.spec.params, toolbox));
  ASSIGN_OR_RETURN(StepOutput output, MakeCheckpoint(context, CheckpointOf(std::move(made)), nullptr));
  if (!toolbox.report().empty()) output.results["report"] = toolbox.report();
  return output;
}

}  // namespace pare::runner
