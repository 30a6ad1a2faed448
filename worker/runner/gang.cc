#include "worker/runner/gang.h"

#include "common/log.h"
#include "worker/collective/zmq_collective.h"

namespace pare::runner {
namespace {

constexpr Millis kSlice{100};  // of waiting for the agent's word, between looks at stop requests

Error NotMet(const std::string& why) { return {ErrorCode::kStopped, "the gang did not meet: " + why}; }

}  // namespace

Result<std::shared_ptr<collective::Collective>> MeetGang(StepContext& context, std::optional<Snapshot>& resume) {
  const worker::Assignment& assignment = context.assignment;
  if (assignment.gang.size <= 1) return std::shared_ptr<collective::Collective>();
  // Until the work begins every stop is heeded at once; later one that keeps can wait for the end of the batch.
  auto meeting = std::make_shared<bool>(true);
  collective::GangOptions options;
  options.gang = assignment.key.hex() + "/" + std::to_string(assignment.lease_epoch);
  options.rank = assignment.gang.rank;
  options.ranks = assignment.gang.size;
  options.host = context.environment.gang_host;
  options.interrupted = [&hooks = context.hooks, meeting] {
    std::optional<StopRequest> stop = hooks.StopRequested();
    return stop && (*meeting || !stop->keep);
  };
  auto opened = collective::ZmqCollective::Open(std::move(options));
  if (!opened.ok()) return Error{ErrorCode::kInternal, opened.error().message};
  context.hooks.Joins((*opened)->endpoint());
  std::optional<std::vector<std::string>> endpoints;
  while (!(endpoints = context.hooks.Joined(kSlice))) {
    if (context.hooks.StopRequested()) return NotMet("the step was stopped");
  }
  Result<bool> same = (*opened)->Join(*endpoints, resume ? assignment.snapshot.hex() : "");
  if (!same.ok()) {
    LogWarning("step " + assignment.key.brief() + ": the gang did not meet: " + same.error().message);
    return NotMet(same.error().message);
  }
  *meeting = false;
  if (!*same && resume) {
    LogWarning("step " + assignment.key.brief() + " starts afresh: another rank of its gang could not read the snapshot");
    resume.reset();
  }
  return std::shared_ptr<collective::Collective>(*std::move(opened));
}

}  // namespace pare::runner
