#include "recipes/recipe.h"

#include "recipes/check.h"

namespace pare::recipes {

Result<Recipe> Recipe::Parse(std::string_view yaml, std::string_view name) {
  ASSIGN_OR_RETURN(YamlDocument document, ParseYaml(yaml, name));
  Errors errors(name, document.positions);
  if (document.tree.is_object()) Checker(document.tree, errors).Run();
  else errors.Add("", "a recipe is a set of fields; start with 'version: 1' and 'name: …'");
  if (!errors.empty()) return errors.ToError();
  Recipe recipe;
  recipe.tree_ = std::move(document.tree);
  recipe.text_ = std::string(yaml);
  recipe.name_ = std::string(name);
  recipe.positions_ = std::move(document.positions);
  return recipe;
}

data::DataRequest Recipe::data_request() const {
  const Json& d = tree_.at("data");
  data::DataRequest r;
  auto text = [&](const char* field) { return d.contains(field) ? d.at(field).get<std::string>() : std::string(); };
  r.dataset = text("dataset");
  r.directory = text("directory");
  r.format = text("format");
  r.train = text("train");
  r.train_labels = text("train_labels");
  r.test = text("test");
  r.test_labels = text("test_labels");
  if (d.contains("label_column")) {
    r.label_column = d["label_column"].is_string() ? d["label_column"].get<std::string>() : Canonical(d["label_column"]);
  }
  if (d.contains("shape")) r.shape = d["shape"].get<model::Shape>();
  return r;
}

std::string Recipe::weights_path() const { return tree_.at("model").value("weights", ""); }
std::string Recipe::Render() const { return RenderYaml(tree_); }

Recipe::Position Recipe::position(const std::string& pointer) const { return PositionOf(positions_, pointer); }

}  // namespace pare::recipes
