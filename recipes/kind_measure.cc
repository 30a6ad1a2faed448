// measure: time, memory and energy of the network as it is here, against the dense baseline. Leaves a measurement beside the
// chain; the network goes on unchanged.
#include <algorithm>

#include "recipes/kinds.h"

namespace pare::recipes {
namespace {

constexpr Field kFields[] = {
    {"measure", "threads", "integer", "", 1, 4096, "", "threads", "threads that run a batch; default: goal.target.threads, else 1", "2"},
    {"measure", "batch", "integer", "", 1, 65536, "", "samples", "samples per run; default: goal.target.batch, else 1", "128"},
    {"measure", "runs", "integer", "100", 1, 1e6, "", "runs", "timed runs of each network, more until a second has passed, unless the seconds are over first", "200"},
    {"measure", "seconds", "number", "10", 0.001, 3600, "", "seconds", "no further run starts after so long", "5"},
    {"measure", "label", "text", "\"\"", 0, 0, "", "", "told in the report; a measurement is made once, and anew under another label", "after-upgrade"},
};

void ResolveMeasure(ResolveContext& context, Json& section, const std::string&) {
  FillDefaults("measure", section);
  const Json& goal = context.tree().at("goal");
  Json target = goal.value("target", Json::object());
  for (const char* field : {"threads", "batch"}) {
    if (!section.contains(field)) section[field] = target.value(field, Json(1));
  }
  if (goal.contains("price_per_hour")) section["price_per_hour"] = goal["price_per_hour"];
}

void PlanMeasure(Chain& chain, const Json& section) {
  std::string name = "measure-of-" + chain.name();
  std::replace(name.begin(), name.end(), '/', '-');
  chain.Helper(name, "measure", section, {{"model", chain.model()}, {"baseline", chain.baseline().key}}, true);
  chain.Evaluate();  // what is measured is a candidate: the report shows both beside each other
}

}  // namespace

Kind MeasureKind() {
  Kind kind;
  kind.name = "measure";
  kind.fields = kFields;
  kind.help = "measure time, memory and energy of the network as it is here, against the dense baseline in turn";
  kind.may_be_empty = true;
  kind.resolve = ResolveMeasure;
  kind.plan = PlanMeasure;
  return kind;
}

}  // namespace pare::recipes
