// The pare-coordinator executable as a process of its own: how it starts, refuses to start, ends, and what it costs.
#include <gmock/gmock.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "common/process.h"
#include "common/transport.h"
#include "common/version.h"
#include "data/dataset.h"
#include "storage/index.h"
#include "storage/store.h"
#include "tests/coordinator/harness.h"
#include "tests/coordinator/played_steps.h"
#include "tests/coordinator/service_site.h"
#include "tests/storage/older_store.h"

namespace pare::coordinator {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr Millis kLong{60'000};  // far more than anything takes; only a failing test waits for it

class ProgramTest : public testing::Test {
 protected:
  ProgramTest() : directory_(fs::path(testing::TempDir()) / ("pare-coordinator-" + std::to_string(::getpid()) + "-" + std::to_string(++count_))) {
    fs::remove_all(directory_);
    fs::create_directories(directory_);
  }
  ~ProgramTest() override {
    client_.reset();
    process_.reset();
    fs::remove_all(directory_);
  }

  std::string Store() const { return (directory_ / "store").string(); }
  std::string Log() const { return ReadFile((directory_ / "log").string()).value(); }

  std::unique_ptr<Process> Spawn(std::vector<std::string> arguments) {
    SpawnOptions options;
    options.arguments = {PARE_COORDINATOR};
    options.arguments.insert(options.arguments.end(), arguments.begin(), arguments.end());
    options.pipe_stdout = true;
    options.output_path = (directory_ / "log").string();
    auto process = Process::Spawn(options);
    EXPECT_TRUE(process.ok()) << process.error().message;
    return *std::move(process);
  }
  // The first line it prints.
  std::string ReadLine(const Process& process) {
    std::string line;
    for (char c = 0; c != '\n';) {
      pollfd item{process.stdout_fd(), POLLIN, 0};
      if (::poll(&item, 1, static_cast<int>(kLong.count())) != 1 || ::read(process.stdout_fd(), &c, 1) != 1) break;
      line += c;
    }
    return line;
  }
  void Start(std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"--store", Store()});
    process_ = Spawn(more);
    std::string line = ReadLine(*process_);
    ASSERT_TRUE(line.starts_with("ready {")) << line << Log();
    ready_ = Json::parse(line.substr(6));
    client_ = std::move(ConnectZmq(ready_["endpoint"].get<std::string>())).value();
  }
  int ExitCode(Process& process) {
    if (!process.Wait(kLong)) ADD_FAILURE() << "it does not end; log:\n" << Log();
    return process.code();
  }
  // Starts one that must not serve.
  int Refusal(std::vector<std::string> arguments) {
    auto process = Spawn(std::move(arguments));
    EXPECT_EQ(ReadLine(*process), "");
    return ExitCode(*process);
  }
  Result<Message> Receive(ClientTransport& transport) {
    auto bytes = transport.Receive(kLong);
    if (!bytes) return Error{ErrorCode::kUnreachable, "no message came"};
    return Decode(*bytes);
  }
  Json Call(const std::string& method, Json args = Json::object()) {
    Request request;
    request.method = method;
    request.args = std::move(args);
    client_->Send(Encode(request));
    auto message = Receive(*client_);
    EXPECT_TRUE(message.ok()) << message.error().message << Log();
    Reply reply = std::get<Reply>(*message);
    EXPECT_TRUE(reply.ok) << reply.message;
    return reply.result;
  }
  std::string Submit(const std::string& yaml) {
    data::DataInfo info = TestData();
    info.blob = *blobs().Put("the images");
    return Call("submit", {{"recipe", yaml}, {"recipe_name", "test.yaml"}, {"data", data::ToJson(info)}, {"weights", ""}})["job"];
  }
  storage::BlobStore& blobs() {
    if (!blobs_) blobs_ = storage::OpenBlobDirectory(storage::StorePaths(Store()));
    return *blobs_;
  }
  std::unique_ptr<ClientTransport> Join(const std::string& worker) {
    auto agent = std::move(ConnectZmq(ready_["endpoint"].get<std::string>())).value();
    agent->Send(Encode(Hello{worker, std::string(kPareVersion), "elsewhere", "cpu", 1, {}, {}}));
    EXPECT_TRUE(std::holds_alternative<Welcome>(*Receive(*agent)));
    return agent;
  }
  // The next message of type M.
  template <typename M>
  M Await(ClientTransport& agent) {
    for (;;) {
      auto message = Receive(agent);
      if (!message.ok()) break;
      if (auto* found = std::get_if<M>(&*message)) return *found;
    }
    ADD_FAILURE() << "the message did not come; log:\n" << Log();
    return {};
  }

  static inline int count_ = 0;
  fs::path directory_;
  std::unique_ptr<Process> process_;
  Json ready_;
  std::unique_ptr<ClientTransport> client_;
  std::unique_ptr<storage::BlobStore> blobs_;
};

TEST_F(ProgramTest, SaysWhenItServesAndWhere) {
  Start();
  EXPECT_EQ(ready_["pid"], process_->pid());
  EXPECT_EQ(ready_["store"], Store());
  Json pong = Call("ping");
  EXPECT_EQ(pong["version"], kPareVersion);
  EXPECT_EQ(pong["pid"], process_->pid());
  EXPECT_EQ(pong["blob_endpoint"], ready_["blob_endpoint"]);
}

TEST_F(ProgramTest, AShutdownRequestEndsItWithZero) {
  Start();
  Call("shutdown");
  EXPECT_EQ(ExitCode(*process_), 0);
}

TEST_F(ProgramTest, AfterSigtermTheNextOneGoesOnFromThere) {
  Start();
  std::string job = Submit(kSmallRecipe);
  process_->Signal(SIGTERM);
  EXPECT_EQ(ExitCode(*process_), 0);
  Start();
  EXPECT_EQ(Call("describe", {{"job", "last"}})["id"], job);
}

TEST_F(ProgramTest, AfterSigkillTheNextOneGoesOnFromThereAndTheWorkerKeepsItsStep) {
  Start({"--listen", "ipc://" + Store() + ".sock"});
  std::string job = Submit(kSmallRecipe);
  auto agent = Join("w1");
  Grant grant = Await<Grant>(*agent);
  process_->Signal(SIGKILL);
  EXPECT_EQ(ExitCode(*process_), 137);
  Start({"--listen", "ipc://" + Store() + ".sock"});
  agent->Send(Encode(Hello{"w1", std::string(kPareVersion), "elsewhere", "cpu", 1, {grant.lease}, {}}));
  EXPECT_TRUE(Await<Welcome>(*agent).drop.empty());
  Json manifest = PlayStep(blobs(), *worker::AssignmentFromText(grant.assignment), 90);
  agent->Send(Encode(StepFinished{grant.lease, ArtifactOf(manifest), manifest, 5}));
  EXPECT_EQ(Await<Ack>(*agent).of, "step_finished");
  Json described = Call("describe", {{"job", job}});
  EXPECT_EQ(described["steps"][0]["state"], "done");
  EXPECT_EQ(described["steps"][0]["attempts"].size(), 1u);
}

TEST_F(ProgramTest, DrainingTakesTheRunningStepBackBeforeItEnds) {
  Start({"--drain"});
  std::string job = Submit(kSmallRecipe);
  auto agent = Join("w1");
  Grant grant = Await<Grant>(*agent);
  process_->Signal(SIGTERM);
  Revoke revoke = Await<Revoke>(*agent);
  EXPECT_EQ(revoke.lease, grant.lease);
  EXPECT_TRUE(revoke.keep);
  EXPECT_FALSE(process_->Ended().has_value());
  agent->Send(Encode(Released{grant.lease, *blobs().Put("a snapshot"), {{"epoch", 1}}, 5}));
  EXPECT_EQ(Await<Ack>(*agent).of, "released");
  EXPECT_EQ(ExitCode(*process_), 0);
}

TEST_F(ProgramTest, ASecondOneOnTheSameStoreIsRefusedAndNamesTheFirst) {
  Start();
  EXPECT_EQ(Refusal({"--store", Store()}), 1);
  EXPECT_THAT(Log(), HasSubstr("is in use by the coordinator with pid " + std::to_string(process_->pid())));
  Call("ping");
}

TEST_F(ProgramTest, ATakenPortIsNamed) {
  Start({"--listen", "tcp://127.0.0.1:0"});
  std::string endpoint = ready_["endpoint"];
  EXPECT_EQ(Refusal({"--store", (directory_ / "other").string(), "--listen", endpoint}), 1);
  EXPECT_THAT(Log(), HasSubstr("cannot listen on " + endpoint));
}

TEST_F(ProgramTest, AStoreOfANewerSchemaIsRefusedUntouched) {
  Start();
  process_->Signal(SIGTERM);
  ExitCode(*process_);
  std::string index = Store() + "/index.db";
  storage::MakeNewer(index);
  std::string before = ReadFile(index).value();
  EXPECT_EQ(Refusal({"--store", Store()}), 1);
  EXPECT_THAT(Log(), HasSubstr("schema version " + std::to_string(storage::kSchemaVersion + 1) + ", this release reads up to " + std::to_string(storage::kSchemaVersion)));
  EXPECT_EQ(ReadFile(index).value(), before);
}

TEST_F(ProgramTest, AStoreThatIsNoDatabaseIsRefused) {
  fs::create_directories(Store());
  std::ofstream(Store() + "/index.db") << std::string(10'000, 'x');
  EXPECT_EQ(Refusal({"--store", Store()}), 1);
  EXPECT_THAT(Log(), HasSubstr(Store() + "/index.db"));
}

TEST_F(ProgramTest, AStoreThatCannotBeWrittenIsRefusedByPath) {
  std::string path = "/proc/pare-store";  // where nobody can make a directory
  if (::geteuid() != 0) {
    path = Store();
    fs::create_directories(path);
    fs::permissions(path, fs::perms::owner_read | fs::perms::owner_exec);
  }
  EXPECT_EQ(Refusal({"--store", path}), 1);
  EXPECT_THAT(Log(), HasSubstr(path));
}

TEST_F(ProgramTest, BadUsageIsCodeTwo) {
  EXPECT_EQ(Refusal({"--no-such-flag"}), 2);
  EXPECT_EQ(Refusal({"--store", Store(), "--lease-timeout-ms", "500", "--heartbeat-ms", "400"}), 2);
  EXPECT_EQ(Refusal({"--store", Store(), "--listen", "http://localhost:80"}), 2);
  EXPECT_EQ(Refusal({"--store", Store(), "--listen", "tcp://0.0.0.0:7070"}), 2);
  EXPECT_THAT(Log(), HasSubstr("only loopback"));
}

TEST_F(ProgramTest, HelpHasAnExampleAndTheExitCodes) {
  auto process = Spawn({"--help"});
  EXPECT_EQ(ExitCode(*process), 0);
  std::string help;
  for (std::string line = ReadLine(*process); !line.empty(); line = ReadLine(*process)) help += line;
  EXPECT_THAT(help, HasSubstr("Example:"));
  EXPECT_THAT(help, HasSubstr("Exit codes:"));
}

TEST_F(ProgramTest, EndsAtOnceIfItsParentIsGone) { EXPECT_EQ(Refusal({"--store", Store(), "--parent-pid", "1"}), 0); }

// ---- what it costs ----

int64_t ResidentKilobytes(int pid) {
  std::istringstream status(ReadFile("/proc/" + std::to_string(pid) + "/status").value());
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmRSS:")) return std::stoll(line.substr(6));
  }
  return -1;
}

TEST_F(ProgramTest, AHundredStepsStayUnderFortyMegabytes) {
  Start();
  std::string yaml = kSmallRecipe, variants;
  for (char name = '1'; name <= '4'; ++name) {
    variants += std::string("  v") + name + ":\n    - repeat: {times: 6}\n      steps:\n        - prune: {fraction_of_remaining: 0." + name +
                "}\n        - retrain: {epochs: 1}\n";
  }
  size_t begin = yaml.find("variants:\n") + 10;
  yaml.replace(begin, yaml.find("promote:") - begin, variants);
  std::string job = Submit(yaml);
  int64_t idle = ResidentKilobytes(process_->pid());
  auto agent = Join("w1");
  std::string state = "running";
  int steps = 0;
  while (state == "running" && steps < 200) {
    auto message = Receive(*agent);
    ASSERT_TRUE(message.ok()) << Log();
    auto* grant = std::get_if<Grant>(&*message);
    if (grant == nullptr) continue;
    Json manifest = PlayStep(blobs(), *worker::AssignmentFromText(grant->assignment), 90);
    Progress progress{grant->lease, {}};
    for (int64_t i = 1; i <= 20; ++i) progress.points.push_back({i, {{"epoch", i}, {"loss", 0.5}, {"sparsity", 0.5}}});
    agent->Send(Encode(progress));
    agent->Send(Encode(StepFinished{grant->lease, ArtifactOf(manifest), manifest, 5}));
    ++steps;
    while (Await<Ack>(*agent).of != "step_finished") ASSERT_FALSE(HasFailure());
    state = Call("watch", {{"job", job}})["job"]["state"];
  }
  EXPECT_EQ(state, "done");
  EXPECT_GE(steps, 100);
  int64_t resident = ResidentKilobytes(process_->pid());
  std::printf("resident: %lld KiB with the job submitted, %lld KiB after its %d steps\n", static_cast<long long>(idle), static_cast<long long>(resident), steps);
#ifndef PARE_SANITIZED  // whose shadow memory counts
  EXPECT_LT(resident, 40'000);
#endif
}

}  // namespace
}  // namespace pare::coordinator
