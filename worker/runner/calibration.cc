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

Result<std::vector<uint32_t>> CalibrationRows(const StepData& data, int64_t samples, uint64_t seed) {
  int64_t count = data.dataset->train.samples.shape()[0];
  if (data.spec.validation < 0 || data.spec.validation >= count) return Error{ErrorCode::kInvalid, "data: validation leaves no training samples"};
  std::vector<uint32_t> train = data::CutValidation(count, data.spec.validation, data.spec.split_seed).train;
  if (samples < 1 || samples > static_cast<int64_t>(train.size())) {
    return Error{ErrorCode::kInvalid, "calibration_samples: " + std::to_string(samples) + " is not between 1 and the " + std::to_string(train.size()) + " training samples"};
  }
  std::vector<uint32_t> rows = Permutation(RandomStream(seed, RandomPurpose::kCalibrate), static_cast<uint32_t>(train.size()));
  rows.resize(static_cast<size_t>(samples));
  for (uint32_t& row : rows) row = train[row];
  return rows;
}

Result<std::vector<model::Tensor>> InputCovariances(StepContext& context, const storage::Checkpoint& model, const std::vector<std::string>& tensors,
                                                    methods::ConvForm form, int64_t samples) {
  ASSIGN_OR_RETURN(StepData data, LoadData(context));
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(model.graph));
  TRY(CheckFits(model.graph, info, *data.dataset, data.spec));
  ASSIGN_OR_RETURN(std::vector<uint32_t> rows, CalibrationRows(data, samples, context.spec.seed));
  ASSIGN_OR_RETURN(Requests requests, Gather(model.graph, info, tensors, form, samples));
  engine::NetworkOptions options;
  options.device = context.environment.device;
  options.threads = context.environment.threads;
  options.shards = kCalibrationShards;
  std::vector<size_t> tap_of;
  int64_t floats = 0;
  for (const Shared& s : requests.shared) {
    auto tap = std::find(options.taps.begin(), options.taps.end(), s.tap);
    tap_of.push_back(static_cast<size_t>(tap - options.taps.begin()));
    if (tap != options.taps.end()) continue;
    options.taps.push_back(s.tap);
    floats += model::ElementCount(s.patches.input);
  }
  int64_t batch = std::clamp<int64_t>(kMaxTapFloats / std::max<int64_t>(floats, 1), 1, std::min<int64_t>(kEvaluationBatch, samples));
  options.max_batch = batch;
  ASSIGN_OR_RETURN(auto network, engine::Network::Create(model.graph, model.tensors, options));
  std::vector<std::vector<float>> values;
  for (int64_t size : network->tap_sizes()) values.emplace_back(static_cast<size_t>(size * batch));
  std::vector<engine::CovarianceSum> sums;
  for (const Shared& s : requests.shared) sums.emplace_back(s.patches);
  for (int64_t first = 0; first < samples; first += batch) {
    if (context.hooks.StopRequested()) return Error{ErrorCode::kStopped, "stopped while calibrating; it starts afresh"};
    int64_t n = std::min(batch, samples - first);
    std::span<const uint32_t> part = std::span(rows).subspan(static_cast<size_t>(first), static_cast<size_t>(n));
    std::vector<std::span<float>> taps;
    for (size_t t = 0; t < values.size(); ++t) taps.emplace_back(values[t].data(), values[t].size() / static_cast<size_t>(batch) * static_cast<size_t>(n));
    network->Observe([&](int64_t from, int64_t count, std::span<float> out) {
      data::Gather(data.dataset->train, data.spec, part.subspan(static_cast<size_t>(from), static_cast<size_t>(count)), out);
    }, n, {}, taps);
    engine::RunParallel(static_cast<int>(sums.size()), context.environment.threads, [&](int i) {
      auto s = static_cast<size_t>(i);
      sums[s].Add(taps[tap_of[s]], n);
    });
    context.hooks.Progress({{"calibrated", first + n}, {"calibration_samples", samples}});
  }
  std::vector<model::Tensor> means, covariances;
  for (const engine::CovarianceSum& sum : sums) means.push_back(sum.Mean());
  for (size_t of : requests.of) covariances.push_back(means[of]);
  return covariances;
}

}  // namespace pare::runner
