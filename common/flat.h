// FlatSet, FlatMap: what std::set and std::map do, in a sorted vector, as far as we need it. For the many small ones of a large
// state: a node of a tree costs 48 bytes beside its content, a tree another 48. Walked in the same order. An insertion moves
// all that is greater, and ends the validity of iterators. (C++23 has std::flat_set; our compilers' library has not.)
#pragma once

#include <algorithm>
#include <initializer_list>
#include <utility>
#include <vector>

#include "common/check.h"

namespace pare {

template <typename T>
class FlatSet {
 public:
  using const_iterator = typename std::vector<T>::const_iterator;

  FlatSet() = default;
  FlatSet(std::initializer_list<T> values) { for (const T& value : values) insert(value); }

  const_iterator begin() const { return values_.begin(); }
  const_iterator end() const { return values_.end(); }
  size_t size() const { return values_.size(); }
  bool empty() const { return values_.empty(); }
  size_t count(const T& value) const { return std::binary_search(begin(), end(), value) ? 1 : 0; }

  // Whether it was not there yet.
  bool insert(T value) {
    auto at = std::lower_bound(values_.begin(), values_.end(), value);
    if (at != values_.end() && *at == value) return false;
    values_.insert(at, std::move(value));
    return true;
  }
  // How many were there: 0 or 1. The last one gives its memory back.
  size_t erase(const T& value) {
    auto at = std::lower_bound(values_.begin(), values_.end(), value);
    if (at == values_.end() || *at != value) return 0;
    values_.erase(at);
    if (values_.empty()) values_.shrink_to_fit();
    return 1;
  }

 private:
  std::vector<T> values_;
};

template <typename Key, typename Value>
class FlatMap {
 public:
  using value_type = std::pair<Key, Value>;
  using const_iterator = typename std::vector<value_type>::const_iterator;

  FlatMap() = default;
  // Of a map, whose order is the same.
  template <typename Map>
  explicit FlatMap(const Map& map) : entries_(map.begin(), map.end()) {}

  const_iterator begin() const { return entries_.begin(); }
  const_iterator end() const { return entries_.end(); }
  size_t size() const { return entries_.size(); }
  bool empty() const { return entries_.empty(); }
  void reserve(size_t size) { entries_.reserve(size); }
  const_iterator find(const Key& key) const {
    auto at = LowerBound(entries_, key);
    return at != end() && at->first == key ? at : end();
  }
  size_t count(const Key& key) const { return find(key) == end() ? 0 : 1; }
  const Value& at(const Key& key) const {
    auto found = find(key);
    CHECK(found != end());
    return found->second;
  }

  Value& operator[](const Key& key) {
    auto at = LowerBound(entries_, key);
    if (at == entries_.end() || at->first != key) at = entries_.emplace(at, key, Value());
    return at->second;
  }
  // Leaves the value of a key that is there alone.
  void try_emplace(const Key& key, Value value) {
    auto at = LowerBound(entries_, key);
    if (at == entries_.end() || at->first != key) entries_.emplace(at, key, std::move(value));
  }

 private:
  template <typename Entries>
  static auto LowerBound(Entries& entries, const Key& key) {
    return std::lower_bound(entries.begin(), entries.end(), key, [](const value_type& entry, const Key& k) { return entry.first < k; });
  }

  std::vector<value_type> entries_;
};

}  // namespace pare
