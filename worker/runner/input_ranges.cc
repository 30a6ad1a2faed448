#include "worker/runner/input_ranges.h"

#include <algorithm>
#include <functional>

#include "worker/engine/network.h"
#include "worker/runner/calibration.h"
#include "worker/runner/evaluation.h"

namespace pare::runner {
namespace {

constexpr int64_t kMaxTapFloats = int64_t{64} << 20;  // of one batch, all layers together
constexpr int kShards = 4;  // a product's last bits depend on how many rows it has: one number whatever the threads

// The value of `taps[t]` for all calibration samples, batch by batch.
using TapVisitor = std::function<Status(size_t t, std::span<const float> values)>;

class Samples {
 public:
  static Result<Samples> Open(StepContext& context, const storage::Checkpoint& checkpoint, std::vector<std::string> taps, int64_t samples) {
    Samples s(context, std::move(taps));
    ASSIGN_OR_RETURN(s.data_, LoadData(context));
    ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(checkpoint.graph));
    TRY(CheckFits(checkpoint.graph, info, *s.data_.dataset, s.data_.spec));
    ASSIGN_OR_RETURN(s.rows_, CalibrationRows(s.data_, samples, context.spec.seed));
    int64_t floats = 1;
    for (const std::string& tap : s.taps_) floats += model::ElementCount(info.shapes[static_cast<size_t>(checkpoint.graph.IndexOf(tap))]);
    s.batch_ = std::clamp<int64_t>(kMaxTapFloats / floats, 1, std::min<int64_t>(kEvaluationBatch, samples));
    engine::NetworkOptions options;
    options.device = context.environment.device;
    options.threads = context.environment.threads;
    options.shards = kShards;
    options.max_batch = s.batch_;
    options.taps = s.taps_;
    ASSIGN_OR_RETURN(s.network_, engine::Network::Create(checkpoint.graph, checkpoint.tensors, options));
    return s;
  }

  Status ForEach(const TapVisitor& visit) {
    std::vector<int64_t> sizes = network_->tap_sizes();
    std::vector<std::vector<float>> values;
    for (int64_t size : sizes) values.emplace_back(static_cast<size_t>(size * batch_));
    for (size_t first = 0; first < rows_.size(); first += static_cast<size_t>(batch_)) {
      if (context_->hooks.StopRequested()) return Error{ErrorCode::kStopped, "stopped while calibrating; it starts afresh"};
      size_t n = std::min(static_cast<size_t>(batch_), rows_.size() - first);
      std::span<const uint32_t> part = std::span(rows_).subspan(first, n);
      std::vector<std::span<float>> spans;
      for (size_t t = 0; t < sizes.size(); ++t) spans.emplace_back(values[t].data(), static_cast<size_t>(sizes[t]) * n);
      network_->Observe([&](int64_t from, int64_t count, std::span<float> out) {
        data::Gather(data_.dataset->train, data_.spec, part.subspan(static_cast<size_t>(from), static_cast<size_t>(count)), out);
      }, static_cast<int64_t>(n), {}, spans);
      for (size_t t = 0; t < spans.size(); ++t) TRY(visit(t, spans[t]));
    }
    return Ok();
  }

 private:
  Samples(StepContext& context, std::vector<std::string> taps) : context_(&context), taps_(std::move(taps)) {}

  StepContext* context_;
  std::vector<std::string> taps_;
  StepData data_;
  std::vector<uint32_t> rows_;
  int64_t batch_ = 1;
  std::unique_ptr<engine::Network> network_;
};

}  // namespace

Result<std::map<std::string, model::InputCodes>> CalibrateInputs(StepContext& context, const storage::Checkpoint& checkpoint,
                                                                 const std::vector<std::string>& nodes,
                                                                 const methods::CalibrationOptions& options) {
  std::vector<std::string> taps;  // layers that read one value share it
  for (const std::string& node : nodes) {
    const std::string& input = checkpoint.graph.Find(node)->inputs[0];
    if (std::find(taps.begin(), taps.end(), input) == taps.end()) taps.push_back(input);
  }
  std::map<std::string, model::InputCodes> codes;
  if (taps.empty()) return codes;
  ASSIGN_OR_RETURN(Samples samples, Samples::Open(context, checkpoint, taps, options.samples));
  std::vector<methods::InputRange> ranges(taps.size());
  TRY(samples.ForEach([&](size_t t, std::span<const float> values) -> Status {
    Status added = ranges[t].Add(values);
    return added.ok() ? added : Status(added.error().With("calibration: the output of layer '" + taps[t] + "'"));
  }));
  std::vector<methods::InputHistogram> histograms(ranges.begin(), ranges.end());
  if (options.calibrator != methods::Calibrator::kMinMax) {
    TRY(samples.ForEach([&](size_t t, std::span<const float> values) -> Status {
      histograms[t].Add(values);
      return Ok();
    }));
  }
  for (const std::string& node : nodes) {
    auto tap = std::find(taps.begin(), taps.end(), checkpoint.graph.Find(node)->inputs[0]) - taps.begin();
    codes[node] = methods::ChooseInputCodes(options, histograms[static_cast<size_t>(tap)]);
  }
  return codes;
}

}  // namespace pare::runner
