// The read-only requests other than report and digest.
#include <gmock/gmock.h>

#include "common/version.h"
#include "coordinator/queries.h"
#include "tests/coordinator/service_site.h"

namespace pare::coordinator {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Json LineOf(const Json& lines, const std::string& name) {
  for (const Json& line : lines) {
    if (line["name"] == name) return line;
  }
  ADD_FAILURE() << "no line " << name;
  return Json();
}

TEST(QueriesTest, ListIsNewestFirstWithStateAndCreation) {
  ServiceSite site;
  EXPECT_EQ(site.Get("list"), Json::array());
  std::string first = site.Submit(kSmallRecipe);
  std::string other = std::string(kSmallRecipe);
  other.replace(other.find("name: small"), 11, "name: other");
  site.clock.Advance(Millis(90'000));
  std::string second = site.Submit(other);
  Json list = site.Get("list");
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0]["id"], second);
  EXPECT_EQ(list[0]["name"], "other");
  EXPECT_EQ(list[1]["id"], first);
  EXPECT_EQ(list[1]["state"], "running");
  EXPECT_EQ(list[1]["created"], "2023-11-14T22:13:20Z");  // date -u -d @1700000000
  EXPECT_TRUE(list[1]["finished"].is_null());
  EXPECT_EQ(list[1]["steps_done"], 0);
  EXPECT_EQ(list[1]["steps_total"], 9);  // those of the test split come with the decision
}

TEST(QueriesTest, AJobIsNamedByItsIdAUniquePrefixOrLast) {
  ServiceSite site;
  std::string job = site.Submit(kSmallRecipe);
  for (const std::string& text : {job, job.substr(0, 6), std::string("last")}) {
    EXPECT_EQ(site.Get("describe", {{"job", text}})["id"], job) << text;
  }
  Reply reply = site.Ask("describe", {{"job", "nothing"}});
  EXPECT_EQ(reply.code, "not_found");
  EXPECT_THAT(reply.message, HasSubstr("'nothing'"));
}

TEST(QueriesTest, AnAmbiguousPrefixAsksForMoreDigits) {
  ServiceSite site;
  for (int i = 0; i < 2; ++i) {
    std::string yaml = kSmallRecipe;
    yaml.replace(yaml.find("seed: 1"), 7, "seed: " + std::to_string(i + 2));
    site.Submit(yaml);
  }
  Reply reply = site.Ask("describe", {{"job", "j"}});
  EXPECT_EQ(reply.code, "invalid");
  EXPECT_THAT(reply.message, HasSubstr("more digits"));
}

TEST(QueriesTest, DescribeShowsStepsAttemptsAndWorkers) {
  ServiceSite site;
  site.Join("w1");
  std::string job = site.Submit(kSmallRecipe);
  site.Finish("w1");
  Json described = site.Get("describe", {{"job", job}});
  EXPECT_EQ(described["recipe"], kSmallRecipe);
  Json init = LineOf(described["steps"], "init");
  EXPECT_EQ(init["state"], "done");
  EXPECT_EQ(init["kind"], "initialize");
  ASSERT_EQ(init["attempts"].size(), 1u);
  EXPECT_EQ(init["attempts"][0]["worker"], "w1");
  EXPECT_EQ(init["attempts"][0]["outcome"], "done");
  EXPECT_EQ(init["attempts"][0]["busy_ms"], 100);
  Json baseline = LineOf(described["steps"], "baseline");
  EXPECT_EQ(baseline["state"], "running");
  EXPECT_THAT(baseline["reason"], HasSubstr("running on w1, attempt 1: holds 1 of its 1 input in memory"));
  EXPECT_EQ(described["workers"], Json::parse(R"([{"name": "w1", "host": "here", "device": "cpu", "threads": 1, "step": "baseline"}])"));
  EXPECT_EQ(LineOf(described["steps"], "half/01-prune")["state"], "waiting");
}

TEST(QueriesTest, DescribeShowsALostAttemptAndItsReason) {
  ServiceSite site;
  site.Join("w1");
  std::string job = site.Submit(kSmallRecipe);
  site.service->Apply(WorkerGone{"w1", "worker w1 has ended"});
  site.Turn();
  Json attempts = LineOf(site.Get("describe", {{"job", job}})["steps"], "init")["attempts"];
  ASSERT_EQ(attempts.size(), 1u);
  EXPECT_EQ(attempts[0]["outcome"], "lost");
  EXPECT_EQ(attempts[0]["error_class"], "worker_lost");
  EXPECT_EQ(attempts[0]["message"], "worker w1 has ended");
}

TEST(QueriesTest, WatchShowsProgressResultsAndEventsAfterASequence) {
  ServiceSite site;
  site.Join("w1");
  std::string job = site.Submit(kSmallRecipe);
  site.Finish("w1");
  site.Say("w1", Progress{site.Granted("w1")->lease, 0, {{1, {{"epoch", 0.5}, {"epochs", 2}}}}});
  Json watched = site.Get("watch", {{"job", job}, {"after", 0}});
  EXPECT_EQ(watched["workers"], 1);
  EXPECT_EQ(watched["busy_workers"], 1);
  EXPECT_EQ(LineOf(watched["steps"], "init")["results"]["parameters"], 1000);
  EXPECT_EQ(LineOf(watched["steps"], "baseline")["progress"]["epoch"], 0.5);
  EXPECT_EQ(watched["events"][0]["text"], "submitted");
  int64_t seen = watched["events"].back()["sequence"];
  EXPECT_TRUE(site.Get("watch", {{"job", job}, {"after", seen}})["events"].empty());
}

TEST(QueriesTest, LogsGiveAtMostWhatWasAskedForOldestFirst) {
  ServiceSite site;
  site.Join("w1");
  std::string job = site.Submit(kSmallRecipe);
  site.FinishAll();
  Json logs = site.Get("logs", {{"job", job}, {"after", 1}, {"limit", 2}});
  ASSERT_EQ(logs.size(), 2u);
  EXPECT_EQ(logs[0]["sequence"], 2);
  EXPECT_EQ(logs[0]["step"], "init");
  EXPECT_EQ(logs[0]["text"], "started on w1");
  EXPECT_EQ(logs[1]["text"], "done on w1 in 0.1 s");
}

TEST(QueriesTest, MetricsAreThoseOfAllAttemptsInOrder) {
  ServiceSite site;
  site.Join("w1");
  std::string job = site.Submit(kSmallRecipe);
  Lease lease = site.Granted("w1")->lease;
  site.Say("w1", Progress{lease, 0, {{1, {{"epoch", 1}, {"loss", 0.5}}}, {2, {{"epoch", 2}, {"loss", 0.25}}}}});
  site.Abort("w1", "runner_lost", "it broke");
  ASSERT_NE(site.Granted("w1"), nullptr);
  site.Say("w1", Progress{site.Granted("w1")->lease, 0, {{1, {{"epoch", 1}, {"loss", 0.5}}}}});
  Json metrics = site.Get("metrics", {{"job", job}, {"step", "init"}});
  std::vector<double> epochs;
  for (const Json& point : metrics) epochs.push_back(point["epoch"]);
  EXPECT_THAT(epochs, ElementsAre(1, 2, 1));
  EXPECT_EQ(site.Ask("metrics", {{"job", job}, {"step", "no such step"}}).code, "not_found");
}

TEST(QueriesTest, WhyFindsAStepByNameByKeyAndByItsFirstDigits) {
  ServiceSite site;
  std::string job = site.Submit(kSmallRecipe);
  Json by_name = site.Get("why", {{"step", "baseline"}});
  EXPECT_EQ(by_name["decision"], "not_now");
  EXPECT_EQ(by_name["waiting_for"], Json::parse(R"(["init"])"));
  std::string key = by_name["key"];
  EXPECT_EQ(site.Get("why", {{"step", key}})["state"], "waiting");
  EXPECT_EQ(site.Get("why", {{"step", key.substr(0, 12)}})["key"], key);
  EXPECT_EQ(site.Get("why", {{"step", "init"}, {"job", job}})["reason"], "no worker is connected: start one with `pare worker`");
  EXPECT_EQ(site.Ask("why", {{"step", "nothing like it"}}).code, "not_found");
  EXPECT_EQ(site.Ask("why", {{"step", key.substr(0, 3)}}).code, "not_found");
}

TEST(QueriesTest, WhySaysSinceWhenAlsoAfterARestartAndNothingWhereNoRowTells) {
  ServiceSite site;
  site.Join("w1");
  site.Submit(kSmallRecipe);
  site.clock.Advance(Millis(60'000));
  site.Finish("w1");  // init
  Json done = site.Get("why", {{"step", "init"}})["since"], running = site.Get("why", {{"step", "baseline"}})["since"];
  EXPECT_FALSE(site.Get("why", {{"step", "half/01-prune"}})["since"].is_null());
  site.clock.Advance(Millis(3'600'000));
  site.Restart();
  EXPECT_EQ(site.Get("why", {{"step", "init"}})["since"], done);
  EXPECT_EQ(site.Get("why", {{"step", "baseline"}})["since"], running);
  EXPECT_TRUE(site.Get("why", {{"step", "half/01-prune"}})["since"].is_null());
}

TEST(QueriesTest, WhyOfADivergedStepAdvisesAnotherRecipeAndWhatBuildsOnItNamesIt) {
  ServiceSite site;
  site.Join("w1");
  std::string job = site.Submit(kSmallRecipe);
  while (const Grant* grant = site.Granted("w1")) {
    if (site.NameOf(*grant) == "most/02-retrain") site.Abort("w1", "diverged", "the loss is not a number; lower learning_rate");
    else site.Finish("w1");
  }
  Json failed = site.Get("why", {{"step", "most/02-retrain"}});
  EXPECT_THAT(failed["reason"], HasSubstr("a retry cannot help: change the recipe (a lower learning_rate, more warmup_epochs, or clip_norm"));
  for (const char* restart : {"", "restarted"}) {
    if (*restart != 0) site.Restart();
    Json blocked = site.Get("why", {{"step", "most/02-retrain/evaluate"}});
    EXPECT_EQ(blocked["state"], "cancelled");
    EXPECT_EQ(blocked["reason"], "it is cancelled: what it builds on failed for good: most/02-retrain: diverged: the loss is not a number (`pare why most/02-retrain --job " +
                                     job + "` tells more)");
    EXPECT_EQ(site.Get("why", {{"step", "most/02-retrain"}})["since"], failed["since"]);
  }
}

// A store whose rows of kind JobStepRow (all, or those from one ordinal to another) and the steps' specifications are lost.
void LoseRows(ServiceSite& from, ServiceSite& to, int64_t begin, int64_t end, const std::string& lost_step = "") {
  for (const auto& transaction : from.index.transactions) {
    std::vector<storage::Row> rows;
    for (storage::Row row : transaction) {
      if (auto* in_job = std::get_if<storage::JobStepRow>(&row); in_job != nullptr && in_job->ordinal >= begin && in_job->ordinal < end) continue;
      if (auto* step = std::get_if<storage::StepRow>(&row)) {
        step->kind = "", step->spec = JsonText::Of(storage::kNoSpec);
        if (step->key.hex() == lost_step) step->state = "waiting", step->artifact = Digest();
      }
      rows.push_back(std::move(row));
    }
    ASSERT_TRUE(to.index.Commit(rows).ok());
  }
  to.Restart();
}

TEST(QueriesTest, AJobThatIsDoneHasItsStepsAgainAfterAnIndexWasRebuiltWithoutThem) {
  ServiceSite site;
  site.Join("w1");
  std::string job = site.Submit(kSmallRecipe);
  site.FinishAll();
  Json before = site.Get("describe", {{"job", job}}), digest = site.Get("digest", {{"job", job}});
  for (auto [begin, end] : {std::pair(0, 100), std::pair(2, 5)}) {
    ServiceSite rebuilt;
    LoseRows(site, rebuilt, begin, end);
    Json after = rebuilt.Get("describe", {{"job", job}});
    EXPECT_EQ(after["steps_total"], before["steps_total"]);
    EXPECT_EQ(after["steps_done"], before["steps_done"]);
    for (const Json& step : before["steps"]) {
      EXPECT_EQ(LineOf(after["steps"], step["name"])["kind"], step["kind"]) << step["name"];
    }
    EXPECT_EQ(rebuilt.Get("digest", {{"job", job}}), digest);
    rebuilt.Restart();  // they are rows now
    EXPECT_EQ(rebuilt.Get("describe", {{"job", job}}), after);
  }
}

TEST(QueriesTest, NobodyKnowsHowManyStepsAJobHadWhoseResultsAreLostToo) {
  ServiceSite site;
  site.Join("w1");
  std::string job = site.Submit(kSmallRecipe);
  site.FinishAll();
  ServiceSite rebuilt;
  LoseRows(site, rebuilt, 0, 100, LineOf(site.Get("describe", {{"job", job}})["steps"], "baseline")["key"]);
  Json line = rebuilt.Get("list")[0];
  EXPECT_EQ(line["state"], "done");
  EXPECT_TRUE(line["steps_done"].is_null());
  EXPECT_TRUE(line["steps_total"].is_null());
}

TEST(QueriesTest, ModelsShowVersionsAliasesAndEvidence) {
  ServiceSite site;
  site.accuracy = [](const std::string& step) { return step.find("/test") == std::string::npos ? 90.0 : 88.0; };
  site.Join("w1");
  std::string job = site.Submit(kSmallRecipe);
  site.FinishAll();
  Json models = site.Get("models");
  ASSERT_EQ(models.size(), 1u);
  EXPECT_EQ(models[0]["name"], "small");
  const Json& version = models[0]["versions"][0];
  EXPECT_EQ(version["version"], 1);
  EXPECT_EQ(version["job"], job);
  EXPECT_EQ(version["step"], "most/02-retrain");
  EXPECT_EQ(version["aliases"], Json::parse(R"(["champion"])"));
  EXPECT_EQ(version["evidence"]["validation_accuracy"], 90.0);
  EXPECT_EQ(version["evidence"]["test_accuracy"], 88.0);  // read after the decision
  Json resolved = site.Get("resolve_model", {{"name", "small"}});
  EXPECT_EQ(resolved["version"], 1);
  EXPECT_EQ(resolved["artifact"], version["artifact"]);
  EXPECT_EQ(site.Ask("resolve_model", {{"name", "small"}, {"version", 7}}).code, "not_found");
  EXPECT_EQ(site.Ask("resolve_model", {{"name", "other"}}).code, "not_found");
}

TEST(QueriesTest, PingSaysWhoAnswers) {
  ServiceSite site;
  Json pong = site.Get("ping");
  EXPECT_EQ(pong["version"], kPareVersion);
  EXPECT_EQ(pong["protocol"], kProtocolVersion);
  EXPECT_EQ(pong["store"], "/store");
  EXPECT_EQ(pong["workers"], 0);
}

TEST(QueriesTest, PingCountsWhatWasRefusedAndRepeated) {
  ServiceSite site;
  site.Join("w1");
  site.Submit(kSmallRecipe);
  Lease lease = site.Granted("w1")->lease;
  site.Finish("w1");
  site.Say("w1", SnapshotTaken{lease, 1, DigestOf(std::string_view("late")), Json::object()});
  Json counters = site.Get("ping")["counters"];
  EXPECT_EQ(counters["stale_refused"], 1);
  EXPECT_EQ(counters["steps_done"], 1);
  EXPECT_EQ(counters["leases_lost"], 0);
}

TEST(QueriesTest, AQueryChangesNothing) {
  ServiceSite site;
  site.Join("w1");
  std::string job = site.Submit(kSmallRecipe);
  size_t transactions = site.index.transactions.size();
  for (const char* method : {"ping", "list", "describe", "watch", "logs", "report", "digest", "models"}) site.Get(method, {{"job", job}});
  site.Get("why", {{"step", "init"}});
  site.Get("metrics", {{"job", job}, {"step", "init"}});
  EXPECT_EQ(site.index.transactions.size(), transactions);
}

}  // namespace
}  // namespace pare::coordinator
