#include "tests/coordinator/durable_text.h"

#include <map>

namespace pare::coordinator {
namespace {

std::string TextOf(const storage::AttemptRow& row) {
  return std::to_string(row.epoch) + "/" + std::to_string(row.attempt) + " " + row.worker + " " + std::to_string(row.started_ms) + "-" +
         std::to_string(row.ended_ms) + " " + std::to_string(row.busy_ms) + " " + row.outcome + " " + row.error_class + " " + row.message;
}

void AppendJob(const Job& job, std::string& text) {
  text += "job " + job.id + " " + job.name + " " + job.user + " #" + std::to_string(job.number) + " " + std::string(ToString(job.state)) + " " +
          std::to_string(job.created_ms) + "-" + std::to_string(job.finished_ms) + " " + job.recipe_text.Text() + " " + job.recipe_digest.hex() + " " +
          job.resolved.Text() + " " + job.message + " " + std::to_string(job.priority) + " events " + std::to_string(job.last_event) + "\n";
  for (const JobStep& step : job.steps) {
    text += "  " + step.name + " " + *step.variant + " " + std::to_string(step.ordinal) + " " + step.key.hex() + (step.reused ? " reused" : "") +
            (step.wanted ? " wanted" : "") + "\n";
  }
  for (const auto& [key, outcome] : job.outcomes) {
    text += "  outcome " + key.hex() + (outcome.done ? " done " : " failed ") + outcome.artifact.hex() + " " + outcome.results.text() + "\n";
  }
}

// Or as soon as the restart comes to its job.
bool IsQueued(const State& state, const Step& step) {
  return step.queued || (step.state == StepState::kReady && !step.local && state.AwaitsPlan(step));
}

void AppendStep(const State& state, const Step& step, std::string& text) {
  const Problem& problem = step.problem.OrDefault();
  const Snapshot& snapshot = step.snapshot.OrDefault();
  text += "step " + step.key.hex() + " " + *step.kind + " " + *step.device + " " + step.spec.With(step.inputs).text() + " " + std::string(ToString(step.state)) + " failures " +
          std::to_string(step.failures) + " " + step.artifact.hex() + " " + problem.error_class + ": " + problem.message + " snapshot " + snapshot.blob.hex() + " " +
          snapshot.position.text() + " " + std::to_string(snapshot.order.first) + "/" + std::to_string(snapshot.order.second) + (IsQueued(state, step) ? " queued" : "") + "\n";
  for (const auto& [role, input] : step.inputs) text += "  input " + role + " " + input.hex() + "\n";
  for (const std::string& job : step.wanted_by) text += "  wanted by " + job + "\n";
  for (const StepKey& consumer : step.consumers) text += "  consumer " + consumer.hex() + "\n";
  for (const storage::AttemptRow& attempt : step.attempts()) text += "  attempt " + TextOf(attempt) + "\n";
  if (step.hold) text += "  held " + std::to_string(step.hold->epoch) + ", points up to " + std::to_string(step.hold->newest_point) + "\n";
}

}  // namespace

std::string DurableTextOf(const State& state) {
  std::string text = "epoch " + std::to_string(state.last_epoch) + ", job number " + std::to_string(state.last_job_number) + "\n";
  for (const auto& [id, job] : state.jobs) AppendJob(job, text);
  std::map<StepKey, const Step*> steps;
  for (const auto& [key, step] : state.steps) steps[key] = &step;
  for (const auto& [key, step] : steps) AppendStep(state, *step, text);
  for (const auto& [digest, artifact] : state.artifacts) {
    text += "artifact " + digest.hex() + " " + artifact.key.hex() + " " + artifact.kind + " " + artifact.results.text() + " " +
            std::to_string(artifact.bytes) + " " + std::to_string(artifact.created_ms) + "\n";
  }
  for (const StepKey& key : state.running) text += "running " + key.hex() + "\n";
  for (const auto& [name, model] : state.models) {
    for (const storage::VersionRow& row : model.versions) {
      text += "version " + name + " " + std::to_string(row.version) + " " + row.artifact.hex() + " " + row.job + " " + row.step + " " + Canonical(row.evidence) + "\n";
    }
    for (const auto& [alias, version] : model.aliases) text += "alias " + name + " " + alias + " " + std::to_string(version) + "\n";
  }
  return text;
}

}  // namespace pare::coordinator
