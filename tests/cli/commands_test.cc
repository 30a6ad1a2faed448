// Every command on a store with one finished job: its text, its JSON, its exit code.
#include <gmock/gmock.h>

#include <algorithm>
#include <filesystem>

#include "common/digest.h"
#include "tests/cli/fixture.h"

namespace pare::cli {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class CommandsTest : public FinishedStoreTest {};

void ExpectFields(const Json& object, const std::vector<std::string>& fields) {
  ASSERT_TRUE(object.is_object()) << object.dump();
  for (const std::string& field : fields) EXPECT_TRUE(object.contains(field)) << field << " is missing in " << object.dump();
}

TEST_F(CommandsTest, ListIsAnArrayNewestFirst) {
  Pare({"submit", recipe()}, store());
  Json jobs = Ask({"list"}, store());
  ASSERT_EQ(jobs.size(), 2u);
  for (const Json& job : jobs) ExpectFields(job, {"id", "name", "state", "created", "finished", "steps_done", "steps_total", "message"});
  EXPECT_GE(jobs[0]["created"].get<std::string>(), jobs[1]["created"].get<std::string>());
  EXPECT_EQ(Ask({"describe", "last"}, store())["id"], jobs[0]["id"]);
  EXPECT_THAT(Pare({"list"}, store()).out, HasSubstr(jobs[1]["id"].get<std::string>() + "  small  done   "));
}

TEST_F(CommandsTest, AJobIsNamedByIdPrefixOrLast) {
  std::string id = Ask({"list"}, store())[0]["id"];
  for (const std::string& name : {id, id.substr(0, 4), std::string("last")}) EXPECT_EQ(Ask({"describe", name}, store())["id"], id) << name;
  EXPECT_EQ(Ask({"describe"}, store())["id"], id) << "last is the default";
}

TEST_F(CommandsTest, AmbiguousPrefixNamesTheJobsItFits) {
  Pare({"submit", recipe()}, store());
  Outcome outcome = Pare({"describe", "j"}, store());
  EXPECT_EQ(outcome.code, 2);
  EXPECT_EQ(outcome.out, "");
  for (const Json& job : Ask({"list"}, store())) EXPECT_THAT(outcome.err, HasSubstr(job["id"].get<std::string>()));
}

TEST_F(CommandsTest, UnknownJobIsNotFound) {
  for (const char* command : {"describe", "watch", "logs", "pause", "resume", "cancel", "retry", "report", "digest"}) {
    Outcome outcome = Pare({command, "j000"}, store());
    EXPECT_EQ(outcome.code, 3) << command;
    EXPECT_EQ(outcome.out, "") << command;
    EXPECT_EQ(outcome.err, "pare: there is no job 'j000': a job is named by its id, a unique prefix of it, or 'last'\n") << command;
    EXPECT_EQ(Ask({command, "j000"}, store(), 3)["error"]["code"], "not_found") << command;
  }
}

TEST_F(CommandsTest, DescribeHasStepsWithAttempts) {
  Json job = Ask({"describe"}, store());
  ExpectFields(job, {"id", "name", "state", "created", "finished", "steps", "workers", "recipe"});
  ASSERT_FALSE(job["steps"].empty());
  for (const Json& step : job["steps"]) {
    ExpectFields(step, {"name", "variant", "kind", "key", "state", "reused", "artifact", "error_class", "message", "progress", "reason", "attempts"});
    for (const Json& attempt : step["attempts"]) ExpectFields(attempt, {"attempt", "worker", "started", "ended", "busy_ms", "outcome", "error_class", "message"});
  }
  EXPECT_THAT(Pare({"describe"}, store()).out, StartsWith("job " + job["id"].get<std::string>() + " small: done\n"));
}

TEST_F(CommandsTest, ReportHasBaselineCandidatesAndPromotion) {
  Json report = Ask({"report"}, store());
  ExpectFields(report, {"job", "state", "baseline", "candidates", "promoted"});
  ExpectFields(report["baseline"], {"validation_accuracy", "test_accuracy", "parameters", "bytes"});
  EXPECT_EQ(report["baseline"]["parameters"], 64 * 16 + 16 + 16 * 4 + 4);
  ASSERT_EQ(report["candidates"].size(), 3u);
  for (const Json& candidate : report["candidates"]) {
    ExpectFields(candidate, {"variant", "step", "sparsity", "validation_accuracy", "parameters_nonzero", "bytes", "artifact"});
  }
  ExpectFields(report["promoted"], {"name", "version", "artifact", "test_accuracy", "reason", "path"});
  EXPECT_EQ(report["promoted"]["name"], "small");
  EXPECT_EQ(report["promoted"]["version"], 1);
  EXPECT_TRUE(fs::exists(report["promoted"]["path"].get<std::string>()));
  EXPECT_THAT(Pare({"report"}, store()).out, HasSubstr("promoted " + report["promoted"]["step"].get<std::string>() + " as small@1: "));
}

TEST_F(CommandsTest, DigestTotalIsTheSha256OfItsLines) {
  Json digest = Ask({"digest"}, store());
  ExpectFields(digest, {"lines", "total", "complete"});
  std::string text, summed;
  std::string last_name;
  for (const Json& line : digest["lines"]) {
    std::string name = line["name"];
    EXPECT_LT(last_name, name) << "in name order";
    last_name = name;
    summed += name + " " + line["key"].get<std::string>() + " " + line["artifact"].get<std::string>() + "\n";
  }
  EXPECT_EQ(digest["total"], DigestOf(std::string_view(summed)).hex());
  EXPECT_EQ(Pare({"digest"}, store()).out, summed + "total " + digest["total"].get<std::string>() + "\n");
}

TEST_F(CommandsTest, WatchOfAFinishedJobIsItsReport) {
  EXPECT_EQ(Ask({"watch"}, store()), Ask({"report"}, store()));
  Outcome outcome = Pare({"watch"}, store());
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.out, Pare({"report"}, store()).out);
  EXPECT_EQ(outcome.err, "");
}

TEST_F(CommandsTest, LogsTellTheHistoryInOrder) {
  Json events = Ask({"logs"}, store());
  ASSERT_GE(events.size(), 3u);
  for (const Json& event : events) ExpectFields(event, {"sequence", "at", "level", "step", "text"});
  EXPECT_EQ(events.front()["text"], "submitted");
  EXPECT_EQ(events.back()["text"], "done");
  Outcome followed = Pare({"logs", "-f"}, store());
  EXPECT_EQ(followed.code, 0) << "following a finished job ends";
  EXPECT_EQ(followed.out, Pare({"logs"}, store()).out);
}

TEST_F(CommandsTest, ShowTellsWhatAStepLeft) {
  Json shown = Ask({"show", "baseline"}, store());
  ExpectFields(shown, {"job", "step", "key", "kind", "artifact", "files", "results"});
  EXPECT_EQ(shown["kind"], "train");
  EXPECT_TRUE(shown["results"]["parameters"].is_number_integer());
  EXPECT_EQ(Ask({"show", shown["key"].get<std::string>().substr(0, 12)}, store())["step"], "baseline");
  std::string text = Pare({"show", "baseline"}, store()).out;
  EXPECT_THAT(text, testing::StartsWith("train baseline of job "));
  EXPECT_THAT(text, HasSubstr("\nlayers\n"));
  Outcome unknown = Pare({"show", "nothing"}, store());
  EXPECT_EQ(unknown.code, 3);
  EXPECT_THAT(unknown.err, HasSubstr("has no step 'nothing'"));
}

TEST_F(CommandsTest, WhyTakesANameOrAKey) {
  Json by_name = Ask({"why", "baseline"}, store());
  ExpectFields(by_name, {"step", "key", "state", "decision", "reason", "since", "waiting_for"});
  EXPECT_EQ(by_name["state"], "done");
  EXPECT_EQ(Ask({"why", by_name["key"].get<std::string>().substr(0, 12)}, store())["key"], by_name["key"]);
  // Since its result was recorded, whenever the question is asked.
  Json steps = Ask({"describe"}, store())["steps"];
  auto baseline = std::find_if(steps.begin(), steps.end(), [](const Json& s) { return s["name"] == "baseline"; });
  ASSERT_NE(baseline, steps.end());
  std::string since = (*baseline)["attempts"].back()["ended"];
  EXPECT_EQ(by_name["since"], since);
  EXPECT_EQ(Pare({"why", "baseline"}, store()).out, "baseline: done since " + since + "\n  it is done\n");
  Outcome unknown = Pare({"why", "nothing"}, store());
  EXPECT_EQ(unknown.code, 3);
  EXPECT_THAT(unknown.err, HasSubstr("there is no step 'nothing'"));
}

TEST_F(CommandsTest, AFinishedJobIsNotChanged) {
  for (const char* command : {"pause", "resume", "cancel", "retry"}) {
    Outcome outcome = Pare({command}, store());
    EXPECT_EQ(outcome.code, 1) << command;
    EXPECT_THAT(outcome.err, HasSubstr(" is done: it cannot be ")) << command;
  }
}

TEST_F(CommandsTest, PauseResumeCancelOfAWaitingJob) {
  std::string id = Ask({"submit", WriteRecipe("other.yaml", {.name = "other", .epochs = 3})}, store())["job"];
  for (auto [command, state] : {std::pair("pause", "paused"), std::pair("resume", "running"), std::pair("cancel", "cancelled")}) {
    Json change = Ask({command, id}, store());
    EXPECT_EQ(change, (Json{{"job", id}, {"state", state}}));
    EXPECT_EQ(Ask({"list"}, store())[0]["state"], state);
  }
}

TEST_F(CommandsTest, WatchingWhatNobodyRunsEndsAtOnce) {
  Ask({"submit", WriteRecipe("other.yaml", {.name = "other", .epochs = 3})}, store());
  for (std::vector<std::string> command : {std::vector<std::string>{"watch"}, {"logs", "-f"}}) {
    Outcome outcome = Pare(command, store());
    EXPECT_EQ(outcome.code, 4);
    EXPECT_THAT(outcome.err, HasSubstr("no coordinator"));
  }
  Outcome submit = Pare({"submit", recipe(), "--wait"}, store());
  EXPECT_EQ(submit.code, 4);
  EXPECT_THAT(submit.err, HasSubstr("use `pare run " + recipe() + "`, which brings its own"));
}

TEST_F(CommandsTest, ModelsArePromotedAndRolledBack) {
  Json models = Ask({"models"}, store());
  ASSERT_EQ(models.size(), 1u);
  ExpectFields(models[0]["versions"][0], {"version", "artifact", "job", "step", "created", "aliases", "evidence"});
  Json promoted = Ask({"promote", "small", "--step", "iterative/02-retrain"}, store());
  EXPECT_EQ(promoted, (Json{{"name", "small"}, {"version", 2}, {"previous", 1}}));
  EXPECT_EQ(Pare({"rollback", "small"}, store()).out, "small: champion is now version 1, before it was 2\n");
  EXPECT_EQ(Pare({"promote", "small", "--version", "2"}, store()).out, "small: champion is now version 2, before it was 1\n");
  std::string table = Pare({"models"}, store()).out;
  EXPECT_THAT(table, HasSubstr("small        2  champion"));
}

TEST_F(CommandsTest, UnknownModelsAndVersionsAreNotFound) {
  EXPECT_EQ(Pare({"promote", "small", "--version", "9"}, store()).code, 3);
  EXPECT_EQ(Pare({"promote", "small", "--step", "no/step"}, store()).code, 3);
  EXPECT_EQ(Pare({"rollback", "unknown"}, store()).code, 3);
  EXPECT_EQ(Pare({"export", "unknown", "out"}, store()).code, 3);
  EXPECT_EQ(Pare({"export", "small@9", "out"}, store()).code, 3);
  EXPECT_FALSE(fs::exists(Path("out")));
  EXPECT_EQ(Pare({"rollback", "small"}, store()).code, 1) << "there is nothing to go back to";
}

TEST_F(CommandsTest, ExportWritesTensorsGraphAndConfig) {
  Json exported = Ask({"export", "small", "out"}, store());
  ExpectFields(exported, {"directory", "name", "version", "artifact"});
  EXPECT_EQ(exported["directory"], Path("out"));
  Json config = Parsed(Read(Path("out/config.json")));
  ExpectFields(config, {"name", "version", "artifact", "evidence", "results"});
  EXPECT_EQ(config["artifact"], Ask({"report"}, store())["promoted"]["artifact"]);
  EXPECT_FALSE(Parsed(Read(Path("out/graph.json"))).empty());
  std::string tensors = Read(Path("out/model.safetensors"));
  EXPECT_THAT(tensors.substr(8, 4096), HasSubstr("fc1.weight"));
}

TEST_F(CommandsTest, ExportReplacesNothingButAnExport) {
  fs::create_directory(Path("out"));
  Write("out/letter.txt", "mine");
  for (const char* force : {"--json", "--force"}) {
    Outcome outcome = Pare({"export", "small", "out", force}, store());
    EXPECT_EQ(outcome.code, 2);
    EXPECT_EQ(Read(Path("out/letter.txt")), "mine");
    EXPECT_FALSE(fs::exists(Path("out/model.safetensors")));
  }
  EXPECT_EQ(Pare({"export", "small", "other"}, store()).code, 0);
  EXPECT_EQ(Pare({"export", "small", "other"}, store()).code, 2);
  EXPECT_EQ(Pare({"export", "small", "other", "--force"}, store()).code, 0);
  EXPECT_FALSE(fs::exists(Path("other.pare-partial")));
}

TEST_F(CommandsTest, ExportOfADamagedCheckpointLeavesNothing) {
  std::string path = Ask({"report"}, store())["promoted"]["path"];
  fs::permissions(path, fs::perms::owner_write, fs::perm_options::add);
  fs::resize_file(path, fs::file_size(path) - 1);
  Outcome outcome = Pare({"export", "small", "out"}, store());
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("small"));
  EXPECT_FALSE(fs::exists(Path("out")));
  EXPECT_FALSE(fs::exists(Path("out.pare-partial")));
}

TEST_F(CommandsTest, SubmitOfCachedWorkIsDoneAtOnce) {
  Json submitted = Ask({"submit", recipe()}, store());
  ExpectFields(submitted, {"job", "resumed", "warnings", "steps", "cached"});
  EXPECT_EQ(submitted["steps"], submitted["cached"]);
  EXPECT_EQ(Ask({"list"}, store())[0]["state"], "done");
}

TEST_F(CommandsTest, RunWithJsonPrintsTheReportAlone) {
  Json report = Ask({"run", recipe()}, store());
  EXPECT_EQ(report["state"], "done");
  EXPECT_EQ(report["work"]["steps_run"], 0);
}

TEST_F(CommandsTest, DoctorChecksAndChangesNothing) {
  Json checks = Ask({"doctor"}, Path("nowhere"));
  std::vector<std::string> names;
  for (const Json& check : checks) {
    ExpectFields(check, {"check", "level", "text"});
    names.push_back(check["check"]);
    EXPECT_NE(check["level"], "fail") << check.dump();
  }
  EXPECT_THAT(names, ::testing::IsSupersetOf({"libtorch", "store", "space", "clock", "device"}));
  EXPECT_FALSE(fs::exists(Path("nowhere")));
  EXPECT_THAT(Pare({"doctor"}, store()).out, HasSubstr("OK    store          " + store() + " is writable"));
}

TEST_F(CommandsTest, DoctorFailsWhereTheStoreCannotBeWritten) {
  Write("file", "");
  Outcome outcome = Pare({"doctor"}, Path("file/store"));
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.out, HasSubstr("FAIL  store "));
}

TEST_F(CommandsTest, VersionNamesProtocolAndEngine) {
  Json version = Ask({"version"}, store());
  ExpectFields(version, {"pare", "protocol", "engine"});
  EXPECT_EQ(Run({"pare", "--version"}).out, "pare " + version["pare"].get<std::string>() + "\n");
}

TEST_F(CommandsTest, CommandsWaitForEachOther) {
  std::vector<Started> commands;
  for (int i = 0; i < 8; ++i) commands.push_back(Start({"pare", "list", "--store", store()}));
  for (Started& command : commands) EXPECT_EQ(command.Finish().code, 0);
}

}  // namespace
}  // namespace pare::cli
