#include "recipes/outside.h"

#include <set>

#include "recipes/findings.h"

namespace pare::recipes {
namespace {

void Collect(const Json& steps, const std::string& pointer, const Json& model, std::vector<OutsideReference>& found, std::set<std::string>& texts) {
  if (!steps.is_array()) return;
  for (size_t i = 0; i < steps.size(); ++i) {
    std::string at = pointer + "/" + std::to_string(i);
    const Json& item = steps[i];
    if (!item.is_object()) continue;
    if (item.contains("steps")) Collect(item["steps"], at + "/steps", model, found, texts);
    for (const auto& [kind, section] : item.items()) {
      if (!section.is_object() || !section.contains("teacher") || !section["teacher"].is_string()) continue;
      std::string text = section["teacher"].get<std::string>();
      ModelPlace place = PlaceOf(text);
      if (place == ModelPlace::kRecipe || !texts.insert(text).second) continue;
      found.push_back({text, place, at + "/" + Escaped(kind) + "/teacher", section.value("teacher_model", model)});
    }
  }
}

}  // namespace

ModelPlace PlaceOf(const std::string& text) {
  if (text.ends_with(".safetensors")) return ModelPlace::kFile;
  if (text.starts_with("./") || text.starts_with("../") || text.starts_with("/") || text.ends_with("/")) return ModelPlace::kDirectory;
  return text.find('@') != text.npos && !text.starts_with("baseline@") ? ModelPlace::kRegistry : ModelPlace::kRecipe;
}

std::vector<OutsideReference> OutsideReferences(const Json& tree) {
  std::vector<OutsideReference> found;
  std::set<std::string> texts;
  auto variants = tree.find("variants");
  if (variants == tree.end() || !variants->is_object()) return found;
  for (const auto& [name, steps] : variants->items()) Collect(steps, "/variants/" + Escaped(name), tree.value("model", Json()), found, texts);
  return found;
}

Json ToJson(const OutsideModels& models) {
  Json json = Json::object();
  for (const auto& [text, m] : models) {
    json[text] = {{"graph", model::ToJson(m.graph)}};
    if (!m.artifact.is_none()) json[text]["artifact"] = m.artifact.hex();
    if (!m.weights.is_none()) json[text]["weights"] = m.weights.hex();
  }
  return json;
}

Result<OutsideModels> OutsideModelsFromJson(const Json& json) {
  OutsideModels models;
  if (!json.is_object()) return Error{ErrorCode::kInvalid, "models: expected an object"};
  for (const auto& [text, entry] : json.items()) {
    OutsideModel m;
    if (!entry.is_object() || !entry.contains("graph")) return Error{ErrorCode::kInvalid, "models: '" + text + "' has no graph"};
    ASSIGN_OR_RETURN(m.graph, model::GraphFromJson(entry["graph"]));
    TRY(model::Analyze(m.graph));
    if (entry.contains("artifact")) { ASSIGN_OR_RETURN(m.artifact, DigestField(entry, "artifact")); }
    if (entry.contains("weights")) { ASSIGN_OR_RETURN(m.weights, DigestField(entry, "weights")); }
    if (m.artifact.is_none() == m.weights.is_none()) return Error{ErrorCode::kInvalid, "models: '" + text + "' needs either artifact or weights"};
    models.emplace(text, std::move(m));
  }
  return models;
}

}  // namespace pare::recipes
