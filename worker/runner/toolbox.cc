#include "worker/runner/toolbox.h"

#include <algorithm>

#include "model/encoding.h"
#include "worker/runner/calibration.h"
#include "worker/runner/evaluation.h"
#include "worker/runner/importance.h"

namespace pare::runner {

void RunnerToolbox::Report(const std::string& layer, Json what) {
  what["layer"] = layer;
  report_.push_back(std::move(what));
}

Result<model::TensorMap> RunnerToolbox::Gradients(const model::Graph& graph, const model::TensorMap& tensors, const methods::GradientRequest& request) {
  ASSIGN_OR_RETURN(StepData data, LoadData(context_));
  TRY(model::CheckTrainable(graph));
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(graph));
  TRY(CheckFits(graph, info, *data.dataset, data.spec));
  ASSIGN_OR_RETURN(std::vector<uint32_t> rows, CalibrationRows(data, request.samples, context_.spec.seed));
  engine::NetworkOptions options;
  options.device = context_.environment.device;
  options.threads = context_.environment.threads;
  options.shards = request.squares ? 1 : 2;  // part of the result
  options.max_batch = kGradientBatch;
  ASSIGN_OR_RETURN(auto network, engine::Network::Create(graph, tensors, options));
  std::vector<float> sums = GradientsOf(*network, data.dataset->train, data.spec, rows, request.squares ? GradientMoment::kMeanSquare : GradientMoment::kMean);
  model::TensorMap gradients;
  for (const engine::ParameterSlice& slice : network->layout()) {
    auto spec = std::find_if(info.tensors.begin(), info.tensors.end(), [&](const auto& s) { return s.name == slice.name; });
    std::span<const float> values = std::span<const float>(sums).subspan(static_cast<size_t>(slice.offset), static_cast<size_t>(slice.size));
    gradients.emplace(slice.name, model::Tensor::Of<float>(model::DType::kF32, spec->shape, values));
  }
  return gradients;
}

}  // namespace pare::runner
