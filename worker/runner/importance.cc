#include "worker/runner/importance.h"

#include <algorithm>

#include "worker/engine/optimizer.h"
#include "worker/runner/evaluation.h"

namespace pare::runner {

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
    network.TrainBatch(SamplesOf(split, spec, part), part_labels, {}, loss);
    network.Pull();
    auto weight = static_cast<float>(static_cast<double>(part.size()) / static_cast<double>(rows.size()));
    engine::ForRanges ranges = [&](const auto& body) { network.ForRanges(body); };
    if (moment == GradientMoment::kMean) engine::AddScaled(network.gradients(), weight, sums, ranges);
    else engine::AddSquares(network.gradients(), weight, sums, ranges);
  }
  return sums;
}

}  // namespace pare::runner
