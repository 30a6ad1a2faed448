#include "coordinator/packed_text.h"

#include <zstd.h>

#include "common/check.h"

namespace pare::coordinator {
namespace {

constexpr int kLevel = 1;  // repetitions are far apart, not hidden: higher ones gain little

}  // namespace

PackedText::PackedText(std::string_view text) : size_(text.size()) {
  std::string packed(ZSTD_compressBound(text.size()), '\0');
  size_t size = ZSTD_compress(packed.data(), packed.size(), text.data(), text.size(), kLevel);
  CHECK(!ZSTD_isError(size));
  packed_ = packed.substr(0, size);  // no more memory than that
}

std::string PackedText::Text() const {
  std::string text(size_, '\0');
  if (size_ == 0) return text;
  size_t size = ZSTD_decompress(text.data(), text.size(), packed_.data(), packed_.size());
  CHECK(size == size_);
  return text;
}

}  // namespace pare::coordinator
