#include "cli/render.h"

#include <algorithm>

namespace pare::cli {
namespace {

std::string NamesOfWorkers(const Json& attempt) {
  std::string names;
  for (const Json& name : attempt.value("workers", Json::array())) names += (names.empty() ? "" : ", ") + name.get<std::string>();
  return names.empty() ? Text(attempt, "worker") : names;
}

std::string AttemptLine(const Json& step, const Json& attempt) {
  std::string why = Text(attempt, "error_class");
  if (std::string message = Text(attempt, "message"); !message.empty()) why += (why.empty() ? "" : ": ") + message;
  return "  " + Text(step, "name") + ", attempt " + Text(attempt, "attempt") + " on " + NamesOfWorkers(attempt) + ": " + Text(attempt, "outcome") +
         (why.empty() ? "" : " (" + why + ")") + "\n";
}

std::string NoteOf(const Json& step) {
  std::string state = Text(step, "state");
  if (step.value("reused", false)) return "reused";
  if (state == "done") return "";
  if (state == "running" && step.value("progress", Json()).is_object()) return RenderProgress(step["progress"]);
  std::string message = Text(step, "message");
  return message.empty() ? Text(step, "reason") : message;
}

std::string BusyTime(const Json& attempts) {
  double ms = 0;
  for (const Json& a : attempts) ms += a.value("busy_ms", 0.0);
  return attempts.empty() ? kNone : HumanDuration(ms / 1000);
}

std::string WorkersOf(const Json& job) {
  Rows rows = {{"worker", "host", "device", "threads", "runs"}};
  for (const Json& w : job.value("workers", Json::array())) {
    std::string step = Text(w, "step");
    rows.push_back({Text(w, "name"), Text(w, "host"), Text(w, "device"), Text(w, "threads"), step.empty() ? "idle" : step});
  }
  return rows.size() == 1 ? "no worker is connected; start one with: pare worker --coordinator ENDPOINT\n" : Table(rows);
}

std::string ListOf(const Json& jobs, size_t name_width) {
  Rows rows = {{"id", "name", "state", "created", "steps", "message"}};
  for (const Json& j : jobs) {
    std::string total = Text(j, "steps_total");
    rows.push_back({Text(j, "id"), Elide(Text(j, "name"), name_width), Text(j, "state"), Text(j, "created"), total.empty() ? "unknown" : Text(j, "steps_done") + "/" + total, Text(j, "message")});
  }
  return Table(rows);
}

size_t LongestLine(const std::string& text) {
  size_t longest = 0;
  for (size_t begin = 0, end = 0; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) longest = std::max(longest, TextWidth(text.substr(begin, end - begin)));
  return longest;
}

}  // namespace

std::string RenderList(const Json& jobs, size_t columns) {
  if (jobs.empty()) return "no jobs yet; start one with: pare run RECIPE\n";
  std::string all = ListOf(jobs, kUnlimited);
  size_t width = LongestLine(all), name = 0;
  if (width <= columns) return all;
  for (const Json& j : jobs) name = std::max(name, TextWidth(Text(j, "name")));
  size_t over = width - columns;
  return Clip(ListOf(jobs, std::max(kShortestName, name > over ? name - over : 0)), columns, kUnlimited);
}

std::string RenderJob(const Json& job) {
  std::string state = Text(job, "state"), finished = Text(job, "finished"), message = Text(job, "message");
  std::string out = "job " + Text(job, "id") + " " + Text(job, "name") + ": " + state + (message.empty() ? "" : " (" + message + ")") + "\n";
  out += "created " + Text(job, "created") + (finished.empty() ? "" : ", finished " + finished) + "\n\n";
  Rows rows = {{"step", "state", "key", "attempts", "time", "worker", "note"}};
  std::string unfinished;
  for (const Json& s : job.value("steps", Json::array())) {
    Json attempts = s.value("attempts", Json::array());
    std::string worker = attempts.empty() ? "" : NamesOfWorkers(attempts.back());
    rows.push_back({Text(s, "name"), Text(s, "state"), Text(s, "key").substr(0, 12), std::to_string(attempts.size()), BusyTime(attempts), worker, NoteOf(s)});
    for (const Json& a : attempts) {
      if (Text(a, "outcome") != "done" && Text(a, "outcome") != "running") unfinished += AttemptLine(s, a);
    }
  }
  out += Table(rows);
  if (job.contains("steps_total") && job["steps_total"].is_null()) {
    out += "\nnot all of its steps are on record: the index was rebuilt; run its recipe again, what its steps left is used\n";
  }
  if (!unfinished.empty()) out += "\nattempts that did not finish:\n" + unfinished;
  if (finished.empty()) out += "\n" + WorkersOf(job);
  return out;
}

std::string RenderEvents(const Json& events) {
  std::string out;
  for (const Json& e : events) {
    std::string level = Text(e, "level"), step = Text(e, "step");
    out += Text(e, "at") + "  " + (level == "info" ? "" : level + ": ") + (step.empty() ? "" : step + ": ") + Text(e, "text") + "\n";
  }
  return out;
}

std::string RenderModels(const Json& models) {
  if (models.empty()) return "no models yet; a recipe with a promote section registers one\n";
  Rows rows = {{"model", "version", "alias", "validation %", "test %", "sparsity", "bytes", "step", "job", "created"}};
  for (const Json& m : models) {
    for (const Json& v : m["versions"]) {
      std::string aliases;
      for (const Json& a : v.value("aliases", Json::array())) aliases += (aliases.empty() ? "" : ",") + a.get<std::string>();
      Json evidence = v.value("evidence", Json::object()), summary = evidence.value("summary", Json::object());
      rows.push_back({Text(m, "name"), Text(v, "version"), aliases, Number(evidence, "validation_accuracy", "%.2f"), Number(evidence, "test_accuracy", "%.2f"),
                      Percentage(summary.value("sparsity", Json::object()), "pruned_layers"), Bytes(summary, "checkpoint_bytes"), Text(v, "step"),
                      Text(v, "job"), Text(v, "created")});
    }
  }
  return Table(rows);
}

std::string RenderHistory(const Json& history) {
  Rows rows = {{"at", "", "version", "before", "why"}};
  for (const Json& h : history["history"]) rows.push_back({Text(h, "at"), Text(h, "action"), Text(h, "version"), Text(h, "previous"), Text(h, "text")});
  return rows.size() == 1 ? "no changes of its champion are on record\n" : Table(rows);
}

std::string RenderWhy(const Json& why) {
  std::string since = Text(why, "since");
  std::string out = Text(why, "step") + ": " + Text(why, "state") + (since.empty() ? "" : " since " + since) + "\n  " + Text(why, "reason") + "\n";
  // The reason names the first ones.
  const Json waiting = why.value("waiting_for", Json::array());
  for (const Json& step : waiting) {
    if (waiting.size() > 5) out += "  waiting for " + (step.is_string() ? step.get<std::string>() : Canonical(step)) + "\n";
  }
  return out;
}

std::string RenderDigest(const Json& digest) {
  std::string out;
  for (const Json& line : digest["lines"]) {
    std::string artifact = Text(line, "artifact");
    out += Text(line, "name") + " " + Text(line, "key") + " " + (artifact.empty() ? "-" : artifact) + "\n";
  }
  return out + "total " + Text(digest, "total") + "\n";
}

std::string RenderState(const Json& change) {
  std::string out = "job " + Text(change, "job") + ": " + Text(change, "state") + "\n";
  for (const Json& name : change.value("left_alone", Json::array())) {
    out += "  not retried: " + name.get<std::string>() + " diverged, and the same recipe diverges again; change the recipe and run it\n";
  }
  return out;
}

}  // namespace pare::cli
