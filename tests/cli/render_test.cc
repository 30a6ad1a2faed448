// Golden text of what the commands print.
#include "cli/render.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pare::cli {
namespace {

Json Report() {
  return Json::parse(R"({
    "job": {"id": "j6ea6bda63", "name": "tiny", "state": "done"}, "state": "done",
    "baseline": {"step": "baseline", "sparsity": 0.0, "validation_accuracy": 86.06, "validation_interval": [85.10, 87.02], "test_accuracy": 85.18,
                 "parameters": 25450, "parameters_nonzero": 25450, "bytes": 87665},
    "candidates": [
      {"variant": "iterative", "step": "iterative/02-retrain", "sparsity": 0.5, "validation_accuracy": 87.32, "validation_interval": [86.4, 88.24],
       "test_accuracy": 85.96, "parameters_nonzero": 12746, "bytes": 46400, "met_goal": true, "rank": 2},
      {"variant": "one-shot", "step": "one-shot/02-retrain", "sparsity": 0.8, "validation_accuracy": 86.96, "validation_interval": null,
       "test_accuracy": null, "parameters_nonzero": 5124, "bytes": 20666, "met_goal": false, "rank": 1},
      {"variant": "late", "step": "late/01-prune", "sparsity": 0.9, "validation_accuracy": null, "validation_interval": null,
       "test_accuracy": null, "parameters_nonzero": 2560, "bytes": null, "met_goal": null, "rank": null}],
    "failed": [{"variant": "wild", "step": "wild/02-retrain", "error_class": "diverged", "message": "the loss is NaN at epoch 1"}],
    "promoted": {"name": "tiny", "version": 3, "step": "one-shot/02-retrain", "reason": "smallest bytes of 3", "test_accuracy": 85.21, "path": "/s/blobs/0f/0f47"},
    "work": {"wall_s": 1.234, "busy_s": 61.0, "steps_run": 17, "steps_reused": 2, "attempts_lost": 1},
    "warnings": ["epochs: 1 is little"]})");
}

TEST(RenderReportTest, ShowsCandidatesAndWhatWasPromoted) {
  EXPECT_EQ(RenderReport(Report()), R"(job j6ea6bda63 tiny: done

rank  candidate             sparsity  validation %  test %  weights left    bytes  smaller  goal
   –  baseline (dense)             –  86.06 ± 0.96   85.18         25450  87.7 kB     1.0x
   2  iterative/02-retrain   50.00 %  87.32 ± 0.92   85.96         12746  46.4 kB     1.9x  met
   1  one-shot/02-retrain    80.00 %         86.96       –          5124  20.7 kB     4.2x  missed
   –  late/01-prune          90.00 %             –       –          2560        –        –

failed:
  wild/02-retrain: diverged: the loss is NaN at epoch 1

promoted one-shot/02-retrain as tiny@3: smallest bytes of 3
  test accuracy 85.21 %, checkpoint /s/blobs/0f/0f47
  next: pare export tiny DIR

wall 1.2 s, work 1 m 01 s; 17 steps run, 2 reused, 1 attempt lost
warning: epochs: 1 is little
)");
}

TEST(RenderReportTest, SaysWhetherAComparisonShowsADifference) {
  Json report = Report();
  Json line = {{"step", "a/04-choose"}, {"against", "control-a"}, {"split", "test"}, {"total", 10000}, {"difference", 0.32}, {"interval", {-0.02, 0.66}}};
  report["comparisons"] = {line, line, line, {{"step", "b"}, {"against", "a"}, {"difference", nullptr}, {"interval", nullptr}}};
  report["comparisons"][1].update({{"difference", 0.5}, {"interval", {0.1, 0.9}}});
  report["comparisons"][2].update({{"difference", -0.5}, {"interval", {-0.9, -0.1}}});
  EXPECT_THAT(RenderReport(report), ::testing::HasSubstr(R"(
a/04-choose against control-a: +0.32 pp on 10000 test samples, 95 % interval -0.02 to +0.66: no difference is shown
a/04-choose against control-a: +0.50 pp on 10000 test samples, 95 % interval +0.10 to +0.90: better
a/04-choose against control-a: -0.50 pp on 10000 test samples, 95 % interval -0.90 to -0.10: worse

promoted )"));
}

TEST(RenderReportTest, SaysWhyNothingWasPromoted) {
  Json report = Report();
  report["failed"] = report["warnings"] = report["candidates"] = Json::array();
  report["baseline"] = nullptr;
  report["work"] = nullptr;
  report["promoted"] = {{"version", nullptr}, {"reason", "no candidate within 0.5 pp"}};
  EXPECT_EQ(RenderReport(report), "job j6ea6bda63 tiny: done\n\nno candidate yet\n\nnothing promoted: no candidate within 0.5 pp\n");
}

Json WatchStep(const char* name, const char* variant, const char* kind, const char* state) {
  return {{"name", name}, {"variant", variant}, {"kind", kind}, {"state", state}, {"reused", false}, {"progress", nullptr}, {"results", nullptr}};
}

TEST(RenderLiveTest, HasOneLineAVariant) {
  Json watch = {{"job", {{"id", "j1"}, {"name", "tiny"}, {"state", "running"}}}, {"workers", 2}, {"busy_workers", 1}, {"steps", Json::array()}};
  watch["steps"].push_back(WatchStep("init", "", "initialize", "done"));
  watch["steps"].push_back(WatchStep("baseline", "", "train", "done"));
  watch["steps"].push_back(WatchStep("one-shot/01-prune", "one-shot", "prune", "failed"));
  watch["steps"].push_back(WatchStep("iterative/01-prune", "iterative", "prune", "done"));
  watch["steps"].push_back(WatchStep("iterative/02-retrain", "iterative", "retrain", "running"));
  watch["steps"].back()["progress"] = {{"epoch", 1.25}, {"epochs", 3}, {"loss", 0.45123}, {"accuracy", 87.1}, {"sparsity", 0.5}, {"eta_s", 2.14}};
  watch["steps"].push_back(WatchStep("late/01-prune", "late", "prune", "waiting"));
  EXPECT_EQ(RenderLive(watch), R"(job j1 tiny: running, 3/6 steps, 1/2 workers busy
  shared     2/2  done
  one-shot   0/1  failed
  iterative  1/2  02-retrain  epoch 1.2/3  loss 0.4512  accuracy 87.10 %  sparsity 50.00 %  left 2.1 s
  late       0/1  waits
)");
}

TEST(RenderLiveTest, OfTwoRunningStepsShowsTheOneThatTrains) {
  Json watch = {{"job", {{"id", "j1"}, {"name", "n"}, {"state", "running"}}}, {"workers", 0}, {"busy_workers", 0}, {"steps", Json::array()}};
  watch["steps"].push_back(WatchStep("v/01-retrain", "v", "retrain", "running"));
  watch["steps"].push_back(WatchStep("v/01-retrain/evaluate", "v", "evaluate", "running"));
  EXPECT_EQ(RenderLive(watch), "job j1 n: running, 0/2 steps, no worker connected\n  v  0/2  01-retrain\n");
}

TEST(RenderLiveTest, FitsIntoANarrowTerminal) {
  Json watch = {{"job", {{"id", "j6ea6bda63"}, {"name", "a-job-with-a-long-name"}, {"state", "running"}}}, {"workers", 2}, {"busy_workers", 1}, {"steps", Json::array()}};
  watch["steps"].push_back(WatchStep("a-variant-with-a-long-name/01-retrain", "a-variant-with-a-long-name", "retrain", "running"));
  watch["steps"].back()["progress"] = {{"epoch", 1.25}, {"epochs", 3}, {"loss", 0.45123}, {"accuracy", 87.1}};
  EXPECT_EQ(RenderLive(watch, 50), R"(job j6ea6bda63 a-job-with-a…: running, 0/1 step, …
  a-variant-with-…  0/1  01-retrain  epoch 1.2/3 …
)");
  for (size_t columns : {1u, 10u, 40u, 80u, 200u}) {
    std::string text = RenderLive(watch, columns);
    for (size_t begin = 0, end = 0; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) EXPECT_LE(TextWidth(text.substr(begin, end - begin)), columns) << text;
  }
}

TEST(RenderStepLineTest, ShortensANameToItsWidth) {
  Json failed = WatchStep("a-variant-with-a-long-name/02-retrain", "v", "retrain", "failed");
  failed["error_class"] = "diverged", failed["message"] = "NaN loss";
  EXPECT_EQ(RenderStepLine(failed, 10), "a-variant…  failed: diverged: NaN loss\n");
}

TEST(RenderStepLineTest, TellsACandidateByItsEvaluation) {
  Json step = WatchStep("v/02-retrain/evaluate", "v", "evaluate", "done");
  step["results"] = {{"split", "validation"}, {"accuracy", 87.324}, {"summary", {{"checkpoint_bytes", 46400}, {"sparsity", {{"pruned_layers", 0.5}}}}}};
  EXPECT_EQ(RenderStepLine(step, 14), "v/02-retrain    accuracy 87.32 %  sparsity 50.00 %  46.4 kB\n");
}

TEST(RenderStepLineTest, TellsFailuresAndDecisions) {
  Json failed = WatchStep("v/02-retrain", "v", "retrain", "failed");
  failed["error_class"] = "diverged", failed["message"] = "NaN loss";
  EXPECT_EQ(RenderStepLine(failed, 14), "v/02-retrain    failed: diverged: NaN loss\n");
  Json decision = WatchStep("promote", "", "promote", "done");
  decision["results"] = {{"reason", "smallest of 3"}};
  EXPECT_EQ(RenderStepLine(decision, 8), "promote   smallest of 3\n");
}

TEST(RenderStepLineTest, IsSilentAboutTheRest) {
  Json trained = WatchStep("baseline", "", "train", "done");
  trained["results"] = {{"parameters", 5}};
  Json tested = WatchStep("v/test", "v", "evaluate", "done");
  tested["results"] = {{"split", "test"}, {"accuracy", 80.0}};
  for (const Json& step : {trained, tested, WatchStep("v", "v", "train", "running")}) EXPECT_EQ(RenderStepLine(step, 8), "");
}

Json PlanStep(const char* name, const char* variant, const char* kind, const char* state, Json inputs, int64_t left) {
  return {{"name", name}, {"variant", variant}, {"kind", kind}, {"state", state}, {"key", std::string(64, 'a')}, {"inputs", std::move(inputs)},
          {"parameters", 1000}, {"parameters_nonzero", left}, {"multiply_adds", 900}, {"multiply_adds_nonzero", left}, {"bytes", 4 * left}, {"seconds", kind[0] == 'r' ? 12.0 : 0.0}};
}

TEST(RenderPlanTest, FoldsEvaluationsIntoTheStepTheyMeasure) {
  Json plan = {{"resolved", {{"name", "tiny"}, {"model", {{"architecture", "mlp"}}}}}, {"to_run", 5}, {"cached", 1}, {"seconds", 75.0}, {"warnings", {"r.yaml:3:1: odd"}}, {"steps", Json::array()}};
  Json& steps = plan["steps"];
  steps.push_back(PlanStep("init", "", "initialize", "cached", Json::object(), 1000));
  steps.push_back(PlanStep("v/01-prune", "v", "prune", "to run", {{"model", "init"}}, 500));
  steps.push_back(PlanStep("v/02-retrain", "v", "retrain", "to run", {{"model", "v/01-prune"}, {"rewind", "init"}}, 500));
  steps.push_back(PlanStep("v/02-retrain/evaluate", "v", "evaluate", "to run", {{"model", "v/02-retrain"}}, 500));
  steps.back()["split"] = "validation";
  steps.push_back(PlanStep("promote", "", "promote", "to run", {{"baseline", "x"}}, 1000));
  steps.push_back(PlanStep("v/02-retrain/test", "v", "evaluate", "cached", {{"model", "v/02-retrain"}}, 500));
  steps.back()["split"] = "test";
  EXPECT_EQ(RenderPlan(plan), R"(tiny: mlp, dense: 1000 parameters, 1.8 k FLOPs a sample

step          from             state   key           parameters  FLOPs   bytes  time  evaluated on
init                           cached  aaaaaaaaaaaa        1000  2.0 k  4.0 kB     –
v/01-prune    init             to run  aaaaaaaaaaaa         500  1.0 k  2.0 kB     –
v/02-retrain  01-prune, init   to run  aaaaaaaaaaaa         500  1.0 k  2.0 kB  12 s  validation, test (cached)
promote       all evaluations  to run  aaaaaaaaaaaa           –      –       –     –

5 steps to run, 1 cached; about 1 m 15 s of work on one core
Parameters and FLOPs (non-zero ones), bytes and times are estimates; evaluations count as steps. --resolved prints the whole recipe.
warning: r.yaml:3:1: odd
)");
}

TEST(RenderPlanTest, SaysWhichStepFailedBeforeAndWhy) {
  Json plan = {{"resolved", {{"name", "tiny"}}}, {"to_run", 1}, {"cached", 0}, {"seconds", 0.0}, {"steps", Json::array()}};
  plan["steps"].push_back(PlanStep("baseline", "", "train", "failed", Json::object(), 1000));
  plan["steps"].back()["reason"] = "it failed for good: diverged: the loss is not a number";
  std::string text = RenderPlan(plan);
  EXPECT_THAT(text, testing::HasSubstr("\n1 step to run, 0 cached"));
  EXPECT_THAT(text, testing::HasSubstr("\nfailed before and not run again, nor what builds on it: baseline: it failed for good: diverged: the loss is not a number\n"));
}

Json Attempt(int number, const char* worker, const char* outcome, const char* error_class, const char* message, int busy_ms) {
  return {{"attempt", number}, {"worker", worker}, {"outcome", outcome}, {"error_class", error_class}, {"message", message}, {"busy_ms", busy_ms}};
}

TEST(RenderJobTest, ShowsStepsWorkersAndLostAttempts) {
  Json job = {{"id", "j1"}, {"name", "tiny"}, {"state", "running"}, {"created", "2026-01-02T03:04:05Z"}, {"finished", nullptr}, {"message", ""}, {"steps", Json::array()}};
  job["steps"].push_back({{"name", "init"}, {"state", "done"}, {"key", std::string(64, 'a')}, {"reused", true}, {"message", ""}, {"attempts", Json::array()}});
  job["steps"].push_back({{"name", "baseline"}, {"state", "running"}, {"key", std::string(64, 'b')}, {"reused", false}, {"message", ""},
                          {"progress", {{"epoch", 1.0}, {"epochs", 2}}},
                          {"attempts", {Attempt(1, "w1", "lost", "worker_lost", "silent for 2.0 s", 1500), Attempt(2, "w2", "running", "", "", 0)}}});
  job["steps"].push_back({{"name", "v/01-prune"}, {"state", "waiting"}, {"key", std::string(64, 'c')}, {"reused", false}, {"message", ""},
                          {"reason", "it waits for 1 step: baseline"}, {"attempts", Json::array()}});
  job["workers"] = {{{"name", "w2"}, {"host", "h"}, {"device", "cpu"}, {"threads", 2}, {"step", "baseline"}}, {{"name", "w3"}, {"host", "h"}, {"device", "cpu"}, {"threads", 1}, {"step", nullptr}}};
  EXPECT_EQ(RenderJob(job), R"(job j1 tiny: running
created 2026-01-02T03:04:05Z

step        state    key           attempts   time  worker  note
init        done     aaaaaaaaaaaa         0      –          reused
baseline    running  bbbbbbbbbbbb         2  1.5 s  w2      epoch 1.0/2
v/01-prune  waiting  cccccccccccc         0      –          it waits for 1 step: baseline

attempts that did not finish:
  baseline, attempt 1 on w1: lost (worker_lost: silent for 2.0 s)

worker  host  device  threads  runs
w2      h     cpu           2  baseline
w3      h     cpu           1  idle
)");
}

TEST(RenderJobTest, TellsThatAPausedJobHasNoWorker) {
  Json job = {{"id", "j1"}, {"name", "n"}, {"state", "paused"}, {"created", "T"}, {"finished", nullptr}, {"message", "paused on request"}, {"steps", Json::array()}};
  job["steps"].push_back({{"name", "init"}, {"state", "ready"}, {"key", "k"}, {"message", ""}, {"reason", "paused"}, {"attempts", Json::array()}});
  EXPECT_EQ(RenderJob(job), "job j1 n: paused (paused on request)\ncreated T\n\nstep  state  key  attempts  time  note\ninit  ready  k           0     –  paused\n\nno worker is connected; start one with: pare worker --coordinator ENDPOINT\n");
}

TEST(RenderListTest, HasOneLineAJob) {
  Json jobs = {{{"id", "j2"}, {"name", "b"}, {"state", "running"}, {"created", "T2"}, {"steps_done", 3}, {"steps_total", 17}, {"message", ""}},
               {{"id", "j1"}, {"name", "long-name"}, {"state", "failed"}, {"created", "T1"}, {"steps_done", 1}, {"steps_total", 2}, {"message", "all failed"}}};
  EXPECT_EQ(RenderList(jobs), "id  name       state    created  steps  message\nj2  b          running  T2        3/17\nj1  long-name  failed   T1         1/2  all failed\n");
  // A terminal's width: names give way, then whatever is behind it.
  jobs[1]["name"] = "a-rather-long-name";
  EXPECT_EQ(RenderList(jobs, 54), "id  name           state    created  steps  message\nj2  b              running  T2        3/17\nj1  a-rather-lon…  failed   T1         1/2  all failed\n");
  EXPECT_EQ(RenderList(jobs, 44), "id  name      state    created  steps  mess…\nj2  b         running  T2        3/17\nj1  a-rathe…  failed   T1         1/2  all …\n");
  EXPECT_THAT(RenderList(jobs), ::testing::HasSubstr("a-rather-long-name  failed   T1         1/2  all failed\n"));
  EXPECT_EQ(RenderList(Json::array()), "no jobs yet; start one with: pare run RECIPE\n");
}

TEST(RenderListTest, SaysUnknownWhereARebuiltIndexDoesNotKnowTheSteps) {
  Json job = {{"id", "j1"}, {"name", "n"}, {"state", "done"}, {"created", "T"}, {"finished", "T"}, {"steps_done", nullptr}, {"steps_total", nullptr}, {"message", ""}, {"steps", Json::array()}};
  EXPECT_EQ(RenderList(Json::array({job})), "id  name  state  created  steps\nj1  n     done   T        unknown\n");
  EXPECT_THAT(RenderJob(job), testing::HasSubstr("not all of its steps are on record: the index was rebuilt"));
}

TEST(RenderStateTest, NamesWhatARetryLeftAlone) {
  EXPECT_EQ(RenderState({{"job", "j1"}, {"state", "running"}}), "job j1: running\n");
  EXPECT_EQ(RenderState({{"job", "j1"}, {"state", "running"}, {"left_alone", {"v/02-retrain"}}}),
            "job j1: running\n  not retried: v/02-retrain diverged, and the same recipe diverges again; change the recipe and run it\n");
}

TEST(RenderModelsTest, HasOneLineAVersion) {
  Json version = {{"version", 2}, {"aliases", {"champion"}}, {"job", "j1"}, {"step", "v/02-retrain"}, {"created", "T"},
                  {"evidence", {{"validation_accuracy", 87.0}, {"test_accuracy", 86.5}, {"summary", {{"checkpoint_bytes", 20666}, {"sparsity", {{"pruned_layers", 0.8}}}}}}}};
  EXPECT_EQ(RenderModels({{{"name", "tiny"}, {"versions", {version}}}}),
            "model  version  alias     validation %  test %  sparsity    bytes  step          job  created\n"
            "tiny         2  champion         87.00   86.50   80.00 %  20.7 kB  v/02-retrain  j1   T\n");
}

TEST(RenderWhyTest, SaysTheReason) {
  EXPECT_EQ(RenderWhy({{"step", "v/01-prune"}, {"state", "ready"}, {"decision", "not_now"}, {"reason", "all 2 workers are busy"}, {"since", "T"}, {"waiting_for", Json::array()}}),
            "v/01-prune: ready since T\n  all 2 workers are busy\n");
}

TEST(RenderWhyTest, ListsWhatItWaitsForWhenTheReasonCannot) {
  Json why = {{"step", "promote"}, {"state", "waiting"}, {"reason", "it waits for 6 steps: a, b, c, d, e"}, {"since", nullptr}, {"waiting_for", {"a", "b", "c", "d", "e", "f"}}};
  EXPECT_EQ(RenderWhy(why), "promote: waiting\n  it waits for 6 steps: a, b, c, d, e\n  waiting for a\n  waiting for b\n  waiting for c\n  waiting for d\n  waiting for e\n  waiting for f\n");
}

TEST(RenderEventsTest, MarksOnlyWhatIsNotInformation) {
  Json events = {{{"at", "T1"}, {"level", "info"}, {"step", ""}, {"text", "submitted"}}, {{"at", "T2"}, {"level", "warning"}, {"step", "init"}, {"text", "lost"}}};
  EXPECT_EQ(RenderEvents(events), "T1  submitted\nT2  warning: init: lost\n");
}

TEST(RenderDigestTest, EndsWithTheTotal) {
  Json digest = {{"lines", {{{"name", "a"}, {"key", "k1"}, {"artifact", "x"}}, {{"name", "b"}, {"key", "k2"}, {"artifact", ""}}}}, {"total", "t"}};
  EXPECT_EQ(RenderDigest(digest), "a k1 x\nb k2 -\ntotal t\n");
}

}  // namespace
}  // namespace pare::cli
