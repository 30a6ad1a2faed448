#include "coordinator/config.h"

#include <algorithm>

namespace pare::coordinator {

RetryPolicy RetryPolicyOf(std::string_view error_class) {
  struct Entry {
    std::string_view name;
    RetryPolicy policy;
  };
  // A worker or runner may die for reasons that are not the step's: the first retry comes at once. A step that kills its
  // worker every time without ever reaching a snapshot is stopped by the limit. NaN and bad input would only come again.
  static constexpr Entry kPolicies[] = {
      {"worker_lost", {5, Millis(0)}},
      {"runner_lost", {5, Millis(0)}},
      {"out_of_memory", {2, Millis(1'000)}},
      {"no_space", {kUnlimitedRetries, Millis(2'000)}},
      {"diverged", {0, Millis(0)}},
      {"bad_input", {0, Millis(0)}},
      {"corrupt", {2, Millis(200)}},
      {"internal", {3, Millis(500)}},
  };
  for (const Entry& entry : kPolicies) {
    if (entry.name == error_class) return entry.policy;
  }
  return {3, Millis(500)};
}

bool FailsAgain(std::string_view error_class) { return error_class == "diverged"; }

Millis BackoffOf(const RetryPolicy& policy, int failures) {
  Millis wait = policy.first_backoff;
  if (wait == Millis(0)) {  // at once, then 500 ms, 1 s, …
    if (failures <= 1) return wait;
    wait = Millis(500);
    --failures;
  }
  for (int i = 1; i < failures && wait < kMaxBackoff; ++i) wait *= 2;
  return std::min(wait, kMaxBackoff);
}

}  // namespace pare::coordinator
