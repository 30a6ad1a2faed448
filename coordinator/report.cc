// report and digest: what a job found out, derived from artifacts alone.
#include <algorithm>
#include <set>
#include <utility>

#include "coordinator/measurements.h"
#include "coordinator/queries.h"
#include "storage/store.h"

namespace pare::coordinator {
namespace {

// The job's plan with all that is known: says which steps are candidates of which checkpoint, also for a finished job.
recipes::PlannedSteps PlanOf(const QueryContext& context, const Job& job, recipes::ResolvedRecipe* recipe, Json* advice) {
  auto json = ParseJson(job.resolved.Text(), "resolved recipe");
  if (!json.ok()) return {};
  auto resolved = recipes::ResolvedRecipeFromJson(*json);
  if (!resolved.ok()) return {};
  *recipe = *std::move(resolved);
  recipes::Outcomes outcomes;
  for (const JobStep& in_job : job.steps) {
    const Step& step = *context.state.FindStep(in_job.key);
    if (step.state == StepState::kFailed) outcomes[step.key] = {};
    const ArtifactRecord* artifact = context.state.ArtifactOf(in_job.key);
    if (artifact != nullptr) outcomes[step.key] = {.done = true, .artifact = step.artifact, .results = artifact->results};
  }
  for (std::string& text : recipes::Advice(*recipe, outcomes)) advice->push_back(std::move(text));
  return context.planner.next(*recipe, outcomes);
}

// What was measured against each other on the same samples (step kind compare).
Json ComparisonLines(const QueryContext& context, const recipes::PlannedSteps& plan) {
  std::map<StepKey, std::string> models;  // by evaluation: the step whose network it measured
  for (const recipes::PlannedStep& planned : plan) {
    if (planned.spec.kind == "evaluate") models.emplace(planned.key, planned.model_step);
  }
  Json lines = Json::array();
  for (const recipes::PlannedStep& planned : plan) {
    const ArtifactRecord* artifact = planned.spec.kind == "compare" ? context.state.ArtifactOf(planned.key) : nullptr;
    if (artifact == nullptr) continue;
    Json results = artifact->results.Tree();
    Json line = {{"step", models[planned.spec.inputs.at("second")]}, {"against", models[planned.spec.inputs.at("first")]}};
    for (const char* field : {"split", "total", "first_accuracy", "second_accuracy", "only_first", "only_second", "difference", "interval"}) {
      line[field] = At(results, {field});
    }
    lines.push_back(std::move(line));
  }
  return lines;
}

// What is reported of one checkpoint.
Json CheckpointLine(const QueryContext& context, const Step& step, const Measurements& measurements) {
  const ArtifactRecord* checkpoint = context.state.ArtifactOf(step.key);
  Json line = Json::object();
  Json results = checkpoint == nullptr ? Json() : checkpoint->results.Tree();
  auto found = measurements.find(step.artifact.hex());
  Measured measured = found == measurements.end() ? Measured() : found->second;
  line["sparsity"] = At(results, {"sparsity", "pruned_layers"});
  line["sparsity_of"] = At(results, {"sparsity"});  // pruned_layers, weights, parameters
  line["validation_accuracy"] = At(measured.validation, {"accuracy"});
  line["validation_interval"] = At(measured.validation, {"interval"});
  line["test_accuracy"] = At(measured.test, {"accuracy"});
  for (const char* field : {"parameters", "parameters_nonzero", "multiply_adds_nonzero"}) line[field] = At(results, {field});
  line["measurements"] = measured.speeds;
  line["bytes"] = At(results, {"checkpoint_bytes"});
  line["artifact"] = checkpoint == nullptr ? Json() : Json(step.artifact.hex());
  return line;
}

Json BaselineLine(const QueryContext& context, const Job& job, const recipes::PlannedSteps& plan, const Measurements& measurements) {
  std::string name;
  for (const recipes::PlannedStep& planned : plan) {
    if (planned.spec.kind == "evaluate" && !planned.candidate && planned.variant.empty() && name.empty()) name = planned.model_step;
  }
  if (name.empty()) name = job.Find("baseline") != nullptr ? "baseline" : "init";
  const JobStep* in_job = job.Find(name);
  if (in_job == nullptr || context.state.ArtifactOf(in_job->key) == nullptr) return nullptr;
  Json line = CheckpointLine(context, *context.state.FindStep(in_job->key), measurements);
  line["step"] = name;
  return line;
}

Json DecisionOf(const QueryContext& context, const recipes::PlannedSteps& plan) {
  for (const recipes::PlannedStep& planned : plan) {
    const ArtifactRecord* artifact = planned.local ? context.state.ArtifactOf(planned.key) : nullptr;
    if (artifact != nullptr) return artifact->results.Tree();
  }
  return nullptr;
}

Json CandidateLines(const QueryContext& context, const Job& job, const recipes::PlannedSteps& plan, const Measurements& measurements,
                    const Json& decision) {
  std::map<std::string, std::pair<int64_t, Json>> ranks;  // step → place, met
  Json ranking = At(decision, {"ranking"});
  for (size_t i = 0; ranking.is_array() && i < ranking.size(); ++i) {
    ranks[TextAt(ranking[i], "step")] = {static_cast<int64_t>(i) + 1, At(ranking[i], {"met_goal"})};
  }
  Json lines = Json::array();
  for (const recipes::PlannedStep& planned : plan) {
    if (!planned.candidate || context.state.ArtifactOf(planned.key) == nullptr) continue;
    const JobStep* made = job.Find(planned.model_step);
    if (made == nullptr) continue;
    Json line = CheckpointLine(context, *context.state.FindStep(made->key), measurements);
    auto rank = ranks.find(planned.model_step);
    line["variant"] = planned.variant;
    line["step"] = planned.model_step;
    line["rank"] = rank == ranks.end() ? Json() : Json(rank->second.first);
    line["met_goal"] = rank == ranks.end() ? Json() : rank->second.second;
    lines.push_back(std::move(line));
  }
  return lines;
}

Json PromotedLine(const QueryContext& context, const Job& job, const Json& decision, const Measurements& measurements) {
  if (!decision.is_object()) return nullptr;
  Json line = {{"name", At(decision, {"as"})},     {"step", At(decision, {"chosen"})},     {"artifact", At(decision, {"artifact"})},
               {"reason", At(decision, {"reason"})}, {"met_goal", At(decision, {"met_goal"})}, {"version", nullptr},
               {"test_accuracy", nullptr},         {"validation_accuracy", nullptr},       {"path", nullptr}};
  auto artifact = Digest::FromHex(TextAt(decision, "artifact"));
  if (!artifact.ok()) return line;
  auto model = context.state.models.find(TextAt(decision, "as"));
  if (model != context.state.models.end()) {
    for (const storage::VersionRow& row : model->second.versions) {
      if (row.artifact == *artifact && (line["version"].is_null() || row.job == job.id)) line["version"] = row.version;
    }
  }
  auto measured = measurements.find(artifact->hex());
  if (measured != measurements.end()) {
    line["test_accuracy"] = At(measured->second.test, {"accuracy"});
    line["validation_accuracy"] = At(measured->second.validation, {"accuracy"});
  }
  auto record = context.state.artifacts.find(*artifact);
  if (record != context.state.artifacts.end() && record->second.blobs.count("checkpoint") != 0 && !context.store.empty()) {
    line["path"] = storage::StorePaths(context.store).blob(record->second.blobs.at("checkpoint").digest);
  }
  return line;
}

Json WorkLine(const QueryContext& context, const Job& job) {
  int64_t busy_ms = 0, run = 0, reused = 0, lost = 0;
  std::set<StepKey> counted;  // what variants share is run once
  for (const JobStep& in_job : job.steps) {
    if (!counted.insert(in_job.key).second) continue;
    const Step& step = *context.state.FindStep(in_job.key);
    if (in_job.reused) {
      ++reused;
      continue;
    }
    run += in_job.wanted && step.state == StepState::kDone ? 1 : 0;
    for (const storage::AttemptRow& attempt : step.attempts()) {
      busy_ms += attempt.busy_ms;
      lost += attempt.outcome == "lost" || attempt.error_class == "runner_lost" ? 1 : 0;
    }
  }
  int64_t end_ms = job.finished_ms != 0 ? job.finished_ms : context.now.wall.ms;
  return {{"wall_s", static_cast<double>(end_ms - job.created_ms) / 1000}, {"busy_s", static_cast<double>(busy_ms) / 1000},
          {"steps_run", run}, {"steps_reused", reused}, {"attempts_lost", lost}};
}

}  // namespace

Json Report(const QueryContext& context, const Job& job) {
  recipes::ResolvedRecipe recipe;
  Json warnings = Json::array();
  recipes::PlannedSteps plan = PlanOf(context, job, &recipe, &warnings);
  Measurements measurements = MeasurementsOf(context.state, job);
  Json decision = DecisionOf(context, plan);
  Json failed = Json::array();
  for (const JobStep& in_job : job.steps) {
    const Step& step = *context.state.FindStep(in_job.key);
    if (!in_job.wanted || step.state != StepState::kFailed) continue;
    const Problem& problem = step.problem.OrDefault();
    failed.push_back({{"variant", *in_job.variant}, {"step", in_job.name}, {"error_class", problem.error_class}, {"message", problem.message}});
  }
  for (const recipes::Finding& finding : recipe.warnings) warnings.push_back(recipes::WithPlace("recipe", finding));
  Json summary = JobSummary(context.state, job);
  return {{"job", {{"id", job.id}, {"name", job.name}, {"state", summary["state"]}, {"created", summary["created"]}, {"finished", summary["finished"]}}},
          {"state", summary["state"]},
          {"goal", At(recipe.tree, {"goal"})},
          {"baseline", BaselineLine(context, job, plan, measurements)},
          {"candidates", CandidateLines(context, job, plan, measurements, decision)},
          {"comparisons", ComparisonLines(context, plan)},
          {"failed", std::move(failed)},
          {"promoted", PromotedLine(context, job, decision, measurements)},
          {"work", WorkLine(context, job)},
          {"warnings", std::move(warnings)}};
}

Json DigestLines(const State& state, const Job& job) {
  std::vector<const JobStep*> wanted;
  for (const JobStep& in_job : job.steps) {
    if (in_job.wanted) wanted.push_back(&in_job);
  }
  std::sort(wanted.begin(), wanted.end(), [](const JobStep* a, const JobStep* b) { return a->name < b->name; });
  Json lines = Json::array();
  Sha256 total;
  bool complete = !wanted.empty();
  for (const JobStep* in_job : wanted) {
    const Step& step = *state.FindStep(in_job->key);
    std::string artifact = step.artifact.is_none() ? "" : step.artifact.hex();
    // Times differ from run to run: that something was measured counts, not what.
    const ArtifactRecord* record = state.ArtifactOf(in_job->key);
    if (record != nullptr && record->kind == "measurement") artifact = "measured";
    complete = complete && !artifact.empty();
    total.Update(in_job->name + " " + step.key.hex() + " " + artifact + "\n");
    lines.push_back({{"name", in_job->name}, {"key", step.key.hex()}, {"artifact", artifact}});
  }
  return {{"lines", std::move(lines)}, {"total", Digest(total.Finish()).hex()}, {"complete", complete}};
}

}  // namespace pare::coordinator
