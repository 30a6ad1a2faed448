// run, submit, watch.
#include <unistd.h>

#include <cstdio>
#include <thread>

#include "cli/cluster.h"
#include "cli/commands.h"
#include "cli/recipe_input.h"
#include "cli/render.h"
#include "cli/watch.h"
#include "storage/store.h"

namespace pare::cli {
namespace {

struct RunOptions {
  std::string recipe;
  int workers = 0, threads = 1;
};

Json SubmitArgs(const recipes::Recipe& recipe, const Inputs& inputs, bool reuse) {
  return {{"recipe", recipe.text()}, {"recipe_name", recipe.name()}, {"data", data::ToJson(inputs.data)},
          {"weights", inputs.weights.is_none() ? "" : inputs.weights.hex()}, {"reuse", reuse}};
}

int ExitOf(const std::string& state) { return state == "done" ? 0 : 1; }

int PrintReport(Connection& connection, const std::string& job, bool json, const std::string& state) {
  auto report = connection.Call("report", {{"job", job}});
  if (!report.ok()) return Fail(report.error(), json);
  std::printf("%s\n", json ? Canonical(*report).c_str() : RenderReport(*report).c_str());
  return ExitOf(state);
}

int Run(const Target& target, RunOptions options) {
  auto recipe = ReadRecipe(options.recipe);
  if (!recipe.ok()) return Fail(recipe.error(), target.json);
  CatchInterrupts();
  ClusterOptions cluster_options{target.store, target.coordinator, options.workers, options.threads, "info"};
  if (options.workers <= 0) cluster_options.workers = std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / options.threads);
  if (cluster_options.endpoint.empty()) {
    auto living = storage::FindCoordinator(target.store);
    if (!living.ok()) return Fail(living.error(), target.json);
    if (*living) cluster_options.endpoint = (*living)->endpoint;
  }
  // Data that cannot be read must not leave a store behind.
  storage::StorePaths paths(target.store);
  bool fresh = ::access(paths.index().c_str(), F_OK) != 0;
  if (fresh) {
    auto checked = PrepareInputs(*recipe, options.recipe, nullptr);
    if (!checked.ok()) return Fail(checked.error(), target.json);
    auto resolved = recipes::Resolve(*recipe, checked->data, checked->weights);
    if (!resolved.ok()) return Fail(resolved.error(), target.json);
  }
  auto cluster = LocalCluster::Start(cluster_options);
  if (!cluster.ok()) return Fail(cluster.error(), target.json);
  auto blobs = storage::OpenBlobDirectory(paths);
  auto inputs = PrepareInputs(*recipe, options.recipe, blobs.get());
  if (!inputs.ok()) return Fail(inputs.error(), target.json);
  auto connection = ConnectTo((*cluster)->endpoint(), Millis(3000));
  if (!connection.ok()) return Fail(connection.error(), target.json);
  auto submitted = (*connection)->Call("submit", SubmitArgs(*recipe, *inputs, true));
  for (int i = 0; i < 3 && !submitted.ok() && submitted.error().code == ErrorCode::kUnreachable; ++i) {
    if (Status s = (*cluster)->Supervise(); !s.ok()) return Fail(s.error(), target.json);
    submitted = (*connection)->Call("submit", SubmitArgs(*recipe, *inputs, true));
  }
  if (!submitted.ok()) return Fail(submitted.error(), target.json);
  std::string job = submitted->at("job").get<std::string>();
  for (const Json& w : submitted->value("warnings", Json::array())) {
    std::fprintf(stderr, "warning: %s\n", w.is_string() ? w.get<std::string>().c_str() : w.value("text", "").c_str());
  }
  std::fprintf(stderr, "job %s%s\n", job.c_str(), submitted->value("resumed", false) ? " (resumed)" : "");
  FollowOptions follow;
  follow.job = job;
  follow.quiet = target.json;
  follow.pause_on_interrupt = true;
  follow.every_turn = [&] { return (*cluster)->Supervise(); };
  follow.on_progress = [&] { (*cluster)->NoteProgress(); };
  auto state = Follow(**connection, follow);
  if (!state.ok() && state.error().code == ErrorCode::kStopped) {
    if (Interrupts() > 1) (*cluster)->EndAtOnce();
    std::fprintf(stderr, "pare: interrupted; the same command resumes job %s\n", job.c_str());
    return 130;
  }
  if (!state.ok()) return Fail(state.error(), target.json);
  return PrintReport(**connection, job, target.json, *state);
}

int WatchJob(const Target& target, const std::string& job) {
  auto connection = Connect(target);
  if (!connection.ok()) return Fail(connection.error(), target.json);
  CatchInterrupts();
  FollowOptions follow;
  follow.job = job;
  follow.quiet = target.json;
  auto state = Follow(**connection, follow);
  if (!state.ok()) return state.error().code == ErrorCode::kStopped ? 130 : Fail(state.error(), target.json);
  if (*state == "paused") {
    std::fprintf(stderr, "pare: the job is paused; continue with: pare resume %s\n", job.c_str());
    return 130;
  }
  return PrintReport(**connection, job, target.json, *state);
}

int Submit(const Target& target, const std::string& path, bool wait) {
  auto recipe = ReadRecipe(path);
  if (!recipe.ok()) return Fail(recipe.error(), target.json);
  auto connection = Connect(target, true);
  if (!connection.ok()) return Fail(connection.error(), target.json);
  auto ping = (*connection)->Call("ping", Json::object());
  if (!ping.ok()) return Fail(ping.error(), target.json);
  std::string store = ping->value("store", "");
  if (store.empty() || ::access(storage::StorePaths(store).blobs().c_str(), W_OK) != 0) {
    return Fail({ErrorCode::kConflict, "the coordinator's store " + store + " cannot be written from here; submit on its host"}, target.json);
  }
  auto blobs = storage::OpenBlobDirectory(storage::StorePaths(store));
  auto inputs = PrepareInputs(*recipe, path, blobs.get());
  if (!inputs.ok()) return Fail(inputs.error(), target.json);
  auto submitted = (*connection)->Call("submit", SubmitArgs(*recipe, *inputs, true));
  if (!submitted.ok()) return Fail(submitted.error(), target.json);
  std::string job = submitted->at("job").get<std::string>();
  if (!wait) {
    std::printf("%s\n", target.json ? Canonical(*submitted).c_str() : job.c_str());
    return 0;
  }
  if (!target.json) std::printf("%s\n", job.c_str());
  connection = ConnectTo(target.coordinator);
  return WatchJob(target, job);
}

}  // namespace

void AddRunCommands(CLI::App& app, Context& context) {
  auto run = std::make_shared<RunOptions>();
  CLI::App* command = AddCommand(app, context, "run", "Runs a recipe to its end with a coordinator and workers of its own. Ctrl-C pauses; the same command resumes.",
                                 "pare run recipes/tiny.yaml --workers 2");
  command->add_option("RECIPE", run->recipe, "recipe file (YAML)")->required();
  command->add_option("--workers", run->workers, "workers to start; default: one per core (and thread)");
  command->add_option("--threads", run->threads, "threads per worker")->check(CLI::Range(1, 256));
  command->callback([&context, run] { context.action = [&context, run] { return Run(context.target, *run); }; });

  auto submit = std::make_shared<std::pair<std::string, bool>>();
  command = AddCommand(app, context, "submit", "Hands a recipe to a coordinator and prints the job's id.", "pare submit recipes/tiny.yaml --coordinator tcp://127.0.0.1:7070 --wait");
  command->add_option("RECIPE", submit->first, "recipe file (YAML)")->required();
  command->add_flag("--wait", submit->second, "follow the job to its end; the exit code tells how it ended");
  command->callback([&context, submit] { context.action = [&context, submit] { return Submit(context.target, submit->first, submit->second); }; });

  auto job = std::make_shared<std::string>("last");
  command = AddCommand(app, context, "watch", "Follows a job until it ends.", "pare watch last");
  command->add_option("JOB", *job, "id, unique prefix, or last");
  command->callback([&context, job] { context.action = [&context, job] { return WatchJob(context.target, *job); }; });
}

}  // namespace pare::cli
