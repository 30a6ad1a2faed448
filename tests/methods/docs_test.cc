// docs/architecture.md, "Adding a method": the code it shows is the code that is built.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "methods/registry.h"

namespace pare::methods {
namespace {

std::string ReadText(const std::string& path) {
  std::ifstream in(PARE_SOURCE_DIR "/" + path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

// The code block behind the line "`path`:".
std::string BlockOf(const std::string& document, const std::string& path) {
  size_t at = document.find("\n`" + path + "`:\n\n```cpp\n");
  EXPECT_NE(at, std::string::npos) << "docs/architecture.md shows no " << path;
  if (at == std::string::npos) return "";
  size_t begin = document.find("```cpp\n", at) + 7, end = document.find("\n```\n", begin);
  return document.substr(begin, end + 1 - begin);
}

TEST(ArchitectureDocumentTest, TheMethodItShowsIsTheSource) {
  std::string document = ReadText("docs/architecture.md");
  for (const char* path : {"methods/cast.h", "methods/cast.cc"}) EXPECT_EQ(BlockOf(document, path), ReadText(path)) << path;
  std::string registration = BlockOf(document, "methods/registry.cc");
  EXPECT_NE(ReadText("methods/registry.cc").find(registration), std::string::npos) << registration;
}

TEST(RegistryTest, EveryMethodWithFieldsIsCompleteEnoughToBeAStepKind) {
  for (const Method& method : Methods()) {
    EXPECT_FALSE(method.help.empty()) << method.name;
    EXPECT_NE(method.apply, nullptr) << method.name;
    EXPECT_NE(method.outline, nullptr) << method.name;
    for (const Field& field : method.fields) EXPECT_EQ(field.section, method.name) << field.name;
  }
}

}  // namespace
}  // namespace pare::methods
