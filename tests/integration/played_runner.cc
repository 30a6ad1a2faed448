// A runner without libtorch for whole-process tests of the control plane: it takes real assignments and leaves results of the
// right shape, a function of the assignment alone. While the file PARE_PLAYED_HOLD names exists, a training step stays where it
// is: after its snapshot and first point.
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "storage/store.h"
#include "tests/coordinator/played_steps.h"
#include "worker/runner_pipe.h"

namespace pare::worker {
namespace {

constexpr Millis kLook{20};  // at the file

std::string SnapshotBytes(const Assignment& assignment) { return "snapshot of " + assignment.key.hex(); }

// False: the pipe has ended.
bool Play(RunnerPipe& pipe, storage::BlobStore& blobs, const Assignment& assignment) {
  const char* hold = std::getenv("PARE_PLAYED_HOLD");
  bool trains = assignment.spec["params"].contains("train");
  if (trains) {
    Digest snapshot = *blobs.Put(SnapshotBytes(assignment));
    Json position = {{"epoch", 1}};
    bool resumed = assignment.snapshot == snapshot;
    // In this order: who sees the point knows that the snapshot is durable.
    if (!pipe.Send(StepSnapshot{snapshot, position}).ok()) return false;
    if (!pipe.Send(StepProgress{{{"epoch", 1}, {"epochs", 2}, {"resumed", resumed}}}).ok()) return false;
    while (hold != nullptr && ::access(hold, F_OK) == 0) {
      auto command = pipe.Receive(kLook);
      if (!command.ok() || (*command && std::holds_alternative<ExitRunner>(**command))) return false;
      if (!*command || !std::holds_alternative<StopStep>(**command)) continue;
      bool keep = std::get<StopStep>(**command).keep;
      return pipe.Send(keep ? StepStopped{snapshot, position, 1} : StepStopped{}).ok();
    }
  }
  Json manifest = coordinator::PlayStep(blobs, assignment, 90);
  return pipe.Send(StepDone{DigestOf(Canonical(manifest)), manifest, 1}).ok();
}

int Run(int fd, const std::string& store) {
  RunnerPipe pipe{UniqueFd(fd)};
  auto blobs = storage::OpenBlobDirectory(storage::StorePaths(store));
  if (!pipe.Send(RunnerReady{"cpu"}).ok()) return 1;
  for (;;) {
    auto command = pipe.Receive(Millis::max());
    if (!command.ok() || !*command || std::holds_alternative<ExitRunner>(**command)) return 0;
    const auto* start = std::get_if<StartStep>(&**command);
    if (start != nullptr && !Play(pipe, *blobs, start->assignment)) return 0;
  }
}

}  // namespace
}  // namespace pare::worker

// As pare-runner: --fd N --store DIRECTORY, among others.
int main(int argc, char** argv) {
  int fd = -1;
  std::string store;
  for (int i = 1; i + 1 < argc; ++i) {
    if (std::strcmp(argv[i], "--fd") == 0) fd = std::atoi(argv[i + 1]);
    if (std::strcmp(argv[i], "--store") == 0) store = argv[i + 1];
  }
  return fd < 0 || store.empty() ? 2 : pare::worker::Run(fd, store);
}
