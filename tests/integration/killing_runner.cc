// A pare-runner that dies once in every kind of step: it stands between an agent and the real runner, passes on what they say,
// and at the first moment that counts kills the real one, itself, and the agent too if PARE_KILL says so:
//  - in a step that trains, when its first snapshot is durable and told: what follows must go on from there;
//  - in any other, when the work is done and nobody has been told: it must be done again.
// PARE_KILL: "runner" or "agent". PARE_KILL_DIRECTORY: a file of every kind that was hit, named after it: "done", "training
// snapshot", and behind that " resumed" once a step of the kind was started from a snapshot. Several may work side by side.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>
#include <sys/socket.h>

#include <cstdlib>
#include <fstream>
#include <string>

#include "common/process.h"
#include "worker/runner_pipe.h"

namespace pare::worker {
namespace {

// "quantize-qat", "prune-structured", "spectrum-whitened", …
std::string KindOf(const Json& spec) {
  std::string kind = spec.at("kind").get<std::string>();
  const Json& params = spec.at("params");
  if (params.contains("scheme")) kind += "-" + params["scheme"].get<std::string>();
  if (params.contains("granularity")) kind += "-" + params["granularity"].at("kind").get<std::string>();
  if (params.contains("final_sparsity")) kind += "-" + params["schedule"].get<std::string>();
  if (params.value("criterion", Json()) == "movement") kind += "-movement";
  if (params.value("rule", Json()) == "weights") kind += "-rewind";
  if (params.value("whitened", false)) kind += "-whitened";
  if (params.contains("match")) kind += "-match";
  return kind;
}

class Proxy {
 public:
  Proxy(UniqueFd agent, UniqueFd runner, int runner_pid)
      : agent_(std::move(agent)), runner_(std::move(runner)), runner_pid_(runner_pid), directory_(std::getenv("PARE_KILL_DIRECTORY")) {}

  // Returns when either side is gone.
  void Run() {
    while (Pass(agent_, [&](const std::string& line) { FromAgent(line); }) && Pass(runner_, [&](const std::string& line) { FromRunner(line); })) {
      pollfd ends[] = {{agent_.fd(), POLLIN, 0}, {runner_.fd(), POLLIN, 0}};
      ::poll(ends, 2, -1);
    }
  }

 private:
  template <typename F>
  static bool Pass(LineChannel& from, F handle) {
    for (;;) {
      auto line = from.Receive(Millis(0));
      if (!line.ok()) return false;
      if (!line->has_value()) return true;
      handle(**line);
    }
  }
  static void Tell(LineChannel& to, const std::string& line) {
    if (to.Send(line).ok()) (void)to.Flush(Millis::max());
  }

  void FromAgent(const std::string& line) {
    auto json = ParseJson(line, "command");
    auto command = json.ok() ? RunnerCommandFromJson(*json) : Result<RunnerCommand>(json.error());
    if (const auto* start = command.ok() ? std::get_if<StartStep>(&*command) : nullptr) {
      const Json& spec = start->assignment.spec;
      hit_ = directory_ + "/" + KindOf(spec);
      trains_ = spec.at("params").contains("train");
      bool was_hit = ::access(hit_.c_str(), F_OK) == 0;
      if (was_hit && !start->assignment.snapshot.is_none()) std::ofstream(hit_, std::ios::app) << " resumed";
      if (was_hit) hit_.clear();
    }
    Tell(runner_, line);
  }

  void FromRunner(const std::string& line) {
    auto json = ParseJson(line, "event");
    auto event = json.ok() ? RunnerEventFromJson(*json) : Result<RunnerEvent>(json.error());
    bool snapshot = event.ok() && std::holds_alternative<StepSnapshot>(*event), done = event.ok() && std::holds_alternative<StepDone>(*event);
    if ((snapshot || done) && Claim()) Strike(snapshot ? "snapshot" : "done", line);
    Tell(agent_, line);
  }

  // True for one of all that come to this kind.
  bool Claim() {
    if (hit_.empty()) return false;
    int file = ::open(hit_.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    if (file < 0) hit_.clear();
    return UniqueFd(file).get() >= 0;
  }

  [[noreturn]] void Strike(const std::string& moment, const std::string& line) {
    std::ofstream(hit_) << (trains_ ? "training " : "") << moment;
    if (moment == "snapshot") Tell(agent_, line);
    ::kill(runner_pid_, SIGKILL);
    if (std::string(std::getenv("PARE_KILL")) == "agent") ::kill(::getppid(), SIGKILL);
    ::kill(::getpid(), SIGKILL);
    std::abort();
  }

  LineChannel agent_, runner_;
  int runner_pid_;
  std::string directory_;
  std::string hit_;  // the file of the running step's kind; empty: it was hit before
  bool trains_ = false;
};

int Main(int argc, char** argv) {
  SpawnOptions spawn;
  spawn.arguments = {ExecutableDirectory() + "/../bin/pare-runner"};
  int fd = -1, ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return 1;
  for (int i = 1; i < argc; ++i) {
    spawn.arguments.emplace_back(argv[i]);
    if (spawn.arguments.back() != "--fd" || i + 1 == argc) continue;
    fd = std::atoi(argv[++i]);
    spawn.arguments.push_back(std::to_string(ends[1]));
  }
  if (fd < 0 || std::getenv("PARE_KILL") == nullptr || std::getenv("PARE_KILL_DIRECTORY") == nullptr) return 2;
  spawn.inherited_fd = ends[1];
  auto runner = Process::Spawn(spawn);
  ::close(ends[1]);
  if (!runner.ok()) return 1;
  Proxy(UniqueFd(fd), UniqueFd(ends[0]), (*runner)->pid()).Run();
  return 0;
}

}  // namespace
}  // namespace pare::worker

int main(int argc, char** argv) { return pare::worker::Main(argc, argv); }
