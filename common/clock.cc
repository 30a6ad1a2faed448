#include "common/clock.h"

#include <ctime>

namespace pare {

std::string Iso8601(WallTime time) {
  std::time_t seconds = static_cast<std::time_t>(time.ms / 1000);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

Millis SystemClock::Monotonic() const {
  return std::chrono::duration_cast<Millis>(std::chrono::steady_clock::now().time_since_epoch());
}

WallTime SystemClock::Wall() const {
  auto now = std::chrono::system_clock::now().time_since_epoch();
  return {std::chrono::duration_cast<Millis>(now).count()};
}

}  // namespace pare
