#include "recipes/kinds.h"

namespace pare::recipes {
namespace {

std::vector<Kind> MakeKinds() {
  std::vector<Kind> kinds = {
      PruneKind(),
      RetrainKind(),
      LowRankKind(),
      LoraKind(),
      QloraKind(),
      MergeKind(),
      QuantizeKind(),
      StudentKind(),
      DistillKind(),
      SelfDistillKind(),
      EvaluateKind(),
      SensitivityKind(),
      MeasureKind(),
  };
  for (const methods::Method& method : methods::Methods()) {
    bool has_row = method.fields.empty();
    for (const Kind& kind : kinds) has_row = has_row || kind.name == method.name;
    if (!has_row) kinds.push_back(RewriteKind(method));
  }
  return kinds;
}

}  // namespace

std::span<const Kind> Kinds() {
  static const std::vector<Kind> kinds = MakeKinds();
  return kinds;
}

const Kind* FindKind(std::string_view name) {
  for (const Kind& kind : Kinds()) {
    if (kind.name == name) return &kind;
  }
  return nullptr;
}

std::vector<std::string> KindNames() {
  std::vector<std::string> names;
  for (const Kind& kind : Kinds()) names.emplace_back(kind.name);
  names.emplace_back("repeat");
  return names;
}

}  // namespace pare::recipes
