// Measurement: times of several networks taken in turn (A-B-A-B), and what they say. Pure but for what it runs: time comes
// from Meters. One thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "worker/runner/meters.h"

namespace pare::runner {

struct Contender {
  std::string name;
  std::function<void()> run;  // one batch
};

struct MeasureLimits {
  int64_t runs = 100;          // timed runs of each, at least
  double least_seconds = 1.0;  // further runs until so long has passed: a hundred runs of a tiny network are a moment's noise
  double seconds = 10.0;       // no further round of timed runs starts after so long; one is always made
};

struct Timing {
  std::string name;
  double p50_s = 0, p95_s = 0, min_s = 0;  // of one batch; percentiles by nearest rank
  double cpu_s = 0;                        // mean of one batch
};

struct Timings {
  std::vector<Timing> of;  // in the order of the contenders
  int64_t runs = 0, warm_up_runs = 0;
  bool settled = false;  // the medians stood still before anything was timed
};

// Warm-up: windows of kWindow rounds until every contender's median differs from that of the window before by less than
// kSettled, at most kMostWindows of them or the seconds allowed. Then rounds of one run each. kStopped when `stop` says so.
inline constexpr int kWindow = 5, kMostWindows = 20;
inline constexpr double kSettled = 0.05;
Result<Timings> MeasureInTurn(const std::vector<Contender>& contenders, const MeasureLimits& limits, const Meters& meters, const std::function<bool()>& stop);

// A gain is one if it is at least this: medians of one machine differ by a few percent from time to time.
inline constexpr double kNoticeableGain = 1.05;

// What a candidate gives against the baseline; zero or less: not known.
struct Gains {
  double time = 0;   // best dense time / candidate's time
  double space = 0;  // baseline's bytes / candidate's bytes
};
// "space and time", "space", "time" or "neither".
std::string GivesOf(const Gains& gains);

// What a finding about the time rests on.
struct SpeedFacts {
  double time = 0;           // as in Gains
  double before_s = 0, after_s = 0;
  int64_t batch = 1, threads = 1;
  bool removed = false;      // fewer multiply-adds than the baseline, densely counted
  double sparsity = 0;       // of the pruned layers; 0: none is
  bool any_sparse = false;   // a layer runs sparse
};
// One sentence: "2.10x faster than …" or "no gain in time: … because …".
std::string FindingOf(const SpeedFacts& facts);

}  // namespace pare::runner
