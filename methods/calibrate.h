// Calibration: which range of a layer's input the 8-bit codes should cover, from what the input was on some samples. Two
// passes: ranges first, then histograms over them. Counts are integers, so neither order nor threads change a result. Pure.
//
//   min_max     all that was seen
//   percentile  all but the fraction 1 − percentile/100 at either end (both ends are pulled to zero if they pass it)
//   mse         the range, shrunk in steps of 1/100 towards zero, whose codes have the least mean squared error on the
//               histogram (Sung, Shin, Hwang, "Resiliency of deep neural networks under quantization", 2015, section 3)
// Errors: kInvalid names the field; kDiverged: an input is not finite.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/json.h"
#include "model/encoding.h"

namespace pare::methods {

inline constexpr size_t kHistogramBins = 2048;
inline constexpr int64_t kMinCalibrationSamples = 8;

enum class Calibrator { kMinMax, kPercentile, kMse };
struct CalibrationOptions {
  Calibrator calibrator = Calibrator::kMinMax;
  double percentile = 99.99;
  int64_t samples = 512;
};
// Reads `calibrator`, `percentile`, `calibration_samples`.
Result<CalibrationOptions> CalibrationOptionsFromJson(const Json& params);

class InputRange {
 public:
  Status Add(std::span<const float> values);
  float low() const { return low_; }    // ≤ 0
  float high() const { return high_; }  // ≥ 0

 private:
  float low_ = 0.0f, high_ = 0.0f;
};

class InputHistogram {
 public:
  explicit InputHistogram(const InputRange& range);
  // REQUIRES: within the range.
  void Add(std::span<const float> values);
  // Adding up those of shards or batches in any order gives the same.
  const std::vector<int64_t>& counts() const { return counts_; }
  float low() const { return low_; }
  float high() const { return high_; }
  double CentreOf(size_t bin) const { return low_ + (static_cast<double>(bin) + 0.5) * width_; }

 private:
  float low_, high_;
  double width_;
  std::vector<int64_t> counts_;
};

model::InputCodes ChooseInputCodes(const CalibrationOptions& options, const InputHistogram& histogram);

}  // namespace pare::methods
