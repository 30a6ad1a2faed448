// evaluate: asks for the accuracy of the network as it is here. The planner sees the item; it adds no step of its own.
#include "recipes/kinds.h"

namespace pare::recipes {
namespace {

constexpr Field kFields[] = {
    {"evaluate", "split", "name", "\"validation\"", 0, 0, "validation", "", "the split; test is read only for the report", "validation"},
};

}  // namespace

Kind EvaluateKind() {
  Kind kind;
  kind.name = "evaluate";
  kind.fields = kFields;
  kind.help = "measure the accuracy of the network as it is here";
  kind.may_be_empty = true;
  kind.resolve = [](ResolveContext&, Json& section, const std::string&) { FillDefaults("evaluate", section); };
  return kind;
}

}  // namespace pare::recipes
