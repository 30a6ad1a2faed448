#include "worker/runner/input_ranges.h"

#include <algorithm>

#include "worker/runner/calibration.h"

namespace pare::runner {

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
  ASSIGN_OR_RETURN(CalibrationPass pass, CalibrationPass::Open(context, checkpoint, taps, options.samples));
  std::vector<methods::InputRange> ranges(taps.size());
  TRY(pass.ForEachBatch([&](std::span<const std::span<float>> values, int64_t) -> Status {
    for (size_t t = 0; t < taps.size(); ++t) {
      Status added = ranges[t].Add(values[t]);
      if (!added.ok()) return added.error().With("calibration: the output of layer '" + taps[t] + "'");
    }
    return Ok();
  }));
  std::vector<methods::InputHistogram> histograms(ranges.begin(), ranges.end());
  if (options.calibrator != methods::Calibrator::kMinMax) {
    TRY(pass.ForEachBatch([&](std::span<const std::span<float>> values, int64_t) -> Status {
      for (size_t t = 0; t < taps.size(); ++t) histograms[t].Add(values[t]);
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
