// Commands about jobs: one request each, rendered.
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "cli/commands.h"
#include "cli/render.h"
#include "cli/watch.h"

namespace pare::cli {
namespace {

constexpr int kExitInterrupted = 130;
constexpr size_t kEventsAtOnce = 1'000;
constexpr int kLogPollMs = 300;

int PrintDigest(const Target& target, const std::string& job) {
  auto connection = Connect(target);
  if (!connection.ok()) return Fail(connection.error(), target.json);
  auto digest = (*connection)->Call("digest", {{"job", job}});
  if (!digest.ok()) return Fail(digest.error(), target.json);
  std::string text = target.json ? Canonical(*digest) + "\n" : RenderDigest(*digest);
  std::fputs(text.c_str(), stdout);
  if (digest->value("complete", false)) return 0;
  std::fprintf(stderr, "pare: steps without an artifact (-): the total is not final\n");
  return 1;
}

void PrintEvents(const Json& events, bool json, bool follow) {
  if (!json) std::fputs(RenderEvents(events).c_str(), stdout);
  else if (!follow) std::printf("%s\n", Canonical(events).c_str());
  else for (const Json& e : events) std::printf("%s\n", Canonical(e).c_str());  // one object a line, as they come
  std::fflush(stdout);
}

// All events after `after`, which moves on.
Result<Json> NewEvents(Connection& connection, const std::string& job, int64_t& after) {
  Json all = Json::array();
  for (;;) {
    ASSIGN_OR_RETURN(Json events, connection.Call("logs", {{"job", job}, {"after", after}, {"limit", kEventsAtOnce}}));
    for (Json& e : events) {
      after = std::max(after, e.value("sequence", int64_t{0}));
      all.push_back(std::move(e));
    }
    if (events.size() < kEventsAtOnce) return all;
  }
}

int PrintLogs(const Target& target, const std::string& job, bool follow) {
  auto connection = Connect(target);
  if (!connection.ok()) return Fail(connection.error(), target.json);
  if (follow) CatchInterrupts();
  int64_t after = 0;
  for (;;) {
    // The state first: what happened before an end is then among the events.
    auto watch = follow ? (*connection)->Call("watch", {{"job", job}, {"after", after}}) : Result<Json>(Json());
    if (!watch.ok()) return Fail(watch.error(), target.json);
    auto events = NewEvents(**connection, job, after);
    if (!events.ok()) return Fail(events.error(), target.json);
    PrintEvents(*events, target.json, follow);
    if (!follow) return 0;
    std::string state = (*watch)["job"].value("state", "");
    if (Ended(state)) return state == "done" ? 0 : 1;
    if ((*connection)->local()) return Fail({ErrorCode::kUnreachable, "no coordinator lives in store " + target.store + ": nothing more will happen"}, target.json);
    if (Interrupts() > 0) return kExitInterrupted;
    ::poll(nullptr, 0, kLogPollMs);
  }
}

void AddJobCommand(CLI::App& app, Context& context, const std::string& name, const std::string& description, const std::string& example,
                   std::function<int(const Target&, const std::string&)> run) {
  auto job = std::make_shared<std::string>("last");
  CLI::App* command = AddCommand(app, context, name, description, example);
  command->group("Jobs");
  command->add_option("JOB", *job, "id, unique prefix, or last (default)")->type_name("");
  command->callback([&context, job, run] { context.action = [&context, job, run] { return run(context.target, *job); }; });
}

int ChangeJob(const Target& target, const std::string& method, const std::string& job) {
  auto connection = Connect(target);
  if (!connection.ok()) return Fail(connection.error(), target.json);
  auto change = (*connection)->Call(method, {{"job", job}});
  if (!change.ok()) return Fail(change.error(), target.json);
  std::fputs((target.json ? Canonical(*change) + "\n" : RenderState(*change)).c_str(), stdout);
  if ((*connection)->local() && Text(*change, "state") == "running") {
    std::fprintf(stderr, "pare: no coordinator lives in this store: the job waits for `pare run`, or `pare coordinator` and `pare worker`\n");
  }
  return 0;
}

void AddChanges(CLI::App& app, Context& context) {
  const std::pair<const char*, const char*> changes[] = {{"pause", "Pauses a job; running steps save their state."},
                                                         {"resume", "Continues a paused job."},
                                                         {"cancel", "Ends a job; what is finished stays."},
                                                         {"retry", "Queues the failed steps of a job again."}};
  for (const auto& [name, description] : changes) {
    std::string method = name;
    AddJobCommand(app, context, method, description, "pare " + method + " last",
                  [method](const Target& t, const std::string& job) { return ChangeJob(t, method, job); });
  }
}

}  // namespace

void AddJobCommands(CLI::App& app, Context& context) {
  CLI::App* list = AddCommand(app, context, "list", "Lists the jobs of a store, newest first.", "pare list --json");
  list->group("Jobs");
  list->callback([&context] { context.action = [&context] { return Ask(context.target, "list", Json::object(), [](const Json& jobs) { return RenderList(jobs, TerminalColumns(STDOUT_FILENO)); }); }; });

  AddJobCommand(app, context, "describe", "Shows a job: its steps, their states, attempts and workers.", "pare describe last",
                [](const Target& t, const std::string& job) { return Ask(t, "describe", {{"job", job}}, RenderJob); });
  AddJobCommand(app, context, "report", "Shows what a job found: baseline, candidates, what was promoted and why.", "pare report last --json",
                [](const Target& t, const std::string& job) { return Ask(t, "report", {{"job", job}}, RenderReport); });
  AddJobCommand(app, context, "digest", "Prints name, step key and artifact SHA-256 of every step, and a total over all.", "pare digest last", PrintDigest);
  AddChanges(app, context);

  auto logs = std::make_shared<std::pair<std::string, bool>>("last", false);
  CLI::App* command = AddCommand(app, context, "logs", "Prints the history of a job.", "pare logs last -f");
  command->group("Jobs");
  command->add_option("JOB", logs->first, "id, unique prefix, or last (default)")->type_name("");
  command->add_flag("-f,--follow", logs->second, "go on until the job ends");
  command->callback([&context, logs] { context.action = [&context, logs] { return PrintLogs(context.target, logs->first, logs->second); }; });

  auto why = std::make_shared<std::pair<std::string, std::string>>("", "last");
  command = AddCommand(app, context, "why", "Tells why a step runs, waits or failed.", "pare why iterative/02-retrain --job last");
  command->group("Jobs");
  command->add_option("STEP", why->first, "name of a step, or a unique prefix of its key")->required()->type_name("");
  command->add_option("--job", why->second, "the job, for a step given by name; default last")->type_name("JOB");
  command->callback([&context, why] {
    context.action = [&context, why] { return Ask(context.target, "why", {{"step", why->first}, {"job", why->second}}, RenderWhy); };
  });
}

}  // namespace pare::cli
