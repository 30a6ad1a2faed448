// lora and qlora: adapters trained beside a frozen base. The result is the network with its adapters merged, or the adapters
// alone as a layer on top of the base's checkpoint (storage/layered.h).
#include "methods/lora.h"
#include "methods/nf4.h"
#include "model/encoding.h"
#include "storage/layered.h"
#include "worker/runner/step_train.h"

namespace pare::runner {
namespace {

struct LoraParams {
  methods::LoraOptions options;
  bool merge = false;
};

Result<LoraParams> LoraParamsFromJson(const Json& params, const model::GraphInfo& info) {
  LoraParams p;
  ASSIGN_OR_RETURN(std::vector<model::TensorSpec> specs, methods::PresentTensors(params, info));
  for (const model::TensorSpec& spec : specs) p.options.tensors.push_back(spec.name);
  ASSIGN_OR_RETURN(p.options.rank, IntField(params, "rank"));
  ASSIGN_OR_RETURN(p.options.alpha, NumberField(params, "alpha"));
  ASSIGN_OR_RETURN(p.merge, BoolField(params, "merge"));
  if (p.options.rank < 1) return Error{ErrorCode::kInvalid, "params: field 'rank': " + std::to_string(p.options.rank) + " is not at least 1"};
  return p;
}

// The checkpoint's tensors `own` as an artifact on top of `base`, blobs of a checkpoint. What the network is like is told of
// the whole; `adapter_bytes` are those of the upper layer.
Result<StepOutput> MakeLayer(StepContext& context, storage::Checkpoint whole, const std::set<std::string>& own,
                             const std::map<std::string, storage::BlobReference>& base, const std::vector<EpochRecord>& history) {
  storage::Checkpoint layer{whole.graph, {}, {}, whole.notes};
  for (const std::string& name : own) {
    layer.tensors.emplace(name, whole.tensors.at(name));
    if (auto mask = whole.masks.find(name); mask != whole.masks.end()) layer.masks.insert(*mask);
  }
  ASSIGN_OR_RETURN(StepOutput output, MakeCheckpoint(context, std::move(layer), &history, &whole));
  output.results["adapter_bytes"] = output.results["checkpoint_bytes"];
  int64_t bytes = output.results["checkpoint_bytes"].get<int64_t>();
  for (auto& [role, blob] : storage::AsBase(base)) {
    bytes += blob.bytes;
    output.blobs.emplace(role, blob);
  }
  output.results["checkpoint_bytes"] = bytes;
  output.checkpoint = std::move(whole);
  return output;
}

// What the base is like while adapters train: as it is, or with the targets' weights in NF4 and stored so.
struct Base {
  methods::Model model;
  std::map<std::string, storage::BlobReference> blobs;
  Json report = Json::array();
};

Result<Base> QuantizedBase(StepContext& context, const storage::Checkpoint& from, const std::vector<std::string>& tensors, bool store) {
  Base base;
  ASSIGN_OR_RETURN(methods::Nf4Options options, methods::Nf4OptionsFromJson(context.spec.params));
  ASSIGN_OR_RETURN(methods::Nf4Result encoded, methods::EncodeLayers(ModelOf(from), tensors, options));
  base.model = std::move(encoded.model);
  base.report = std::move(encoded.report);
  if (!store) return base;
  ASSIGN_OR_RETURN(StepOutput stored, MakeCheckpoint(context, CheckpointOf(base.model), nullptr));
  base.blobs = std::move(stored.blobs);
  return base;
}

// Frozen layers pass gradients to the adapters: float32 and 4-bit ones do.
Status CheckPassable(const model::Graph& graph) {
  for (const model::Node& node : graph.nodes) {
    model::Encoding encoding = node.attributes.encoding;
    if (encoding == model::Encoding::kDense || encoding == model::Encoding::kNf4) continue;
    return Error{ErrorCode::kInvalid, "layer '" + node.name + "' is " + std::string(model::ToString(encoding)) +
                                          ", and adapters cannot be trained in a network with such a layer: put lora before the step that made it so"};
  }
  return Ok();
}

Result<StepOutput> TrainAdapters(StepContext& context, bool quantized) {
  ASSIGN_OR_RETURN(auto input, InputCheckpoint(context, "model"));
  const storage::Checkpoint& from = input->checkpoint;
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(from.graph));
  TRY(CheckPassable(from.graph));
  ASSIGN_OR_RETURN(LoraParams params, LoraParamsFromJson(context.spec.params, info));
  Base base{ModelOf(from), input->artifact.blobs};
  for (const std::string& tensor : params.options.tensors) {
    if (params.merge && from.masks.contains(tensor)) {
      std::string layer = tensor.substr(0, tensor.rfind('.'));
      return Error{ErrorCode::kInvalid, context.spec.kind + ": " + layer + " is pruned, and its merged adapter would fill the removed weights; set merge: false, or use retrain instead"};
    }
  }
  if (quantized) {
    ASSIGN_OR_RETURN(base, QuantizedBase(context, from, params.options.tensors, !params.merge));
  }
  ASSIGN_OR_RETURN(methods::Adapted adapted, methods::AddAdapters(std::move(base.model), params.options, context.spec.seed));
  storage::Checkpoint start = CheckpointOf(std::move(adapted.model));
  ASSIGN_OR_RETURN(model::GraphInfo with_adapters, model::Analyze(start.graph));
  ASSIGN_OR_RETURN(TrainPlan plan, PlanTraining(context, start));
  plan.frozen = methods::FrozenUnderAdapters(start.graph, with_adapters);
  ASSIGN_OR_RETURN(StepData data, LoadData(context));
  ASSIGN_OR_RETURN(Trained trained, RunTraining(context, data, std::move(plan)));
  StepOutput output;
  if (params.merge) {
    ASSIGN_OR_RETURN(methods::Model merged, methods::MergeAdapters(ModelOf(std::move(trained.checkpoint))));
    ASSIGN_OR_RETURN(output, MakeCheckpoint(context, CheckpointOf(std::move(merged)), &trained.history));
  } else {
    std::set<std::string> own = methods::AdapterTensors(trained.checkpoint.graph);
    ASSIGN_OR_RETURN(output, MakeLayer(context, std::move(trained.checkpoint), own, base.blobs, trained.history));
  }
  output.results["report"] = std::move(adapted.report);
  if (quantized) output.results["encoded"] = std::move(base.report);
  return output;
}

}  // namespace

Result<StepOutput> RunLora(StepContext& context) { return TrainAdapters(context, false); }
Result<StepOutput> RunQlora(StepContext& context) { return TrainAdapters(context, true); }

}  // namespace pare::runner
