// A runner without libtorch: speaks the runner pipe and plays scripted steps. Started by ProcessStepRunner with the arguments
// of pare-runner; --fd is the only one it uses.
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "tests/worker/agent/scripted_step.h"
#include "worker/runner_pipe.h"

namespace pare::worker {
namespace {

[[noreturn]] void BeLost(RunnerPipe& pipe, const std::string& how) {
  if (how == "crash") raise(SIGKILL);
  if (how == "garbage") {
    (void)!write(pipe.fd(), "{\"type\": \"dance\"}\n", 18);
  } else {
    close(pipe.fd());
  }
  for (;;) pause();
}

// Until the step is over or the pipe ends.
bool PlayStep(RunnerPipe& pipe, const Assignment& assignment) {
  bool ended = false;
  for (const RunnerEvent& event : PlayScript(assignment)) {
    if (const auto* lost = std::get_if<RunnerLost>(&event)) BeLost(pipe, lost->message);
    if (!pipe.Send(event).ok()) return false;
    ended = std::holds_alternative<StepDone>(event) || std::holds_alternative<StepFailed>(event);
  }
  while (!ended) {
    Result<std::optional<RunnerCommand>> command = pipe.Receive(Millis::max());
    if (!command.ok() || !*command || std::holds_alternative<ExitRunner>(**command)) return false;
    if (const auto* stop = std::get_if<StopStep>(&**command)) {
      StepStopped stopped = stop->keep ? StoppedWithSnapshot() : StepStopped{};
      if (!pipe.Send(stopped).ok()) return false;
      ended = true;
    }
  }
  return true;
}

int Run(int fd) {
  RunnerPipe pipe{UniqueFd(fd)};
  const char* threads = std::getenv("OMP_NUM_THREADS");
  if (!pipe.Send(RunnerReady{std::string("cpu, OMP_NUM_THREADS=") + (threads ? threads : "?")}).ok()) return 1;
  for (;;) {
    Result<std::optional<RunnerCommand>> command = pipe.Receive(Millis::max());
    if (!command.ok() || !*command || std::holds_alternative<ExitRunner>(**command)) return 0;
    const auto* start = std::get_if<StartStep>(&**command);
    if (start != nullptr && !PlayStep(pipe, start->assignment)) return 0;
  }
}

}  // namespace
}  // namespace pare::worker

int main(int argc, char** argv) {
  for (int i = 1; i + 1 < argc; ++i) {
    if (std::strcmp(argv[i], "--fd") == 0) return pare::worker::Run(std::atoi(argv[i + 1]));
  }
  return 2;
}
