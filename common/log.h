// Logging: one line per event on standard error, `time level component message`. The only global of the code base.
// Thread-safe. spdlog stays inside log.cc: its fmt and the one in libtorch do not link together.
#pragma once

#include <string_view>

#include "common/result.h"

namespace pare {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// `component` (coordinator, worker, runner, …) is printed on every line. `path`: append there instead of standard error
// (empty: standard error). Call once, at the start of main. An error, with the path: it cannot be opened, and standard error is used.
Status InitLog(std::string_view component, LogLevel level, const char* path = "");
// "debug", "info", "warning", "error"; kInfo for anything else.
LogLevel ParseLogLevel(std::string_view name);

void Log(LogLevel level, std::string_view message);
inline void LogDebug(std::string_view m) { Log(LogLevel::kDebug, m); }
inline void LogInfo(std::string_view m) { Log(LogLevel::kInfo, m); }
inline void LogWarning(std::string_view m) { Log(LogLevel::kWarning, m); }
inline void LogError(std::string_view m) { Log(LogLevel::kError, m); }

}  // namespace pare
