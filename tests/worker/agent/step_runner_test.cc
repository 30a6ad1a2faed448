// Conformance suite of StepRunner, and what is particular to the runner process.
#include "worker/step_runner.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <functional>

#include "tests/worker/agent/scripted_step.h"
#include "worker/agent/fake_step_runner.h"
#include "worker/agent/process_step_runner.h"

namespace pare::worker {
namespace {

constexpr int kLongMs = 10'000;  // far more than anything takes; only a failing test waits for it

Assignment Script(std::vector<std::string> words, uint8_t key = 1) {
  Assignment assignment;
  assignment.key = StepKey(std::array<uint8_t, 32>{key});
  assignment.spec = {{"script", words}};
  return assignment;
}

std::unique_ptr<StepRunner> MakeFake() {
  return std::make_unique<FakeStepRunner>(PlayScript, [](const Assignment&) { return StoppedWithSnapshot(); });
}
std::unique_ptr<ProcessStepRunner> MakeProcess(const std::string& executable = ECHO_RUNNER) {
  return std::move(ProcessStepRunner::Create({.executable = executable})).value();
}

struct Kind {
  const char* name;
  std::function<std::unique_ptr<StepRunner>()> make;
};

class StepRunnerTest : public testing::TestWithParam<Kind> {
 protected:
  // Polls as the agent does: whenever the descriptor is readable. Until an event of type T has come.
  template <typename T>
  std::vector<RunnerEvent> Until() {
    std::vector<RunnerEvent> all;
    for (;;) {
      for (RunnerEvent& event : runner_->Poll()) all.push_back(std::move(event));
      if (!all.empty() && std::holds_alternative<T>(all.back())) return all;
      pollfd item{runner_->fd(), POLLIN, 0};
      if (runner_->fd() < 0 || poll(&item, 1, kLongMs) != 1) {
        ADD_FAILURE() << "the event did not come";
        return all;
      }
    }
  }
  void Launch() {
    runner_->Launch({"/store", ""});
    EXPECT_EQ(Until<RunnerReady>().size(), 1u);
  }

  std::unique_ptr<StepRunner> runner_ = GetParam().make();
};

TEST_P(StepRunnerTest, ReportsAStepFromProgressToDoneInOrder) {
  Launch();
  Assignment assignment = Script({"progress", "snapshot", "progress", "done"});
  runner_->Start(assignment);
  auto events = Until<StepDone>();
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(std::get<StepProgress>(events[0]).values["epoch"], 1);
  EXPECT_EQ(std::get<StepSnapshot>(events[1]).blob, SnapshotBlob());
  EXPECT_EQ(std::get<StepProgress>(events[2]).values["epoch"], 2);
  EXPECT_EQ(std::get<StepDone>(events[3]).artifact, DoneArtifact(assignment));
  EXPECT_EQ(std::get<StepDone>(events[3]).busy_ms, 12);
}

TEST_P(StepRunnerTest, RunsStepAfterStepAlsoAfterAFailure) {
  Launch();
  for (uint8_t key = 1; key <= 3; ++key) {
    runner_->Start(Script({"failed"}, key));
    auto events = Until<StepFailed>();
    EXPECT_EQ(std::get<StepFailed>(events.back()).error_class, "diverged");
    runner_->Start(Script({"done"}, key));
    events = Until<StepDone>();
    EXPECT_EQ(std::get<StepDone>(events.back()).artifact, DoneArtifact(Script({}, key)));
  }
}

TEST_P(StepRunnerTest, StopsWithASnapshotWhenAskedToKeep) {
  Launch();
  runner_->Start(Script({"progress", "wait"}));
  Until<StepProgress>();
  runner_->Stop(true);
  EXPECT_EQ(std::get<StepStopped>(Until<StepStopped>().back()).snapshot, SnapshotBlob());
}

TEST_P(StepRunnerTest, StopsWithoutASnapshotWhenNotAskedToKeep) {
  Launch();
  runner_->Start(Script({"wait"}));
  runner_->Stop(false);
  EXPECT_TRUE(std::get<StepStopped>(Until<StepStopped>().back()).snapshot.is_none());
}

TEST_P(StepRunnerTest, StopWithoutAStepDoesNothing) {
  Launch();
  runner_->Stop(true);
  runner_->Stop(false);
  runner_->Start(Script({"progress", "done"}));
  EXPECT_EQ(Until<StepDone>().size(), 2u);
}

TEST_P(StepRunnerTest, TellsThatTheRunnerIsLostAfterWhatItSaid) {
  Launch();
  runner_->Start(Script({"progress", "crash"}));
  auto events = Until<RunnerLost>();
  ASSERT_EQ(events.size(), 2u);
  EXPECT_TRUE(std::holds_alternative<StepProgress>(events[0]));
  EXPECT_FALSE(std::get<RunnerLost>(events[1]).message.empty());
}

TEST_P(StepRunnerTest, ALaunchBringsALostRunnerBack) {
  Launch();
  runner_->Start(Script({"crash"}));
  Until<RunnerLost>();
  Launch();
  runner_->Start(Script({"done"}));
  EXPECT_EQ(Until<StepDone>().size(), 1u);
}

TEST_P(StepRunnerTest, ALaunchEndsTheRunningStepWithoutAnEventOfIt) {
  Launch();
  runner_->Start(Script({"progress", "wait"}));
  runner_->Launch({"", "tcp://127.0.0.1:1"});
  EXPECT_EQ(Until<RunnerReady>().size(), 1u);
  runner_->Start(Script({"done"}));
  EXPECT_EQ(Until<StepDone>().size(), 1u);
}

INSTANTIATE_TEST_SUITE_P(StepRunners, StepRunnerTest,
                         testing::Values(Kind{"Fake", MakeFake}, Kind{"Process", [] { return MakeProcess(); }}),
                         [](const auto& kind) { return kind.param.name; });

// ---- the process ----

class ProcessStepRunnerTest : public testing::Test {
 protected:
  std::vector<RunnerEvent> Next() {
    for (;;) {
      auto events = runner_->Poll();
      if (!events.empty()) return events;
      pollfd item{runner_->fd(), POLLIN, 0};
      if (poll(&item, 1, kLongMs) != 1) return {};
    }
  }
  std::string NextLoss() {
    auto events = Next();
    auto* lost = events.empty() ? nullptr : std::get_if<RunnerLost>(&events.back());
    return lost ? lost->message : "no loss";
  }
  void Launch() {
    runner_->Launch({"/store", ""});
    ASSERT_TRUE(std::holds_alternative<RunnerReady>(Next().at(0)));
  }

  std::unique_ptr<ProcessStepRunner> runner_ = MakeProcess();
};

TEST_F(ProcessStepRunnerTest, AMissingExecutableIsALostRunner) {
  runner_ = MakeProcess("/no/such/pare-runner");
  runner_->Launch({"/store", ""});
  EXPECT_NE(NextLoss().find("/no/such/pare-runner"), std::string::npos);
}

TEST_F(ProcessStepRunnerTest, AnExecutableThatEndsAtOnceIsALostRunner) {
  runner_ = MakeProcess("/bin/false");
  runner_->Launch({"/store", ""});
  EXPECT_EQ(NextLoss(), "exited with code 1");
}

TEST_F(ProcessStepRunnerTest, AKilledRunnerIsLostWithItsSignalAndNotForMemory) {
  Launch();
  kill(runner_->pid(), SIGKILL);
  auto events = Next();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(std::get<RunnerLost>(events[0]).message, "killed by signal 9 (Killed)");
  EXPECT_FALSE(std::get<RunnerLost>(events[0]).out_of_memory);
  EXPECT_EQ(runner_->pid(), -1);
}

TEST_F(ProcessStepRunnerTest, ARunnerThatTalksNonsenseIsLostAndEnded) {
  Launch();
  int pid = runner_->pid();
  runner_->Start(Script({"garbage"}));
  EXPECT_NE(NextLoss().find("unknown event 'dance'"), std::string::npos);
  EXPECT_EQ(kill(pid, 0), -1) << "the process lives on";
}

TEST_F(ProcessStepRunnerTest, ARunnerThatClosesItsPipeIsLostAndEnded) {
  Launch();
  int pid = runner_->pid();
  runner_->Start(Script({"close"}));
  EXPECT_NE(NextLoss().find("closed its pipe"), std::string::npos);
  EXPECT_EQ(kill(pid, 0), -1) << "the process lives on";
}

TEST_F(ProcessStepRunnerTest, StepsRunWithOneThreadInsideLibraries) {
  runner_->Launch({"/store", ""});
  EXPECT_EQ(std::get<RunnerReady>(Next().at(0)).device, "cpu, OMP_NUM_THREADS=1");
}

TEST_F(ProcessStepRunnerTest, AnAssignmentLargerThanTheSocketBufferArrives) {
  Launch();
  Assignment assignment = Script({"done"});
  assignment.hints = {{"padding", std::string(2 << 20, 'x')}};
  runner_->Start(assignment);
  auto events = Next();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_TRUE(std::holds_alternative<StepDone>(events[0]));
}

TEST_F(ProcessStepRunnerTest, TheRunnerEndsWithItsOwner) {
  Launch();
  int pid = runner_->pid();
  runner_.reset();
  EXPECT_EQ(kill(pid, 0), -1);
}

// A process that owns a runner is killed: the runner must go, too. Its end is the end of the pipe whose write end only it
// and its owner hold.
TEST(ProcessStepRunnerOrphanTest, TheRunnerDiesWithTheAgent) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);  // inherited by the runner, on purpose
  int owner = fork();
  ASSERT_GE(owner, 0);
  if (owner == 0) {
    auto runner = MakeProcess();
    runner->Launch({"/store", ""});
    for (;;) {
      pollfd item{runner->fd(), POLLIN, 0};
      poll(&item, 1, kLongMs);
      if (!runner->Poll().empty()) (void)!write(ends[1], "r", 1);
    }
  }
  close(ends[1]);
  char byte;
  ASSERT_EQ(read(ends[0], &byte, 1), 1);
  kill(owner, SIGKILL);
  waitpid(owner, nullptr, 0);
  pollfd item{ends[0], POLLIN, 0};
  ASSERT_EQ(poll(&item, 1, kLongMs), 1) << "the runner lives on";
  EXPECT_EQ(read(ends[0], &byte, 1), 0);
  close(ends[0]);
}

}  // namespace
}  // namespace pare::worker
