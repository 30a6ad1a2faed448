// Learning-rate schedules as pure functions of the position: nothing to save in a snapshot, and "rewind to epoch t" is an
// argument.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace pare::engine {

struct ScheduleOptions {
  std::string kind = "constant";   // constant, multi_step, cosine, linear
  double learning_rate = 0.1;      // at the start (after warm-up)
  double final_learning_rate = 0;  // cosine, linear: at the end
  std::vector<double> milestones;  // multi_step: epochs at which the rate is multiplied by gamma
  double gamma = 0.1;
  double warmup_epochs = 0;        // linear from 0 to learning_rate, then the schedule above over the remaining epochs
  double epochs = 1;               // length of the whole schedule
};

// The rate for batch `batch` of epoch `epoch` (both from 0), `batches` per epoch. Milestones act at epoch starts, as
// torch.optim.lr_scheduler.MultiStepLR does; cosine is Loshchilov 2017 eq. 5 without restarts, stepped per batch.
double LearningRate(const ScheduleOptions& options, int64_t epoch, int64_t batch, int64_t batches);

// Sparsity of the cubic schedule, METHODS: s_f + (s_i − s_f)(1 − (t − t0)/(t1 − t0))³, clamped to its ends
// (Zhu & Gupta 2017, eq. 1); `linear` with exponent 1.
double ScheduledSparsity(bool cubic, double initial, double final, double t0, double t1, double t);

}  // namespace pare::engine
