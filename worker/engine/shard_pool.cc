#include "worker/engine/shard_pool.h"

#include <cstdint>
#include <exception>

namespace pare::engine {
namespace {

// About 0.1 ms. Yielding now and then costs little and lets a machine with more threads than cores go on.
constexpr int kSpins = 1024, kSpinsPerYield = 64;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

template <typename Condition>
bool Spin(const Condition& condition) {
  for (int i = 1; i <= kSpins; ++i) {
    if (condition()) return true;
    if (i % kSpinsPerYield == 0) std::this_thread::yield();
    else Pause();
  }
  return condition();
}

}  // namespace

ShardPool::ShardPool(int threads, std::function<void()> enter) : threads_(threads < 1 ? 1 : threads), enter_(std::move(enter)) {
  for (int t = 1; t < threads_; ++t) others_.emplace_back([this, t] { Loop(t); });
}

ShardPool::~ShardPool() {
  {
    std::lock_guard lock(mutex_);
    ending_ = true;
  }
  start_.notify_all();
  for (std::thread& thread : others_) thread.join();
}

void ShardPool::RunOwn(int thread) {
  try {
    for (int i = thread; i < tasks_; i += threads_) (*task_)(i);
  } catch (...) {
    std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::current_exception();
  }
}

void ShardPool::Loop(int thread) {
  enter_();
  int64_t seen = 0;
  auto called = [&] { return ending_.load(std::memory_order_acquire) || round_.load(std::memory_order_acquire) != seen; };
  for (;;) {
    if (!Spin(called)) {
      std::unique_lock lock(mutex_);
      start_.wait(lock, called);
    }
    if (ending_) return;
    seen = round_;
    RunOwn(thread);
    if (running_.fetch_sub(1, std::memory_order_acq_rel) > 1) continue;
    std::lock_guard lock(mutex_);  // so that the caller is either before its look at running_ or asleep
    done_.notify_one();
  }
}

void ShardPool::Run(int tasks, const std::function<void(int)>& task) {
  {
    std::lock_guard lock(mutex_);
    task_ = &task;
    tasks_ = tasks;
    failure_ = nullptr;
    running_.store(threads_ - 1, std::memory_order_relaxed);
    round_.fetch_add(1, std::memory_order_release);
  }
  if (threads_ > 1) start_.notify_all();
  RunOwn(0);
  auto finished = [&] { return running_.load(std::memory_order_acquire) == 0; };
  if (!Spin(finished)) {
    std::unique_lock lock(mutex_);
    done_.wait(lock, finished);
  }
  if (failure_) std::rethrow_exception(failure_);
}

}  // namespace pare::engine
