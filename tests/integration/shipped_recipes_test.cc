// Every shipped recipe runs to its end: the recipe as it is, its numbers cut down to a few hundred made-up samples, one epoch and two
// rounds. What its comment says to run before it (another recipe, an export) is run too, as small.
#include <gmock/gmock.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <sstream>

#include "recipes/recipe.h"
#include "recipes/yaml.h"
#include "tests/cli/fixture.h"
#include "tests/integration/docs_commands.h"

namespace pare::cli {
namespace {

namespace fs = std::filesystem;

constexpr int kSide = 16;  // the least that lenet5 takes

// The most that a number of a recipe may be here, by its field.
const std::map<std::string, Json>& Most() {
  static const std::map<std::string, Json> most = {{"epochs", 1}, {"to", 0}, {"end_epoch", 0.5}, {"times", 2}, {"generations", 1},
                                                   {"validation", kSmallValidation}, {"labels", 100}, {"calibration_samples", kSmallTraining},
                                                   {"samples", 50}, {"runs", 2}, {"seconds", 0.02}};
  return most;
}

Json Shrunk(Json value) {
  if (value.is_array()) {
    for (Json& item : value) item = Shrunk(std::move(item));
  } else if (value.is_object()) {
    for (auto& [field, item] : value.items()) {
      auto most = Most().find(field);
      if (item.is_number() && most != Most().end()) item = std::min(item, most->second);
      else item = Shrunk(std::move(item));
    }
  }
  return value;
}

// The recipe on the small samples: images, or token ids where it reads such.
Json Small(const Json& tree) {
  Json small = Shrunk(tree);
  if (small["model"]["architecture"] == "encoder") return small;
  Json data = recipes::ParseYaml(kSmallData, "data").value().tree["data"];
  if (small["data"].contains("augment")) data["augment"] = small["data"]["augment"];
  small["data"] = std::move(data);
  return small;
}

std::vector<std::string> Shipped() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(PARE_SOURCE_DIR "/recipes")) {
    if (entry.path().extension() == ".yaml") names.push_back(entry.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

class ShippedRecipesTest : public CliTest {
 protected:
  void SetUp() override {
    CliTest::SetUp();
    if (!RunnerIsBuilt()) GTEST_SKIP() << "needs pare-runner (libtorch)";
    WriteData(kSide);
  }
  static Json TreeOf(const std::string& name) { return recipes::Recipe::Parse(Read(PARE_SOURCE_DIR "/recipes/" + name + ".yaml"), name).value().tree(); }

  void RunSmall(const std::string& name) const {
    Json small = Small(TreeOf(name));
    if (small["model"]["architecture"] == "encoder") {
      Outcome made = Shell("python3 " PARE_SOURCE_DIR "/recipes/make_tokens.py tokens --train 600 --test 200");
      ASSERT_EQ(made.code, 0) << made.err;
    }
    Outcome run = Pare({"run", Write(name + ".yaml", recipes::RenderYaml(small)), "--workers", "1", "--threads", "1"}, Path("store"));
    EXPECT_EQ(run.code, 0) << run.err << run.out;
  }
  // What the comment says to do before `name` itself is run.
  void Prepare(const std::string& name) const {
    for (const docs::Command& command : docs::CommandsOf(name + ".yaml", Read(PARE_SOURCE_DIR "/recipes/" + name + ".yaml"))) {
      std::istringstream text(command.text);
      std::string program, verb, first, second;
      text >> program >> verb >> first >> second;
      std::string recipe = fs::path(first).stem().string();
      if (verb == "run" && recipe == name) return;
      if (verb == "run") RunSmall(recipe);
      if (verb == "export") {
        EXPECT_EQ(Pare({"export", first, second}, Path("store")).code, 0) << command.text;
      }
    }
  }
};

class EachShippedRecipeTest : public ShippedRecipesTest, public ::testing::WithParamInterface<std::string> {};

TEST_P(EachShippedRecipeTest, EndsWithACandidateOfEveryVariantAPromotedNetworkAndADigest) {
  Prepare(GetParam());
  RunSmall(GetParam());
  if (HasFailure()) return;
  Json report = Ask({"report"}, Path("store"));
  EXPECT_TRUE(report["failed"].empty()) << report["failed"].dump();
  std::set<std::string> candidates, variants;
  for (const Json& line : report["candidates"]) candidates.insert(line["variant"]);
  Json tree = TreeOf(GetParam());
  for (const auto& [variant, steps] : tree["variants"].items()) variants.insert(variant);
  EXPECT_EQ(candidates, variants);
  EXPECT_TRUE(report["baseline"]["test_accuracy"].is_number()) << report["baseline"].dump();
  EXPECT_EQ(report["promoted"]["name"], tree["promote"]["as"]);
  EXPECT_EQ(report["promoted"]["version"], 1) << report["promoted"].dump();
  EXPECT_THAT(Pare({"digest"}, Path("store")).out, testing::HasSubstr("total "));
}

INSTANTIATE_TEST_SUITE_P(Recipes, EachShippedRecipeTest, ::testing::ValuesIn(Shipped()), [](const auto& test) {
  std::string name = test.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

// Whether there is a gain depends on the machine; that the report says so does not.
TEST_F(ShippedRecipesTest, AReportSaysNoGainWhereThereIsNone) {
  RunSmall("fashion-measure");
  std::string shown = Pare({"report"}, Path("store")).out;
  Json report = Ask({"report"}, Path("store"));
  size_t measured = 0;
  for (const Json& candidate : report["candidates"]) {
    for (const Json& m : candidate["measurements"]) {
      ++measured;
      std::string finding = m["finding"], gives = m["gives"];
      EXPECT_EQ(finding.starts_with("no gain in time: "), m["speedup"].get<double>() < 1.05) << finding;
      EXPECT_EQ(gives == "space" || gives == "neither", finding.starts_with("no gain in time: ")) << gives;
      EXPECT_THAT(shown, testing::HasSubstr("  gives " + gives + "; " + finding + "\n"));
    }
  }
  EXPECT_EQ(measured, 4u);
}

}  // namespace
}  // namespace pare::cli
