// Requests as the service takes them: dispatch, refusals, the registry, and what the rows say against what the store holds.
#include "coordinator/service.h"

#include <gmock/gmock.h>

#include "model/architectures.h"
#include "tests/coordinator/harness.h"
#include "tests/coordinator/service_site.h"

namespace pare::coordinator {
namespace {

using testing::HasSubstr;

std::string Renamed(const std::string& name) {
  std::string yaml = kSmallRecipe;
  return yaml.replace(yaml.find("name: small"), 11, "name: " + name);
}

TEST(ServiceTest, AnUnknownMethodIsRefusedByName) {
  ServiceSite site;
  Reply reply = site.Ask("explode");
  EXPECT_FALSE(reply.ok);
  EXPECT_EQ(reply.code, "invalid");
  EXPECT_THAT(reply.message, HasSubstr("there is no request 'explode'"));
}

struct BadRequest {
  const char* name;
  const char* method;
  const char* args;
  const char* code;
  const char* says;
};
class BadRequestTest : public testing::TestWithParam<BadRequest> {};

TEST_P(BadRequestTest, IsRefusedWithTheReasonAndChangesNothing) {
  ServiceSite site;
  site.Submit(kSmallRecipe);
  size_t transactions = site.index.transactions.size();
  Reply reply = site.Ask(GetParam().method, Json::parse(GetParam().args));
  EXPECT_FALSE(reply.ok);
  EXPECT_EQ(reply.code, GetParam().code);
  EXPECT_THAT(reply.message, HasSubstr(GetParam().says));
  EXPECT_EQ(site.index.transactions.size(), transactions);
}

INSTANTIATE_TEST_SUITE_P(
    Requests, BadRequestTest,
    testing::Values(BadRequest{"DescribeWithoutAJob", "describe", "{}", "invalid", "job"},
                    BadRequest{"DescribeOfANumber", "describe", R"({"job": 7})", "invalid", "job"},
                    BadRequest{"WatchAfterText", "watch", R"({"job": "last", "after": "x"})", "invalid", "after"},
                    BadRequest{"PauseOfNoJob", "pause", R"({"job": "jabc"})", "not_found", "jabc"},
                    BadRequest{"SubmitWithoutARecipe", "submit", "{}", "invalid", "recipe"},
                    BadRequest{"SubmitWithoutData", "submit", R"({"recipe": "version: 1"})", "invalid", "data"},
                    BadRequest{"SubmitOfBadData", "submit", R"({"recipe": "version: 1", "data": []})", "invalid", ""},
                    BadRequest{"SubmitWithReuseAsText", "submit", R"({"recipe": "version: 1", "reuse": "yes", "data": {}})", "invalid", "reuse"},
                    BadRequest{"SubmitWithATooHighPriority", "submit", R"({"recipe": "version: 1", "priority": 5000, "data": {}})", "invalid", "5000"},
                    BadRequest{"PromoteWithoutAVersionOrStep", "promote", R"({"name": "m"})", "invalid", "job"},
                    BadRequest{"PromoteOfNoModel", "promote", R"({"name": "m", "version": 1})", "not_found", "'m'"},
                    BadRequest{"PromoteOfAnUnfinishedStep", "promote", R"({"name": "m", "job": "last", "step": "baseline"})", "conflict", "baseline"},
                    BadRequest{"RollbackOfNoModel", "rollback", R"({"name": "m"})", "not_found", "'m'"},
                    BadRequest{"ResumeOfNothing", "resume", R"({"job": ""})", "not_found", ""},
                    BadRequest{"RetryOfWhatRuns", "retry", R"({"job": "last"})", "conflict", "no step of it has failed"},
                    BadRequest{"ShutdownWithWorkersAsText", "shutdown", R"({"workers": "all"})", "invalid", "workers"}),
    [](const auto& c) { return c.param.name; });

TEST(ServiceTest, ABadRecipeIsRefusedWithItsPositionAndLeavesNoJob) {
  ServiceSite site;
  Json args = site.SubmitArgs(std::string(kSmallRecipe) + "epoch: 3\n");
  Reply reply = site.Ask("submit", args);
  EXPECT_EQ(reply.code, "invalid");
  EXPECT_THAT(reply.message, HasSubstr("test.yaml:16:1"));
  EXPECT_EQ(site.Get("list"), Json::array());
}

TEST(ServiceTest, ASubmitWhoseDatasetIsNotInTheStoreIsRefused) {
  ServiceSite site;
  Json args = site.SubmitArgs(kSmallRecipe);
  site.blobs.lost.insert(*Digest::FromHex(args["data"]["blob"].get<std::string>()));
  Reply reply = site.Ask("submit", args);
  EXPECT_EQ(reply.code, "not_found");
  EXPECT_THAT(reply.message, HasSubstr("dataset blob"));
}

TEST(ServiceTest, ASubmitWhoseTeacherIsNotInTheStoreIsRefused) {
  ServiceSite site;
  Json args = site.SubmitArgs(kSmallRecipe);
  auto digest = site.blobs.Put(std::string_view("weights of a teacher"));
  ASSERT_TRUE(digest.ok());
  args["models"] = {{"big.safetensors", {{"graph", model::ToJson(*model::BuildArchitecture("mlp", Json::object(), {1, 8, 8}, 4))}, {"weights", digest->hex()}}}};
  EXPECT_TRUE(site.Ask("submit", args).ok);
  site.blobs.lost.insert(*digest);
  Reply reply = site.Ask("submit", args);
  EXPECT_EQ(reply.code, "not_found");
  EXPECT_THAT(reply.message, HasSubstr("model 'big.safetensors'"));
  args["models"]["big.safetensors"].erase("weights");
  EXPECT_THAT(site.Ask("submit", args).message, HasSubstr("'big.safetensors' needs either artifact or weights"));
}

TEST(ServiceTest, HandleAnswersOneRequestDurably) {
  ServiceSite site;
  Request request;
  request.id = 77;
  request.method = "submit";
  request.args = site.SubmitArgs(kSmallRecipe);
  Reply reply = site.service->Handle(request);
  EXPECT_EQ(reply.id, 77);
  ASSERT_TRUE(reply.ok) << reply.message;
  site.Restart();
  EXPECT_EQ(site.Get("list")[0]["id"], reply.result["job"]);
}

TEST(ServiceTest, HandleSaysWhyNothingCouldBeStored) {
  ServiceSite site;
  Request request;
  request.method = "submit";
  request.args = site.SubmitArgs(kSmallRecipe);
  site.index.failure = Error{ErrorCode::kNoSpace, "the disk is full"};
  Reply reply = site.service->Handle(request);
  EXPECT_FALSE(reply.ok);
  EXPECT_EQ(reply.code, "no_space");
  EXPECT_THAT(reply.message, HasSubstr("the disk is full"));
}

TEST(ServiceTest, TheSameRecipeAgainAfterItsEndIsDoneAtOnce) {
  ServiceSite site;
  site.Join("w1");
  site.Submit(kSmallRecipe);
  site.FinishAll();
  int steps = site.finished;
  Json reply = site.Get("submit", site.SubmitArgs(kSmallRecipe));
  EXPECT_EQ(reply["resumed"], false);
  EXPECT_EQ(reply["cached"], reply["steps"]);
  EXPECT_EQ(site.Get("list")[0]["state"], "done");
  EXPECT_EQ(site.finished, steps);
}

// ---- what the rows say and what the store holds ----

TEST(ServiceTest, AResultWhoseBlobIsNotInTheStoreIsRefusedForGood) {
  ServiceSite site;
  site.Join("w1");
  site.Submit(kSmallRecipe);
  Grant grant = *site.Granted("w1");
  Json manifest = site.ManifestFor(grant);
  site.blobs.lost.insert(*Digest::FromHex(manifest["blobs"]["checkpoint"]["digest"].get<std::string>()));
  StepFinished finished{grant.lease, ArtifactOf(manifest), manifest, 5};
  site.sent.clear();
  site.Say("w1", finished);
  // Stale, not the acknowledgement of something else: the agent must stop repeating it.
  ASSERT_NE(LastSent<Stale>(site.sent, "w1"), nullptr);
  EXPECT_EQ(LastSent<Ack>(site.sent, "w1"), nullptr);
  EXPECT_THAT(site.Get("describe", {{"job", "last"}})["steps"][0]["attempts"][0]["message"], HasSubstr("is not in the store"));
  site.sent.clear();
  site.Say("w1", finished);
  EXPECT_NE(LastSent<Stale>(site.sent, "w1"), nullptr);
}

TEST(ServiceTest, AnEvaluationWithoutAnAccuracyIsRefused) {
  ServiceSite site;
  site.Join("w1");
  site.Submit(kSmallRecipe);
  while (site.NameOf(*site.Granted("w1")) != "baseline/evaluate") site.Finish("w1");
  Grant grant = *site.Granted("w1");
  Json manifest = site.ManifestFor(grant);
  manifest["results"].erase("accuracy");
  site.sent.clear();
  site.blobs.Put(Canonical(manifest)).value();
  site.Say("w1", StepFinished{grant.lease, ArtifactOf(manifest), manifest, 5});
  ASSERT_NE(LastSent<Stale>(site.sent, "w1"), nullptr);
  EXPECT_THAT(LastSent<Stale>(site.sent, "w1")->reason, HasSubstr("no accuracy"));
}

TEST(ServiceTest, AFinishedStepWhoseArtifactIsGoneRunsAgainAfterARestart) {
  ServiceSite site;
  site.Join("w1");
  std::string job = site.Submit(kSmallRecipe);
  site.Finish("w1");
  Json before = site.Get("describe", {{"job", job}})["steps"][0]["artifact"];
  site.blobs.lost.insert(*Digest::FromHex(before.get<std::string>()));
  site.Restart();
  EXPECT_EQ(site.Get("describe", {{"job", job}})["steps"][0]["state"], "ready");
}

void ExpectInit(ServiceSite& site) {
  ASSERT_NE(site.Granted("w1"), nullptr);
  EXPECT_EQ(site.NameOf(*site.Granted("w1")), "init");
}

// A job of the same steps, the first of which has to be made again.
Json SubmitAgainFromInit(ServiceSite& site) {
  Json reply = site.Get("submit", site.SubmitArgs(Renamed("again")));
  ExpectInit(site);
  return reply;
}

TEST(ServiceTest, AFinishedStepWhoseArtifactIsGoneRunsAgainForANewJob) {
  ServiceSite site;
  site.Join("w1");
  std::string job = site.Submit(kSmallRecipe);
  site.FinishAll();
  Json lost = site.Get("describe", {{"job", job}})["steps"][0]["artifact"];
  site.blobs.lost.insert(*Digest::FromHex(lost.get<std::string>()));
  Json reply = SubmitAgainFromInit(site);
  EXPECT_EQ(reply["cached"].get<int>() + 1, reply["steps"].get<int>());
}

TEST(ServiceTest, ACheckpointOfAnotherSizeIsMadeAgainForANewJob) {
  ServiceSite site;
  site.Join("w1");
  std::string job = site.Submit(kSmallRecipe);
  Json manifest = site.ManifestFor(*site.Granted("w1"));
  site.FinishAll();
  site.blobs.cut.insert(*Digest::FromHex(manifest["blobs"]["checkpoint"]["digest"].get<std::string>()));
  Json reply = SubmitAgainFromInit(site);
  EXPECT_LT(reply["cached"].get<int>(), reply["steps"].get<int>());
}

TEST(ServiceTest, AWorkerThatFindsItsInputGoneHasItMadeAgain) {
  ServiceSite site;
  site.Join("w1");
  std::string job = site.Submit(kSmallRecipe);
  site.Finish("w1");
  site.blobs.lost.insert(*Digest::FromHex(site.Get("describe", {{"job", job}})["steps"][0]["artifact"].get<std::string>()));
  site.Abort("w1", "corrupt", "input 'model' is not in the store");
  ExpectInit(site);
}

// A collection or a lost disk took it before its report came. The worker's next one counts.
TEST(ServiceTest, ASnapshotThatIsNotInTheStoreIsNeitherKeptNorAcknowledged) {
  ServiceSite site;
  site.Join("w1");
  site.Submit(kSmallRecipe);
  Lease lease = site.Granted("w1")->lease;
  auto blob = [&] { return site.service->scheduler().state().FindStep(lease.step)->snapshot.OrDefault().blob; };
  Digest first = *site.blobs.Put(std::string_view("first")), second = *site.blobs.Put(std::string_view("second"));
  site.blobs.lost.insert(first);
  site.sent.clear();
  site.Say("w1", SnapshotTaken{lease, 1, first, {{"epoch", 1}}});
  EXPECT_EQ(LastSent<Ack>(site.sent, "w1"), nullptr);
  EXPECT_TRUE(blob().is_none());
  site.Say("w1", SnapshotTaken{lease, 2, second, {{"epoch", 2}}});
  ASSERT_NE(LastSent<Ack>(site.sent, "w1"), nullptr);
  EXPECT_EQ(LastSent<Ack>(site.sent, "w1")->sequence, 2);
  EXPECT_EQ(blob(), second);
  // Given back with one that is gone: the one before it stays.
  site.Say("w1", Released{lease, first, {{"epoch", 3}}, 5});
  EXPECT_EQ(blob(), second);
  // The lease is over: its worker hears so all the same.
  site.sent.clear();
  site.Say("w1", SnapshotTaken{lease, 3, first, {{"epoch", 3}}});
  EXPECT_NE(LastSent<Stale>(site.sent, "w1"), nullptr);
}

TEST(ServiceTest, AStoreThatCannotBeReadJustNowHasLostNothing) {
  class Unreadable : public storage::BlobStore {
   public:
    Result<Digest> Put(std::span<const std::byte>) override { return Error{ErrorCode::kIo, "input/output error"}; }
    Result<storage::BlobView> Get(const Digest&) override { return Error{ErrorCode::kIo, "input/output error"}; }
    Result<bool> Contains(const Digest&) override { return Error{ErrorCode::kIo, "input/output error"}; }
  };
  ServiceSite site;
  site.Join("w1");
  std::string job = site.Submit(kSmallRecipe);
  site.Finish("w1");
  Unreadable blobs;
  auto service = Service::Create({&site.index, &blobs, &site.clock, ""}, {.config = {}, .host = "here"});
  ASSERT_TRUE(service.ok());
  EXPECT_EQ((*service)->scheduler().state().FindJob(job).value()->steps[0].name, "init");
  EXPECT_EQ((*service)->scheduler().state().FindStep((*service)->scheduler().state().FindJob(job).value()->steps[0].key)->state, StepState::kDone);
}

// ---- registry ----

TEST(RegistryOfARetriedJobTest, ADecisionPromotesOnce) {
  ServiceSite site;
  site.Join("w1");
  std::string job = site.Submit(kSmallRecipe);
  for (int i = 0; i < 100 && site.Get("models").empty(); ++i) site.Finish("w1");
  ASSERT_EQ(site.Get("models")[0]["versions"].size(), 1u);
  ASSERT_EQ(site.Get("list")[0]["state"], "running");  // its test evaluations
  site.Get("cancel", {{"job", job}});
  site.Get("promote", {{"name", "small"}, {"job", job}, {"step", "half/02-retrain"}});
  site.Get("retry", {{"job", job}});
  site.FinishAll();
  EXPECT_EQ(site.Get("list")[0]["state"], "done");
  Json versions = site.Get("models")[0]["versions"];
  ASSERT_EQ(versions.size(), 2u);
  EXPECT_THAT(versions[1]["aliases"].dump(), HasSubstr("champion"));
}

class RegistryTest : public testing::Test {
 protected:
  RegistryTest() {
    site.accuracy = [](const std::string& step) { return step.find("most") == 0 ? 89.9 : 90.0; };
    site.Join("w1");
    site.Submit(kSmallRecipe);
    site.FinishAll();
  }
  ServiceSite site;
};

TEST_F(RegistryTest, PromotingACandidateByHandMakesAVersionWithEvidenceAndKeepsThePrevious) {
  Json promoted = site.Get("promote", {{"name", "small"}, {"job", "last"}, {"step", "half/02-retrain"}});
  EXPECT_EQ(promoted, Json::parse(R"({"name": "small", "version": 2, "previous": 1})"));
  Json evidence = site.Get("resolve_model", {{"name", "small"}})["evidence"];
  EXPECT_EQ(evidence["reason"], "promoted by hand");
  EXPECT_EQ(evidence["validation_accuracy"], 90.0);
  // The same checkpoint again is the same version.
  EXPECT_EQ(site.Get("promote", {{"name", "small"}, {"job", "last"}, {"step", "half/02-retrain"}})["version"], 2);
}

TEST_F(RegistryTest, RollbackChangesPlacesWithThePrevious) {
  EXPECT_EQ(site.Ask("rollback", {{"name", "small"}}).code, "conflict");
  site.Get("promote", {{"name", "small"}, {"job", "last"}, {"step", "half/02-retrain"}});
  EXPECT_EQ(site.Get("rollback", {{"name", "small"}}), Json::parse(R"({"name": "small", "version": 1, "previous": 2})"));
  site.Restart();
  EXPECT_EQ(site.Get("resolve_model", {{"name", "small"}})["version"], 1);
  EXPECT_EQ(site.Get("rollback", {{"name", "small"}})["version"], 2);
}

TEST_F(RegistryTest, APromotionIsOneTransaction) {
  site.index.transactions.clear();
  site.Get("promote", {{"name", "small"}, {"job", "last"}, {"step", "half/02-retrain"}});
  ASSERT_EQ(site.index.transactions.size(), 1u);
  int versions = 0, aliases = 0;
  for (const storage::Row& row : site.index.transactions[0]) {
    versions += std::holds_alternative<storage::VersionRow>(row);
    aliases += std::holds_alternative<storage::AliasRow>(row);
  }
  EXPECT_EQ(versions, 1);
  EXPECT_EQ(aliases, 2);
}

TEST_F(RegistryTest, OfTwoPromotionsThatExpectTheSameChampionOneWins) {
  int won = 0, lost = 0;
  for (const char* step : {"half/02-retrain", "baseline"}) {
    Request request;
    request.method = "promote";
    request.args = {{"name", "small"}, {"job", "last"}, {"step", step}, {"expected", 1}};
    site.service->Receive("client", request);
  }
  site.sent.clear();
  site.Turn();
  for (const Send& send : site.sent) {
    auto* reply = std::get_if<Reply>(&send.message);
    if (reply == nullptr) continue;
    won += reply->ok;
    lost += !reply->ok && reply->code == "conflict";
  }
  EXPECT_EQ(won, 1);
  EXPECT_EQ(lost, 1);
  EXPECT_EQ(site.Get("models")[0]["versions"].size(), 2u);
  EXPECT_EQ(site.Ask("rollback", {{"name", "small"}, {"expected", 1}}).code, "conflict");
}

TEST_F(RegistryTest, TheHistoryTellsEveryChangeOfTheChampionAlsoAfterARestart) {
  site.Get("promote", {{"name", "small"}, {"job", "last"}, {"step", "half/02-retrain"}});
  site.Get("rollback", {{"name", "small"}});
  site.Restart();
  Json history = site.Get("model_history", {{"name", "small"}})["history"];
  ASSERT_EQ(history.size(), 3u);
  EXPECT_EQ(history[0]["action"], "promote");
  EXPECT_TRUE(history[0]["previous"].is_null());
  EXPECT_THAT(history[0]["text"], HasSubstr("decision of job"));
  EXPECT_EQ(history[1]["version"], 2);
  EXPECT_EQ(history[1]["previous"], 1);
  EXPECT_EQ(history[2]["action"], "rollback");
  EXPECT_EQ(history[2]["version"], 1);
  EXPECT_EQ(site.Ask("model_history", {{"name", "nobody"}}).code, "not_found");
}

TEST_F(RegistryTest, AVersionNamesItsStepAndWhereItCameFrom) {
  Json evidence = site.Get("resolve_model", {{"name", "small"}})["evidence"];
  ASSERT_EQ(evidence["lineage"].size(), 4u);
  std::string kinds;
  for (const Json& step : evidence["lineage"]) kinds += step["kind"].get<std::string>() + " ";
  EXPECT_EQ(kinds, "retrain prune train initialize ");
  EXPECT_EQ(evidence["lineage"][0]["step"], evidence["step_key"]);
}

TEST_F(RegistryTest, OfTwoPromotionsInOneTurnTheSecondIsTheChampionAndTheFirstItsPrevious) {
  for (const char* step : {"half/02-retrain", "baseline"}) {
    Request request;
    request.method = "promote";
    request.args = {{"name", "small"}, {"job", "last"}, {"step", step}};
    site.service->Receive("client", request);
  }
  site.Turn();
  Json versions = site.Get("models")[0]["versions"];
  ASSERT_EQ(versions.size(), 3u);
  EXPECT_EQ(versions[2]["aliases"], Json::parse(R"(["champion"])"));
  EXPECT_EQ(versions[1]["aliases"], Json::parse(R"(["previous"])"));
  EXPECT_TRUE(versions[0]["aliases"].empty());
}

}  // namespace
}  // namespace pare::coordinator
