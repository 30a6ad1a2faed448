#include "worker/runner/importance.h"

#include <algorithm>

#include "common/random.h"
#include "worker/engine/optimizer.h"

namespace pare::runner {

Result<std::vector<uint32_t>> CalibrationSamples(const std::vector<uint32_t>& training, int64_t samples, uint64_t seed) {
  if (samples < 1 || samples > static_cast<int64_t>(training.size())) {
    return Error{ErrorCode::kInvalid, "calibration_samples: " + std::to_string(samples) + " of only " + std::to_string(training.size()) +
                                          " training samples; lower it"};
  }
  std::vector<uint32_t> rows = Permutation(RandomStream(seed, RandomPurpose::kCalibrate), static_cast<uint32_t>(training.size()));
  rows.resize(static_cast<size_t>(samples));
  for (uint32_t& row : rows) row = training[row];
  return rows;
}

std::vector<float> GradientsOf(engine::Network& network, const data::Split& split, const data::DataSpec& spec,
                               std::span<const uint32_t> rows, GradientMoment moment) {
  std::vector<float> sums(network.parameters().size(), 0.0f);
  size_t batch = moment == GradientMoment::kMeanSquare ? 1 : std::min(static_cast<size_t>(kGradientBatch), rows.size());
  std::vector<int64_t> labels(batch);
  engine::LossOptions loss;
  loss.evaluation_mode = true;
  for (size_t first = 0; first < rows.size(); first += batch) {
    std::span<const uint32_t> part = rows.subspan(first, std::min(batch, rows.size() - first));
    std::span<int64_t> part_labels(labels.data(), part.size());
    data::GatherLabels(split, part, part_labels);
    engine::SampleSource samples = [&](int64_t from, int64_t count, std::span<float> out) {
      data::Gather(split, spec, part.subspan(static_cast<size_t>(from), static_cast<size_t>(count)), out);
    };
    network.TrainBatch(samples, part_labels, {}, loss);
    network.Pull();
    auto weight = static_cast<float>(static_cast<double>(part.size()) / static_cast<double>(rows.size()));
    engine::ForRanges ranges = [&](const auto& body) { network.ForRanges(body); };
    if (moment == GradientMoment::kMean) engine::AddScaled(network.gradients(), weight, sums, ranges);
    else engine::AddSquares(network.gradients(), weight, sums, ranges);
  }
  return sums;
}

}  // namespace pare::runner
