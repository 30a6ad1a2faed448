// The processes below one, by program name: what a test may kill.
#pragma once

#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "common/files.h"

namespace pare {

// Processes below `root` whose command line names `program`.
inline std::vector<int> Descendants(int root, const std::string& program) {
  std::vector<int> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    auto command = ReadFile(entry.path().string() + "/cmdline");
    if (!command.ok() || command->substr(0, command->find('\0')).find(program) == std::string::npos) continue;
    int pid = std::stoi(name);
    for (int up = pid; up > 1;) {
      auto stat = ReadFile("/proc/" + std::to_string(up) + "/stat");
      if (!stat.ok()) break;
      std::istringstream fields(stat->substr(stat->rfind(')') + 2));
      std::string state;
      fields >> state >> up;
      if (up == root) {
        found.push_back(pid);
        break;
      }
    }
  }
  return found;
}

}  // namespace pare
