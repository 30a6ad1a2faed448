#include "recipes/select.h"

#include <fnmatch.h>

#include <regex>

#include "recipes/schema.h"

namespace pare::recipes {
namespace {

using model::TensorSpec;

constexpr size_t kMaxPatternBytes = 256, kMaxListed = 40;

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
  Pattern(const std::string& text, std::string pointer) : text_(text), pointer_(std::move(pointer)), plain_(WithoutModule(text)) {
    if (IsRegex(plain_)) regex_.emplace(plain_.substr(3), kRegexFlags);
  }
  bool Matches(const TensorSpec& spec, const std::string& op) {
    bool match = false;
    if (regex_) match = Regex(spec.name) || Regex(spec.node);
    else match = plain_ == op || Glob(spec.name) || Glob(spec.node);
    used_ = used_ || match;
    return match;
  }
  bool Matches(const std::string& name) const { return regex_ ? Regex(name) : Glob(name); }
  bool used() const { return used_; }
  const std::string& text() const { return text_; }
  const std::string& pointer() const { return pointer_; }

 private:
  bool Regex(const std::string& name) const { return std::regex_match(name, *regex_) || std::regex_match("module." + name, *regex_); }
  bool Glob(const std::string& name) const { return ::fnmatch(plain_.c_str(), name.c_str(), 0) == 0; }

  std::string text_, pointer_, plain_;
  std::optional<std::regex> regex_;
  bool used_ = false;
};

std::vector<Pattern> PatternsOf(const Json& section, const char* field, const std::string& pointer) {
  std::vector<Pattern> list;
  if (!section.contains(field)) return list;
  const Json& patterns = section[field];
  std::string at = pointer + "/" + field;
  if (patterns.is_string()) list.emplace_back(patterns.get<std::string>(), at);
  if (patterns.is_array()) {
    for (size_t i = 0; i < patterns.size(); ++i) list.emplace_back(patterns[i].get<std::string>(), at + "/" + std::to_string(i));
  }
  return list;
}

bool AnyMatches(std::vector<Pattern>& patterns, const TensorSpec& spec, const std::string& op) {
  bool any = false;
  for (Pattern& p : patterns) any = p.Matches(spec, op) || any;  // every pattern learns whether it is used
  return any;
}

std::string WithoutMatch(const std::string& pattern, const model::GraphInfo& info) {
  std::vector<std::string> known;
  std::string list;
  for (const TensorSpec& spec : info.tensors) {
    if (!spec.prunable) continue;
    known.push_back(spec.node);
    if (known.size() <= kMaxListed) list += (list.empty() ? "" : ", ") + spec.node;
  }
  if (known.size() > kMaxListed) list += ", … (" + std::to_string(known.size()) + " in all)";
  std::string near = Nearest(WithoutModule(pattern), known);
  return "pattern " + Quoted(pattern) + " matches no layer with weights" + (near.empty() ? ". Layers: " : "; did you mean '" + near + "'? Layers: ") + list;
}

}  // namespace

std::optional<std::string> PatternError(const std::string& pattern) {
  if (pattern.empty()) return "an empty pattern matches nothing";
  if (pattern.size() > kMaxPatternBytes) return "a pattern has at most " + std::to_string(kMaxPatternBytes) + " bytes";
  std::string plain = WithoutModule(pattern);
  if (!IsRegex(plain)) return std::nullopt;
  // (a{999}){999} would take minutes to compile, and no layer's name holds a brace.
  if (plain.find('{') != std::string::npos) return Quoted(pattern) + ": counted repetition {…} is not part of the language; use * or +";
  try {
    std::regex regex(plain.substr(3), kRegexFlags);
    return std::nullopt;
  } catch (const std::regex_error& e) {
    return Quoted(pattern) + " is not a regular expression: " + e.what();
  }
}

bool MatchesPattern(const std::string& pattern, const std::string& name) { return Pattern(pattern, "").Matches(name); }

std::vector<std::string> SelectTensors(const model::GraphInfo& info, const model::Graph& graph, const Json& section, const std::string& pointer,
                                       Errors& errors) {
  std::vector<Pattern> wanted = PatternsOf(section, "targets", pointer), unwanted = PatternsOf(section, "ignore", pointer);
  std::vector<std::string> selected;
  bool standard = wanted.empty();
  for (const TensorSpec& spec : info.tensors) {
    if (!spec.prunable) continue;
    std::string op(model::ToString(graph.Find(spec.node)->op));
    bool in = standard ? op == "linear" || op == "conv2d" : AnyMatches(wanted, spec, op), out = AnyMatches(unwanted, spec, op);
    if (in && !out) selected.push_back(spec.name);
  }
  bool matched = true;
  for (const auto* patterns : {&wanted, &unwanted}) {
    for (const Pattern& p : *patterns) {
      if (!p.used()) errors.Add(p.pointer(), WithoutMatch(p.text(), info));
      matched = matched && p.used();
    }
  }
  if (matched && selected.empty()) errors.Add(pointer, "no layer is left: ignore takes away all that targets select");
  return selected;
}

}  // namespace pare::recipes
