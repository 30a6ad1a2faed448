// KeepRule: which checkpoints of a finished job stay, from the `keep` section of a resolved recipe. It changes no step key:
// a checkpoint that was deleted is computed again when something needs it. Pure, no thread rule.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/json.h"

namespace pare::recipes {

struct KeepRule {
  enum class Policy { kAll, kBest, kLast, kPromoted };
  Policy policy = Policy::kAll;
  int64_t count = 1;                // kBest: candidates of the job; kLast: checkpoints of each variant
  std::vector<std::string> pinned;  // patterns of step names that stay whatever the policy
};
// `tree`: ResolvedRecipe::tree. A tree without the section (stored by an earlier release) keeps all.
KeepRule KeepRuleOf(const Json& tree);

// Whether the name of a step fits a pattern: the name, a glob ('*' also takes '/'), or re:REGEX for the whole name.
// False for a pattern that is none.
bool MatchesStep(const std::string& pattern, const std::string& step);
bool Pins(const KeepRule& rule, const std::string& step);

}  // namespace pare::recipes
