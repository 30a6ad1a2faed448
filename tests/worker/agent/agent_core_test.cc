// Every arrow of the diagrams in agent_core.h: build a state, apply an event, compare the actions.
#include <algorithm>

#include "tests/worker/agent/agent_core_fixture.h"

namespace pare::worker {
namespace {

// ---- connection ----

TEST_F(AgentCoreTest, TheFirstEventSaysHello) {
  auto hello = Sent<Hello>(Do(Tick{}));
  ASSERT_EQ(hello.size(), 1u);
  EXPECT_EQ(hello[0], (Hello{"worker-1", std::string(kPareVersion), "here", "cpu", 2, {}, {}}));
}

TEST_F(AgentCoreTest, RepeatsHelloEverMoreRarelyUntilTheWelcome) {
  Do(Tick{});
  std::vector<int64_t> at;
  for (int ms = 100; ms <= 30'000; ms += 100) {
    if (!Sent<Hello>(After(Millis(100))).empty()) at.push_back(ms);
  }
  EXPECT_EQ(at, (std::vector<int64_t>{500, 1500, 3500, 7500, 12500, 17500, 22500, 27500}));
  Get(WelcomeMessage());
  EXPECT_TRUE(Sent<Hello>(Live(Millis(10'000))).empty());
}

TEST_F(AgentCoreTest, SendsHeartbeatsAtTheIntervalOfTheWelcome) {
  Run();
  auto beats = Sent<Heartbeat>(Live(Millis(5000)));
  EXPECT_EQ(beats.size(), 10u);
  EXPECT_EQ(beats[0], (Heartbeat{"worker-1", {kLease}, {kInput}}));
}

TEST_F(AgentCoreTest, SilenceOfTwoHeartbeatsIsAnsweredWithHelloAndNothingElse) {
  Run();
  Actions actions = After(Millis(1000));
  EXPECT_TRUE(Sent<Hello>(actions).empty());
  actions = After(Millis(1));
  ASSERT_EQ(Sent<Hello>(actions).size(), 1u);
  EXPECT_EQ(Sent<Hello>(actions)[0].running, std::vector<Lease>{kLease});
  EXPECT_TRUE(All<EndStep>(actions).empty()) << "the step goes on";
  Report(StepProgress{{{"epoch", 1}}});
  for (int i = 0; i < 20; ++i) {
    for (const SendMessage& send : All<SendMessage>(After(Millis(200)))) EXPECT_EQ(TypeOf(send.message), "hello");
  }
}

TEST_F(AgentCoreTest, AWelcomeAfterSilenceSendsEverythingAgain) {
  Run();
  Report(StepProgress{{{"epoch", 1}}});
  Report(StepSnapshot{DigestOf("s"), {{"batch", 3}}});
  After(Millis(1001));
  Report(StepDone{kArtifact, {{"kind", "train"}}, 900});
  Actions actions = Get(WelcomeMessage());
  EXPECT_EQ(Sent<Progress>(actions).size(), 1u);
  EXPECT_EQ(Sent<SnapshotTaken>(actions), (std::vector<SnapshotTaken>{{kLease, 1, DigestOf("s"), {{"batch", 3}}}}));
  EXPECT_EQ(Sent<StepFinished>(actions), (std::vector<StepFinished>{{kLease, kArtifact, {{"kind", "train"}}, 900}}));
}

TEST_F(AgentCoreTest, ACoordinatorThatDoesNotKnowTheWorkerHearsHelloAtOnce) {
  Run();
  Live(Millis(1000));
  auto hello = Sent<Hello>(Get(Refused{"not_found", "who are you?"}));
  ASSERT_EQ(hello.size(), 1u);
  EXPECT_EQ(hello[0].running, std::vector<Lease>{kLease});
  EXPECT_TRUE(All<SendMessage>(Get(Refused{"not_found", "who are you?"})).empty()) << "one Hello is on its way";
}

TEST_F(AgentCoreTest, ARefusalForGoodEndsTheAgent) {
  Do(Tick{});
  auto end = All<EndAgent>(Get(Refused{"version", "speaks 9"}));
  ASSERT_EQ(end.size(), 1u);
  EXPECT_TRUE(end[0].failed);
  EXPECT_NE(end[0].message.find("speaks 9"), std::string::npos);
}

TEST_F(AgentCoreTest, AnotherProtocolVersionEndsTheAgent) {
  auto end = All<EndAgent>(Do(WrongVersion{"they speak 2"}));
  ASSERT_EQ(end.size(), 1u);
  EXPECT_TRUE(end[0].failed);
}

TEST_F(AgentCoreTest, ANameInUseIsTriedAgainForAWhile) {
  Do(Tick{});
  EXPECT_TRUE(All<EndAgent>(Get(Refused{"conflict", "in use"})).empty());
  EXPECT_FALSE(Sent<Hello>(After(Millis(1000))).empty());
  now_ += kConflictPatience;
  EXPECT_EQ(All<EndAgent>(Get(Refused{"conflict", "in use"})).size(), 1u);
}

TEST_F(AgentCoreTest, AnEndedConflictIsForgotten) {
  Do(Tick{});
  Get(Refused{"conflict", "in use"});
  Get(WelcomeMessage());
  now_ += kConflictPatience;
  EXPECT_TRUE(All<EndAgent>(Get(Refused{"conflict", "in use"})).empty());
}

// ---- runner ----

TEST_F(AgentCoreTest, LaunchesTheRunnerWithTheStoreOfTheWelcome) {
  EXPECT_TRUE(All<LaunchRunner>(Do(Tick{})).empty());
  auto launch = All<LaunchRunner>(Get(WelcomeMessage()));
  ASSERT_EQ(launch.size(), 1u);
  EXPECT_EQ(launch[0].source, (RunnerSource{"/store", ""}));
}

TEST_F(AgentCoreTest, LaunchesWithTheBlobServiceWhenTheStoreIsOutOfReach) {
  Do(Tick{});
  auto launch = All<LaunchRunner>(Get(Welcome{500, 5000, "", "there", "tcp://blobs:1", {}}));
  ASSERT_EQ(launch.size(), 1u);
  EXPECT_EQ(launch[0].source, (RunnerSource{"", "tcp://blobs:1"}));
}

TEST_F(AgentCoreTest, EndsWhenThereIsNoWayToTheBlobs) {
  Do(Tick{});
  auto end = All<EndAgent>(Get(Welcome{500, 5000, "", "there", "", {}}));
  ASSERT_EQ(end.size(), 1u);
  EXPECT_TRUE(end[0].failed);
}

TEST_F(AgentCoreTest, AGivenStoreLaunchesTheRunnerBeforeTheWelcome) {
  core_ = AgentCore(AgentConfig{"w", "here", "cpu", 1, "/mine"});
  auto launch = All<LaunchRunner>(Do(Tick{}));
  ASSERT_EQ(launch.size(), 1u);
  EXPECT_EQ(launch[0].source, (RunnerSource{"/mine", ""}));
  EXPECT_TRUE(All<LaunchRunner>(Get(WelcomeMessage())).empty());
}

TEST_F(AgentCoreTest, AChangedBlobServiceRelaunchesTheRunnerWhenItIsIdle) {
  Run();
  auto moved = Welcome{500, 5000, "", "there", "tcp://new:1", {}};
  EXPECT_TRUE(All<LaunchRunner>(Get(moved)).empty()) << "a step is running";
  auto launch = All<LaunchRunner>(Report(StepDone{kArtifact, {}, 1}));
  ASSERT_EQ(launch.size(), 1u);
  EXPECT_EQ(launch[0].source.blob_endpoint, "tcp://new:1");
  EXPECT_TRUE(All<BeginStep>(Get(GrantOf(kOther))).empty());
  EXPECT_EQ(All<BeginStep>(Report(RunnerReady{"cpu"})).size(), 1u);
}

TEST_F(AgentCoreTest, ALostRunnerAbortsTheStepAndIsReplacedAtOnce) {
  Run();
  now_ += Millis(300);
  Actions actions = Report(RunnerLost{"killed by signal 11 (Segmentation fault)"});
  auto aborted = Sent<StepAborted>(actions);
  ASSERT_EQ(aborted.size(), 1u);
  EXPECT_EQ(aborted[0].lease, kLease);
  EXPECT_EQ(aborted[0].error_class, "runner_lost");
  EXPECT_NE(aborted[0].message.find("signal 11"), std::string::npos);
  EXPECT_EQ(aborted[0].busy_ms, 300);
  EXPECT_EQ(All<LaunchRunner>(actions).size(), 1u);
}

TEST_F(AgentCoreTest, ARunnerKilledForMemoryAbortsWithThatClass) {
  Run();
  EXPECT_EQ(Sent<StepAborted>(Report(RunnerLost{"killed", true}))[0].error_class, "out_of_memory");
}

TEST_F(AgentCoreTest, ARunnerThatDoesNotStartIsRetriedWithBackoffAndThenGivenUp) {
  Do(Tick{});
  Get(WelcomeMessage());
  Get(GrantOf(kLease));
  std::vector<int64_t> waits;
  for (int failure = 1; failure < kMaxFailedLaunches; ++failure) {
    Actions actions = Report(RunnerLost{"exited with code 127"});
    EXPECT_TRUE(All<EndAgent>(actions).empty());
    EXPECT_TRUE(Sent<StepAborted>(actions).empty()) << "the step has not begun and waits";
    Millis before = now_;
    while (All<LaunchRunner>(actions).empty() && now_ < before + Millis(60'000)) actions = Live(Millis(100));
    waits.push_back((now_ - before).count());
  }
  EXPECT_EQ(waits, (std::vector<int64_t>{500, 1000, 2000, 4000}));
  Actions actions = Report(RunnerLost{"exited with code 127"});
  EXPECT_EQ(Sent<Released>(actions), (std::vector<Released>{{kLease, {}, {}, 0}}));
  EXPECT_EQ(Sent<Goodbye>(actions).size(), 1u);
  ASSERT_EQ(All<EndAgent>(actions).size(), 1u);
  EXPECT_TRUE(All<EndAgent>(actions)[0].failed);
}

// ---- steps ----

TEST_F(AgentCoreTest, AGrantBeginsTheStep) {
  Ready();
  auto begin = All<BeginStep>(Get(GrantOf(kLease)));
  ASSERT_EQ(begin.size(), 1u);
  EXPECT_EQ(begin[0].assignment.key, kStep);
  EXPECT_EQ(begin[0].assignment.lease_epoch, 7);
  EXPECT_EQ(begin[0].assignment.attempt, 2);
}

TEST_F(AgentCoreTest, AGrantBeforeTheRunnerIsReadyWaits) {
  Do(Tick{});
  Get(WelcomeMessage());
  EXPECT_TRUE(All<BeginStep>(Get(GrantOf(kLease))).empty());
  EXPECT_EQ(Sent<Heartbeat>(After(Millis(500)))[0].running, std::vector<Lease>{kLease});
  EXPECT_EQ(All<BeginStep>(Report(RunnerReady{"cpu"})).size(), 1u);
}

TEST_F(AgentCoreTest, ARepeatedGrantIsIgnored) {
  Run();
  EXPECT_TRUE(Get(GrantOf(kLease)).empty());
}

TEST_F(AgentCoreTest, AGrantOfAFinishedLeaseIsAnsweredWithItsEnd) {
  Run();
  Report(StepDone{kArtifact, {}, 1});
  Actions actions = Get(GrantOf(kLease));
  EXPECT_EQ(Sent<StepFinished>(actions).size(), 1u);
  EXPECT_TRUE(All<BeginStep>(actions).empty());
}

TEST_F(AgentCoreTest, ARunningStepMakesWayForANewerGrant) {
  Run();
  auto ends = All<EndStep>(Get(GrantOf(kOther)));
  ASSERT_EQ(ends.size(), 1u);
  EXPECT_FALSE(ends[0].keep);
  Actions actions = Report(StepStopped{{}, {}, 1});
  EXPECT_EQ(All<BeginStep>(actions).at(0).assignment.key, kOtherStep);
  EXPECT_EQ(Sent<Released>(actions).at(0).lease, kLease);
}

TEST_F(AgentCoreTest, ALateGrantOfAnOlderLeaseIsGivenBack) {
  Run(kOther);
  Actions actions = Get(GrantOf(kLease));
  EXPECT_EQ(Sent<Released>(actions).at(0).lease, kLease);
  EXPECT_TRUE(All<EndStep>(actions).empty());
}

TEST_F(AgentCoreTest, AnAssignmentThatMakesNoSenseIsAborted) {
  Ready();
  EXPECT_EQ(Sent<StepAborted>(Get(Grant{kLease, 1, {{"key", 5}}})).at(0).error_class, "internal");
  Grant crossed = GrantOf(kLease);
  crossed.lease = kOther;
  EXPECT_EQ(Sent<StepAborted>(Get(crossed)).at(0).error_class, "internal");
}

TEST_F(AgentCoreTest, AFinishedStepIsReportedUntilAcknowledgedAndTheNextOneCanBegin) {
  Run();
  EXPECT_EQ(Sent<StepFinished>(Report(StepDone{kArtifact, {{"m", 1}}, 42})),
            (std::vector<StepFinished>{{kLease, kArtifact, {{"m", 1}}, 42}}));
  EXPECT_EQ(All<BeginStep>(Get(GrantOf(kOther))).size(), 1u);
  EXPECT_EQ(Sent<StepFinished>(Live(Millis(3000))).size(), 3u);
  Get(Ack{kLease, "step_finished", 0});
  EXPECT_TRUE(Sent<StepFinished>(Live(Millis(3000))).empty());
}

TEST_F(AgentCoreTest, AFailedStepIsReportedWithItsClass) {
  Run();
  EXPECT_EQ(Sent<StepAborted>(Report(StepFailed{"diverged", "loss is NaN", 42})),
            (std::vector<StepAborted>{{kLease, "diverged", "loss is NaN", 42}}));
}

TEST_F(AgentCoreTest, EndlessErrorMessagesAreCut) {
  Run();
  auto aborted = Sent<StepAborted>(Report(StepFailed{"internal", std::string(1 << 20, 'x'), 1}));
  EXPECT_LT(aborted.at(0).message.size(), kMaxReportBytes + 100);
}

TEST_F(AgentCoreTest, ProgressAndSnapshotsCarryTheLease) {
  Run();
  EXPECT_EQ(Sent<Progress>(Report(StepProgress{{{"epoch", 0.5}}})),
            (std::vector<Progress>{{kLease, 0, {{1, {{"epoch", 0.5}}}}}}));
  EXPECT_EQ(Sent<SnapshotTaken>(Report(StepSnapshot{DigestOf("s"), 3})),
            (std::vector<SnapshotTaken>{{kLease, 1, DigestOf("s"), Json(3)}}));
}

TEST_F(AgentCoreTest, ARevokedStepIsStoppedAndReleasedWithItsSnapshot) {
  Run();
  auto end = All<EndStep>(Get(Revoke{kLease, true, "paused"}));
  ASSERT_EQ(end.size(), 1u);
  EXPECT_TRUE(end[0].keep);
  EXPECT_TRUE(All<EndStep>(Get(Revoke{kLease, true, "paused"})).empty()) << "asked already";
  EXPECT_EQ(Sent<Released>(Report(StepStopped{DigestOf("s"), {{"b", 1}}, 9})),
            (std::vector<Released>{{kLease, DigestOf("s"), {{"b", 1}}, 9}}));
}

TEST_F(AgentCoreTest, ARevokeWithoutKeepingOverridesOneWith) {
  Run();
  Get(Revoke{kLease, true, "paused"});
  auto end = All<EndStep>(Get(Revoke{kLease, false, "cancelled"}));
  ASSERT_EQ(end.size(), 1u);
  EXPECT_FALSE(end[0].keep);
}

TEST_F(AgentCoreTest, AStepThatEndsWhileItIsStoppedIsReportedAsItEnded) {
  Run();
  Get(Revoke{kLease, true, "paused"});
  EXPECT_EQ(Sent<StepFinished>(Report(StepDone{kArtifact, {}, 1})).size(), 1u);
}

TEST_F(AgentCoreTest, ARevokedStepThatHasNotBegunIsReleasedAtOnce) {
  Do(Tick{});
  Get(WelcomeMessage());
  Get(GrantOf(kLease));
  EXPECT_EQ(Sent<Released>(Get(Revoke{kLease, true, "paused"})).size(), 1u);
  EXPECT_TRUE(All<BeginStep>(Report(RunnerReady{"cpu"})).empty());
}

TEST_F(AgentCoreTest, ARevokeOfALeaseThatNeverArrivedIsReleased) {
  Ready();
  EXPECT_EQ(Sent<Released>(Get(Revoke{kLease, true, "paused"})), (std::vector<Released>{{kLease, {}, {}, 0}}));
}

TEST_F(AgentCoreTest, AStaleStepIsDroppedWithoutAWord) {
  Run();
  auto end = All<EndStep>(Get(Stale{kLease, "superseded"}));
  ASSERT_EQ(end.size(), 1u);
  EXPECT_FALSE(end[0].keep);
  EXPECT_TRUE(Report(StepProgress{{{"epoch", 1}}}).empty());
  EXPECT_TRUE(All<SendMessage>(Report(StepStopped{{}, {}, 9})).empty());
  EXPECT_TRUE(Sent<Heartbeat>(After(Millis(500))).at(0).running.empty());
}

TEST_F(AgentCoreTest, AStaleAnswerEndsTheRepetition) {
  Run();
  Report(StepDone{kArtifact, {}, 1});
  Get(Stale{kLease, "superseded"});
  EXPECT_TRUE(Sent<StepFinished>(Live(Millis(3000))).empty());
}

TEST_F(AgentCoreTest, AWelcomeDropsWhatIsNoLongerOurs) {
  Run();
  After(Millis(1001));
  auto end = All<EndStep>(Get(WelcomeMessage({kLease})));
  ASSERT_EQ(end.size(), 1u);
  EXPECT_FALSE(end[0].keep);
}

TEST_F(AgentCoreTest, AGrantWhileADroppedStepEndsBeginsAfterIt) {
  Run();
  Get(Stale{kLease, "superseded"});
  Actions actions = Get(GrantOf(kOther));
  EXPECT_TRUE(All<BeginStep>(actions).empty());
  EXPECT_TRUE(Sent<StepAborted>(actions).empty());
  EXPECT_EQ(Sent<Heartbeat>(After(Millis(500))).at(0).running, std::vector<Lease>{kOther});
  auto begin = All<BeginStep>(Report(StepStopped{{}, {}, 1}));
  ASSERT_EQ(begin.size(), 1u);
  EXPECT_EQ(begin[0].assignment.key, kOtherStep);
}

TEST_F(AgentCoreTest, ADroppedStepThatDoesNotEndCostsTheRunner) {
  Run();
  Get(Stale{kLease, "superseded"});
  Get(GrantOf(kOther));
  EXPECT_TRUE(All<LaunchRunner>(Live(kDropPatience - Millis(100))).empty());
  EXPECT_EQ(All<LaunchRunner>(Live(Millis(100))).size(), 1u);
  EXPECT_EQ(All<BeginStep>(Report(RunnerReady{"cpu"})).at(0).assignment.key, kOtherStep);
}

TEST_F(AgentCoreTest, RemembersArtifactsNewestFirstUntilTheRunnerIsLost) {
  Run();
  Report(StepDone{kArtifact, {}, 1});
  EXPECT_EQ(Sent<Heartbeat>(After(Millis(500))).at(0).cached, (std::vector<Digest>{kArtifact, kInput}));
  Report(RunnerLost{"gone"});
  EXPECT_TRUE(Sent<Heartbeat>(After(Millis(500))).at(0).cached.empty());
}

// ---- life ----

TEST_F(AgentCoreTest, AnIdleAgentStopsAtOnce) {
  Ready();
  Actions actions = Do(StopRequested{"SIGTERM"});
  EXPECT_EQ(Sent<Goodbye>(actions), std::vector<Goodbye>{{"worker-1"}});
  ASSERT_EQ(All<EndAgent>(actions).size(), 1u);
  EXPECT_FALSE(All<EndAgent>(actions)[0].failed);
}

TEST_F(AgentCoreTest, StoppingGivesTheStepBackAndWaitsForTheAck) {
  Run();
  auto end = All<EndStep>(Do(StopRequested{"SIGTERM"}));
  ASSERT_EQ(end.size(), 1u);
  EXPECT_TRUE(end[0].keep);
  Actions actions = Report(StepStopped{DigestOf("s"), {}, 9});
  EXPECT_EQ(Sent<Released>(actions).size(), 1u);
  EXPECT_TRUE(All<EndAgent>(actions).empty());
  actions = Get(Ack{kLease, "released", 0});
  EXPECT_EQ(Sent<Goodbye>(actions).size(), 1u);
  EXPECT_EQ(All<EndAgent>(actions).size(), 1u);
}

TEST_F(AgentCoreTest, AShutdownStopsTheAgent) {
  Ready();
  EXPECT_EQ(All<EndAgent>(Get(Shutdown{"maintenance"})).size(), 1u);
}

TEST_F(AgentCoreTest, TheGracePeriodEndsEverything) {
  Run();
  Do(StopRequested{"SIGTERM"});
  EXPECT_TRUE(All<EndAgent>(Live(Millis(9'900))).empty());
  Actions actions = Live(Millis(100));
  ASSERT_EQ(All<EndAgent>(actions).size(), 1u);
  EXPECT_FALSE(All<EndAgent>(actions)[0].failed);
  EXPECT_TRUE(Sent<Goodbye>(actions).empty()) << "the lease is not given back";
}

TEST_F(AgentCoreTest, ASecondRequestEndsAtOnce) {
  Run();
  Do(StopRequested{"SIGINT"});
  EXPECT_EQ(All<EndAgent>(Do(StopRequested{"SIGINT"})).size(), 1u);
}

TEST_F(AgentCoreTest, AStoppingAgentTakesNoNewStep) {
  Run();
  Do(StopRequested{"SIGTERM"});
  Actions actions = Get(GrantOf(kOther));
  EXPECT_EQ(Sent<Released>(actions), (std::vector<Released>{{kOther, {}, {}, 0}}));
}

TEST_F(AgentCoreTest, AnAgentWithoutCoordinatorStopsAtOnceWhenItOwesNothing) {
  Do(Tick{});
  Actions actions = Do(StopRequested{"SIGTERM"});
  EXPECT_TRUE(Sent<Goodbye>(actions).empty());
  EXPECT_EQ(All<EndAgent>(actions).size(), 1u);
}

TEST_F(AgentCoreTest, GoodbyeIsSaidAlsoInDoubt) {
  Ready();
  After(Millis(1001));
  EXPECT_EQ(Sent<Goodbye>(Do(StopRequested{"SIGTERM"})).size(), 1u);
}

TEST_F(AgentCoreTest, MessagesForCoordinatorsAreIgnored) {
  Ready();
  EXPECT_TRUE(All<SendMessage>(Get(Goodbye{"x"})).empty());
  EXPECT_TRUE(All<SendMessage>(Get(Request{1, "list", Json::object()})).empty());
}

}  // namespace
}  // namespace pare::worker
