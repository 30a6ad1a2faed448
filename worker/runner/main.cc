// pare-runner: executes steps for an agent; the only process that loads libtorch.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "common/log.h"
#include "common/version.h"
#include "storage/blob_service.h"
#include "storage/store.h"
#include "worker/engine/libraries.h"
#include "worker/runner/execute.h"
#include "worker/runner/runner_loop.h"

namespace pare::runner {
namespace {

struct Arguments {
  int fd = -1;
  int threads = 1;
  std::string device = "cpu", store, blob_endpoint, log_level = "info", once;
};

Result<std::unique_ptr<storage::BlobStore>> OpenBlobs(const Arguments& arguments) {
  if (!arguments.store.empty()) return storage::OpenBlobDirectory(storage::StorePaths(arguments.store));
  if (!arguments.blob_endpoint.empty()) return storage::ConnectBlobStore(arguments.blob_endpoint);
  return Error{ErrorCode::kInvalid, "--store or --blob-endpoint is needed"};
}

// Prints every event as a line of JSON: for a look at one step without an agent.
class PrintingHooks : public StepHooks {
 public:
  void Progress(Json values) override { Print(worker::StepProgress{std::move(values)}); }
  void Snapshot(const Digest& blob, const Json& position) override { Print(worker::StepSnapshot{blob, position}); }
  std::optional<StopRequest> StopRequested() override { return std::nullopt; }
  void Joins(const std::string& endpoint) override { Print(worker::StepJoins{endpoint}); }
  std::optional<std::vector<std::string>> Joined(Millis) override { return std::nullopt; }
  static void Print(const worker::RunnerEvent& event) { std::printf("%s\n", Canonical(worker::ToJson(event)).c_str()); }
};

int RunOnce(const std::string& path, const Environment& environment) {
  auto assignment = [&]() -> Result<worker::Assignment> {
    ASSIGN_OR_RETURN(std::string text, ReadFile(path));
    ASSIGN_OR_RETURN(Json json, ParseJson(text, path));
    return worker::AssignmentFromJson(json);
  }();
  if (!assignment.ok()) {
    LogError(path + ": " + assignment.error().message);
    return 2;
  }
  assignment->gang = {};  // nobody is here to bring others together; the result is the same
  PrintingHooks hooks;
  worker::RunnerEvent event = ExecuteStep(*assignment, environment, hooks);
  PrintingHooks::Print(event);
  return std::holds_alternative<worker::StepDone>(event) ? 0 : 1;
}

int Main(const Arguments& arguments) {
  auto blobs = OpenBlobs(arguments);
  if (!blobs.ok()) {
    LogError(blobs.error().message);
    return 2;
  }
  if (Status warm = WarmUp(arguments.device, arguments.threads); !warm.ok()) {
    LogError(warm.error().message);
    return 2;
  }
  SystemClock clock;
  InputCache cache(**blobs);
  Environment environment{**blobs, cache, clock, arguments.threads, arguments.device};
  if (!arguments.once.empty()) return RunOnce(arguments.once, environment);
  worker::RunnerPipe pipe{UniqueFd(arguments.fd)};
  return ServePipe(pipe, environment);
}

}  // namespace
}  // namespace pare::runner

int main(int argc, char** argv) {
  pare::runner::Arguments arguments;
  CLI::App app("pare-runner: executes compression steps for a pare-worker, which starts it; not for use by hand");
  app.set_version_flag("--version", std::string(pare::kPareVersion) + " (" + pare::engine::Libraries() + ")");
  app.add_option("--fd", arguments.fd, "socket to the agent");
  app.add_option("--threads", arguments.threads, "threads for arithmetic; never changes a result")->check(CLI::Range(1, 1024));
  app.add_option("--device", arguments.device, "cpu, cuda or cuda:N");
  app.add_option("--store", arguments.store, "store directory on this host");
  app.add_option("--blob-endpoint", arguments.blob_endpoint, "blob service, where there is no store directory");
  app.add_option("--log-level", arguments.log_level, "debug, info, warning, error");
  app.add_option("--once", arguments.once, "run the assignment in this JSON file, print its events, end");
  CLI11_PARSE(app, argc, argv);
  (void)pare::InitLog("runner", pare::ParseLogLevel(arguments.log_level));
  if (arguments.fd < 0 && arguments.once.empty()) {
    pare::LogError("--fd or --once is needed");
    return 2;
  }
  return pare::runner::Main(arguments);
}
