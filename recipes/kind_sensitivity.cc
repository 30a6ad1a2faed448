// sensitivity: how accuracy falls when one layer at a time gets sparser, of lower rank, or of fewer bits. Leaves a table
// beside the chain; the network goes on unchanged.
#include <algorithm>

#include "recipes/kinds.h"

namespace pare::recipes {
namespace {

constexpr Field kFields[] = {
    {"sensitivity", "sparsities", "numbers", "[0.5, 0.8, 0.9, 0.95]", 0, 1, "", "fraction", "fractions of a layer's weights set to zero, the smallest first", "[0.5, 0.9]"},
    {"sensitivity", "energies", "numbers", "[0.99, 0.95, 0.9]", 0, 1, "", "fraction", "ranks that keep so much of the sum of squared singular values", "[0.95]"},
    {"sensitivity", "bits", "integers", "[8, 4, 3]", 2, 16, "", "bits", "weights rounded to integers of so many bits, one scale a row", "[8, 4]"},
    {"sensitivity", "samples", "integer", "0", 0, 1e9, "", "samples", "validation samples to use, the first so many; 0: all", "2000"},
    methods::Targets("sensitivity"),
    methods::Ignore("sensitivity"),
};

void CheckSensitivity(CheckContext& context, const Json& section, const std::string& pointer) {
  bool nothing = true;
  for (const char* field : {"sparsities", "energies", "bits"}) nothing = nothing && section.contains(field) && section[field].empty();
  if (nothing) context.Fail(pointer, "sensitivity: sparsities, energies and bits are all empty: there is nothing to scan");
}

void ResolveSensitivity(ResolveContext& context, Json& section, const std::string& pointer) {
  FillDefaults("sensitivity", section);
  section["tensors"] = context.Tensors(section, pointer);
}

void PlanSensitivity(Chain& chain, const Json& section) {
  Json params = section;
  params.erase("targets");
  params.erase("ignore");
  auto layers = methods::LayersOf(chain.outline(), params["tensors"]);
  if (!layers.ok()) return chain.Refuse("", layers.error().message);
  if (Status status = methods::CheckFloat(chain.outline(), *layers, "sensitivity"); !status.ok()) return chain.Refuse("", status.error().message);
  std::string name = "sensitivity-of-" + chain.name();
  std::replace(name.begin(), name.end(), '/', '-');
  chain.Helper(name, "sensitivity", std::move(params), {{"model", chain.model()}}, true);
}

}  // namespace

Kind SensitivityKind() {
  Kind kind;
  kind.name = "sensitivity";
  kind.fields = kFields;
  kind.help = "measure how accuracy falls when one layer at a time gets sparser, of lower rank, or of fewer bits";
  kind.may_be_empty = true;
  kind.check = CheckSensitivity;
  kind.resolve = ResolveSensitivity;
  kind.plan = PlanSensitivity;
  return kind;
}

}  // namespace pare::recipes
