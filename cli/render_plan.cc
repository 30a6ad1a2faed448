// The plan as a table: one row per step that makes a model (or decides), its evaluations folded into it.
#include <map>
#include <set>

#include "cli/render.h"

namespace pare::cli {
namespace {

// "01-prune" in the row of "iterative/02-retrain".
std::string From(const Json& step) {
  std::string text, variant = Text(step, "variant");
  std::set<std::string> told;
  const Json inputs = step.value("inputs", Json::object());
  for (const auto& [role, name] : inputs.items()) {
    std::string from = name.get<std::string>();
    if (!variant.empty() && from.rfind(variant + "/", 0) == 0) from = from.substr(variant.size() + 1);
    if (told.insert(from).second) text += (text.empty() ? "" : ", ") + from;
  }
  return text;
}

std::map<std::string, std::string> StatesOf(const Json& plan) {
  std::map<std::string, std::string> states;
  for (const Json& s : plan["steps"]) states[Text(s, "name")] = Text(s, "state");
  return states;
}

// By the step that made the model. Validation is read before test.
std::map<std::string, std::string> MeasuredOf(const Json& plan) {
  std::map<std::string, std::string> states = StatesOf(plan), measured;
  for (const Json& s : plan["steps"]) {
    if (Text(s, "kind") != "evaluate") continue;
    std::string model = Text(s.value("inputs", Json::object()), "model"), state = Text(s, "state");
    measured[model] += (measured[model].empty() ? "" : ", ") + Text(s, "split") + (state == states[model] ? "" : " (" + state + ")");
  }
  return measured;
}

std::string Header(const Json& plan) {
  const Json& resolved = plan["resolved"];
  const Json model = resolved.value("model", Json::object());
  std::string out = Text(resolved, "name") + ": " + Text(model, "architecture");
  if (!plan["steps"].empty()) {
    const Json& dense = plan["steps"][0];
    out += ", dense: " + Text(dense, "parameters") + " parameters, " + HumanCount(2 * dense.value("multiply_adds", 0.0)) + " FLOPs a sample";
  }
  return out + "\n\n";
}

// What a run would not try again, and why; what builds on it is not in the plan.
std::string FailedBefore(const Json& plan) {
  std::string out;
  for (const Json& s : plan["steps"]) {
    if (Text(s, "state") == "failed") out += "failed before and not run again, nor what builds on it: " + Text(s, "name") + ": " + Text(s, "reason") + "\n";
  }
  return out;
}

}  // namespace

std::string RenderPlan(const Json& plan) {
  Rows rows = {{"step", "from", "state", "key", "parameters", "FLOPs", "bytes", "time", "evaluated on"}};
  std::map<std::string, std::string> measured = MeasuredOf(plan);
  for (const Json& s : plan["steps"]) {
    if (Text(s, "kind") == "evaluate") continue;
    double seconds = s.value("seconds", 0.0);
    bool decides = Text(s, "kind") == "promote";
    rows.push_back({Text(s, "name"), decides ? "all evaluations" : From(s), Text(s, "state"), Text(s, "key").substr(0, 12),
                    decides ? kNone : Number(s, "parameters_nonzero", "%.0f"), decides ? kNone : HumanCount(2 * s.value("multiply_adds_nonzero", 0.0)),
                    decides ? kNone : Bytes(s, "bytes"), seconds < 0.05 ? kNone : HumanDuration(seconds), measured[Text(s, "name")]});
  }
  std::string out = Header(plan) + Table(rows) + "\n" + Counted(plan, "to_run", "step") + " to run, " + Text(plan, "cached") + " cached";
  if (plan["seconds"].is_number() && plan["to_run"] != 0) out += "; about " + HumanDuration(plan["seconds"].get<double>()) + " of work on one core";
  std::string failed = FailedBefore(plan);
  out += "\n" + failed + "Parameters and FLOPs (non-zero ones), bytes and times are estimates; evaluations count as steps. --resolved prints the whole recipe.\n";
  for (const Json& w : plan.value("warnings", Json::array())) out += "warning: " + w.get<std::string>() + "\n";
  return out;
}

}  // namespace pare::cli
