#include "worker/runner/meters.h"

#include <malloc.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "common/version.h"

namespace pare::runner {
namespace {

double Seconds(clockid_t clock) {
  timespec t{};
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

std::optional<double> NumberIn(const std::filesystem::path& path) {
  std::ifstream in(path);
  double value = 0;
  return in >> value ? std::optional(value) : std::nullopt;
}

// Counters of packages wrap at max_energy_range_uj: this adds up what they grew since they were read last.
class Rapl {
 public:
  explicit Rapl(std::string root) : root_(std::move(root)) {}

  Result<double> Joules() {
    std::error_code error;
    bool any = false;
    for (const auto& zone : std::filesystem::directory_iterator(root_, error)) {
      std::string name = zone.path().filename();
      // intel-rapl:0 is a package, intel-rapl:0:0 a part of it.
      if (!name.starts_with("intel-rapl:") || std::count(name.begin(), name.end(), ':') != 1) continue;
      std::optional<double> now = NumberIn(zone.path() / "energy_uj");
      if (!now) return Error{ErrorCode::kNotFound, (zone.path() / "energy_uj").string() + " cannot be read by this user"};
      any = true;
      auto [last, fresh] = last_.try_emplace(name, *now);
      double grown = *now - last->second;
      if (grown < 0) grown += NumberIn(zone.path() / "max_energy_range_uj").value_or(-grown);
      total_uj_ += grown;
      last->second = *now;
    }
    if (!any) return Error{ErrorCode::kNotFound, "this machine shows no energy counters (RAPL) under " + root_};
    return total_uj_ * 1e-6;
  }

 private:
  std::string root_;
  std::map<std::string, double> last_;
  double total_uj_ = 0;
};

// "VmRSS" or "VmHWM" of /proc/self/status, in bytes.
Result<int64_t> StatusBytes(const std::string& field) {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(field + ":")) return std::stoll(line.substr(field.size() + 1)) * 1024;
  }
  return Error{ErrorCode::kNotFound, "/proc/self/status has no " + field};
}

Result<int64_t> ResetMemory() {
  malloc_trim(0);
  std::ofstream out("/proc/self/clear_refs");
  if (!(out << "5" << std::flush)) return Error{ErrorCode::kNotFound, "/proc/self/clear_refs cannot be written"};
  return StatusBytes("VmRSS");
}

}  // namespace

Meters SystemMeters(const std::string& powercap) {
  auto rapl = std::make_shared<Rapl>(powercap);
  return {[] { return Seconds(CLOCK_MONOTONIC); }, [] { return Seconds(CLOCK_PROCESS_CPUTIME_ID); }, [rapl] { return rapl->Joules(); }, ResetMemory,
          [] { return StatusBytes("VmHWM"); }};
}

Json Machine() {
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  std::string processor = "unknown", flags;
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("model name") && processor == "unknown") processor = line.substr(line.find(':') + 2);
    if (line.starts_with("flags")) flags = line + " ";
  }
  Json instructions = Json::array();
  for (const char* flag : {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8"}) {
    if (flags.find(" " + std::string(flag) + " ") != flags.npos) instructions.push_back(flag);
  }
  return {{"host", host}, {"processor", processor}, {"cores", std::thread::hardware_concurrency()}, {"instructions", std::move(instructions)},
          {"engine", std::string(kEngineVersion)}, {"pare", std::string(kPareVersion)}};
}

}  // namespace pare::runner
