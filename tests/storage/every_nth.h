// Tests that fail a disk at every single call: all calls with PARE_LONG=1, else a sample that differs from round to round, so that the
// rounds of a test together meet most calls. The last round of each, in which nothing fails, is always run.
#pragma once

#include <cstdint>
#include <cstdlib>

namespace pare::storage {

class EveryNth {
 public:
  explicit EveryNth(int64_t step) : step_(std::getenv("PARE_LONG") != nullptr ? 1 : step) {}
  // Of the next round.
  int64_t First() { return 1 + rounds_++ % step_; }
  int64_t step() const { return step_; }

 private:
  int64_t step_, rounds_ = 0;
};

}  // namespace pare::storage
