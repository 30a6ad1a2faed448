#include "worker/runner/measurement.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace pare::runner {
namespace {

// REQUIRES: values sorted, not empty.
double Percentile(const std::vector<double>& values, double p) {
  auto rank = static_cast<size_t>(std::ceil(p * static_cast<double>(values.size())));
  return values[std::max<size_t>(rank, 1) - 1];
}

double Timed(const Contender& contender, const Meters& meters) {
  double begin = meters.wall_s();
  contender.run();
  return meters.wall_s() - begin;
}

std::vector<double> WindowMedians(const std::vector<Contender>& contenders, const Meters& meters) {
  std::vector<std::vector<double>> times(contenders.size());
  for (int r = 0; r < kWindow; ++r) {
    for (size_t c = 0; c < contenders.size(); ++c) times[c].push_back(Timed(contenders[c], meters));
  }
  std::vector<double> medians;
  for (auto& t : times) {
    std::sort(t.begin(), t.end());
    medians.push_back(Percentile(t, 0.5));
  }
  return medians;
}

bool Still(const std::vector<double>& before, const std::vector<double>& now) {
  for (size_t i = 0; i < now.size(); ++i) {
    if (std::abs(now[i] - before[i]) > kSettled * before[i]) return false;
  }
  return true;
}

std::string Text(const char* format, double a, double b) {
  char text[128];
  std::snprintf(text, sizeof text, format, a, b);
  return text;
}

}  // namespace

Result<Timings> MeasureInTurn(const std::vector<Contender>& contenders, const MeasureLimits& limits, const Meters& meters, const std::function<bool()>& stop) {
  Error stopped{ErrorCode::kStopped, "stopped while measuring; it starts afresh"};
  Timings timings;
  std::vector<double> before;
  double begin = meters.wall_s();
  for (int w = 0; w < kMostWindows && !timings.settled; ++w) {
    if (stop()) return stopped;
    if (w > 1 && meters.wall_s() - begin > limits.seconds) break;
    std::vector<double> now = WindowMedians(contenders, meters);
    timings.settled = w > 0 && Still(before, now);
    timings.warm_up_runs += kWindow;
    before = std::move(now);
  }
  std::vector<std::vector<double>> times(contenders.size());
  std::vector<double> cpu(contenders.size(), 0.0);
  begin = meters.wall_s();
  for (double passed = 0; timings.runs == 0 || ((timings.runs < limits.runs || passed < limits.least_seconds) && passed < limits.seconds);) {
    if (stop()) return stopped;
    for (size_t c = 0; c < contenders.size(); ++c) {
      double cpu_begin = meters.cpu_s();
      times[c].push_back(Timed(contenders[c], meters));
      cpu[c] += meters.cpu_s() - cpu_begin;
    }
    ++timings.runs;
    passed = meters.wall_s() - begin;
  }
  for (size_t c = 0; c < contenders.size(); ++c) {
    std::sort(times[c].begin(), times[c].end());
    timings.of.push_back({contenders[c].name, Percentile(times[c], 0.5), Percentile(times[c], 0.95), times[c].front(), cpu[c] / static_cast<double>(timings.runs)});
  }
  return timings;
}

std::string GivesOf(const Gains& gains) {
  bool time = gains.time >= kNoticeableGain, space = gains.space >= kNoticeableGain;
  return time && space ? "space and time" : space ? "space" : time ? "time" : "neither";
}

std::string FindingOf(const SpeedFacts& f) {
  std::string times = Text("%.4f ms against %.4f ms", f.after_s * 1e3, f.before_s * 1e3) + " of the best dense execution of the baseline at batch " +
                      std::to_string(f.batch) + ", " + std::to_string(f.threads) + (f.threads == 1 ? " thread" : " threads");
  if (f.time >= kNoticeableGain) return Text("%.2fx faster: ", f.time, 0) + times;
  std::string text = "no gain in time: " + times;
  if (f.removed) return text + "; fewer multiply-adds do not show there, a larger batch or a wider network may";
  if (f.sparsity > 0 && !f.any_sparse) {
    return text + Text("; at %.1f %% sparsity dense execution beats the sparse kernel in every layer: more zeros or a larger batch may change that", 100 * f.sparsity, 0);
  }
  return text;
}

}  // namespace pare::runner
