// The step kinds of the recipe language, one row each in kinds.cc: what may stand in the section, how it is checked,
// resolved, and planned. A kind lives in one file, kind_<name>.cc, and needs no change outside it but its row.
// A method of methods/registry.h without a row here is a kind too: kind_rewrite.cc turns its entry into one.
// Inside recipes/ only.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "methods/registry.h"
#include "recipes/chain.h"
#include "recipes/check_context.h"
#include "recipes/resolve_context.h"
#include "recipes/schema.h"

namespace pare::recipes {

struct Kind {
  std::string_view name;  // key of the list item, and section of `fields`
  std::span<const Field> fields;
  std::string_view help;      // one sentence
  // Sections that show what the kind can do, in YAML: the rows of the table in docs/methods.md. The first is the least that
  // a section needs; without any, the empty section is meant.
  std::vector<std::string_view> examples;
  bool may_be_empty = false;  // "- evaluate:" alone is enough
  bool train_fields = false;  // the fields of train may be given too, to override them for this step

  // As written, after the fields were checked one by one: what must, may and must not stand together.
  std::function<void(CheckContext&, const Json& section, const std::string& pointer)> check;
  // Writes out defaults and finds layers (`tensors`). REQUIRES: the recipe passed all checks.
  std::function<void(ResolveContext&, Json& section, const std::string& pointer)> resolve;
  // Adds the steps to the chain, with the outline of the network that they leave; a section that makes no sense where it
  // stands is refused (Chain::Refuse). REQUIRES: `section` as resolve left it. Null: the item adds no step.
  std::function<void(Chain&, const Json& section)> plan;
  // Whether the section's step trains: its network is worth evaluating at once. Null: never.
  std::function<bool(const Json& section)> trains;
};

std::span<const Kind> Kinds();  // in the order of the reference; methods without a row behind those with one
const Kind* FindKind(std::string_view name);
// Names of Kinds(), and "repeat" at the end.
std::vector<std::string> KindNames();

Kind PruneKind();
Kind RetrainKind();
Kind QuantizeKind();
Kind StudentKind();
Kind DistillKind();
Kind SelfDistillKind();
Kind EvaluateKind();
Kind SensitivityKind();
Kind MeasureKind();
Kind LowRankKind();
Kind LoraKind();
Kind QloraKind();
Kind MergeKind();
Kind RewriteKind(const methods::Method& method);

}  // namespace pare::recipes
