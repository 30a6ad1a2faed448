#include "recipes/select.h"

#include <fnmatch.h>

#include <regex>

#include "recipes/schema.h"

namespace pare::recipes {
namespace {

using model::TensorSpec;

constexpr size_t kMaxPatternBytes = 256;

// The polynomial executor: a recipe must not be able to hang the coordinator by backtracking.
constexpr auto kRegexFlags = std::regex::ECMAScript | std::regex_constants::__polynomial;

// Weights saved from torch's DataParallel carry a "module." prefix: harmless.
std::string WithoutModule(const std::string& pattern) {
  return pattern.rfind("module.", 0) == 0 ? pattern.substr(7) : pattern;
}

bool IsRegex(const std::string& pattern) { return pattern.rfind("re:", 0) == 0; }

class Pattern {
 public:
  // REQUIRES: PatternError(text) is nothing.
  explicit Pattern(const std::string& text) : text_(text), plain_(WithoutModule(text)) {
    if (IsRegex(plain_)) regex_.emplace(plain_.substr(3), kRegexFlags);
  }
  bool Matches(const TensorSpec& spec, const std::string& op) {
    bool match = false;
    if (regex_) match = std::regex_match(spec.name, *regex_) || std::regex_match(spec.node, *regex_);
    else match = plain_ == op || Glob(spec.name) || Glob(spec.node);
    used_ = used_ || match;
    return match;
  }
  bool used() const { return used_; }
  const std::string& text() const { return text_; }

 private:
  bool Glob(const std::string& name) const { return ::fnmatch(plain_.c_str(), name.c_str(), 0) == 0; }

  std::string text_, plain_;
  std::optional<std::regex> regex_;
  bool used_ = false;
};

std::vector<Pattern> PatternsOf(const Json& patterns) {
  std::vector<Pattern> list;
  if (patterns.is_string()) list.emplace_back(patterns.get<std::string>());
  if (patterns.is_array()) {
    for (const Json& p : patterns) list.emplace_back(p.get<std::string>());
  }
  return list;
}

bool AnyMatches(std::vector<Pattern>& patterns, const TensorSpec& spec, const std::string& op) {
  bool any = false;
  for (Pattern& p : patterns) any = p.Matches(spec, op) || any;  // every pattern learns whether it is used
  return any;
}

Error WithoutMatch(const std::string& pattern, const model::GraphInfo& info) {
  std::vector<std::string> known;
  std::string list;
  for (const TensorSpec& spec : info.tensors) {
    if (!spec.prunable) continue;
    known.push_back(spec.node);
    if (known.size() <= 40) list += (list.empty() ? "" : ", ") + spec.node;
  }
  if (known.size() > 40) list += ", … (" + std::to_string(known.size()) + " in all)";
  std::string near = Nearest(WithoutModule(pattern), known);
  return {ErrorCode::kInvalid, "pattern '" + pattern + "' matches no layer with weights" + (near.empty() ? "" : "; did you mean '" + near + "'?") + " Layers: " + list};
}

}  // namespace

std::optional<std::string> PatternError(const std::string& pattern) {
  if (pattern.empty()) return "an empty pattern matches nothing";
  if (pattern.size() > kMaxPatternBytes) return "a pattern has at most " + std::to_string(kMaxPatternBytes) + " bytes";
  std::string plain = WithoutModule(pattern);
  if (!IsRegex(plain)) return std::nullopt;
  try {
    std::regex regex(plain.substr(3), kRegexFlags);
    return std::nullopt;
  } catch (const std::regex_error& e) {
    return "'" + pattern + "' is not a regular expression: " + e.what();
  }
}

Result<std::vector<std::string>> SelectTensors(const model::GraphInfo& info, const model::Graph& graph, const Json& targets, const Json& ignore) {
  bool standard = targets.is_null();
  std::vector<Pattern> wanted = PatternsOf(standard ? Json{"linear", "conv2d"} : targets), unwanted = PatternsOf(ignore);
  std::vector<std::string> selected;
  for (const TensorSpec& spec : info.tensors) {
    if (!spec.prunable) continue;
    std::string op(model::ToString(graph.Find(spec.node)->op));
    bool in = AnyMatches(wanted, spec, op), out = AnyMatches(unwanted, spec, op);
    if (in && !out) selected.push_back(spec.name);
  }
  for (const Pattern& p : wanted) {
    if (!p.used() && !standard) return WithoutMatch(p.text(), info);
  }
  for (const Pattern& p : unwanted) {
    if (!p.used()) return WithoutMatch(p.text(), info);
  }
  return selected;
}

}  // namespace pare::recipes
