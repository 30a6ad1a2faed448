// run, submit, watch.
#include <poll.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <thread>

#include "cli/cluster.h"
#include "cli/commands.h"
#include "cli/recipe_input.h"
#include "cli/render.h"
#include "cli/watch.h"
#include "common/plural.h"
#include "storage/blob_files.h"

namespace pare::cli {
namespace {

constexpr int kExitInterrupted = 130;
constexpr int kMaxWorkers = 256, kMaxThreads = 256;
constexpr int kTries = 4;

struct RunOptions {
  std::string recipe;
  std::optional<int> workers, threads;
};

Json SubmitArgs(const recipes::Recipe& recipe, const Inputs& inputs) {
  return {{"recipe", recipe.text()}, {"recipe_name", recipe.name()}, {"data", data::ToJson(inputs.data)},
          {"weights", inputs.weights.is_none() ? "" : inputs.weights.hex()}, {"models", recipes::ToJson(inputs.outside.models)}, {"reuse", true}};
}

// Results that were there already are used without being read. What is promoted is read, where this host has it.
Status CheckPromoted(const Json& report) {
  const Json promoted = report.value("promoted", Json());
  std::string path = promoted.is_object() && promoted["path"].is_string() ? promoted["path"].get<std::string>() : "";
  if (path.empty() || ::access(path.c_str(), R_OK) != 0) return Ok();
  ASSIGN_OR_RETURN(Digest found, storage::DigestOfFile(path));
  if (std::filesystem::path(path).filename() == found.hex()) return Ok();
  return Error{ErrorCode::kCorrupt, "the promoted checkpoint is damaged: " + path + " has other content than its name says; after `pare fsck --repair` the same command makes it again"};
}

int PrintReport(Connection& connection, const std::string& job, bool json, const std::string& state) {
  auto report = connection.Call("report", {{"job", job}});
  if (!report.ok()) return Fail(report.error(), json);
  if (Status whole = CheckPromoted(*report); !whole.ok()) return Fail(whole.error(), json);
  std::string text = json ? Canonical(*report) + "\n" : RenderReport(*report);
  std::fputs(text.c_str(), stdout);
  return state == "done" ? 0 : 1;
}

// "job j6ea6bda63 tiny (resumed), 5 steps cached", and the warnings with their places in the file.
void TellSubmitted(const recipes::Recipe& recipe, const recipes::ResolvedRecipe& resolved, const std::string& path, const Json& submitted) {
  for (const std::string& warning : WarningsOf(resolved, path)) std::fprintf(stderr, "warning: %s\n", warning.c_str());
  int64_t cached = submitted.value("cached", int64_t{0});
  std::fprintf(stderr, "job %s %s%s%s\n", submitted.value("job", "").c_str(), recipe.tree().value("name", "").c_str(),
               submitted.value("resumed", false) ? " (resumed)" : "", cached > 0 ? (", " + Plural(cached, "step") + " cached").c_str() : "");
}

// ---- run ----

ClusterOptions OptionsOf(const Target& target, const RunOptions& options) {
  ClusterOptions cluster{target.store, target.coordinator, target.store + "/logs"};
  cluster.threads = options.threads.value_or(1);
  cluster.workers = options.workers.value_or(std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / cluster.threads));
  // The store of another coordinator is not ours to write logs into, and may be elsewhere.
  if (!target.coordinator.empty()) cluster.logs = CacheDirectory() + "/logs";
  return cluster;
}

// A coordinator that dies at this very moment is started again, and asked again.
template <typename Ask>
auto Insist(LocalCluster& cluster, Ask&& ask) -> decltype(ask()) {
  auto answer = ask();
  for (int i = 1; i < kTries && !answer.ok() && answer.error().code == ErrorCode::kUnreachable; ++i) {
    ::poll(nullptr, 0, 100);
    TRY(cluster.Supervise());
    answer = ask();
  }
  return answer;
}

int FollowRun(const Target& target, LocalCluster& cluster, Connection& connection, const std::string& job) {
  FollowOptions follow;
  follow.job = job;
  follow.quiet = target.json;
  follow.pause_on_interrupt = true;
  follow.every_turn = [&] { return cluster.Supervise(); };
  follow.on_progress = [&] { cluster.NoteProgress(); };
  auto state = Follow(connection, follow);
  if (!state.ok() && state.error().code == ErrorCode::kStopped) {
    std::fprintf(stderr, "pare: job %s is paused; the same command resumes it\n", job.c_str());
    return kExitInterrupted;
  }
  if (!state.ok()) return Fail(state.error(), target.json);
  return PrintReport(connection, job, target.json, *state);
}

int Interrupted() {
  std::fprintf(stderr, "pare: interrupted before the job was submitted\n");
  return kExitInterrupted;
}

int Run(const Target& target, const RunOptions& options) {
  auto recipe = ReadRecipe(options.recipe);
  if (!recipe.ok()) return Fail(recipe.error(), target.json);
  CatchInterrupts();
  // Bad input must not leave a store behind, or start anything.
  auto inputs = PrepareInputs(*recipe, options.recipe, target);
  if (!inputs.ok()) return Fail(inputs.error(), target.json);
  auto resolved = recipes::Resolve(*recipe, inputs->data, inputs->weights, inputs->outside.models);
  if (!resolved.ok()) return Fail(resolved.error(), target.json);
  if (Interrupts() > 0) return Interrupted();
  auto cluster = LocalCluster::Start(OptionsOf(target, options));
  if (!cluster.ok()) return Fail(cluster.error(), target.json);
  auto connection = Insist(**cluster, [&] { return ConnectTo((*cluster)->endpoint(), kAnswerPatience); });
  if (!connection.ok()) return Fail(connection.error(), target.json);
  auto blobs = Insist(**cluster, [&] { return OpenBlobs(**connection); });
  if (!blobs.ok()) return Fail(blobs.error(), target.json);
  if (Status stored = StoreInputs(*recipe, options.recipe, **blobs, *inputs); !stored.ok()) return Fail(stored.error(), target.json);
  if (Interrupts() > 0) return Interrupted();
  // Submitting twice gives the same job.
  auto submitted = Insist(**cluster, [&] { return (*connection)->Call("submit", SubmitArgs(*recipe, *inputs)); });
  if (!submitted.ok()) return Fail(submitted.error(), target.json);
  TellSubmitted(*recipe, *resolved, options.recipe, *submitted);
  return FollowRun(target, **cluster, **connection, submitted->at("job").get<std::string>());
}

// ---- submit, watch ----

// Nobody runs the steps of a store that a command has opened itself.
Error NobodyRuns(const std::string& job, const std::string& store) {
  return Error{ErrorCode::kUnreachable, "no coordinator runs job " + job + " of store " + store +
                                            "; go on with `pare run RECIPE`, or start `pare coordinator --store " + store + "` and `pare worker`"};
}

int WatchJob(const Target& target, Connection& connection, const std::string& job) {
  CatchInterrupts();
  if (connection.local()) {
    auto watch = connection.Call("watch", {{"job", job}, {"after", 0}});
    if (!watch.ok()) return Fail(watch.error(), target.json);
    const Json& summary = (*watch)["job"];
    if (summary["state"] == "running") return Fail(NobodyRuns(summary.value("id", ""), target.store), target.json);
  }
  FollowOptions follow;
  follow.job = job;
  follow.quiet = target.json;
  auto state = Follow(connection, follow);
  if (!state.ok() && state.error().code == ErrorCode::kStopped) {
    std::fprintf(stderr, "pare: the job goes on; follow it again with: pare watch %s\n", job.c_str());
    return kExitInterrupted;
  }
  if (!state.ok()) return Fail(state.error(), target.json);
  if (*state == "paused") {
    std::fprintf(stderr, "pare: the job is paused; continue it with: pare resume %s\n", job.c_str());
    return kExitInterrupted;
  }
  return PrintReport(connection, job, target.json, *state);
}

int Watch(const Target& target, const std::string& job) {
  auto connection = Connect(target);
  return connection.ok() ? WatchJob(target, **connection, job) : Fail(connection.error(), target.json);
}

int Submit(const Target& target, const std::string& path, bool wait) {
  auto recipe = ReadRecipe(path);
  if (!recipe.ok()) return Fail(recipe.error(), target.json);
  auto inputs = PrepareInputs(*recipe, path, target);
  if (!inputs.ok()) return Fail(inputs.error(), target.json);
  auto resolved = recipes::Resolve(*recipe, inputs->data, inputs->weights, inputs->outside.models);
  if (!resolved.ok()) return Fail(resolved.error(), target.json);
  auto connection = Connect(target, true);
  if (!connection.ok()) return Fail(connection.error(), target.json);
  if (wait && (*connection)->local()) {
    return Fail({ErrorCode::kUnreachable, "no coordinator lives in store " + target.store + ", and --wait needs one that runs the job: use `pare run " + path +
                                              "`, which brings its own and ends at once where every step is cached, or start `pare coordinator --store " + target.store +
                                              "` and `pare worker`"}, target.json);
  }
  auto blobs = OpenBlobs(**connection);
  if (!blobs.ok()) return Fail(blobs.error(), target.json);
  if (Status stored = StoreInputs(*recipe, path, **blobs, *inputs); !stored.ok()) return Fail(stored.error(), target.json);
  auto submitted = (*connection)->Call("submit", SubmitArgs(*recipe, *inputs));
  if (!submitted.ok()) return Fail(submitted.error(), target.json);
  std::string job = submitted->at("job").get<std::string>();
  TellSubmitted(*recipe, *resolved, path, *submitted);
  if (!target.json) std::printf("%s\n", job.c_str());
  if (wait) return WatchJob(target, **connection, job);
  (*submitted)["warnings"] = WarningsOf(*resolved, path);
  if (target.json) std::printf("%s\n", Canonical(*submitted).c_str());
  if ((*connection)->local()) {
    auto watch = (*connection)->Call("watch", {{"job", job}, {"after", 0}});
    bool over = watch.ok() && Ended((*watch)["job"].value("state", ""));  // all its steps were cached
    if (!over) std::fprintf(stderr, "pare: no coordinator lives in this store: the job waits for `pare run`, or `pare coordinator` and `pare worker`\n");
  }
  return 0;
}

}  // namespace

void AddRunCommands(CLI::App& app, Context& context) {
  auto run = std::make_shared<RunOptions>();
  CLI::App* command = AddCommand(app, context, "run", "Runs a recipe to its end, with a coordinator and workers of its own. Ctrl-C pauses; the same command resumes.",
                                 "pare run recipes/tiny.yaml --workers 2");
  command->group("Jobs");
  command->add_option("RECIPE", run->recipe, "recipe file (YAML)")->required()->type_name("");
  AddCount(command, "--workers", run->workers, 1, kMaxWorkers, "workers to start, 1 to 256; default: cores / threads");
  AddCount(command, "--threads", run->threads, 1, kMaxThreads, "threads of each worker, 1 to 256; default 1");
  command->callback([&context, run] { context.action = [&context, run] { return Run(context.target, *run); }; });

  auto submit = std::make_shared<std::pair<std::string, bool>>();
  command = AddCommand(app, context, "submit", "Hands a recipe to a coordinator and prints the job's id.", "pare submit recipes/tiny.yaml --coordinator tcp://127.0.0.1:7070 --wait");
  command->group("Jobs");
  command->add_option("RECIPE", submit->first, "recipe file (YAML)")->required()->type_name("");
  command->add_flag("--wait", submit->second, "follow the job to its end; the exit code tells how it ended");
  command->callback([&context, submit] { context.action = [&context, submit] { return Submit(context.target, submit->first, submit->second); }; });

  auto job = std::make_shared<std::string>("last");
  command = AddCommand(app, context, "watch", "Follows a job until it ends, then prints its report.", "pare watch last");
  command->group("Jobs");
  command->add_option("JOB", *job, "id, unique prefix, or last (default)")->type_name("");
  command->callback([&context, job] { context.action = [&context, job] { return Watch(context.target, *job); }; });
}

}  // namespace pare::cli
