// Clock: one of the five edge interfaces. The cores never read a clock; their shells pass `now` in.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace pare {

using Millis = std::chrono::milliseconds;

// Milliseconds since 1970-01-01 UTC. In the store and on the wire: `…_ms` fields.
struct WallTime {
  int64_t ms = 0;
  auto operator<=>(const WallTime&) const = default;
};
// "2026-11-24T09:30:00Z".
std::string Iso8601(WallTime time);

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  // Never goes back; its zero has no meaning. For leases, timeouts and durations.
  virtual Millis Monotonic() const = 0;
  // For people: creation times and logs. May jump.
  virtual WallTime Wall() const = 0;
};

class SystemClock : public Clock {
 public:
  Millis Monotonic() const override;
  WallTime Wall() const override;
};

// Time moves only when told to.
class FakeClock : public Clock {
 public:
  explicit FakeClock(WallTime start = {1'700'000'000'000}) : start_(start) {}
  Millis Monotonic() const override { return elapsed_; }
  WallTime Wall() const override { return {start_.ms + elapsed_.count()}; }
  void Advance(Millis by) { elapsed_ += by; }

 private:
  WallTime start_;
  Millis elapsed_{0};
};

}  // namespace pare
