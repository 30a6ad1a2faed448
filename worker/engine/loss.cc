#include "worker/engine/loss.h"

#include <algorithm>
#include <cmath>

namespace pare::engine {
namespace {

// exp((z − largest) / T) over the classes, added in their order.
double ExpSum(std::span<const float> z, float largest, double temperature) {
  double sum = 0;
  for (float value : z) sum += std::exp((static_cast<double>(value) - largest) / temperature);
  return sum;
}

// Adds weight · CE to the result and its gradient to `gradient`, if there is one.
double AddCrossEntropy(std::span<const float> z, float largest, size_t label, double smoothing, double weight, double scale,
                       std::span<float> gradient) {
  double total = 0, sum = 0;
  for (float value : z) {
    sum += std::exp(static_cast<double>(value) - largest);
    total += value;
  }
  double log_sum = std::log(sum) + largest;
  auto classes = static_cast<double>(z.size());
  double spread = smoothing / classes;
  for (size_t c = 0; c < gradient.size(); ++c) {
    double p = std::exp(z[c] - log_sum), target = spread + (c == label ? 1.0 - smoothing : 0.0);
    gradient[c] = static_cast<float>((p - target) * (weight * scale));
  }
  return weight * ((1.0 - smoothing) * (log_sum - z[label]) + spread * (classes * log_sum - total));
}

double AddDivergence(std::span<const float> z, float largest, std::span<const float> teacher, double temperature, double weight,
                     double scale, std::span<float> gradient) {
  float teacher_largest = *std::max_element(teacher.begin(), teacher.end());
  double sum = ExpSum(z, largest, temperature), teacher_sum = ExpSum(teacher, teacher_largest, temperature);
  double log_sum = std::log(sum), teacher_log_sum = std::log(teacher_sum), divergence = 0;
  // d (T² · KL) / d z = T · (p − q).
  double factor = weight * temperature * scale;
  for (size_t c = 0; c < z.size(); ++c) {
    double log_p = (static_cast<double>(z[c]) - largest) / temperature - log_sum;
    double log_q = (static_cast<double>(teacher[c]) - teacher_largest) / temperature - teacher_log_sum;
    double q = std::exp(log_q);
    if (q > 0) divergence += q * (log_q - log_p);
    if (!gradient.empty()) gradient[c] += static_cast<float>((std::exp(log_p) - q) * factor);
  }
  return weight * temperature * temperature * divergence;
}

}  // namespace

RowLoss LossOfRow(std::span<const float> logits, int64_t label, std::span<const float> teacher, const LossWeights& weights,
                  double scale, std::span<float> gradient) {
  RowLoss row;
  size_t best = 0;
  for (size_t c = 1; c < logits.size(); ++c) {
    if (logits[c] > logits[best]) best = c;
  }
  double hardness = teacher.empty() ? 0.0 : weights.hardness;
  if (label != kNoLabel) {
    row.labelled = true;
    row.correct = static_cast<int64_t>(best) == label;
    row.loss = AddCrossEntropy(logits, logits[best], static_cast<size_t>(label), weights.label_smoothing, 1.0 - hardness, scale, gradient);
  } else {
    std::fill(gradient.begin(), gradient.end(), 0.0f);
  }
  if (hardness > 0) row.loss += AddDivergence(logits, logits[best], teacher, weights.temperature, hardness, scale, gradient);
  return row;
}

}  // namespace pare::engine
