// docs/recipes.md: its reference is the schema's, and every YAML snippet in it is a recipe or a part of one.
#include <set>

#include "model/architectures.h"
#include "methods/registry.h"
#include "recipes/schema.h"
#include "tests/recipes/fixture.h"

namespace pare::recipes {
namespace {

const std::string kPath = PARE_SOURCE_DIR "/docs/recipes.md";

struct Snippet {
  int line = 0;  // of its first line
  std::string text;
};

// Fenced blocks of a language.
std::vector<Snippet> SnippetsOf(const std::string& markdown, const std::string& language) {
  std::vector<Snippet> snippets;
  std::istringstream lines(markdown);
  bool inside = false;
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (inside && line == "```") inside = false;
    else if (inside) snippets.back().text += line + "\n";
    else if (line == "```" + language) snippets.push_back({number + 1, ""}), inside = true;
  }
  EXPECT_FALSE(inside);
  return snippets;
}

// A snippet as a whole recipe: a list of steps becomes a variant, single sections replace those of a plain recipe.
std::string Completed(const std::string& text) {
  auto part = ParseYaml(text, "part.yaml");
  EXPECT_TRUE(part.ok()) << part.error().message;
  if (!part.ok() || part->tree.contains("name")) return text;
  Json tree = ParseYaml("name: part\nmodel: {architecture: resnet20}\ndata: {dataset: fashion-mnist, validation: 5000}\ntrain: {epochs: 20, schedule: multi_step, milestones: [10, 15]}\n", "base.yaml")->tree;
  if (part->tree.is_array()) {
    // The layers that the text talks about are those of the default network, unless it names others.
    if (text.find("stage") == std::string::npos) tree["model"] = {{"architecture", "mlp"}};
    tree["variants"] = {{"v", part->tree}};
  } else {
    tree.update(part->tree);
  }
  return RenderYaml(tree);
}

TEST(RecipesDocumentTest, EverySnippetIsTakenAndPlanned) {
  std::vector<Snippet> snippets = SnippetsOf(ReadText(kPath), "yaml");
  EXPECT_GE(snippets.size(), 12u);
  for (const Snippet& snippet : snippets) {
    std::string where = "docs/recipes.md:" + std::to_string(snippet.line);
    auto recipe = Recipe::Parse(Completed(snippet.text), where);
    ASSERT_TRUE(recipe.ok()) << recipe.error().message;
    data::DataInfo info = InfoFor(snippet.text);
    if (info.largest_id) info.largest_id->value = 100;
    else if (recipe->data_request().format.empty() && recipe->data_request().dataset.empty()) info.sample_shape = {1, 8, 8};
    Digest weights = recipe->weights_path().empty() ? Digest() : pare::DigestOf(std::string_view("weights"));
    auto resolved = Resolve(*recipe, info, weights);
    ASSERT_TRUE(resolved.ok()) << resolved.error().message;
    EXPECT_GE(FullPlan(*resolved).size(), 3u) << where;
  }
}

TEST(RecipesDocumentTest, WorkedExamplesRaiseNoWarning) {
  for (const Snippet& snippet : SnippetsOf(ReadText(kPath), "yaml")) {
    if (snippet.text.rfind("version: 1\n", 0) != 0) continue;
    EXPECT_THAT(WarningsOf(snippet.text), testing::IsEmpty()) << "docs/recipes.md:" << snippet.line;
  }
}

TEST(RecipesDocumentTest, ItsReferenceIsMadeFromTheSchema) {
  std::string text = ReadText(kPath);
  size_t begin = text.find("<!-- reference: begin"), end = text.find("<!-- reference: end -->");
  ASSERT_NE(begin, std::string::npos);
  ASSERT_NE(end, std::string::npos);
  begin = text.find('\n', begin) + 1;
  ExpectGolden(kPath, text.substr(0, begin) + RenderReference() + "\n" + text.substr(end));
}

TEST(RecipesDocumentTest, TheReferenceHasEveryField) {
  std::string reference = RenderReference();
  for (const Field& field : Fields()) {
    size_t section = reference.find("\n### " + std::string(field.section) + "\n");
    ASSERT_NE(section, std::string::npos) << field.section;
    EXPECT_NE(reference.find("| `" + std::string(field.name) + "` |", section), std::string::npos) << field.section << "." << field.name;
    EXPECT_FALSE(field.help.empty() || field.example.empty()) << field.section << "." << field.name;
  }
  for (const model::ArchitectureInfo& info : model::Architectures()) {
    EXPECT_NE(reference.find("architecture: " + info.name), std::string::npos);
    for (const model::ArchitectureField& field : info.fields) EXPECT_NE(reference.find("| `" + field.name + "` |"), std::string::npos) << field.name;
  }
}

// The examples of the reference are values that the field takes.
TEST(RecipesDocumentTest, EveryExampleIsAGoodValue) {
  for (const Field& field : Fields()) {
    auto example = ParseYaml("x: " + std::string(field.example) + "\n", "example.yaml");
    ASSERT_TRUE(example.ok()) << field.section << "." << field.name << ": " << example.error().message;
    EXPECT_EQ(CheckValue(field, example->tree["x"]), std::nullopt) << field.section << "." << field.name;
    if (!field.default_json.empty()) { EXPECT_EQ(CheckValue(field, Json::parse(field.default_json)), std::nullopt) << field.section << "." << field.name; }
  }
}

TEST(RecipesDocumentTest, EveryStepAndSectionIsDescribedBeforeTheReference) {
  std::string text = ReadText(kPath);
  text.resize(text.find("## Reference\n"));
  std::set<std::string> named = {"recipe", "augment", "target"};  // inside the text of others
  for (const Field& field : Fields()) {
    std::string section(field.section);
    if (named.count(section)) continue;
    // A method without a section of its own is described by its help, in the reference.
    const methods::Method* method = methods::FindMethod(section);
    if (method != nullptr && !method->fields.empty() && !method->help.empty()) continue;
    bool described = text.find("\n### " + section + "\n") != std::string::npos || text.find("\n### goal and " + section + "\n") != std::string::npos || text.find("\n### " + section + " and promote\n") != std::string::npos;
    EXPECT_TRUE(described) << section;
  }
}

}  // namespace
}  // namespace pare::recipes
