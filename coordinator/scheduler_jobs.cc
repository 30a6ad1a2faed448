// Requests about jobs: submit, pause, resume, cancel, retry.
#include <algorithm>
#include <utility>

#include "common/plural.h"
#include "coordinator/scheduler.h"

namespace pare::coordinator {
namespace {

Error Impossible(const Job& job, const std::string& what, const std::string& hint) {
  return Error{ErrorCode::kConflict, "job " + job.id + " is " + std::string(ToString(job.state)) + ": it cannot be " + what + hint};
}

}  // namespace

void Scheduler::On(const Submit& event) {
  Digest digest = recipes::DigestOf(event.recipe);
  size_t unfinished = 0, queued = event.steps;
  for (auto& [id, job] : state_.jobs) {
    if (job.finished()) continue;
    ++unfinished;
    queued += job.steps.size();
    if (!event.reuse || job.recipe_digest != digest) continue;
    if (job.state == JobState::kPaused) ResumeJob(job);
    return SubmitReply(event, job, true);
  }
  if (unfinished >= kMaxUnfinishedJobs) {
    return ReplyError(event.caller, {ErrorCode::kConflict, "the queue is full: " + std::to_string(kMaxUnfinishedJobs) +
                                                               " unfinished jobs are the limit; cancel some or wait"});
  }
  if (queued > kMaxQueuedSteps) {
    return ReplyError(event.caller, {ErrorCode::kConflict, "the queue is full: with this job unfinished jobs would have " + std::to_string(queued) +
                                                               " steps, at most " + std::to_string(kMaxQueuedSteps) + " are accepted; cancel some or wait"});
  }
  std::string id = NewJobId(event);
  Job& job = state_.jobs[id];
  job.id = id;
  job.name = event.recipe.name;
  job.user = event.user;
  job.number = ++state_.last_job_number;
  job.created_ms = now_.wall.ms;
  job.recipe_text = PackedText(event.recipe_text);
  job.recipe_digest = digest;
  job.resolved = PackedText(Canonical(recipes::ToJson(event.recipe)));
  job.priority = event.priority;
  job.recipe = event.recipe;
  KeepRecipe(job);
  OpenShare(job);
  WriteJob(job);
  Note(job, "info", "", "submitted");
  Replan(job);
  if (queued - event.steps > kMaxPlannedInMemory) DropRecipe(job);  // many are served before it
  SubmitReply(event, job, false);
}

// A function of the submit itself, so that a replayed history gives the same ids.
std::string Scheduler::NewJobId(const Submit& submit) const {
  std::string seed = recipes::DigestOf(submit.recipe).hex() + std::to_string(now_.wall.ms) + " " + std::to_string(state_.last_job_number);
  for (int i = 0;; ++i) {
    std::string id = "j" + pare::DigestOf(seed + " " + std::to_string(i)).hex().substr(0, 9);
    if (state_.jobs.count(id) == 0) return id;
  }
}

void Scheduler::SubmitReply(const Submit& submit, const Job& job, bool resumed) {
  int64_t steps = 0, cached = 0;
  for (const JobStep& step : job.steps) {
    steps += step.wanted ? 1 : 0;
    cached += step.wanted && step.reused ? 1 : 0;
  }
  Json warnings = Json::array();
  for (const recipes::Finding& finding : submit.recipe.warnings) warnings.push_back(recipes::WithPlace("recipe", finding));
  ReplyOk(submit.caller, {{"job", job.id}, {"resumed", resumed}, {"warnings", warnings}, {"steps", steps}, {"cached", cached}});
}

void Scheduler::On(const ChangeJob& event) {
  Result<const Job*> found = state_.FindJob(event.job);
  if (!found.ok()) return ReplyError(event.caller, found.error());
  Job& job = state_.jobs.at((*found)->id);
  Status status = Ok();
  std::vector<std::string> left_alone;
  switch (event.what) {
    case ChangeJob::What::kPause:
      if (job.finished()) status = Impossible(job, "paused", "");
      else PauseJob(job);
      break;
    case ChangeJob::What::kResume:
      if (job.finished()) status = Impossible(job, "resumed", "; `retry` runs what is missing");
      else ResumeJob(job);
      break;
    case ChangeJob::What::kCancel:
      if (job.state == JobState::kDone || job.state == JobState::kFailed) status = Impossible(job, "cancelled", "");
      else CancelJob(job);
      break;
    case ChangeJob::What::kRetry:
      status = RetryJob(job, left_alone);
      break;
  }
  if (!status.ok()) return ReplyError(event.caller, status.error());
  Json reply = {{"job", job.id}, {"state", ToString(job.state)}};
  if (!left_alone.empty()) reply["left_alone"] = left_alone;
  ReplyOk(event.caller, std::move(reply));
}

void Scheduler::SetJobState(Job& job, JobState state, const std::string& message) {
  bool was_finished = job.finished();
  job.state = state;
  job.message = message;
  job.finished_ms = job.finished() ? now_.wall.ms : 0;
  WriteJob(job);
  if (was_finished && !job.finished()) OpenShare(job);
  if (!was_finished && job.finished()) --state_.shares[job.share].jobs;
}

void Scheduler::OpenShare(Job& job) {
  auto same = std::find_if(state_.shares.begin(), state_.shares.end(), [&](const Share& s) { return s.user == job.user; });
  if (same == state_.shares.end()) same = state_.shares.insert(same, Share{.user = job.user});
  job.share = static_cast<size_t>(same - state_.shares.begin());
  if (++same->jobs > 1) return;
  std::optional<Millis> least;
  for (const Share& other : state_.shares) {
    if (&other != &*same && other.jobs > 0 && (!least || other.used < *least)) least = other.used;
  }
  same->used = least.value_or(Millis(0));
}

void Scheduler::PauseJob(Job& job) {
  if (job.state == JobState::kPaused) return;
  SetJobState(job, JobState::kPaused, "paused on request");
  Note(job, "info", "", "paused");
  for (const JobStep& in_job : job.steps) {
    Step& step = state_.steps.at(in_job.key);
    if (step.wanted_by.count(job.id) == 0) continue;
    Enqueue(step);
    bool others = std::any_of(step.wanted_by.begin(), step.wanted_by.end(),
                              [this](const std::string& id) { return state_.jobs.at(id).state == JobState::kRunning; });
    if (step.hold && !others) RevokeLease(step, true, "the job is paused");
  }
}

void Scheduler::ResumeJob(Job& job) {
  if (job.state == JobState::kRunning) return;
  SetJobState(job, JobState::kRunning, "");
  Note(job, "info", "", "resumed");
  MarkDirty(job);
  for (const JobStep& in_job : job.steps) Enqueue(state_.steps.at(in_job.key));
}

void Scheduler::CancelJob(Job& job) {
  if (job.state == JobState::kCancelled) return;
  Note(job, "info", "", "cancelled");
  SetJobState(job, JobState::kCancelled, "cancelled on request");
  for (const JobStep& in_job : job.steps) Unwant(job, state_.steps.at(in_job.key), "the job is cancelled");
  DropRecipe(job);
  job.outcomes.clear();
  dirty_.erase(job.id);
}

Status Scheduler::RetryJob(Job& job, std::vector<std::string>& left_alone) {
  if (job.state == JobState::kPaused) return Impossible(job, "retried", "; `resume` it");
  std::vector<StepKey> failed;
  for (const JobStep& in_job : job.steps) {
    const Step& step = state_.steps.at(in_job.key);
    if (step.state != StepState::kFailed) continue;
    if (FailsAgain(step.problem.OrDefault().error_class)) left_alone.push_back(in_job.name);
    else failed.push_back(in_job.key);
  }
  if (failed.empty() && left_alone.empty() && job.state != JobState::kCancelled && job.state != JobState::kFailed) {
    return Impossible(job, "retried", ": no step of it has failed");
  }
  if (failed.empty() && !left_alone.empty() && job.state != JobState::kCancelled) {
    return Impossible(job, "retried", ": " + left_alone.front() + (left_alone.size() > 1 ? " and " + Plural(left_alone.size() - 1, "other step") : "") +
                                          " diverged, and the same recipe diverges again, bit for bit; change the recipe and run it (`pare why " + left_alone.front() +
                                          " --job " + job.id + "` names the fields)");
  }
  if (!LoadRecipe(job)) return Error{ErrorCode::kVersion, "job " + job.id + ": " + job.message};
  for (const StepKey& key : failed) {
    Step& step = state_.steps.at(key);
    if (step.state == StepState::kFailed) Reopen(step);  // two names may mean one step
  }
  job.outcomes.clear();
  for (const JobStep& in_job : job.steps) {
    Step& step = state_.steps.at(in_job.key);
    if (step.state == StepState::kDone) {
      job.outcomes[step.key] = {.done = true, .artifact = step.artifact, .results = state_.artifacts.at(step.artifact).results};
    }
  }
  Note(job, "info", "", "retried");
  for (const std::string& name : left_alone) Note(job, "warning", name, "not retried: it diverged, and the same recipe diverges again");
  SetJobState(job, JobState::kRunning, "");
  Replan(job);
  return Ok();
}

bool Scheduler::LoadRecipe(Job& job) {
  if (job.recipe) {
    KeepRecipe(job);
    return true;
  }
  auto json = ParseJson(job.resolved.Text(), "resolved recipe");
  auto recipe = json.ok() ? recipes::ResolvedRecipeFromJson(*json) : Result<recipes::ResolvedRecipe>(json.error());
  if (!recipe.ok()) {
    job.message = "its recipe cannot be read: " + recipe.error().message;
    return false;
  }
  job.recipe = *std::move(recipe);
  KeepRecipe(job);
  return true;
}

void Scheduler::KeepRecipe(Job& job) {
  job.data = data::ToJson(job.recipe->data);
  job.weights = job.recipe->weights;
  std::erase(recipes_, job.id);
  recipes_.push_back(job.id);
  size_t steps = 0, kept = 0;
  while (kept < recipes_.size() && kept < kMaxRecipesInMemory) {
    steps += state_.jobs.at(recipes_[recipes_.size() - 1 - kept]).steps.size();
    if (kept > 0 && steps > kMaxPlannedInMemory) break;
    ++kept;
  }
  while (recipes_.size() > kept) DropRecipe(state_.jobs.at(recipes_.front()));
}

void Scheduler::DropRecipe(Job& job) {
  job.recipe.reset();
  std::erase(recipes_, job.id);
}

}  // namespace pare::coordinator
