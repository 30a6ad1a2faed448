#include "worker/runner/gang.h"

#include <poll.h>

#include "common/log.h"
#include "worker/collective/zmq_collective.h"

namespace pare::runner {
namespace {

constexpr Millis kSlice{100};  // of waiting for the agent's word, between looks at stop requests

Error NotMet(const std::string& why) { return {ErrorCode::kStopped, "the gang did not meet: " + why}; }

}  // namespace

Result<std::shared_ptr<collective::Collective>> MeetGang(StepContext& context, const std::optional<Snapshot>& resume) {
  const worker::Assignment& assignment = context.assignment;
  if (assignment.gang.size <= 1) return std::shared_ptr<collective::Collective>();
  // Until the work begins every stop is heeded at once; later one that keeps can wait for the end of the batch.
  auto meeting = std::make_shared<bool>(true);
  collective::GangOptions options;
  options.gang = assignment.key.hex() + "/" + std::to_string(assignment.lease_epoch);
  options.rank = assignment.gang.rank;
  options.ranks = assignment.gang.size;
  options.interrupted = [&context, meeting, asked = std::optional<Millis>()]() mutable {
    std::optional<StopRequest> stop = context.hooks.StopRequested();
    Millis now = context.environment.clock.Monotonic();
    if (stop && !asked) asked = now;
    return stop && (*meeting || !stop->keep || now - *asked > kBatchPatience);
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
  // Whether it is lost, one worker alone finds out.
  if (!*same) return NotMet("not all of it could read snapshot " + assignment.snapshot.brief());
  return std::shared_ptr<collective::Collective>(*std::move(opened));
}

Status AwaitFirst(StepContext& context, int rank) {
  if (rank == 0) return Ok();
  const Clock& clock = context.environment.clock;
  for (Millis began = clock.Monotonic(); clock.Monotonic() - began < context.environment.firsts_patience;) {
    std::optional<StopRequest> stop = context.hooks.StopRequested();
    if (stop && !stop->keep) return Error{ErrorCode::kStopped, "another worker of the gang has ended the step"};
    if (stop) return Ok();  // the first one is gone: what is here is all but finished
    ::poll(nullptr, 0, 20);
  }
  return Ok();
}

}  // namespace pare::runner
