// Commands about jobs: one request each, rendered.
#include <poll.h>

#include <cstdio>

#include "cli/commands.h"
#include "cli/render.h"
#include "cli/watch.h"

namespace pare::cli {
namespace {

using Render = std::string (*)(const Json&);

int Ask(const Target& target, const std::string& method, const Json& args, Render render) {
  auto connection = Connect(target);
  if (!connection.ok()) return Fail(connection.error(), target.json);
  auto result = (*connection)->Call(method, args);
  if (!result.ok()) return Fail(result.error(), target.json);
  std::string text = target.json ? Canonical(*result) + "\n" : render(*result);
  std::fputs(text.c_str(), stdout);
  return 0;
}

std::string RenderState(const Json& result) { return result.value("job", "") + " " + result.value("state", "") + "\n"; }

int PrintDigest(const Target& target, const std::string& job) {
  auto connection = Connect(target);
  if (!connection.ok()) return Fail(connection.error(), target.json);
  auto result = (*connection)->Call("digest", {{"job", job}});
  if (!result.ok()) return Fail(result.error(), target.json);
  bool complete = result->value("complete", false);
  if (target.json) {
    std::printf("%s\n", Canonical(*result).c_str());
  } else {
    for (const Json& line : result->at("lines")) {
      std::string artifact = line.value("artifact", "");
      std::printf("%s %s %s\n", line.value("name", "").c_str(), line.value("key", "").c_str(), artifact.empty() ? "-" : artifact.c_str());
    }
    std::printf("total %s\n", result->value("total", "").c_str());
  }
  if (!complete) std::fprintf(stderr, "pare: the job is not finished: the total will change\n");
  return complete ? 0 : 1;
}

int PrintLogs(const Target& target, const std::string& job, bool follow) {
  auto connection = Connect(target);
  if (!connection.ok()) return Fail(connection.error(), target.json);
  if (follow) CatchInterrupts();
  int64_t after = 0;
  for (;;) {
    auto events = (*connection)->Call("logs", {{"job", job}, {"after", after}, {"limit", 1000}});
    if (!events.ok()) return Fail(events.error(), target.json);
    for (const Json& e : *events) after = std::max(after, e.value("sequence", int64_t{0}));
    if (target.json && !follow) std::printf("%s\n", Canonical(*events).c_str());
    else if (target.json) for (const Json& e : *events) std::printf("%s\n", Canonical(e).c_str());
    else std::fputs(RenderEvents(*events).c_str(), stdout);
    std::fflush(stdout);
    if (events->size() == 1000) continue;
    if (!follow) return 0;
    auto state = (*connection)->Call("watch", {{"job", job}, {"after", after}});
    if (!state.ok()) return Fail(state.error(), target.json);
    std::string now = (*state)["job"].value("state", "");
    if (now != "running" && now != "paused") return now == "done" ? 0 : 1;
    if (Interrupts() > 0) return 130;
    ::poll(nullptr, 0, 300);
  }
}

void AddJobCommand(CLI::App& app, Context& context, const std::string& name, const std::string& description, const std::string& example,
                   std::function<int(const Target&, const std::string&)> run) {
  auto job = std::make_shared<std::string>("last");
  CLI::App* command = AddCommand(app, context, name, description, example);
  command->add_option("JOB", *job, "id, unique prefix, or last");
  command->callback([&context, job, run] { context.action = [&context, job, run] { return run(context.target, *job); }; });
}

}  // namespace

void AddJobCommands(CLI::App& app, Context& context) {
  CLI::App* list = AddCommand(app, context, "list", "Lists the jobs of a store, newest first.", "pare list --json");
  list->callback([&context] { context.action = [&context] { return Ask(context.target, "list", Json::object(), RenderList); }; });

  AddJobCommand(app, context, "describe", "Shows a job: its steps, their states and attempts.", "pare describe last",
                [](const Target& t, const std::string& job) { return Ask(t, "describe", {{"job", job}}, RenderJob); });
  AddJobCommand(app, context, "report", "Shows what a job found: baseline, candidates, what was promoted and why.", "pare report last --json",
                [](const Target& t, const std::string& job) { return Ask(t, "report", {{"job", job}}, RenderReport); });
  AddJobCommand(app, context, "digest", "Prints name, step key and artifact SHA-256 of every step, and a total over all.", "pare digest last", PrintDigest);
  const std::pair<const char*, const char*> changes[] = {{"pause", "Pauses a job; running steps save their state."},
                                                         {"resume", "Continues a paused job."},
                                                         {"cancel", "Ends a job; what is finished stays."},
                                                         {"retry", "Queues the failed steps of a job again."}};
  for (const auto& [name, description] : changes) {
    std::string method = name;
    AddJobCommand(app, context, method, description, "pare " + method + " last",
                  [method](const Target& t, const std::string& job) { return Ask(t, method, {{"job", job}}, RenderState); });
  }

  auto logs = std::make_shared<std::pair<std::string, bool>>("last", false);
  CLI::App* command = AddCommand(app, context, "logs", "Prints the history of a job.", "pare logs last -f");
  command->add_option("JOB", logs->first, "id, unique prefix, or last");
  command->add_flag("-f,--follow", logs->second, "go on until the job ends");
  command->callback([&context, logs] { context.action = [&context, logs] { return PrintLogs(context.target, logs->first, logs->second); }; });

  auto why = std::make_shared<std::pair<std::string, std::string>>("", "last");
  command = AddCommand(app, context, "why", "Tells why a step runs, waits or failed.", "pare why iterative/03-retrain --job last");
  command->add_option("STEP", why->first, "step name, key, or unique prefix of a key")->required();
  command->add_option("--job", why->second, "the job, for a step given by name");
  command->callback([&context, why] {
    context.action = [&context, why] { return Ask(context.target, "why", {{"step", why->first}, {"job", why->second}}, RenderWhy); };
  });
}

}  // namespace pare::cli
