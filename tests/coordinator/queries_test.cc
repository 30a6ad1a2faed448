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
