#include "cli/render.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>

namespace pare::cli {
namespace {

using Rows = std::vector<std::vector<std::string>>;

std::string Format(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

std::string Text(const Json& object, const char* field) {
  auto it = object.find(field);
  if (it == object.end() || it->is_null()) return "";
  return it->is_string() ? it->get<std::string>() : Canonical(*it);
}

std::string Number(const Json& object, const char* field, const char* format) {
  auto it = object.find(field);
  return it == object.end() || !it->is_number() ? "–" : Format(format, it->get<double>());
}

std::string Percentage(const Json& object, const char* field) {  // of a fraction
  auto it = object.find(field);
  return it == object.end() || !it->is_number() ? "–" : Format("%.2f %%", 100.0 * it->get<double>());
}

std::string Bytes(const Json& object, const char* field) {
  auto it = object.find(field);
  return it == object.end() || !it->is_number() ? "–" : HumanBytes(it->get<int64_t>());
}

// Characters as a terminal counts them: UTF-8 continuation bytes take no room.
size_t Width(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

bool Numeric(const std::string& cell) {
  return !cell.empty() && (std::isdigit(static_cast<unsigned char>(cell[0])) || cell[0] == '-' || cell == "–" || cell[0] == '+');
}

std::string Interval(const Json& object, const char* field) {
  auto it = object.find(field);
  if (it == object.end() || !it->is_array() || it->size() != 2) return "";
  return " ± " + Format("%.2f", ((*it)[1].get<double>() - (*it)[0].get<double>()) / 2);
}

Rows CandidateRows(const Json& report) {
  Rows rows = {{"rank", "candidate", "sparsity", "validation %", "test %", "weights left", "bytes", "smaller", "goal"}};
  double dense = report["baseline"].is_object() && report["baseline"]["bytes"].is_number() ? report["baseline"]["bytes"].get<double>() : 0;
  if (report["baseline"].is_object()) {
    const Json& b = report["baseline"];
    rows.push_back({"–", Text(b, "step") + " (dense)", "–", Number(b, "validation_accuracy", "%.2f") + Interval(b, "validation_interval"),
                    Number(b, "test_accuracy", "%.2f"), Number(b, "parameters", "%.0f"), Bytes(b, "bytes"), "1.0x", ""});
  }
  for (const Json& c : report["candidates"]) {
    std::string smaller = c["bytes"].is_number() && dense > 0 ? Format("%.1fx", dense / std::max(1.0, c["bytes"].get<double>())) : "–";
    rows.push_back({Text(c, "rank"), Text(c, "step"), Percentage(c, "sparsity"), Number(c, "validation_accuracy", "%.2f") + Interval(c, "validation_interval"),
                    Number(c, "test_accuracy", "%.2f"), Number(c, "parameters_nonzero", "%.0f"), Bytes(c, "bytes"), smaller,
                    c["met_goal"] == true ? "met" : c["met_goal"] == false ? "missed" : ""});
  }
  return rows;
}

std::string ProgressText(const Json& p) {
  if (!p.is_object()) return "";
  std::string text;
  if (p.contains("epoch") && p.contains("epochs")) text += "epoch " + Number(p, "epoch", "%.1f") + "/" + Number(p, "epochs", "%.0f");
  if (p.contains("loss")) text += "  loss " + Number(p, "loss", "%.4f");
  if (p.contains("accuracy")) text += "  accuracy " + Number(p, "accuracy", "%.2f") + " %";
  if (p.contains("sparsity")) text += "  sparsity " + Percentage(p, "sparsity");
  if (p.contains("eta_s") && p["eta_s"].is_number()) text += "  left " + HumanDuration(p["eta_s"].get<double>());
  return text;
}

}  // namespace

std::string Table(const Rows& rows) {
  std::vector<size_t> widths;
  std::vector<bool> right;
  for (const auto& row : rows) {
    for (size_t c = 0; c < row.size(); ++c) {
      if (c == widths.size()) widths.push_back(0), right.push_back(true);
      widths[c] = std::max(widths[c], Width(row[c]));
      if (&row != &rows[0] && !row[c].empty() && !Numeric(row[c])) right[c] = false;
    }
  }
  std::string out;
  for (const auto& row : rows) {
    std::string line;
    for (size_t c = 0; c < row.size(); ++c) {
      std::string pad(widths[c] - Width(row[c]), ' ');
      line += (c ? "  " : "") + (right[c] ? pad + row[c] : row[c] + pad);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

std::string HumanBytes(int64_t bytes) {
  double v = static_cast<double>(bytes);
  if (bytes < 1000) return std::to_string(bytes) + " B";
  if (v < 1e6) return Format("%.1f kB", v / 1e3);
  if (v < 1e9) return Format("%.2f MB", v / 1e6);
  return Format("%.2f GB", v / 1e9);
}

std::string HumanDuration(double seconds) {
  if (seconds < 10) return Format("%.1f s", seconds);
  auto s = static_cast<int64_t>(std::llround(seconds));
  char text[64];
  if (s < 60) std::snprintf(text, sizeof text, "%lld s", static_cast<long long>(s));
  else if (s < 3600) std::snprintf(text, sizeof text, "%lld m %02lld s", static_cast<long long>(s / 60), static_cast<long long>(s % 60));
  else std::snprintf(text, sizeof text, "%lld h %02lld m", static_cast<long long>(s / 3600), static_cast<long long>(s % 3600 / 60));
  return text;
}

std::string RenderList(const Json& jobs) {
  if (jobs.empty()) return "no jobs yet; start one with: pare run RECIPE\n";
  Rows rows = {{"id", "name", "state", "created", "steps", "message"}};
  for (const Json& j : jobs) {
    rows.push_back({Text(j, "id"), Text(j, "name"), Text(j, "state"), Text(j, "created"), Text(j, "steps_done") + "/" + Text(j, "steps_total"), Text(j, "message")});
  }
  return Table(rows);
}

std::string RenderJob(const Json& job) {
  std::string out;
  for (const char* field : {"id", "name", "state", "created", "finished", "message"}) {
    if (std::string value = Text(job, field); !value.empty()) out += std::string(field) + ": " + value + "\n";
  }
  Rows rows = {{"step", "kind", "state", "key", "attempts", "note"}};
  std::string attempts;
  for (const Json& s : job.value("steps", Json::array())) {
    std::string note = s.value("reused", false) ? "reused" : Text(s, "message");
    if (note.empty()) note = ProgressText(s.value("progress", Json()));
    if (note.empty() && Text(s, "state") != "done") note = Text(s, "reason");
    Json list = s.value("attempts", Json::array());
    rows.push_back({Text(s, "name"), Text(s, "kind"), Text(s, "state"), Text(s, "key").substr(0, 12), std::to_string(list.size()), note});
    for (const Json& a : list) {
      if (Text(a, "outcome") == "done" || Text(a, "outcome") == "running") continue;
      attempts += "  " + Text(s, "name") + " attempt " + Text(a, "attempt") + " on " + Text(a, "worker") + ": " + Text(a, "outcome") + " " +
                  Text(a, "error_class") + " " + Text(a, "message") + "\n";
    }
  }
  out += "\n" + Table(rows);
  if (!attempts.empty()) out += "\nattempts that did not finish:\n" + attempts;
  return out;
}

std::string RenderEvents(const Json& events) {
  std::string out;
  for (const Json& e : events) {
    out += Text(e, "at") + " " + Text(e, "level") + " " + (Text(e, "step").empty() ? "" : Text(e, "step") + ": ") + Text(e, "text") + "\n";
  }
  return out;
}

std::string RenderReport(const Json& r) {
  const Json& job = r["job"];
  std::string out = "job " + Text(job, "id") + " " + Text(job, "name") + ": " + Text(r, "state") + "\n\n" + Table(CandidateRows(r));
  if (r.contains("failed") && !r["failed"].empty()) {
    out += "\nfailed:\n";
    for (const Json& f : r["failed"]) out += "  " + Text(f, "step") + ": " + Text(f, "error_class") + ": " + Text(f, "message") + "\n";
  }
  const Json& p = r["promoted"];
  if (p.is_object() && p["version"].is_number()) {
    out += "\npromoted " + Text(p, "step") + " as " + Text(p, "name") + "@" + Text(p, "version") + ": " + Text(p, "reason") + "\n";
    out += "  test accuracy " + Number(p, "test_accuracy", "%.2f") + " %, checkpoint " + Text(p, "path") + "\n";
    out += "  next: pare export " + Text(p, "name") + " DIR\n";
  } else if (p.is_object()) {
    out += "\nnothing promoted: " + Text(p, "reason") + "\n";
  }
  if (r.contains("work") && r["work"].is_object()) {
    const Json& w = r["work"];
    out += "\nwall " + (w["wall_s"].is_number() ? HumanDuration(w["wall_s"].get<double>()) : "–") + ", work " +
           (w["busy_s"].is_number() ? HumanDuration(w["busy_s"].get<double>()) : "–") + ", " + Text(w, "steps_run") + " steps run, " +
           Text(w, "steps_reused") + " reused, " + Text(w, "attempts_lost") + " attempts lost\n";
  }
  for (const Json& w : r.value("warnings", Json::array())) out += "warning: " + (w.is_string() ? w.get<std::string>() : Text(w, "text")) + "\n";
  return out;
}

std::string RenderModels(const Json& models) {
  if (models.empty()) return "no models yet; a recipe with promote registers one\n";
  Rows rows = {{"model", "version", "aliases", "job", "step", "created", "artifact"}};
  for (const Json& m : models) {
    for (const Json& v : m["versions"]) {
      std::string aliases;
      for (const Json& a : v.value("aliases", Json::array())) aliases += (aliases.empty() ? "" : ",") + a.get<std::string>();
      rows.push_back({Text(m, "name"), Text(v, "version"), aliases, Text(v, "job"), Text(v, "step"), Text(v, "created"), Text(v, "artifact").substr(0, 12)});
    }
  }
  return Table(rows);
}

std::string RenderWhy(const Json& why) {
  std::string out = Text(why, "step") + ": " + Text(why, "state") + "\n  " + Text(why, "decision") + ": " + Text(why, "reason") + "\n";
  for (const Json& w : why.value("waiting_for", Json::array())) out += "  waiting for " + (w.is_string() ? w.get<std::string>() : Canonical(w)) + "\n";
  return out;
}

std::string RenderPlan(const Json& plan) {
  Rows rows = {{"step", "kind", "key", "state", "parameters", "bytes", "about"}};
  for (const Json& s : plan["steps"]) {
    rows.push_back({Text(s, "name"), Text(s, "kind"), Text(s, "key").substr(0, 12), Text(s, "state"), Number(s, "parameters_nonzero", "%.0f"),
                    Bytes(s, "bytes"), s["seconds"].is_number() ? HumanDuration(s["seconds"].get<double>()) : "–"});
  }
  std::string out = Table(rows) + "\n" + Text(plan, "to_run") + " steps to run, " + Text(plan, "cached") + " cached";
  if (plan["seconds"].is_number()) out += "; about " + HumanDuration(plan["seconds"].get<double>()) + " of work on one core (an estimate)";
  out += "\n";
  for (const Json& w : plan.value("warnings", Json::array())) out += "warning: " + w.get<std::string>() + "\n";
  return out;
}

std::string RenderStepLine(const Json& s) {
  std::string out = Text(s, "name") + "  " + Text(s, "state");
  if (s.value("reused", false)) out += " (reused)";
  Json r = s.value("results", Json());
  if (r.is_object()) {
    if (r.contains("accuracy")) out += "  accuracy " + Number(r, "accuracy", "%.2f") + " %";
    if (r.contains("sparsity") && r["sparsity"].is_object() && r["sparsity"]["pruned_layers"].is_number() && r["sparsity"]["pruned_layers"].get<double>() > 0) {
      out += "  sparsity " + Percentage(r["sparsity"], "pruned_layers");
    }
    if (r.contains("checkpoint_bytes")) out += "  " + Bytes(r, "checkpoint_bytes");
  }
  if (Text(s, "state") == "failed") out += "  " + Text(s, "error_class") + ": " + Text(s, "message");
  return out;
}

std::string RenderLive(const Json& watch) {
  std::map<std::string, std::pair<int, int>> counts;  // variant: done, total
  std::map<std::string, std::string> running;
  int done = 0, total = 0;
  for (const Json& s : watch["steps"]) {
    std::string variant = Text(s, "variant");
    auto& [d, t] = counts[variant.empty() ? "(shared)" : variant];
    ++t, ++total;
    d += Text(s, "state") == "done", done += Text(s, "state") == "done";
    if (Text(s, "state") == "running") running[variant.empty() ? "(shared)" : variant] = Text(s, "name") + "  " + ProgressText(s.value("progress", Json()));
  }
  std::string out = Text(watch["job"], "id") + " " + Text(watch["job"], "name") + ": " + Text(watch["job"], "state") + ", " + std::to_string(done) + "/" + std::to_string(total) + " steps\n";
  for (const auto& [variant, count] : counts) {
    auto it = running.find(variant);
    out += "  " + variant + std::string(variant.size() < 14 ? 14 - variant.size() : 1, ' ') + std::to_string(count.first) + "/" + std::to_string(count.second) + "  " +
           (it == running.end() ? "" : it->second) + "\n";
  }
  return out;
}

}  // namespace pare::cli
