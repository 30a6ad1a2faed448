// initialize, import and one-shot prune: the steps that need no data.
#include "model/initialize.h"
#include "model/safetensors.h"
#include "methods/registry.h"
#include "worker/runner/steps.h"

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
  ASSIGN_OR_RETURN(checkpoint.graph, GraphParam(context.spec.params));
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(checkpoint.graph));
  checkpoint.tensors = model::InitializeWeights(checkpoint.graph, info, context.spec.seed);
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
  ASSIGN_OR_RETURN(auto input, InputCheckpoint(context, "model"));
  const storage::Checkpoint& from = input->checkpoint;
  const methods::Method* prune = methods::FindMethod("prune");
  CHECK(prune != nullptr);
  ASSIGN_OR_RETURN(methods::Model pruned,
                   prune->apply({from.graph, from.tensors, from.masks}, context.spec.params, context.spec.seed));
  storage::Checkpoint checkpoint{std::move(pruned.graph), std::move(pruned.tensors), std::move(pruned.masks), from.notes};
  return MakeCheckpoint(context, std::move(checkpoint), nullptr);
}

}  // namespace pare::runner
