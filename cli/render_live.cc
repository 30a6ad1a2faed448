// What is seen while a job runs.
#include <algorithm>

#include "cli/render.h"
#include "common/plural.h"

namespace pare::cli {
namespace {

constexpr const char* kShared = "shared";  // steps of no variant

struct Lane {
  std::string name;
  int done = 0, total = 0, failed = 0;
  const Json* running = nullptr;
  std::string count() const { return std::to_string(done) + "/" + std::to_string(total); }
};

// "02-retrain" of "iterative/02-retrain" in the line of "iterative".
std::string WithoutVariant(const std::string& name, const std::string& variant) {
  return name.rfind(variant + "/", 0) == 0 ? name.substr(variant.size() + 1) : name;
}

std::vector<Lane> Lanes(const Json& steps) {
  std::vector<Lane> lanes;  // in the order of the recipe
  for (const Json& s : steps) {
    std::string name = Text(s, "variant").empty() ? kShared : Text(s, "variant"), state = Text(s, "state");
    auto lane = std::find_if(lanes.begin(), lanes.end(), [&](const Lane& l) { return l.name == name; });
    if (lane == lanes.end()) lane = lanes.insert(lanes.end(), Lane{.name = name});
    ++lane->total;
    lane->done += state == "done";
    lane->failed += state == "failed";
    // Of two, the one that trains: it has more to tell.
    if (state == "running" && (lane->running == nullptr || Text(s, "kind") != "evaluate")) lane->running = &s;
  }
  return lanes;
}

std::string LaneText(const Lane& lane) {
  if (lane.running != nullptr) {
    std::string progress = RenderProgress(lane.running->value("progress", Json()));
    return WithoutVariant(Text(*lane.running, "name"), lane.name) + (progress.empty() ? "" : "  " + progress);
  }
  if (lane.failed > 0) return "failed";
  return lane.done == lane.total ? "done" : "waits";
}

}  // namespace

std::string RenderProgress(const Json& p) {
  if (!p.is_object()) return "";
  std::string text;
  if (p.contains("epoch") && p.contains("epochs")) text += "epoch " + Number(p, "epoch", "%.1f") + "/" + Number(p, "epochs", "%.0f");
  if (p.contains("loss")) text += "  loss " + Number(p, "loss", "%.4f");
  if (p.contains("accuracy")) text += "  accuracy " + Number(p, "accuracy", "%.2f") + " %";
  if (p.contains("sparsity")) text += "  sparsity " + Percentage(p, "sparsity");
  if (p.contains("eta_s") && p["eta_s"].is_number()) text += "  left " + HumanDuration(p["eta_s"].get<double>());
  return text;
}

std::string RenderLive(const Json& watch, size_t columns) {
  std::vector<Lane> lanes = Lanes(watch["steps"]);
  size_t width = 0, count_width = 0, done = 0, total = 0;
  for (const Lane& lane : lanes) {
    width = std::max(width, TextWidth(lane.name));
    count_width = std::max(count_width, lane.count().size());
    done += static_cast<size_t>(lane.done), total += static_cast<size_t>(lane.total);
  }
  width = std::min(width, std::max(kShortestName, columns / 3));
  const Json& job = watch["job"];
  auto workers = watch.value("workers", size_t{0}), busy = watch.value("busy_workers", size_t{0});
  std::string id = "job " + Text(job, "id") + " ", state = ": " + Text(job, "state") + ", " + std::to_string(done) + "/" + Plural(total, "step");
  size_t taken = TextWidth(id + state + ", …"), name = std::max(kShortestName, columns > taken ? columns - taken : 0);
  std::string out = id + Elide(Text(job, "name"), name) + state + ", " + (workers == 0 ? "no worker connected" : std::to_string(busy) + "/" + Plural(workers, "worker") + " busy") + "\n";
  for (const Lane& lane : lanes) {
    out += "  " + Pad(Elide(lane.name, width), width) + "  " + Pad(lane.count(), count_width) + "  " + LaneText(lane) + "\n";
  }
  return Clip(out, columns, kUnlimited);
}

std::string RenderStepLine(const Json& s, size_t width) {
  std::string state = Text(s, "state"), name = Text(s, "name"), kind = Text(s, "kind");
  Json r = s.value("results", Json());
  if (state == "failed") return Pad(Elide(name, width), width) + "  failed: " + Text(s, "error_class") + ": " + Text(s, "message") + "\n";
  if (state != "done" || !r.is_object()) return "";
  if (kind == "promote") return Pad(Elide(name, width), width) + "  " + Text(r, "reason") + "\n";
  if (kind != "evaluate" || Text(r, "split") != "validation") return "";
  const std::string suffix = "/evaluate";
  if (name.size() > suffix.size() && name.ends_with(suffix)) name.resize(name.size() - suffix.size());
  std::string out = Pad(Elide(name, width), width) + "  accuracy " + Number(r, "accuracy", "%.2f") + " %";
  Json summary = r.value("summary", Json::object()), sparsity = summary.value("sparsity", Json::object());
  if (sparsity.value("pruned_layers", 0.0) > 0) out += "  sparsity " + Percentage(sparsity, "pruned_layers");
  if (summary.contains("checkpoint_bytes")) out += "  " + Bytes(summary, "checkpoint_bytes");
  return out + "\n";
}

}  // namespace pare::cli
