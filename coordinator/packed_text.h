// PackedText: a text that is kept for long and read seldom, compressed (zstd). Recipes, as written and as resolved, repeat
// themselves: what is left of them is a tenth.
#pragma once

#include <string>
#include <string_view>

namespace pare::coordinator {

class PackedText {
 public:
  PackedText() = default;  // ""
  explicit PackedText(std::string_view text);

  std::string Text() const;

 private:
  std::string packed_;
  size_t size_ = 0;  // of the text
};

}  // namespace pare::coordinator
