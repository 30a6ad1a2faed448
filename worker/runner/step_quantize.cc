// quantize: int8 at once (dynamic), after calibration (static) or after training with the rounding (qat), and clustering. What
// became of every layer, and why one was left alone, is `report` in the results.
#include "methods/cluster.h"
#include "methods/quantize.h"
#include "worker/runner/input_ranges.h"
#include "worker/runner/step_train.h"

namespace pare::runner {
namespace {

Result<std::vector<std::string>> Names(const Json& params) {
  auto tensors = params.find("tensors");
  std::vector<std::string> names;
  if (tensors == params.end() || !tensors->is_array()) return Error{ErrorCode::kInvalid, "params: field 'tensors' must be a list of names"};
  for (const Json& name : *tensors) {
    if (!name.is_string()) return Error{ErrorCode::kInvalid, "params: field 'tensors' must be a list of names"};
    names.push_back(name.get<std::string>());
  }
  return names;
}

template <typename Layer>
Json Report(const std::vector<Layer>& layers) {
  Json report = Json::array();
  for (const Layer& layer : layers) report.push_back(methods::ToJson(layer));
  return report;
}

Result<StepOutput> Cluster(StepContext& context, const storage::Checkpoint& from, const std::vector<std::string>& tensors) {
  ASSIGN_OR_RETURN(int64_t bits, IntField(context.spec.params, "bits"));
  ASSIGN_OR_RETURN(methods::Clustered clustered, methods::ClusterWeights(ModelOf(from), tensors, static_cast<int>(bits)));
  ASSIGN_OR_RETURN(StepOutput output, MakeCheckpoint(context, CheckpointOf(std::move(clustered.model)), nullptr));
  output.results["report"] = Report(clustered.layers);
  return output;
}

// dynamic or static, and the ranges if static.
Result<methods::QuantizeOptions> OptionsOf(StepContext& context, const storage::Checkpoint& from, std::vector<std::string> tensors, bool is_static) {
  methods::QuantizeOptions options;
  options.tensors = std::move(tensors);
  if (!is_static) return options;
  options.activations = model::Activations::kStatic;
  ASSIGN_OR_RETURN(methods::CalibrationOptions calibration, methods::CalibrationOptionsFromJson(context.spec.params));
  std::vector<std::string> linears;
  for (const std::string& node : methods::NodesOf(from.graph, options.tensors)) {
    if (from.graph.Find(node)->op == model::OpType::kLinear) linears.push_back(node);
  }
  ASSIGN_OR_RETURN(options.inputs, CalibrateInputs(context, from, linears, calibration));
  return options;
}

// Trains the network with the rounding; the result is still int8_fake.
Result<Trained> TrainRounded(StepContext& context, const storage::Checkpoint& from, const methods::QuantizeOptions& options) {
  ASSIGN_OR_RETURN(methods::Model fake, methods::FakeInt8(ModelOf(from), options));
  storage::Checkpoint start = CheckpointOf(std::move(fake));
  ASSIGN_OR_RETURN(TrainPlan plan, PlanTraining(context, start));
  ASSIGN_OR_RETURN(StepData data, LoadData(context));
  return RunTraining(context, data, std::move(plan));
}

}  // namespace

Result<StepOutput> RunQuantize(StepContext& context) {
  const Json& params = context.spec.params;
  ASSIGN_OR_RETURN(std::string scheme, StringField(params, "scheme"));
  if (scheme != "int8_dynamic" && scheme != "int8_static" && scheme != "qat" && scheme != "cluster") {
    return Error{ErrorCode::kInvalid, "params: field 'scheme': '" + scheme + "' is not one of int8_dynamic, int8_static, qat, cluster"};
  }
  ASSIGN_OR_RETURN(auto input, InputCheckpoint(context, "model"));
  ASSIGN_OR_RETURN(std::vector<std::string> tensors, Names(params));
  if (scheme == "cluster") return Cluster(context, input->checkpoint, tensors);
  std::string activations = scheme == "int8_static" ? "static" : "dynamic";
  if (scheme == "qat") {
    ASSIGN_OR_RETURN(activations, StringField(params, "activations"));
  }
  ASSIGN_OR_RETURN(methods::QuantizeOptions options, OptionsOf(context, input->checkpoint, std::move(tensors), activations == "static"));
  std::optional<Trained> trained;
  if (scheme == "qat") {
    ASSIGN_OR_RETURN(trained, TrainRounded(context, input->checkpoint, options));
  }
  methods::Model model = trained ? ModelOf(trained->checkpoint) : ModelOf(input->checkpoint);
  ASSIGN_OR_RETURN(std::vector<methods::LayerQuantization> layers, methods::Diagnose(model, options));
  ASSIGN_OR_RETURN(model, methods::QuantizeInt8(std::move(model), options));
  ASSIGN_OR_RETURN(StepOutput output, MakeCheckpoint(context, CheckpointOf(std::move(model)), trained ? &trained->history : nullptr));
  output.results["report"] = Report(layers);
  return output;
}

}  // namespace pare::runner
