#include "worker/engine/shard_pool.h"

#include <cstdint>
#include <exception>

namespace pare::engine {

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
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      start_.wait(lock, [&] { return ending_ || round_ != seen; });
      if (ending_) return;
      seen = round_;
    }
    RunOwn(thread);
    std::lock_guard lock(mutex_);
    if (--running_ == 0) done_.notify_one();
  }
}

void ShardPool::Run(int tasks, const std::function<void(int)>& task) {
  {
    std::lock_guard lock(mutex_);
    task_ = &task;
    tasks_ = tasks;
    running_ = threads_ - 1;
    failure_ = nullptr;
    ++round_;
  }
  if (threads_ > 1) start_.notify_all();
  RunOwn(0);
  std::unique_lock lock(mutex_);
  done_.wait(lock, [&] { return running_ == 0; });
  if (failure_) std::rethrow_exception(failure_);
}

}  // namespace pare::engine
