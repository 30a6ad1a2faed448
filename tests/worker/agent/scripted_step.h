// What test steps do, said by their spec: {"script": ["progress", "snapshot", "done" | "failed" | "wait"]}. "wait" runs until
// Stop; "crash", "garbage" and "close" are ways to be lost. Used by the fake runner and by the echo_runner executable, so
// that one suite fits both.
#pragma once

#include <string>
#include <vector>

#include "worker/step_runner.h"

namespace pare::worker {

inline Digest SnapshotBlob() { return DigestOf("snapshot"); }
inline Digest DoneArtifact(const Assignment& assignment) { return DigestOf(assignment.key.hex()); }

// The events of a script; a way to be lost becomes RunnerLost{its name}, "wait" nothing.
inline std::vector<RunnerEvent> PlayScript(const Assignment& assignment) {
  std::vector<RunnerEvent> events;
  int64_t progress = 0;
  for (const Json& word : assignment.spec["script"]) {
    std::string name = word;
    if (name == "progress") events.push_back(StepProgress{{{"epoch", ++progress}, {"epochs", 10}}});
    if (name == "snapshot") events.push_back(StepSnapshot{SnapshotBlob(), {{"epoch", progress}}});
    if (name == "done") events.push_back(StepDone{DoneArtifact(assignment), {{"kind", "test"}}, 12});
    if (name == "failed") events.push_back(StepFailed{"diverged", "loss is NaN", 12});
    if (name == "crash" || name == "garbage" || name == "close") events.push_back(RunnerLost{name});
  }
  return events;
}

inline StepStopped StoppedWithSnapshot() { return {SnapshotBlob(), {{"batch", 3}}, 7}; }

}  // namespace pare::worker
