// The pare-worker executable as a process of its own, against a coordinator played by the test, with a runner that plays
// scripted steps. Processes are killed for real.
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <sstream>

#include "common/messages.h"
#include "common/process.h"
#include "common/transport.h"
#include "tests/worker/agent/scripted_step.h"
#include "worker/agent/agent_loop.h"

namespace pare::worker {
namespace {

constexpr Millis kLong{60'000};  // far more than anything takes; only a failing test waits for it
const Lease kLease{StepKey(std::array<uint8_t, 32>{1}), 7};

std::string Unique(const std::string& name) { return testing::TempDir() + "pare-worker-" + std::to_string(getpid()) + name; }

class WorkerProgramTest : public testing::Test {
 protected:
  void Listen() {
    auto server = ListenZmq(endpoint_);
    ASSERT_TRUE(server.ok()) << server.error().message;
    server_ = std::move(server).value();
    known_ = false;
  }
  void StartWorker(std::vector<std::string> more = {}) {
    SpawnOptions options;
    options.arguments = {PARE_WORKER, "--coordinator", endpoint_, "--runner", ECHO_RUNNER, "--threads", "1"};
    options.arguments.insert(options.arguments.end(), more.begin(), more.end());
    options.output_path = log_;
    auto worker = Process::Spawn(options);
    ASSERT_TRUE(worker.ok()) << worker.error().message;
    worker_ = std::move(worker).value();
  }
  // The next message of type M; heartbeats are acknowledged, other messages dropped. A worker that has not said hello to
  // this coordinator is told so.
  template <typename M>
  M Await() {
    for (;;) {
      auto received = server_->Receive(kLong, 1);
      if (received.empty()) break;
      peer_ = received[0].peer;
      Result<Message> message = Decode(received[0].message);
      if (!message.ok()) break;
      if (auto* found = std::get_if<M>(&*message)) return *found;
      if (!known_) {
        Send(Refused{"not_found", "say hello first"});
      } else if (std::holds_alternative<Heartbeat>(*message)) {
        Send(Ack{{}, "heartbeat", 0});
      }
    }
    ADD_FAILURE() << "the message did not come; log:\n" << ReadFile(log_).value();
    return {};
  }
  void Send(const Message& message) { server_->Send(peer_, Encode(message)); }
  Hello Greet() {
    Hello hello = Await<Hello>();
    known_ = true;
    Send(Welcome{300, 30000, testing::TempDir(), HostName(), "", {}});
    return hello;
  }
  void Give(std::vector<std::string> script) {
    Assignment assignment;
    assignment.key = kLease.step;
    assignment.spec = {{"script", script}};
    Send(Grant{kLease, 1, ToJson(assignment)});
  }
  int RunnerPid() {
    std::string pid = std::to_string(worker_->pid());
    std::istringstream children(ReadFile("/proc/" + pid + "/task/" + pid + "/children").value());
    int child = -1;
    children >> child;
    return child;
  }
  ~WorkerProgramTest() override {
    std::filesystem::remove(log_);
    std::filesystem::remove(endpoint_.substr(6));
  }

  std::string endpoint_ = "ipc://" + Unique(".sock"), log_ = Unique(".log");
  std::unique_ptr<ServerTransport> server_;
  std::unique_ptr<Process> worker_;
  PeerId peer_;
  bool known_ = false;
};

TEST_F(WorkerProgramTest, RunsAStepAndStopsOnSigterm) {
  Listen();
  StartWorker({"--name", "tester"});
  Hello hello = Greet();
  EXPECT_EQ(hello.worker, "tester");
  EXPECT_EQ(hello.threads, 1);
  Give({"progress", "done"});
  EXPECT_EQ(Await<Progress>().points.at(0).sequence, 1);
  EXPECT_EQ(Await<StepFinished>().lease, kLease);
  Send(Ack{kLease, "step_finished", 0});
  worker_->Signal(SIGTERM);
  EXPECT_EQ(Await<Goodbye>().worker, "tester");
  EXPECT_EQ(worker_->Wait(kLong), "exited with code 0");
}

TEST_F(WorkerProgramTest, SigtermGivesTheRunningStepBackWithItsSnapshot) {
  Listen();
  StartWorker();
  Greet();
  Give({"progress", "wait"});
  Await<Progress>();
  worker_->Signal(SIGTERM);
  EXPECT_EQ(Await<Released>().snapshot, SnapshotBlob());
  Send(Ack{kLease, "released", 0});
  Await<Goodbye>();
  EXPECT_EQ(worker_->Wait(kLong), "exited with code 0");
}

TEST_F(WorkerProgramTest, TheStepGoesOnWhileTheCoordinatorRestarts) {
  Listen();
  StartWorker();
  Greet();
  Give({"progress", "wait"});
  Await<Progress>();
  int runner = RunnerPid();
  server_.reset();
  Listen();
  Hello hello = Greet();
  EXPECT_EQ(hello.running, std::vector<Lease>{kLease});
  EXPECT_EQ(Await<Progress>().points.at(0).sequence, 1) << "unacknowledged: sent again";
  EXPECT_EQ(RunnerPid(), runner) << "not interrupted";
}

TEST_F(WorkerProgramTest, AKilledRunnerIsReportedAndReplaced) {
  Listen();
  StartWorker();
  Greet();
  Give({"progress", "wait"});
  Await<Progress>();
  int runner = RunnerPid();
  kill(runner, SIGKILL);
  StepAborted aborted = Await<StepAborted>();
  EXPECT_EQ(aborted.error_class, "runner_lost");
  EXPECT_NE(aborted.message.find("killed by signal 9"), std::string::npos);
  Send(Ack{kLease, "step_aborted", 0});
  Assignment again;
  again.key = kLease.step;
  again.spec = {{"script", {"done"}}};
  Lease next{kLease.step, 8};
  Send(Grant{next, 2, ToJson(again)});
  EXPECT_EQ(Await<StepFinished>().lease, next);
  EXPECT_NE(RunnerPid(), runner);
}

TEST_F(WorkerProgramTest, AKilledWorkerTakesItsRunnerAlong) {
  Listen();
  StartWorker();
  Greet();
  Give({"progress", "wait"});
  Await<Progress>();
  UniqueFd runner(static_cast<int>(syscall(SYS_pidfd_open, RunnerPid(), 0)));
  ASSERT_TRUE(runner.valid());
  worker_->Signal(SIGKILL);
  EXPECT_EQ(worker_->Wait(kLong), "killed by signal 9 (Killed)");
  pollfd item{runner.get(), POLLIN, 0};  // readable when the process has ended
  EXPECT_EQ(poll(&item, 1, static_cast<int>(kLong.count())), 1) << "the runner lives on";
}

TEST_F(WorkerProgramTest, ARefusedWorkerEndsWithItsReason) {
  Listen();
  StartWorker();
  Await<Hello>();
  Send(Refused{"version", "this coordinator is of release 9.9"});
  EXPECT_EQ(worker_->Wait(kLong), "exited with code 1");
  EXPECT_NE(ReadFile(log_).value().find("release 9.9"), std::string::npos);
}

TEST_F(WorkerProgramTest, TellsThatNobodyAnswersAndGoesOnTrying) {
  StartWorker();
  const std::string told = "no coordinator has answered for ";
  SystemClock clock;
  for (Millis begin = clock.Monotonic(); ReadFile(log_).value().find(told) == std::string::npos;) {
    ASSERT_LT(clock.Monotonic() - begin, kLong) << ReadFile(log_).value();
    ASSERT_FALSE(worker_->Ended().has_value()) << ReadFile(log_).value();
    poll(nullptr, 0, 50);
  }
  Listen();
  Greet();
  Give({"done"});
  EXPECT_EQ(Await<StepFinished>().lease, kLease);
}

TEST_F(WorkerProgramTest, AnotherStoreThanTheCoordinatorsIsRefused) {
  std::string other = Unique(".store");
  std::filesystem::create_directory(other);
  Listen();
  StartWorker({"--store", other});
  Greet();
  EXPECT_EQ(worker_->Wait(kLong), "exited with code 1");
  EXPECT_NE(ReadFile(log_).value().find("--store " + other + " is not the store of this coordinator, which is " + testing::TempDir()), std::string::npos) << ReadFile(log_).value();
  std::filesystem::remove(other);
}

TEST_F(WorkerProgramTest, TheCoordinatorsStoreUnderAnotherNameIsNotAnother) {
  std::string link = Unique(".link");
  std::filesystem::create_directory_symlink(testing::TempDir(), link);
  Listen();
  StartWorker({"--store", link});
  Greet();
  Give({"done"});
  EXPECT_EQ(Await<StepFinished>().lease, kLease);
  std::filesystem::remove(link);
}

TEST_F(WorkerProgramTest, BadUsageIsCodeTwoAndSaysWhat) {
  for (const auto& [arguments, expected] : std::vector<std::pair<std::vector<std::string>, std::string>>{
           {{"--coordinator", "http://x"}, "not an endpoint"},
           {{"--store", "/no/such/store"}, "/no/such/store"},
           {{"--threads", "0"}, "--threads"},
           {{"--runner", "/no/such/runner"}, "/no/such/runner"},
           {{"--frobnicate"}, "frobnicate"}}) {
    std::vector<std::string> command = {PARE_WORKER};
    if (arguments[0] != "--coordinator") command.insert(command.end(), {"--coordinator", endpoint_});
    if (arguments[0] != "--runner") command.insert(command.end(), {"--runner", ECHO_RUNNER});
    command.insert(command.end(), arguments.begin(), arguments.end());
    SpawnOptions options{.arguments = command, .output_path = log_};
    EXPECT_EQ(std::move(Process::Spawn(options)).value()->Wait(kLong), "exited with code 2") << expected;
    EXPECT_NE(ReadFile(log_).value().find(expected), std::string::npos) << expected;
  }
}

TEST_F(WorkerProgramTest, HelpShowsAnExampleAndTheExitCodes) {
  SpawnOptions options{.arguments = {PARE_WORKER, "--help"}, .output_path = log_};
  EXPECT_EQ(std::move(Process::Spawn(options)).value()->Wait(kLong), "exited with code 0");
  std::string help = ReadFile(log_).value();
  for (const char* part : {"Example:", "Exit codes:", "--coordinator", "--die-with-parent"}) {
    EXPECT_NE(help.find(part), std::string::npos) << part;
  }
}

}  // namespace
}  // namespace pare::worker
