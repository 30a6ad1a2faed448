// The table of candidates, and what was promoted, why, and where it lies.
#include <algorithm>

#include "cli/render.h"

namespace pare::cli {
namespace {

std::string Interval(const Json& object, const char* field) {
  auto it = object.find(field);
  if (it == object.end() || !it->is_array() || it->size() != 2) return "";
  return " ± " + Format("%.2f", ((*it)[1].get<double>() - (*it)[0].get<double>()) / 2);
}

std::vector<std::string> Row(const Json& line, const Json& baseline) {
  std::string smaller = kNone;
  if (baseline.is_object() && baseline["bytes"].is_number() && line["bytes"].is_number()) {
    smaller = Format("%.1fx", baseline["bytes"].get<double>() / std::max(1.0, line["bytes"].get<double>()));
  }
  return {Text(line, "step"), Percentage(line, "sparsity"), Number(line, "validation_accuracy", "%.2f") + Interval(line, "validation_interval"),
          Number(line, "test_accuracy", "%.2f"), Number(line, "parameters_nonzero", "%.0f"), Bytes(line, "bytes"), smaller};
}

std::string Candidates(const Json& report) {
  Rows rows = {{"rank", "candidate", "sparsity", "validation %", "test %", "weights left", "bytes", "smaller", "goal"}};
  const Json& baseline = report["baseline"];
  auto add = [&](const Json& line, const std::string& rank, const std::string& suffix, const std::string& goal) {
    std::vector<std::string> cells = Row(line, baseline);
    cells[0] += suffix;
    cells.insert(cells.begin(), rank);
    cells.push_back(goal);
    rows.push_back(std::move(cells));
  };
  if (baseline.is_object()) {
    add(baseline, kNone, " (dense)", "");
    rows.back()[2] = kNone;
  }
  for (const Json& c : report["candidates"]) {
    std::string rank = Text(c, "rank");
    add(c, rank.empty() ? kNone : rank, "", c["met_goal"] == true ? "met" : c["met_goal"] == false ? "missed" : "");
  }
  return rows.size() == 1 ? "no candidate yet\n" : Table(rows);
}

std::string Joules(const Json& rung) { return rung["energy_j_per_1000"].is_number() ? Number(rung, "energy_j_per_1000", "%.3f") : kNone; }

// The ladder of one measurement, why each layer runs as it does, and what it comes to.
std::string Measurement(const std::string& step, const Json& m) {
  std::string label = Text(m, "label");
  std::string out = "\n" + step + (label.empty() ? "" : " (" + label + ")") + ", batch " + Text(m, "batch") + ", threads " + Text(m, "threads") + ", " +
                    Counted(m, "runs", "run") + " in turn on " + Text(m["machine"], "processor") + ":\n";
  Rows rows = {{"execution", "p50 ms", "p95 ms", "min ms", "speed-up", "CPU s/1000", "memory", "J/1000", "cost/million"}};
  for (const Json& rung : m["ladder"]) {
    rows.push_back({Text(rung, "what"), Number(rung, "p50_ms", "%.4f"), Number(rung, "p95_ms", "%.4f"), Number(rung, "min_ms", "%.4f"),
                    Number(rung, "speedup", "%.2fx"), Number(rung, "cpu_s_per_1000", "%.4f"), rung["peak_memory_bytes"].is_number() ? Bytes(rung, "peak_memory_bytes") : kNone,
                    Joules(rung), rung.contains("cost_per_million") ? Number(rung, "cost_per_million", "%.6f") : kNone});
  }
  out += Table(rows);
  for (const Json& c : m["choices"]) out += "  layer " + Text(c, "layer") + ": " + Text(c, "reason") + "\n";
  out += "  gives " + Text(m, "gives") + "; " + Text(m, "finding") + "\n";
  for (const auto& [what, why] : m["not_measured"].items()) out += "  not measured: " + what + ": " + why.get<std::string>() + "\n";
  return out;
}

std::string MeasurementsOf(const Json& report) {
  std::string out;
  auto add = [&out](const Json& line) {
    for (const Json& m : line.value("measurements", Json::array())) out += Measurement(Text(line, "step"), m);
  };
  if (report["baseline"].is_object()) add(report["baseline"]);
  for (const Json& c : report["candidates"]) add(c);
  return out;
}

std::string Promoted(const Json& p) {
  if (!p.is_object()) return "";
  if (!p["version"].is_number()) return "\nnothing promoted: " + Text(p, "reason") + "\n";
  std::string out = "\npromoted " + Text(p, "step") + " as " + Text(p, "name") + "@" + Text(p, "version") + ": " + Text(p, "reason") + "\n";
  out += "  test accuracy " + Number(p, "test_accuracy", "%.2f") + " %";
  if (std::string path = Text(p, "path"); !path.empty()) out += ", checkpoint " + path;
  return out + "\n  next: pare export " + Text(p, "name") + " DIR\n";
}

// "pruned/05-choose against control-pruned: +0.32 pp on 10000 test samples, 95 % interval −0.02 to +0.66: no difference is shown".
std::string Comparison(const Json& c) {
  const Json& interval = c["interval"];
  if (!interval.is_array() || interval.size() != 2 || !c["difference"].is_number()) return "";
  double low = interval[0].get<double>(), high = interval[1].get<double>();
  std::string verdict = low > 0 ? "better" : high < 0 ? "worse" : "no difference is shown";
  return Text(c, "step") + " against " + Text(c, "against") + ": " + Format("%+.2f", c["difference"].get<double>()) + " pp on " + Text(c, "total") + " " +
         Text(c, "split") + " samples, 95 % interval " + Format("%+.2f", low) + " to " + Format("%+.2f", high) + ": " + verdict + "\n";
}

std::string Seconds(const Json& work, const char* field) { return work[field].is_number() ? HumanDuration(work[field].get<double>()) : kNone; }

}  // namespace

std::string RenderReport(const Json& r) {
  const Json& job = r["job"];
  std::string out = "job " + Text(job, "id") + " " + Text(job, "name") + ": " + Text(r, "state") + "\n\n" + Candidates(r);
  if (r.contains("failed") && !r["failed"].empty()) {
    out += "\nfailed:\n";
    for (const Json& f : r["failed"]) out += "  " + Text(f, "step") + ": " + Text(f, "error_class") + ": " + Text(f, "message") + "\n";
  }
  std::string comparisons;
  for (const Json& c : r.value("comparisons", Json::array())) comparisons += Comparison(c);
  if (!comparisons.empty()) out += "\n" + comparisons;
  out += MeasurementsOf(r);
  out += Promoted(r.value("promoted", Json()));
  if (r.contains("work") && r["work"].is_object()) {
    const Json& w = r["work"];
    out += "\nwall " + Seconds(w, "wall_s") + ", work " + Seconds(w, "busy_s") + "; " + Counted(w, "steps_run", "step") + " run, " + Text(w, "steps_reused") +
           " reused, " + Counted(w, "attempts_lost", "attempt") + " lost\n";
  }
  for (const Json& w : r.value("warnings", Json::array())) out += "warning: " + (w.is_string() ? w.get<std::string>() : Text(w, "text")) + "\n";
  return out;
}

}  // namespace pare::cli
