// Synchronized<T>: the only way this code shares mutable state between threads: no lock, no access.
#pragma once

#include <mutex>
#include <utility>

namespace pare {

template <typename T>
class Synchronized {
 public:
  Synchronized() = default;
  explicit Synchronized(T value) : value_(std::move(value)) {}

  // Runs `use(T&)` under the lock and returns what it returns (never a reference into the value).
  template <typename F>
  auto With(F&& use) {
    std::lock_guard lock(mutex_);
    return std::forward<F>(use)(value_);
  }

 private:
  std::mutex mutex_;
  T value_;
};

}  // namespace pare
