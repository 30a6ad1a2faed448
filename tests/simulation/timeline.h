// Timeline: the order of everything that happens in a simulation: events at simulated times, ties in the order in which they
// were announced. One thread; nothing waits.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <queue>
#include <utility>
#include <vector>

#include "common/clock.h"

namespace pare::simulation {

class Timeline {
 public:
  Millis now() const { return now_; }
  // A time in the past means now.
  void At(Millis time, std::function<void()> event) { events_.push({std::max(time, now_), next_++, std::move(event)}); }
  void In(Millis delay, std::function<void()> event) { At(now_ + delay, std::move(event)); }
  // Runs the next event; false if there is none.
  bool Step() {
    if (events_.empty()) return false;
    Entry entry = std::move(const_cast<Entry&>(events_.top()));
    events_.pop();
    now_ = entry.time;
    entry.event();
    return true;
  }

 private:
  struct Entry {
    Millis time;
    uint64_t order;
    std::function<void()> event;
    bool operator<(const Entry& other) const { return std::pair(time, order) > std::pair(other.time, other.order); }
  };
  std::priority_queue<Entry> events_;
  Millis now_{0};
  uint64_t next_ = 0;
};

// The clock of one process: all share monotonic time, each has a wall clock that can be set wrong.
class SimClock : public Clock {
 public:
  explicit SimClock(const Timeline& timeline) : timeline_(timeline) {}
  Millis Monotonic() const override { return timeline_.now(); }
  WallTime Wall() const override { return {1'700'000'000'000 + offset_.count() + timeline_.now().count()}; }
  void Jump(Millis by) { offset_ += by; }

 private:
  const Timeline& timeline_;
  Millis offset_{0};
};

// Something that takes turns: woken at the earliest of the times that were asked for.
class Alarm {
 public:
  Alarm(Timeline& timeline, std::function<void()> ring) : state_(std::make_shared<State>(State{timeline, std::move(ring), {}})) {}
  ~Alarm() { state_->ring = nullptr; }
  Alarm(const Alarm&) = delete;
  Alarm& operator=(const Alarm&) = delete;

  void At(Millis time) {
    time = std::max(time, state_->timeline.now());
    if (state_->next && *state_->next <= time) return;
    state_->next = time;
    state_->timeline.At(time, [state = state_, time] {
      if (state->next != time || !state->ring) return;  // an earlier one was asked for, or it is gone
      state->next.reset();
      auto ring = state->ring;  // it may end the process that this belongs to
      ring();
    });
  }
  void Now() { At(state_->timeline.now()); }

 private:
  struct State {
    Timeline& timeline;
    std::function<void()> ring;
    std::optional<Millis> next;
  };
  std::shared_ptr<State> state_;
};

}  // namespace pare::simulation
