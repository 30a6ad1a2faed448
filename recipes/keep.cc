#include "recipes/keep.h"

#include <algorithm>

#include "recipes/select.h"

namespace pare::recipes {

KeepRule KeepRuleOf(const Json& tree) {
  KeepRule rule;
  auto keep = tree.find("keep");
  if (keep == tree.end() || !keep->is_object()) return rule;
  std::string policy = keep->value("policy", "all");
  if (policy == "best") rule.policy = KeepRule::Policy::kBest;
  if (policy == "last") rule.policy = KeepRule::Policy::kLast;
  if (policy == "promoted") rule.policy = KeepRule::Policy::kPromoted;
  rule.count = keep->value("count", int64_t{1});
  rule.pinned = keep->value("pinned", std::vector<std::string>());
  return rule;
}

bool MatchesStep(const std::string& pattern, const std::string& step) { return !PatternError(pattern) && MatchesPattern(pattern, step); }

bool Pins(const KeepRule& rule, const std::string& step) {
  return std::any_of(rule.pinned.begin(), rule.pinned.end(), [&](const std::string& pattern) { return MatchesStep(pattern, step); });
}

}  // namespace pare::recipes
