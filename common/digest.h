// Digest: a SHA-256 value, and the typed ids built on it. Keys, artifacts and blobs are types, not strings, so that a
// step key can never be passed where a blob digest is meant.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "common/result.h"

namespace pare {

template <typename Tag>
class Id {
 public:
  static constexpr size_t kBytes = 32;

  Id() = default;  // all zero: "none"
  explicit Id(const std::array<uint8_t, kBytes>& bytes) : bytes_(bytes) {}

  // Exactly 64 lower-case hexadecimal digits, or kInvalid.
  static Result<Id> FromHex(std::string_view hex);
  std::string hex() const;
  // The first 12 digits: for messages and tables.
  std::string brief() const { return hex().substr(0, 12); }

  bool is_none() const { return bytes_ == std::array<uint8_t, kBytes>{}; }
  const std::array<uint8_t, kBytes>& bytes() const { return bytes_; }
  // In the order of the bytes. Hashes almost always differ in the first of them, and maps of 100,000 keys compare a lot.
  friend std::strong_ordering operator<=>(const Id& a, const Id& b) {
    uint64_t x = a.First(), y = b.First();
    return x != y ? x <=> y : a.bytes_ <=> b.bytes_;
  }
  friend bool operator==(const Id&, const Id&) = default;

 private:
  uint64_t First() const {
    uint64_t first = 0;
    for (size_t i = 0; i < sizeof first; ++i) first = first << 8 | bytes_[i];
    return first;
  }

  std::array<uint8_t, kBytes> bytes_{};
};

namespace internal {
std::string HexOf(std::span<const uint8_t> bytes);
bool BytesOfHex(std::string_view hex, std::span<uint8_t> bytes);
Error BadHex(std::string_view hex);
}  // namespace internal

template <typename Tag>
Result<Id<Tag>> Id<Tag>::FromHex(std::string_view hex) {
  std::array<uint8_t, kBytes> bytes;
  if (!internal::BytesOfHex(hex, bytes)) return internal::BadHex(hex);
  return Id(bytes);
}

template <typename Tag>
std::string Id<Tag>::hex() const {
  return internal::HexOf(bytes_);
}

struct BlobTag;
struct StepKeyTag;
using Digest = Id<BlobTag>;      // of the bytes of a blob; an artifact is named by the digest of its manifest
using StepKey = Id<StepKeyTag>;  // of all that a step's result depends on

// Incremental SHA-256. Not thread-safe.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Update(std::span<const std::byte> bytes);
  void Update(std::string_view bytes);
  // The digest of all bytes so far; the object must not be used afterwards.
  std::array<uint8_t, 32> Finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

Digest DigestOf(std::string_view bytes);
Digest DigestOf(std::span<const std::byte> bytes);

}  // namespace pare
