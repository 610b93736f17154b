#include "engine.h"

void Queue::push(std::shared_ptr<Request> r) {
  std::lock_guard lock(mutex_);
  waiting_.push_back(std::move(r));
  ready_.notify_one();
}

std::shared_ptr<Request> Queue::take() {
  std::unique_lock lock(mutex_);
  ready_.wait(lock, [&] { return closed_ || !waiting_.empty(); });
  lock.unlock();
  return try_take();  // the scheduler is the only one that takes
}

std::shared_ptr<Request> Queue::try_take() {
  std::lock_guard lock(mutex_);
  if (waiting_.empty()) return nullptr;
  auto r = std::move(waiting_.front());
  waiting_.pop_front();
  return r;
}

void Queue::close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
  ready_.notify_all();
}
