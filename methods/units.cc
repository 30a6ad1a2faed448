#include "methods/units.h"

#include <algorithm>

namespace pare::methods {
namespace {

Error Nothing(const std::string& what, const std::string& why) {
  return {ErrorCode::kInvalid, "prune: " + what + " of the targets can be removed: " + why};
}

bool Among(const std::vector<std::string>& tensors, const std::string& name) {
  return std::find(tensors.begin(), tensors.end(), name) != tensors.end();
}

std::string Joined(const std::vector<std::string>& names) {
  std::string text;
  for (size_t i = 0; i < names.size(); ++i) text += (i > 0 ? ", " : "") + (i < 8 ? names[i] : std::string("…"));
  return text;
}

uint64_t OrdinalOf(const model::GraphInfo& info, const std::string& name) {
  auto spec = std::find_if(info.tensors.begin(), info.tensors.end(), [&](const auto& s) { return s.name == name; });
  CHECK(spec != info.tensors.end());
  return static_cast<uint64_t>(spec - info.tensors.begin());
}

// Why the first target whose units do not take part is left alone.
std::string WhyNot(const Coupling& coupling, bool heads, const std::vector<std::string>& tensors) {
  std::string why;
  for (const Unit& unit : coupling.units) {
    auto ours = std::find_if(unit.weights.begin(), unit.weights.end(), [&](const Slice& s) { return Among(tensors, s.tensor); });
    if (ours == unit.weights.end()) continue;
    if (!unit.fixed.empty()) {
      if (why.empty()) why = "the width of " + ours->tensor + " is fixed: " + unit.fixed;
      continue;
    }
    if (unit.head != heads) {
      if (why.empty()) why = ours->tensor + (heads ? " belongs to no attention head" : " belongs to attention heads; use unit: head");
      continue;
    }
    for (const Slice& s : unit.weights) {
      if (!Among(tensors, s.tensor)) return ours->tensor + " is coupled with " + s.tensor + ", which is not a target; add it";
    }
  }
  return why.empty() ? "no layer of them has such units" : why;
}

Result<std::vector<PrunableClass>> Classes(const model::Graph& graph, const model::GraphInfo& info, bool heads, const std::vector<std::string>& tensors) {
  Coupling coupling = CoupledUnits(graph, info);
  std::vector<PrunableClass> classes;
  for (const UnitClass& units : ClassesOf(coupling, heads)) {
    if (!std::all_of(units.tensors.begin(), units.tensors.end(), [&](const auto& t) { return Among(tensors, t); })) continue;
    PrunableClass c{Joined(units.tensors), true, OrdinalOf(info, units.tensors[0]), {}};
    for (const Unit* unit : units.units) c.units.push_back({unit->weights, unit->own});
    classes.push_back(std::move(c));
  }
  if (classes.empty()) return Nothing(heads ? "no attention head" : "no channel", WhyNot(coupling, heads, tensors));
  return classes;
}

Result<std::vector<PrunableClass>> Branches(const model::Graph& graph, const model::GraphInfo& info, const std::vector<std::string>& tensors) {
  PrunableClass c{"the residual branches", false, 0, {}};
  std::string why = "the network has no residual branch; only a layer whose output is added to its input can go";
  for (const Branch& branch : ResidualBranches(graph, info)) {
    auto other = std::find_if(branch.weights.begin(), branch.weights.end(), [&](const auto& t) { return !Among(tensors, t); });
    if (other != branch.weights.end()) {
      why = "the branch of '" + graph.nodes[static_cast<size_t>(branch.add)].name + "' holds " + *other + ", which is not a target; add it";
      continue;
    }
    PrunableUnit unit;
    for (const std::string& name : branch.weights) unit.weights.push_back({name, kWholeTensor, 0});
    for (const std::string& name : branch.own) unit.own.push_back({name, kWholeTensor, 0});
    c.units.push_back(std::move(unit));
  }
  if (c.units.empty()) return Nothing("no layer", why);
  c.ordinal = OrdinalOf(info, c.units[0].weights[0].tensor);
  return std::vector<PrunableClass>{std::move(c)};
}

}  // namespace

Result<UnitPlan> PlanUnits(const model::Graph& graph, const model::GraphInfo& info, UnitKind unit, const std::vector<std::string>& tensors) {
  UnitPlan plan;
  if (unit == UnitKind::kLayer) {
    ASSIGN_OR_RETURN(plan.classes, Branches(graph, info, tensors));
  } else {
    ASSIGN_OR_RETURN(plan.classes, Classes(graph, info, unit == UnitKind::kHead, tensors));
  }
  for (const model::TensorSpec& spec : info.tensors) {
    if (spec.trainable) plan.shapes.emplace(spec.name, spec.shape);
  }
  return plan;
}

}  // namespace pare::methods
