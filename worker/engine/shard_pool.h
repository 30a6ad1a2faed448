// ShardPool: a few threads that run the shards of one batch and wait for the next. Results never depend on their number.
// A batch of a small model takes a millisecond, waking a sleeping thread a tenth of that: threads look for work for a
// moment before they sleep.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace pare::engine {

class ShardPool {
 public:
  // `threads` in all, the caller included. `enter` runs once at the start of every other thread.
  ShardPool(int threads, std::function<void()> enter);
  ~ShardPool();
  // Runs task(0 … tasks−1), task i on thread i mod threads; returns when all are done. The first exception is rethrown.
  void Run(int tasks, const std::function<void(int)>& task);
  int threads() const { return threads_; }

 private:
  void Loop(int thread);
  void RunOwn(int thread);

  int threads_;
  std::function<void()> enter_;
  std::mutex mutex_;
  std::condition_variable start_, done_;
  const std::function<void(int)>* task_ = nullptr;
  int tasks_ = 0;
  // Written under the mutex, looked at without it.
  std::atomic<int> running_{0};
  std::atomic<int64_t> round_{0};
  std::atomic<bool> ending_{false};
  std::exception_ptr failure_;
  std::vector<std::thread> others_;
};

}  // namespace pare::engine
