// Box: an optional value that lies apart from its owner. While there is none it takes one pointer, not the room of a T: for what
// few of many objects have. A value as std::optional is: copies copy, const reaches inside. Throws nothing of its own.
#pragma once

#include <memory>
#include <utility>

#include "common/check.h"

namespace pare {

template <typename T>
class Box {
 public:
  Box() = default;
  Box(T value) : value_(std::make_unique<T>(std::move(value))) {}  // NOLINT(google-explicit-constructor): as std::optional
  Box(const Box& other) : value_(other ? std::make_unique<T>(*other) : nullptr) {}
  Box(Box&&) noexcept = default;
  Box& operator=(Box other) noexcept {
    value_ = std::move(other.value_);
    return *this;
  }

  bool has_value() const { return value_ != nullptr; }
  explicit operator bool() const { return has_value(); }
  void reset() { value_.reset(); }

  // REQUIRES: has_value().
  T& operator*() {
    CHECK(has_value());
    return *value_;
  }
  const T& operator*() const {
    CHECK(has_value());
    return *value_;
  }
  T* operator->() { return &**this; }
  const T* operator->() const { return &**this; }

  // What is there, or a T().
  const T& OrDefault() const {
    static const T none{};
    return has_value() ? *value_ : none;
  }

 private:
  std::unique_ptr<T> value_;
};

}  // namespace pare
