// What measurements say: a gain with its factor, or "no gain"; a bar that is met or missed.
#pragma once

#include <cstdio>
#include <string>

namespace pare::bench {

// Interleaved medians of one machine differ by a few percent from run to run.
inline constexpr double kNoticeable = 1.05;

// "0.412 ms → 0.187 ms, 2.20x faster", "… no gain", "… 1.30x slower". Times per batch, in seconds.
inline std::string SpeedVerdict(double before, double after) {
  char text[128];
  double ratio = before / after;
  int n = std::snprintf(text, sizeof text, "%.4f ms → %.4f ms, ", before * 1e3, after * 1e3);
  std::string verdict(text, static_cast<size_t>(n));
  if (ratio < kNoticeable && ratio > 1 / kNoticeable) return verdict + "no gain";
  std::snprintf(text, sizeof text, "%.2fx %s", ratio >= 1 ? ratio : 1 / ratio, ratio >= 1 ? "faster" : "slower: no gain");
  return verdict + text;
}

// "bar: masked training costs 1.02 (at most 1.05): met"; whether it is.
enum class Bar { kAtLeast, kAtMost };
inline bool Meets(Bar kind, const char* what, double value, double bar) {
  bool met = kind == Bar::kAtLeast ? value >= bar : value <= bar;
  std::printf("bar: %s %.3g (at %s %.3g): %s\n", what, value, kind == Bar::kAtLeast ? "least" : "most", bar, met ? "met" : "MISSED");
  return met;
}

}  // namespace pare::bench
