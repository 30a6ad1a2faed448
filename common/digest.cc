#include "common/digest.h"

#include <openssl/evp.h>

namespace pare {
namespace internal {

std::string HexOf(std::span<const uint8_t> bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex(2 * bytes.size(), '0');
  char* digit = hex.data();
  for (uint8_t byte : bytes) {
    *digit++ = kDigits[byte >> 4];
    *digit++ = kDigits[byte & 15];
  }
  return hex;
}

bool BytesOfHex(std::string_view hex, std::span<uint8_t> bytes) {
  if (hex.size() != 2 * bytes.size()) return false;
  auto value = [](char c) -> int {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
  };
  for (size_t i = 0; i < bytes.size(); ++i) {
    int high = value(hex[2 * i]), low = value(hex[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    bytes[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return true;
}

Error BadHex(std::string_view hex) {
  return Error{ErrorCode::kInvalid,
               "'" + std::string(hex.substr(0, 80)) + "' is not a SHA-256 (64 hexadecimal digits)"};
}

}  // namespace internal

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  CHECK(state_->context != nullptr);
  CHECK(EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr) == 1);
}
Sha256::~Sha256() = default;

void Sha256::Update(std::span<const std::byte> bytes) {
  CHECK(EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()) == 1);
}
void Sha256::Update(std::string_view bytes) { Update(std::as_bytes(std::span(bytes))); }

std::array<uint8_t, 32> Sha256::Finish() {
  std::array<uint8_t, 32> out;
  unsigned length = 0;
  CHECK(EVP_DigestFinal_ex(state_->context, out.data(), &length) == 1 && length == out.size());
  return out;
}

Digest DigestOf(std::string_view bytes) { return DigestOf(std::as_bytes(std::span(bytes))); }
Digest DigestOf(std::span<const std::byte> bytes) {
  Sha256 hash;
  hash.Update(bytes);
  return Digest(hash.Finish());
}

}  // namespace pare
