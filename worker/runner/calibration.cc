#include "worker/runner/calibration.h"

#include <algorithm>

#include "common/random.h"
#include "worker/engine/linalg.h"
#include "worker/engine/network.h"
#include "worker/runner/evaluation.h"

namespace pare::runner {
namespace {

// Activations of one batch that are kept for the sums, all layers together.
constexpr int64_t kMaxTapFloats = int64_t{64} << 20;
// A product's last bits depend on how many rows it has: one number whatever the threads.
constexpr int kCalibrationShards = 4;

engine::PatchForm PatchesOf(const model::Graph& graph, const model::GraphInfo& info, const model::Node& node, methods::ConvForm form) {
  const model::Attributes& a = node.attributes;
  engine::PatchForm patches{info.shapes[static_cast<size_t>(graph.IndexOf(node.inputs[0]))]};
  if (node.op != model::OpType::kConv2d) return patches;
  patches.kernel_h = a.kernel_h, patches.stride_h = a.stride_h, patches.padding_h = a.padding_h;
  // The spatial form sees one column of the image at a time.
  bool channel = form == methods::ConvForm::kChannel;
  patches.kernel_w = channel ? a.kernel_w : 1;
  patches.stride_w = channel ? a.stride_w : 1;
  patches.padding_w = channel ? a.padding_w : 0;
  return patches;
}

bool Same(const engine::PatchForm& a, const engine::PatchForm& b) {
  return a.input == b.input && a.kernel_h == b.kernel_h && a.kernel_w == b.kernel_w && a.stride_h == b.stride_h && a.stride_w == b.stride_w &&
         a.padding_h == b.padding_h && a.padding_w == b.padding_w;
}

// One covariance, for all layers that read the same vectors (query, key and value do).
struct Shared {
  std::string tap;  // the node whose value it is of
  engine::PatchForm patches;
};

struct Requests {
  std::vector<Shared> shared;
  std::vector<size_t> of;  // by tensor
};

Result<Requests> Gather(const model::Graph& graph, const model::GraphInfo& info, const std::vector<std::string>& tensors, methods::ConvForm form, int64_t samples) {
  Requests requests;
  for (const std::string& tensor : tensors) {
    const model::Node& node = *graph.Find(tensor.substr(0, tensor.rfind('.')));
    Shared wanted{node.inputs[0], PatchesOf(graph, info, node, form)};
    int64_t each = wanted.patches.vectors(), columns = wanted.patches.columns();
    if (samples * each < columns) {
      return Error{ErrorCode::kInvalid, "calibration_samples: " + std::to_string(samples) + " samples are " + std::to_string(samples * each) + " inputs of " + node.name +
                                            ", too few for the covariance of its " + std::to_string(columns) + " features; give at least " +
                                            std::to_string((columns + each - 1) / each) + ", or whitened: false"};
    }
    auto same = std::find_if(requests.shared.begin(), requests.shared.end(), [&](const Shared& s) { return s.tap == wanted.tap && Same(s.patches, wanted.patches); });
    requests.of.push_back(static_cast<size_t>(same - requests.shared.begin()));
    if (same == requests.shared.end()) requests.shared.push_back(std::move(wanted));
  }
  return requests;
}

}  // namespace

Result<std::vector<uint32_t>> CalibrationSamples(const std::vector<uint32_t>& training, int64_t samples, uint64_t seed) {
  if (samples < 1 || samples > static_cast<int64_t>(training.size())) {
    return Error{ErrorCode::kInvalid, "calibration_samples: " + std::to_string(samples) + " is not between 1 and the " + std::to_string(training.size()) + " training samples"};
  }
  std::vector<uint32_t> rows = Permutation(RandomStream(seed, RandomPurpose::kCalibrate), static_cast<uint32_t>(training.size()));
  rows.resize(static_cast<size_t>(samples));
  for (uint32_t& row : rows) row = training[row];
  return rows;
}

Result<std::vector<uint32_t>> CalibrationRows(const StepData& data, int64_t samples, uint64_t seed) {
  int64_t count = data.dataset->train.samples.shape()[0];
  if (data.spec.validation < 0 || data.spec.validation >= count) return Error{ErrorCode::kInvalid, "data: validation leaves no training samples"};
  return CalibrationSamples(data::CutValidation(count, data.spec.validation, data.spec.split_seed).train, samples, seed);
}

Result<CalibrationPass> CalibrationPass::Open(StepContext& context, const storage::Checkpoint& model, std::vector<std::string> taps, int64_t samples) {
  CalibrationPass pass(context);
  ASSIGN_OR_RETURN(pass.data_, LoadData(context));
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(model.graph));
  TRY(CheckFits(model.graph, info, *pass.data_.dataset, pass.data_.spec));
  ASSIGN_OR_RETURN(pass.rows_, CalibrationRows(pass.data_, samples, context.spec.seed));
  int64_t floats = 0;
  for (const std::string& tap : taps) floats += model::ElementCount(info.shapes[static_cast<size_t>(model.graph.IndexOf(tap))]);
  pass.batch_ = std::clamp<int64_t>(kMaxTapFloats / std::max<int64_t>(floats, 1), 1, std::min<int64_t>(kEvaluationBatch, samples));
  engine::NetworkOptions options;
  options.device = context.environment.device;
  options.threads = context.environment.threads;
  options.shards = kCalibrationShards;
  options.max_batch = pass.batch_;
  options.taps = std::move(taps);
  ASSIGN_OR_RETURN(pass.network_, engine::Network::Create(model.graph, model.tensors, options));
  return pass;
}

Status CalibrationPass::ForEachBatch(const Visitor& visit) {
  std::vector<int64_t> sizes = network_->tap_sizes();
  std::vector<std::vector<float>> values;
  for (int64_t size : sizes) values.emplace_back(static_cast<size_t>(size * batch_));
  for (size_t first = 0; first < rows_.size(); first += static_cast<size_t>(batch_)) {
    if (context_->hooks.StopRequested()) return Error{ErrorCode::kStopped, "stopped while calibrating; it starts afresh"};
    size_t n = std::min(static_cast<size_t>(batch_), rows_.size() - first);
    std::vector<std::span<float>> taps;
    for (size_t t = 0; t < sizes.size(); ++t) taps.emplace_back(values[t].data(), static_cast<size_t>(sizes[t]) * n);
    network_->Observe(SamplesOf(data_.dataset->train, data_.spec, std::span(rows_).subspan(first, n)), static_cast<int64_t>(n), {}, taps);
    TRY(visit(taps, static_cast<int64_t>(n)));
  }
  return Ok();
}

Result<std::vector<model::Tensor>> InputCovariances(StepContext& context, const storage::Checkpoint& model, const std::vector<std::string>& tensors,
                                                    methods::ConvForm form, int64_t samples) {
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(model.graph));
  ASSIGN_OR_RETURN(Requests requests, Gather(model.graph, info, tensors, form, samples));
  std::vector<std::string> taps;
  std::vector<size_t> tap_of;
  std::vector<engine::CovarianceSum> sums;
  for (const Shared& s : requests.shared) {
    auto tap = std::find(taps.begin(), taps.end(), s.tap);
    tap_of.push_back(static_cast<size_t>(tap - taps.begin()));
    if (tap == taps.end()) taps.push_back(s.tap);
    sums.emplace_back(s.patches);
  }
  ASSIGN_OR_RETURN(CalibrationPass pass, CalibrationPass::Open(context, model, std::move(taps), samples));
  int64_t done = 0;
  TRY(pass.ForEachBatch([&](std::span<const std::span<float>> values, int64_t n) -> Status {
    engine::RunParallel(static_cast<int>(sums.size()), context.environment.threads, [&](int i) {
      auto s = static_cast<size_t>(i);
      sums[s].Add(values[tap_of[s]], n);
    });
    done += n;
    context.hooks.Progress({{"calibrated", done}, {"calibration_samples", samples}});
    return Ok();
  }));
  std::vector<model::Tensor> means, covariances;
  for (const engine::CovarianceSum& sum : sums) means.push_back(sum.Mean());
  for (size_t of : requests.of) covariances.push_back(means[of]);
  return covariances;
}

}  // namespace pare::runner
