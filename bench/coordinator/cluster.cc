#include "bench/coordinator/cluster.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <thread>

#include "bench/coordinator/load.h"
#include "common/files.h"
#include "common/messages.h"
#include "common/version.h"

namespace pare::bench {
namespace {

constexpr Millis kPatience{120'000};
constexpr int kFsyncs = 300;

std::string FileSystemOf(const std::string& directory) {
  struct statfs info {};
  if (::statfs(directory.c_str(), &info) != 0) return "unknown";
  switch (static_cast<unsigned long>(info.f_type)) {
    case 0xEF53: return "ext4";
    case 0x58465342: return "xfs";
    case 0x9123683E: return "btrfs";
    case 0x01021994: return "tmpfs";
    case 0x794c7630: return "overlay";
    default: return "of type " + std::to_string(info.f_type);
  }
}

std::string ProcessorName() {
  auto text = ReadFile("/proc/cpuinfo");
  if (!text.ok()) return "unknown processor";
  size_t at = text->find("model name");
  if (at == std::string::npos) return "unknown processor";
  at = text->find(':', at) + 2;
  return text->substr(at, text->find('\n', at) - at);
}

}  // namespace

void Die(const std::string& why) {
  std::fprintf(stderr, "bench_coordinator: %s\n", why.c_str());
  std::exit(1);
}

double Now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

Percentiles PercentilesOf(std::vector<double> milliseconds) {
  std::sort(milliseconds.begin(), milliseconds.end());
  auto at = [&](double q) { return milliseconds[static_cast<size_t>(q * static_cast<double>(milliseconds.size() - 1))]; };
  return {at(0.5), at(0.99)};
}

Percentiles FsyncTimes(const std::string& directory) {
  std::string path = directory + "/fsync-probe";
  UniqueFd fd(::open(path.c_str(), O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600));
  std::vector<std::byte> page(4096, std::byte{7});
  std::vector<double> times;
  for (int i = 0; i < kFsyncs; ++i) {
    double begun = Now();
    if (!WriteAll(fd.get(), page, path).ok() || ::fdatasync(fd.get()) != 0) Die("cannot write " + path);
    times.push_back((Now() - begun) * 1000);
  }
  ::unlink(path.c_str());
  return PercentilesOf(std::move(times));
}

std::string Machine(const std::string& directory) {
  utsname name{};
  ::uname(&name);
  return ProcessorName() + ", " + std::to_string(std::thread::hardware_concurrency()) + " cores, Linux " + name.release + ", store on " +
         FileSystemOf(directory) + "; pare " + std::string(kPareVersion) + ", g++ " + __VERSION__;
}

Cluster::Cluster(std::string program, std::string directory) : program_(std::move(program)), store_(directory + "/store") {
  std::filesystem::remove_all(store_);
  std::filesystem::create_directories(store_);
}

Cluster::~Cluster() {
  client_.reset();
  process_.reset();
  std::filesystem::remove_all(store_);
}

double Cluster::Start() {
  double begun = Now();
  SpawnOptions options;
  // Slow heartbeats: they are not what is measured.
  options.arguments = {program_, "--store", store_, "--heartbeat-ms", "20000", "--lease-timeout-ms", "120000", "--log-level", "error"};
  options.pipe_stdout = true;
  auto process = Process::Spawn(options);
  if (!process.ok()) Die(process.error().message);
  process_ = *std::move(process);
  std::string line;
  for (char c = 0; c != '\n'; line += c) {
    pollfd item{process_->stdout_fd(), POLLIN, 0};
    if (::poll(&item, 1, static_cast<int>(kPatience.count())) != 1 || ::read(process_->stdout_fd(), &c, 1) != 1) Die("the coordinator does not start");
  }
  double took = Now() - begun;
  endpoint_ = Json::parse(line.substr(6))["endpoint"];
  client_ = *ConnectZmq(endpoint_);
  Call("ping", Json::object());
  return took;
}

void Cluster::Stop() {
  client_.reset();
  process_->Terminate(kPatience);
}

Json Cluster::Call(const std::string& method, Json args) {
  Request request;
  request.id = next_request_++;
  request.method = method;
  request.args = std::move(args);
  client_->Send(Encode(request));
  while (auto bytes = client_->Receive(kPatience)) {
    auto message = Decode(*bytes);
    auto* reply = message.ok() ? std::get_if<Reply>(&*message) : nullptr;
    if (reply == nullptr || reply->id != request.id) continue;
    if (!reply->ok) Die(method + ": " + reply->message);
    return std::move(reply->result);
  }
  Die("no answer to " + method);
}

std::string Cluster::Submit(const std::string& yaml) {
  return Call("submit", {{"recipe", yaml}, {"recipe_name", "load.yaml"}, {"data", data::ToJson(LoadData())}})["job"];
}

std::unique_ptr<ClientFleet> Cluster::Fleet(size_t clients) const {
  auto fleet = ConnectFleetZmq(endpoint_, clients);
  if (!fleet.ok()) Die(fleet.error().message);
  return *std::move(fleet);
}

double Cluster::CpuSeconds() const {
  std::string stat = ReadFile("/proc/" + std::to_string(process_->pid()) + "/stat").value();
  std::istringstream fields(stat.substr(stat.rfind(')') + 2));
  std::string skipped;
  for (int i = 0; i < 11; ++i) fields >> skipped;
  double user = 0, system = 0;
  fields >> user >> system;
  return (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

double Cluster::ResidentMegabytes() const {
  std::istringstream status(ReadFile("/proc/" + std::to_string(process_->pid()) + "/status").value());
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmRSS:")) return static_cast<double>(std::stoll(line.substr(6))) * 1024 / 1e6;
  }
  return 0;
}

}  // namespace pare::bench
