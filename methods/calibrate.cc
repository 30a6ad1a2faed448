#include "methods/calibrate.h"

#include <algorithm>
#include <cmath>

namespace pare::methods {
namespace {

constexpr int kShrinkSteps = 80;  // of 1/100: down to a fifth of the range

// The values below which, and above which, the fraction `tail` of all values lies.
std::pair<float, float> Percentiles(const InputHistogram& h, double tail) {
  int64_t total = 0;
  for (int64_t count : h.counts()) total += count;
  auto skip = static_cast<int64_t>(std::floor(tail * static_cast<double>(total)));
  double low = h.low(), high = h.high(), half = h.counts().size() > 1 ? (h.CentreOf(1) - h.CentreOf(0)) / 2 : 0.0;
  int64_t seen = 0;
  for (size_t i = 0; i < h.counts().size(); ++i) {
    seen += h.counts()[i];
    if (seen > skip) {
      low = h.CentreOf(i) - half;
      break;
    }
  }
  seen = 0;
  for (size_t i = h.counts().size(); i-- > 0;) {
    seen += h.counts()[i];
    if (seen > skip) {
      high = h.CentreOf(i) + half;
      break;
    }
  }
  return {std::clamp(static_cast<float>(low), h.low(), 0.0f), std::clamp(static_cast<float>(high), 0.0f, h.high())};
}

double SquaredError(const InputHistogram& h, const model::InputCodes& codes) {
  double error = 0.0, scale = codes.scale;
  for (size_t i = 0; i < h.counts().size(); ++i) {
    if (h.counts()[i] == 0) continue;
    double value = h.CentreOf(i), code = std::clamp(std::nearbyint(value / scale + codes.zero_point), 0.0, static_cast<double>(model::kActivationLevels));
    double off = value - (code - codes.zero_point) * scale;
    error += off * off * static_cast<double>(h.counts()[i]);
  }
  return error;
}

}  // namespace

Result<CalibrationOptions> CalibrationOptionsFromJson(const Json& params) {
  CalibrationOptions options;
  ASSIGN_OR_RETURN(std::string name, StringField(params, "calibrator"));
  if (name == "min_max") options.calibrator = Calibrator::kMinMax;
  else if (name == "percentile") options.calibrator = Calibrator::kPercentile;
  else if (name == "mse") options.calibrator = Calibrator::kMse;
  else return Error{ErrorCode::kInvalid, "params: field 'calibrator': '" + name + "' is not one of min_max, percentile, mse"};
  if (params.contains("percentile")) {
    ASSIGN_OR_RETURN(options.percentile, NumberField(params, "percentile"));
  }
  if (!(options.percentile > 50.0 && options.percentile <= 100.0)) {
    return Error{ErrorCode::kInvalid, "params: field 'percentile' must be above 50 and at most 100"};
  }
  ASSIGN_OR_RETURN(options.samples, IntField(params, "calibration_samples"));
  if (options.samples < kMinCalibrationSamples) {
    return Error{ErrorCode::kInvalid, "params: field 'calibration_samples' is " + std::to_string(options.samples) + ": too few to know the range of an input; at least " +
                                          std::to_string(kMinCalibrationSamples)};
  }
  return options;
}

Status InputRange::Add(std::span<const float> values) {
  for (float v : values) {
    if (!std::isfinite(v)) return Error{ErrorCode::kDiverged, "a value is not finite"};
    low_ = std::min(low_, v);
    high_ = std::max(high_, v);
  }
  return Ok();
}

InputHistogram::InputHistogram(const InputRange& range)
    : low_(range.low()), high_(range.high()), width_((static_cast<double>(high_) - low_) / static_cast<double>(kHistogramBins)), counts_(kHistogramBins, 0) {}

void InputHistogram::Add(std::span<const float> values) {
  double inverse = width_ > 0.0 ? 1.0 / width_ : 0.0;
  for (float v : values) {
    auto bin = static_cast<int64_t>((static_cast<double>(v) - low_) * inverse);
    ++counts_[static_cast<size_t>(std::clamp<int64_t>(bin, 0, static_cast<int64_t>(kHistogramBins) - 1))];
  }
}

model::InputCodes ChooseInputCodes(const CalibrationOptions& options, const InputHistogram& h) {
  if (options.calibrator == Calibrator::kMinMax) return model::ChooseCodes(h.low(), h.high());
  if (options.calibrator == Calibrator::kPercentile) {
    auto [low, high] = Percentiles(h, 1.0 - options.percentile / 100.0);
    return model::ChooseCodes(low, high);
  }
  model::InputCodes best = model::ChooseCodes(h.low(), h.high());
  double least = SquaredError(h, best);
  for (int step = 1; step <= kShrinkSteps; ++step) {
    float keep = 1.0f - static_cast<float>(step) / 100.0f;
    model::InputCodes codes = model::ChooseCodes(h.low() * keep, h.high() * keep);
    if (double error = SquaredError(h, codes); error < least) {
      least = error;
      best = codes;
    }
  }
  return best;
}

}  // namespace pare::methods
