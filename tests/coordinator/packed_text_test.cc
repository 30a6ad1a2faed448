#include "coordinator/packed_text.h"

#include <gtest/gtest.h>

namespace pare::coordinator {
namespace {

TEST(PackedTextTest, GivesBackTheTextThatItWasMadeOf) {
  std::string repetitive;
  for (int i = 0; i < 10'000; ++i) repetitive += "{\"retrain\": {\"epochs\": " + std::to_string(i) + "}}, ";
  for (const std::string& text : {std::string(), std::string("x"), std::string("a\0b", 3), repetitive}) EXPECT_EQ(PackedText(text).Text(), text);
  EXPECT_EQ(PackedText().Text(), "");
}

}  // namespace
}  // namespace pare::coordinator
