#include "worker/engine/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace pare::engine {

double LearningRate(const ScheduleOptions& o, int64_t epoch, int64_t batch, int64_t batches) {
  double t = static_cast<double>(epoch) + static_cast<double>(batch) / static_cast<double>(std::max<int64_t>(1, batches));
  if (t < o.warmup_epochs) {
    // The first batch already moves: (b + 1)/B of the warm-up, as torch's LinearLR with start_factor 1/B does.
    double step = t + 1.0 / static_cast<double>(std::max<int64_t>(1, batches));
    return o.learning_rate * std::min(1.0, step / o.warmup_epochs);
  }
  double length = std::max(o.epochs - o.warmup_epochs, 1e-12), done = std::clamp((t - o.warmup_epochs) / length, 0.0, 1.0);
  if (o.kind == "multi_step") {
    double rate = o.learning_rate;
    for (double milestone : o.milestones) rate *= t >= milestone ? o.gamma : 1.0;
    return rate;
  }
  if (o.kind == "cosine") {
    return o.final_learning_rate + 0.5 * (o.learning_rate - o.final_learning_rate) * (1.0 + std::cos(std::numbers::pi * done));
  }
  if (o.kind == "linear") return o.learning_rate + (o.final_learning_rate - o.learning_rate) * done;
  return o.learning_rate;
}

double ScheduledSparsity(bool cubic, double initial, double final, double t0, double t1, double t) {
  if (t <= t0) return initial;
  if (t >= t1) return final;
  double left = 1.0 - (t - t0) / (t1 - t0);
  return final + (initial - final) * (cubic ? left * left * left : left);
}

}  // namespace pare::engine
