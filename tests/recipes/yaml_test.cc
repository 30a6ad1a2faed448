// YAML: the part of it that recipes use, its limits, positions; parse ∘ render; mutated recipes.
#include "recipes/yaml.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <cmath>

#include "common/random.h"
#include "tests/recipes/fixture.h"

namespace pare::recipes {

// A tree as a recipe may hold it: finite numbers, texts of valid UTF-8, up to four levels.
struct AnyTree {
  Json json;
};
std::ostream& operator<<(std::ostream& out, const AnyTree& tree) { return out << Canonical(tree.json); }

}  // namespace pare::recipes

namespace rc {

template <>
struct Arbitrary<pare::recipes::AnyTree> {
  using Tree = pare::recipes::AnyTree;
  using Json = pare::Json;

  static Gen<std::string> Text() {
    auto parts = gen::container<std::vector<std::string>>(gen::element<std::string>(
        "a", "B", "0", "1", "-", "_", " ", ":", "#", "'", "\"", "\\", "\n", "\t", "{", "]", ",", "&", "*", "!", "|", "%", "@", "~", "null", "true", "no", "1e3", ".inf", "é", "…",
        "\xF0\x9F\xA6\x80", std::string(1, '\0'), "\x1b", "\x7f", "\xC2\x85", "\xE2\x80\xA8", "\xEF\xBB\xBF"));
    return gen::map(parts, [](const std::vector<std::string>& list) {
      std::string text;
      for (const std::string& part : list) text += part;
      return text;
    });
  }
  static Gen<Tree> Leaf() {
    return gen::oneOf(gen::just(Tree{nullptr}), gen::map(gen::arbitrary<bool>(), [](bool b) { return Tree{b}; }),
                      gen::map(gen::arbitrary<int64_t>(), [](int64_t i) { return Tree{i}; }),
                      gen::map(gen::arbitrary<double>(), [](double d) { return Tree{std::isfinite(d) ? d : 0.5}; }),
                      gen::map(Text(), [](const std::string& s) { return Tree{s}; }));
  }
  static Gen<Tree> UpTo(int levels) {
    if (levels == 1) return Leaf();
    auto list = gen::map(gen::container<std::vector<Tree>>(UpTo(levels - 1)), [](const std::vector<Tree>& items) {
      Json json = Json::array();
      for (const Tree& item : items) json.push_back(item.json);
      return Tree{json};
    });
    auto section = gen::map(gen::container<std::map<std::string, Tree>>(Text(), UpTo(levels - 1)), [](const std::map<std::string, Tree>& items) {
      Json json = Json::object();
      for (const auto& [key, item] : items) json[key] = item.json;
      return Tree{json};
    });
    return gen::oneOf(Leaf(), list, section);
  }
  static Gen<Tree> arbitrary() { return gen::resize(8, UpTo(4)); }
};

}  // namespace rc

namespace pare::recipes {
namespace {

using testing::HasSubstr;

Json TreeOf(const std::string& text) {
  auto document = ParseYaml(text, "t.yaml");
  EXPECT_TRUE(document.ok()) << document.error().message;
  return document.ok() ? document->tree : Json("not parsed");
}

std::string YamlError(const std::string& text) {
  auto document = ParseYaml(text, "t.yaml");
  EXPECT_FALSE(document.ok()) << text.substr(0, 200);
  return document.ok() ? "" : document.error().message;
}

TEST(YamlTest, ScalarsHaveTheTypesOfYaml12) {
  const std::vector<std::pair<std::string, Json>> cases = {
      {"1", 1}, {"-7", -7}, {"+3", 3}, {"007", 7}, {"1.0", 1.0}, {".5", 0.5}, {"5.", 5.0}, {"1e-4", 1e-4}, {"1E3", 1000.0}, {"+.5", 0.5},
      {"9223372036854775807", INT64_MAX}, {"9223372036854775808", 9223372036854775808.0}, {"true", true}, {"False", false}, {"null", nullptr}, {"~", nullptr}, {"", nullptr},
      // What YAML 1.1 would turn into something else, and what is no number, is text.
      {"yes", "yes"}, {"off", "off"}, {"0x1F", "0x1F"}, {"1_000", "1_000"}, {"1:30", "1:30"}, {".inf", ".inf"}, {".nan", ".nan"}, {"1e999", "1e999"}, {"1-2", "1-2"}, {"+-3", "+-3"},
      {"-", nullptr}, {".", "."}, {"e5", "e5"}, {"2024-01-01", "2024-01-01"},
      // Quoted is text, whatever it looks like.
      {"\"1\"", "1"}, {"'true'", "true"}, {"\"\"", ""}, {"'~'", "~"}};
  for (const auto& [text, value] : cases) {
    if (text == "-") continue;  // a list
    Json found = TreeOf("a: " + text)["a"];
    EXPECT_EQ(found, value) << text;
    EXPECT_EQ(found.type_name(), std::string(value.type_name())) << text;
  }
}

TEST(YamlTest, PositionsAreThoseOfValuesAndKeys) {
  auto document = ParseYaml("a: 1\nb:\n  - x\n  - c/d~: {e: 2}\nf:\n", "t.yaml");
  ASSERT_TRUE(document.ok());
  auto at = [&](const std::string& pointer) {
    auto it = document->positions.find(pointer);
    return it == document->positions.end() ? "none" : std::to_string(it->second.line) + ":" + std::to_string(it->second.column);
  };
  EXPECT_EQ(at(""), "1:1");
  EXPECT_EQ(at("/a"), "1:4");
  EXPECT_EQ(at("/a#key"), "1:1");
  EXPECT_EQ(at("/b/0"), "3:5");
  EXPECT_EQ(at("/b/1/c~1d~0#key"), "4:5");
  EXPECT_EQ(at("/b/1/c~1d~0/e"), "4:15");
  EXPECT_EQ(at("/f"), "5:1") << "a field without a value stands at its name";
}

TEST(YamlTest, WhatTheLanguageDoesNotHaveIsRefused) {
  EXPECT_EQ(YamlError("a: &x 1\n"), "t.yaml:1:4: anchors (&name) are not part of the language");
  EXPECT_EQ(YamlError("a: &x [1]\n"), "t.yaml:1:4: anchors (&name) are not part of the language");
  EXPECT_EQ(YamlError("a: 1\nb: *a\n"), "t.yaml:2:4: not valid YAML: the referenced anchor is not defined");
  EXPECT_EQ(YamlError("a: !!int 1\n"), "t.yaml:1:4: tags (tag:yaml.org,2002:int) are not part of the language");
  EXPECT_EQ(YamlError("a: !python/object [1]\n"), "t.yaml:1:4: tags (!python/object) are not part of the language");
  EXPECT_EQ(YamlError("a: ! [1]\n"), "t.yaml:1:4: tags (!) are not part of the language");
  EXPECT_EQ(YamlError("a: ! 1\n"), "t.yaml:1:4: tags (!) are not part of the language");
  EXPECT_EQ(YamlError("a: 1\n---\nb: 2\n"), "t.yaml:2:1: a second document; a recipe is one document");
  EXPECT_EQ(YamlError("[a, b]: 1\n"), "t.yaml:1:1: a field name must be plain text");
  EXPECT_EQ(YamlError("{a: 1}: 1\n"), "t.yaml:1:1: a field name must be plain text");
  EXPECT_EQ(YamlError("a: 1\nb: 2\na: 3\n"), "t.yaml:3:1: 'a' is given twice");
}

TEST(YamlTest, BytesThatAreNoTextAreRefused) {
  const std::string text = ": not a text in UTF-8, or a control character: byte ";
  EXPECT_EQ(YamlError("a: 1\nb: x\xFF\n"), "t.yaml:2:5" + text + "0xff");
  EXPECT_EQ(YamlError("b: \xC0\x80\n"), "t.yaml:1:4" + text + "0xc0") << "an overlong form";
  EXPECT_EQ(YamlError("b: \xED\xA0\x80\n"), "t.yaml:1:4" + text + "0xed") << "half of a surrogate pair";
  EXPECT_EQ(YamlError(std::string("a\0:\0 \0\x31\0", 8)), "t.yaml:1:2" + text + "0x00") << "UTF-16";
  // yaml-cpp takes it for the end of the text.
  EXPECT_EQ(YamlError("a: 1\n\x04\nb: 2\n"), "t.yaml:2:1" + text + "0x04");
}

TEST(YamlTest, AByteOrderMarkChangesNothing) {
  auto document = ParseYaml("\xEF\xBB\xBFname: 'x'\n", "t.yaml");
  ASSERT_TRUE(document.ok()) << document.error().message;
  EXPECT_EQ(document->tree, (Json{{"name", "x"}}));
  EXPECT_EQ(document->positions.at("/name").column, 7);
}

TEST(YamlTest, BrokenYamlIsLocated) {
  EXPECT_EQ(YamlError("model: {hidden: [300, 100}\n"), "t.yaml:1:26: not valid YAML: illegal flow end");
  EXPECT_EQ(YamlError("a:\n\tb: c\n"), "t.yaml:2:1: not valid YAML: a tab; indent with spaces");
  EXPECT_EQ(YamlError("a: b: c\n"), "t.yaml:1:5: not valid YAML: illegal map value");
  EXPECT_EQ(YamlError("a: \"open\nb: 1\n"), "t.yaml:1:4: the quotation mark is not closed on its line");
  EXPECT_EQ(YamlError("a: 'it''s\n"), "t.yaml:1:4: the quotation mark is not closed on its line");
  EXPECT_EQ(YamlError("\"a: 1\n"), "t.yaml:1:1: the quotation mark is not closed on its line");
  EXPECT_EQ(TreeOf("a: 'it''s'\nb: \"\\\\\\\"\"\n"), (Json{{"a", "it's"}, {"b", "\\\""}}));
}

TEST(YamlTest, SizeAndDepthAreLimited) {
  EXPECT_EQ(YamlError("a: " + std::string(kMaxYamlBytes, 'x')), "t.yaml: larger than 1 MiB");
  EXPECT_EQ(TreeOf("a: " + std::string(kMaxYamlBytes - 3, 'x'))["a"].get<std::string>().size(), kMaxYamlBytes - 3);
  auto nested = [](int depth) { return std::string(static_cast<size_t>(depth), '[') + std::string(static_cast<size_t>(depth), ']'); };
  EXPECT_TRUE(TreeOf(nested(kMaxYamlDepth)).is_array());
  EXPECT_EQ(YamlError(nested(kMaxYamlDepth + 1)), "t.yaml:1:33: nested deeper than 32 levels");
}

// Found slow or unbounded in one YAML reader or another. Each is read to its end or refused; ctest's limit is the clock.
TEST(YamlTest, HostileTextsAreReadOrRefused) {
  auto times = [](const std::string& text, size_t n) {
    std::string out;
    while (out.size() + text.size() <= std::min(kMaxYamlBytes, n * text.size())) out += text;
    return out;
  };
  constexpr size_t kAll = kMaxYamlBytes;
  for (const std::string& text :
       {times("[", kAll), times("{", kAll), times("- ", kAll), times("? ", kAll), times("a: ", kAll), times("a ", kAll), times("#\n", kAll), times(" ", kAll), times("\t", kAll),
        times("&a ", kAll), times("!a ", kAll), times("*a ", kAll), times("---\n", kAll), times("%YAML 1.2\n", kAll), times("\"\\x41", kAll), times("'", kAll), times("a: |\n  x\n", 1) + times("  x\n", 200000),
        "a: [" + times("1,", 500000) + "1]", times("k", 1000000) + ": 1", "[a, " + times("b ", 400000), std::string(kAll, '\0'), times("\xEF\xBB\xBF", kAll), times("\n", kAll)}) {
    auto recipe = Recipe::Parse(text, "h.yaml");
    ASSERT_FALSE(recipe.ok());
    EXPECT_EQ(recipe.error().message.rfind("h.yaml:", 0), 0u) << recipe.error().message.substr(0, 200);
    EXPECT_LT(recipe.error().message.size(), 20000u);
  }
}

RC_GTEST_PROP(YamlTest, ReadingGivesBackWhatWasRendered, ()) {
  Json tree = (*rc::gen::arbitrary<AnyTree>()).json;
  auto back = ParseYaml(RenderYaml(tree), "t.yaml");
  if (!back.ok()) RC_FAIL(back.error().message + "\n" + RenderYaml(tree));
  RC_ASSERT(Canonical(back->tree) == Canonical(tree));
}

TEST(YamlTest, RenderedRecipesAreTheSameRecipes) {
  for (const std::string& name : ShippedRecipes()) {
    auto recipe = Recipe::Parse(ShippedText(name), name);
    ASSERT_TRUE(recipe.ok()) << recipe.error().message;
    auto back = Recipe::Parse(recipe->Render(), name);
    ASSERT_TRUE(back.ok()) << back.error().message;
    EXPECT_EQ(back->tree(), recipe->tree()) << name;
    EXPECT_EQ(back->Render(), recipe->Render()) << name;
  }
}

// One to four random edits.
std::string Mutated(std::string text, RandomStream& random) {
  static const std::vector<std::string> kPieces = {
      "[", "]", "{", "}", ": ", "- ", "\n", "\n  ", "#", "&a ", "*a", "!!str ", "|", ">", "\"", "'", ",", "0", "-1", "1e999", "9999999999999999999", "0.5", "null", "true", "\t", "%", "@", "?",
      "\xC3", "\xFF", std::string(1, '\0'), "---\n", "repeat: {times: 3}", "steps: ", "prune: ", "retrain: ", "schedule: cubic", "targets: \"re:(a*)*b\"", "init", "{{{{{{{{", "fc1", "module.fc1"};
  for (uint64_t edits = 1 + random.Below(4); edits > 0 && !text.empty(); --edits) {
    size_t at = random.Below(text.size()), length = std::min<size_t>(1 + random.Below(12), text.size() - at);
    switch (random.Below(6)) {
      case 0: text.erase(at, length); break;
      case 1: text.insert(at, text.substr(random.Below(text.size()), length)); break;
      case 2: text.insert(at, kPieces[random.Below(kPieces.size())]); break;
      case 3: text.replace(at, length, kPieces[random.Below(kPieces.size())]); break;
      case 4: text[at] = static_cast<char>(random.Below(256)); break;
      case 5: random.Below(8) == 0 ? text.resize(at) : std::swap(text[at], text[random.Below(text.size())]); break;
    }
  }
  return text;
}

TEST(YamlTest, MutatedRecipesAreTakenOrRefusedWithAPosition) {
  int taken = 0, refused = 0;
  for (const std::string& name : ShippedRecipes()) {
    const std::string original = ShippedText(name);
    RandomStream random(1, RandomPurpose::kTest, original.size());
    for (int i = 0; i < 600; ++i) {
      std::string text = Mutated(original, random);
      auto recipe = Recipe::Parse(text, "fuzz.yaml");
      Result<ResolvedRecipe> resolved = recipe.ok() ? Resolve(*recipe, FashionInfo(), Digest()) : Result<ResolvedRecipe>(recipe.error());
      if (!resolved.ok()) {
        ++refused;
        EXPECT_EQ(resolved.error().code, ErrorCode::kInvalid);
        EXPECT_EQ(resolved.error().message.rfind("fuzz.yaml:", 0), 0u) << resolved.error().message << "\n" << text;
        continue;
      }
      ++taken;
      EXPECT_EQ(Recipe::Parse(recipe->Render(), "fuzz.yaml")->tree(), recipe->tree()) << text;
      EXPECT_LE(FullPlan(*resolved).size(), kMaxPlannedSteps);
    }
  }
  // Both ways are exercised: comments and numbers may change without harm.
  EXPECT_GT(taken, 100);
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace pare::recipes
