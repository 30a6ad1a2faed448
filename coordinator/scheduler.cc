#include "coordinator/scheduler.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace pare::coordinator {

void Actions::Append(Actions more) {
  std::move(more.blobs.begin(), more.blobs.end(), std::back_inserter(blobs));
  std::move(more.rows.begin(), more.rows.end(), std::back_inserter(rows));
  std::move(more.sends.begin(), more.sends.end(), std::back_inserter(sends));
  stop = stop || more.stop;
}

Planner RecipePlanner() {
  return {.next = recipes::Next,
          .decide = recipes::RunLocalStep,
          .cost = [](const recipes::PlannedStep& step, const recipes::ResolvedRecipe& recipe) -> int64_t {
            auto prediction = recipes::Predict(step, recipe);
            return prediction.ok() ? std::max<int64_t>(1, static_cast<int64_t>(prediction->seconds * 1000)) : 1;
          },
          .waits_for_all = true};
}

Scheduler::Scheduler(Config config, Site site, Planner planner)
    : config_(config), site_(std::move(site)), planner_(std::move(planner)) {}

Actions Scheduler::Apply(const Event& event, Now now) {
  now_ = now;
  actions_ = Actions();
  std::visit([this](const auto& e) { On(e); }, event);
  return std::exchange(actions_, Actions());
}

void Scheduler::On(const FromAgent& event) {
  // Whatever it says, it is there.
  if (Worker* worker = WorkerAt(event.peer)) worker->heard = now_.monotonic;
  std::visit(
      [&](const auto& message) {
        if constexpr (requires { OnAgent(event.peer, message); }) OnAgent(event.peer, message);
        // Everything else is not for a coordinator; the shell has counted it.
      },
      event.message);
}

void Scheduler::On(const Tick&) {
  ForgiveOwnAbsence();
  ExpireSilent();
  RepeatRevokes();
  for (const StepKey& key : std::vector<StepKey>(shared_.begin(), shared_.end())) GiveUpUnprepared(state_.steps.at(key));
  PlanRestored();
  ReplanDirty();
  WakeDelayed();
  WakeResting();
  Place();
  FitGangs();
  last_tick_ = now_.monotonic;
}

void Scheduler::On(const Shut& event) {
  if (event.workers) {
    for (const auto& [name, worker] : state_.workers) Say(worker.peer, Shutdown{"asked by a client"});
  }
  ReplyOk(event.caller, Json::object());
  actions_.stop = true;
}

void Scheduler::On(const Drain&) {
  state_.draining = true;
  for (const StepKey& key : std::vector<StepKey>(state_.running.begin(), state_.running.end())) {
    RevokeLease(state_.steps.at(key), true, "the coordinator is draining");
  }
}

std::optional<Millis> Scheduler::NextDeadline() const {
  std::optional<Millis> next;
  auto consider = [&next](Millis at) { next = next ? std::min(*next, at) : at; };
  if (!unplanned_.empty()) consider(now_.monotonic);
  if (!state_.running.empty() || !state_.workers.empty()) consider(calm_until_);
  if (!state_.resting.empty()) consider(state_.resting.begin()->first);
  if (!state_.delayed.empty()) consider(state_.delayed.begin()->first);
  // Turns come often enough that a long silence between two of them means that this process itself was away.
  if (next && last_tick_) consider(*last_tick_ + config_.lease_timeout / 4);
  return next;
}

std::vector<StepKey> Scheduler::StepsInUse() const {
  std::vector<StepKey> keys;
  for (const auto& [key, step] : state_.steps) {
    if (step.state == StepState::kDone && !step.wanted_by.empty()) keys.push_back(key);
  }
  std::sort(keys.begin(), keys.end());
  return keys;
}

void Scheduler::Say(const PeerId& peer, Message message) { actions_.sends.push_back({peer, std::move(message)}); }

void Scheduler::ReplyOk(const Caller& caller, Json result) {
  Reply reply;
  reply.id = caller.id;
  reply.result = std::move(result);
  Say(caller.peer, std::move(reply));
}

void Scheduler::ReplyError(const Caller& caller, const Error& error) {
  Reply reply;
  reply.id = caller.id;
  reply.ok = false;
  reply.code = std::string(ToString(error.code));
  reply.message = error.message;
  Say(caller.peer, std::move(reply));
}

void Scheduler::Note(Job& job, const std::string& level, const std::string& step, std::string text) {
  if (job.last_event >= kMaxEventsPerJob) return;
  Write(storage::EventRow{.job = job.id,
                          .sequence = ++job.last_event,
                          .at_ms = now_.wall.ms,
                          .level = level,
                          .step = step,
                          .text = std::move(text)});
}

void Scheduler::NoteForAll(const Step& step, const std::string& level, const std::string& text) {
  for (const std::string& id : step.wanted_by) {
    Job& job = state_.jobs.at(id);
    Note(job, level, NameIn(job, step.key), text);
  }
}

std::string Scheduler::NameIn(const Job& job, const StepKey& key) {
  const JobStep* step = job.Find(key);
  return step == nullptr ? key.brief() : step->name;
}

Job* Scheduler::FindJobById(const std::string& id) {
  auto it = state_.jobs.find(id);
  return it == state_.jobs.end() ? nullptr : &it->second;
}

}  // namespace pare::coordinator
