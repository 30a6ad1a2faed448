// Real processes, real images: what a user does, and what happens when processes are killed. Needs the built executables and
// the fashion-mnist package (named in the skip).
#include <fcntl.h>
#include <signal.h>

#include <cstdlib>
#include <set>

#include "tests/integration/process_tree.h"
#include "tests/integration/run_fixture.h"

namespace pare {
namespace {

class EndToEndTest : public RunFixture {};

TEST_F(EndToEndTest, DigestIsTheSameForAnyWorkersAndThreads) {
  std::string reference = Reference();
  EXPECT_NE(reference.find("total "), std::string::npos);
  for (auto [workers, threads] : {std::pair(1, 1), std::pair(1, 2), std::pair(3, 1)}) {
    std::string store = "w" + std::to_string(workers) + "t" + std::to_string(threads);
    Outcome outcome = Call(RunArguments(store, workers, threads));
    EXPECT_EQ(outcome.code, 0) << outcome.out;
    EXPECT_EQ(DigestOfRun(store), reference) << workers << " workers, " << threads << " threads";
  }
}

TEST_F(EndToEndTest, RunningAgainTrainsNothing) {
  std::string reference = Reference();
  Outcome again = Call({"pare", "run", Path("recipe.yaml"), "--store", Path("reference"), "--json"});
  ASSERT_EQ(again.code, 0) << again.out;
  size_t brace = again.out.find('{');
  ASSERT_NE(brace, std::string::npos);
  auto report = ParseJson(again.out.substr(brace, again.out.rfind('}') - brace + 1), "report");
  ASSERT_TRUE(report.ok()) << again.out;
  EXPECT_EQ((*report)["work"]["steps_run"], 0);
  EXPECT_EQ(DigestOfRun("reference"), reference);
}

class KillTest : public EndToEndTest, public ::testing::WithParamInterface<const char*> {};

// The victim is killed several times while `pare run` supervises: the run ends by itself with the same digest.
TEST_P(KillTest, DigestSurvivesKillsOf) {
  std::string reference = Reference();
  RandomStream random(17, RandomPurpose::kTest);
  auto run = Start(RunArguments("killed"), Path("killed.log"));
  for (int kill = 0; kill < 3; ++kill) {
    if (run->Wait(Millis(300 + static_cast<int64_t>(random.Below(700))))) break;
    std::vector<int> victims = Descendants(run->pid(), GetParam());
    if (!victims.empty()) ::kill(victims[random.Below(victims.size())], SIGKILL);
  }
  ASSERT_TRUE(run->Wait(Millis(120'000))) << ReadFile(Path("killed.log")).value();
  EXPECT_EQ(run->code(), 0) << ReadFile(Path("killed.log")).value();
  EXPECT_EQ(DigestOfRun("killed"), reference);
}
INSTANTIATE_TEST_SUITE_P(EachKind, KillTest, ::testing::Values("pare-runner", "pare-worker", "pare-coordinator"));

TEST_F(EndToEndTest, ACoordinatorKilledWhileItStartsIsStartedAgain) {
  std::string reference = Reference();
  auto run = Start(RunArguments("early"), Path("early.log"));
  std::set<int> killed;
  while (killed.size() < 3 && !run->Wait(Millis(2))) {
    for (int victim : Descendants(run->pid(), "pare-coordinator")) {
      if (killed.insert(victim).second) ::kill(victim, SIGKILL);
    }
  }
  EXPECT_EQ(killed.size(), 3u);
  ASSERT_TRUE(run->Wait(Millis(120'000))) << ReadFile(Path("early.log")).value();
  EXPECT_EQ(run->code(), 0) << ReadFile(Path("early.log")).value();
  EXPECT_EQ(DigestOfRun("early"), reference);
}

TEST_F(EndToEndTest, SameCommandResumesAfterTheWholeTreeWasKilled) {
  std::string reference = Reference();
  RandomStream random(5, RandomPurpose::kTest);
  for (int i = 0; i < 4; ++i) {
    auto run = Start(RunArguments("resumed"), Path("resumed.log"));
    if (run->Wait(Millis(500 + static_cast<int64_t>(random.Below(900))))) break;
    run->Signal(SIGKILL);  // its children die with it
    run->Wait(Millis(5'000));
  }
  Outcome last = Call(RunArguments("resumed"));
  EXPECT_EQ(last.code, 0) << last.out;
  EXPECT_EQ(DigestOfRun("resumed"), reference);
}

// What the coordinator printed when it served: any free port is its own choice.
std::string EndpointOf(Process& coordinator, const std::string& log) {
  while (!coordinator.Wait(Millis(20))) {
    std::string text = ReadFile(log).value();
    size_t at = text.find("ready {"), end = at == std::string::npos ? at : text.find('\n', at);
    if (end == std::string::npos) continue;
    return ParseJson(text.substr(at + 6, end - at - 6), "ready")->at("endpoint");
  }
  ADD_FAILURE() << "the coordinator has ended: " << ReadFile(log).value();
  return "";
}

TEST_F(EndToEndTest, ClusterStartedByHandSurvivesALostWorker) {
  std::string reference = Reference();
  auto coordinator = Start({"pare-coordinator", "--store", Path("hand"), "--listen", "tcp://127.0.0.1:0", "--lease-timeout-ms", "2000"}, Path("coordinator.log"));
  std::string endpoint = EndpointOf(*coordinator, Path("coordinator.log"));
  auto describe = [&] {
    Outcome described = Call({"pare", "describe", "last", "--coordinator", endpoint});
    EXPECT_EQ(described.code, 0) << described.out;
    return described.out;
  };
  auto first = Start({"pare-worker", "--coordinator", endpoint, "--name", "first"}, Path("worker1.log"));
  ASSERT_EQ(Call({"pare", "submit", Path("recipe.yaml"), "--coordinator", endpoint}).code, 0);
  // Stopped, it reports nothing any more; if a step of it still counts as running then, the kill hits that step.
  for (bool running = false; !running;) {
    ASSERT_FALSE(first->Wait(Millis(50)).has_value()) << ReadFile(Path("worker1.log")).value();
    first->Signal(SIGSTOP);
    describe();
    std::string text = describe();
    ASSERT_NE(text.find(": running\n"), std::string::npos) << "the job is over already:\n" << text;
    running = text.substr(text.find('\n')).find(" running ") != std::string::npos;
    if (!running) first->Signal(SIGCONT);
  }
  first->Signal(SIGKILL);
  auto second = Start({"pare-worker", "--coordinator", endpoint, "--name", "second"}, Path("worker2.log"));
  auto wait = Start({"pare", "watch", "last", "--coordinator", endpoint}, Path("watch.log"));
  ASSERT_TRUE(wait->Wait(Millis(120'000))) << ReadFile(Path("coordinator.log")).value();
  EXPECT_EQ(wait->code(), 0) << ReadFile(Path("watch.log")).value();
  EXPECT_EQ(Call({"pare", "digest", "last", "--coordinator", endpoint}).out, reference);
  std::string text = describe();
  EXPECT_NE(text.find("attempt 1 on first: lost (worker_lost: no word from "), std::string::npos) << text;
}

// A coordinator that was killed keeps its store for as long as the kernel takes to end it, and answers nobody.
TEST_F(EndToEndTest, ARunWaitsForACoordinatorThatIsEnding) {
  Reference();
  std::string text = R"({"blob_endpoint":"ipc://)" + Path("gone.sock") + R"(","endpoint":"ipc://)" + Path("gone.sock") + R"(","pid":1,"version":"0"})";
  std::ofstream(Path("reference/lock")) << text;
  UniqueFd held(::open(Path("reference/lock").c_str(), O_RDWR | O_CLOEXEC));
  struct flock lock{};
  lock.l_type = F_WRLCK;
  lock.l_len = 1;
  ASSERT_EQ(::fcntl(held.get(), F_OFD_SETLK, &lock), 0);
  auto run = Start(RunArguments("reference"), Path("again.log"));
  EXPECT_FALSE(run->Wait(Millis(1000))) << ReadFile(Path("again.log")).value();
  held.reset();
  EXPECT_TRUE(run->Wait(Millis(60'000)));
  EXPECT_EQ(run->code(), 0) << ReadFile(Path("again.log")).value();
}

TEST_F(EndToEndTest, ARunTakesOverFromTheCoordinatorThatItFound) {
  std::string reference = Reference();
  auto coordinator = Start({"pare-coordinator", "--store", Path("found"), "--lease-timeout-ms", "2000"}, Path("coordinator.log"));
  EndpointOf(*coordinator, Path("coordinator.log"));
  auto run = Start(RunArguments("found"), Path("run.log"));
  while (ReadFile(Path("run.log")).value().find("job ") == std::string::npos && !run->Wait(Millis(20))) {}
  coordinator->Signal(SIGTERM);
  ASSERT_TRUE(coordinator->Wait(Millis(30'000)));
  ASSERT_TRUE(run->Wait(Millis(120'000))) << ReadFile(Path("run.log")).value();
  EXPECT_EQ(run->code(), 0) << ReadFile(Path("run.log")).value();
  EXPECT_NE(ReadFile(Path("run.log")).value().find("has ended; this command runs one now"), std::string::npos) << ReadFile(Path("run.log")).value();
  EXPECT_EQ(DigestOfRun("found"), reference);
}

TEST_F(EndToEndTest, ExitCodesSayWhatHappened) {
  std::ofstream(directory_ / "bad.yaml") << "version: 1\nname: x\nmodle: {}\n";
  Outcome bad = Call({"pare", "run", Path("bad.yaml"), "--store", Path("none")});
  EXPECT_EQ(bad.code, 2);
  EXPECT_NE(bad.out.find("bad.yaml:3:1"), std::string::npos) << bad.out;
  EXPECT_NE(bad.out.find("did you mean 'model'"), std::string::npos) << bad.out;
  EXPECT_FALSE(std::filesystem::exists(Path("none"))) << "a bad recipe must not create a store";
  EXPECT_EQ(Call({"pare", "list", "--store", Path("none")}).code, 3);
  EXPECT_EQ(Call({"pare", "run"}).code, 2);
}

}  // namespace
}  // namespace pare
