// spectrum and low_rank: one decomposition per layer, then ranks looked up as often as wanted.
#include "methods/spectrum.h"
#include "model/safetensors.h"
#include "worker/engine/linalg.h"
#include "worker/runner/calibration.h"
#include "worker/runner/steps.h"

namespace pare::runner {
namespace {

// The layers of the step, those that cannot be factored with the reason why.
Result<methods::Spectrum> Outline(const Json& params, const storage::Checkpoint& model) {
  methods::Spectrum spectrum;
  ASSIGN_OR_RETURN(std::string conv, StringField(params, "conv"));
  ASSIGN_OR_RETURN(spectrum.conv, methods::ConvFormFromString(conv));
  ASSIGN_OR_RETURN(spectrum.whitened, BoolField(params, "whitened"));
  if (spectrum.whitened) {
    ASSIGN_OR_RETURN(spectrum.calibration_samples, IntField(params, "calibration_samples"));
  }
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(model.graph));
  ASSIGN_OR_RETURN(std::vector<model::TensorSpec> specs, methods::PresentTensors(params, info));
  for (const model::TensorSpec& spec : specs) {
    methods::LayerSpectrum layer;
    layer.tensor = spec.name;
    const model::Tensor& weight = model.tensors.at(spec.name);
    auto form = methods::FormOf(model.graph, info, spec.name, spectrum.conv);
    if (weight.dtype() != model::DType::kF32) {
      return Error{ErrorCode::kInvalid, "low_rank: " + spec.node + " is quantized (" + std::string(model::ToString(weight.dtype())) + "); put low_rank before it"};
    }
    if (form.ok()) {
      layer.rows = form->rows;
      layer.columns = form->columns;
      layer.weight = weight.digest();
    } else {
      layer.reason = form.error().message;
    }
    spectrum.layers.push_back(std::move(layer));
  }
  return spectrum;
}

Result<methods::Spectrum> Decompose(StepContext& context, const storage::Checkpoint& model) {
  ASSIGN_OR_RETURN(methods::Spectrum spectrum, Outline(context.spec.params, model));
  std::vector<methods::LayerSpectrum*> layers;
  std::vector<engine::SpectrumJob> jobs;
  std::vector<std::string> names;
  for (methods::LayerSpectrum& layer : spectrum.layers) {
    if (!layer.reason.empty()) continue;
    const model::Node& node = *model.graph.Find(layer.tensor.substr(0, layer.tensor.rfind('.')));
    int64_t largest = methods::LargestRank(layer.rows, layer.columns, layer.rows * layer.columns);
    jobs.push_back({layer.tensor, methods::AsMatrix(node, model.tensors.at(layer.tensor), spectrum.conv), {}, largest});
    layers.push_back(&layer);
    names.push_back(layer.tensor);
  }
  if (spectrum.whitened) {
    ASSIGN_OR_RETURN(std::vector<model::Tensor> covariances, InputCovariances(context, model, names, spectrum.conv, spectrum.calibration_samples));
    for (size_t i = 0; i < jobs.size(); ++i) jobs[i].covariance = std::move(covariances[i]);
  }
  if (context.hooks.StopRequested()) return Error{ErrorCode::kStopped, "stopped before the decomposition; it starts afresh"};
  ASSIGN_OR_RETURN(std::vector<engine::SpectrumResult> results, engine::Spectra(jobs, context.environment.threads));
  for (size_t i = 0; i < results.size(); ++i) {
    layers[i]->energies = std::move(results[i].energies);
    layers[i]->ridge = results[i].ridge;
    if (jobs[i].keep == 0) continue;
    layers[i]->up = std::move(results[i].up);
    layers[i]->down = std::move(results[i].down);
  }
  return spectrum;
}

Result<methods::Spectrum> InputSpectrum(StepContext& context) {
  ASSIGN_OR_RETURN(storage::BlobView view, InputBlob(context, "spectrum", "spectrum", "spectrum"));
  auto read = [&]() -> Result<methods::Spectrum> {
    ASSIGN_OR_RETURN(model::TensorMap tensors, model::DecodeSafetensors(view.bytes, view.keep_alive));
    return methods::SpectrumFromTensors(tensors);
  };
  Result<methods::Spectrum> spectrum = read();
  if (!spectrum.ok()) return spectrum.error().With("input 'spectrum'");
  return spectrum;
}

}  // namespace

Result<StepOutput> RunSpectrum(StepContext& context) {
  ASSIGN_OR_RETURN(auto input, InputCheckpoint(context, "model"));
  const storage::Checkpoint& model = input->checkpoint;
  ASSIGN_OR_RETURN(methods::Spectrum spectrum, Decompose(context, model));
  std::vector<std::string> names;
  for (const methods::LayerSpectrum& layer : spectrum.layers) names.push_back(layer.tensor);
  ASSIGN_OR_RETURN(std::vector<methods::RankedLayer> layers, methods::RankedLayers(ModelOf(model), spectrum, names));
  StepOutput output;
  output.kind = "spectrum";
  ASSIGN_OR_RETURN(storage::BlobReference blob, PutBlob(context, model::EncodeSafetensors(methods::ToTensors(spectrum))));
  output.blobs.emplace("spectrum", blob);
  output.results = methods::SpectrumResults(layers, spectrum);
  return output;
}

Result<StepOutput> RunLowRank(StepContext& context) {
  ASSIGN_OR_RETURN(auto input, InputCheckpoint(context, "model"));
  ASSIGN_OR_RETURN(methods::Spectrum spectrum, InputSpectrum(context));
  ASSIGN_OR_RETURN(methods::LowRankResult made, methods::LowRank(ModelOf(input->checkpoint), spectrum, context.spec.params));
  ASSIGN_OR_RETURN(StepOutput output, MakeCheckpoint(context, CheckpointOf(std::move(made.model)), nullptr));
  output.results["report"] = std::move(made.report);
  return output;
}

}  // namespace pare::runner
