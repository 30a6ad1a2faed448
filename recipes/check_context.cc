#include "recipes/check_context.h"

#include <algorithm>

#include "model/architectures.h"

#include "recipes/schema.h"
#include "recipes/select.h"

namespace pare::recipes {
namespace {

std::vector<std::string> FieldNames(const std::string& section) {
  std::vector<std::string> names;
  for (const Field* f : FieldsOf(section)) names.emplace_back(f->name);
  return names;
}

}  // namespace

double NumberOr(const Json& section, const char* field, double otherwise) {
  return section.contains(field) && section[field].is_number() ? section[field].get<double>() : otherwise;
}

std::string TextOr(const Json& section, const char* field, const std::string& otherwise) {
  return section.contains(field) && section[field].is_string() ? section[field].get<std::string>() : otherwise;
}

bool CheckContext::Section(const std::string& section, const Json& object, const std::string& pointer, const std::string& extra) {
  constexpr Field kSection = {.type = "section"};
  if (auto wrong = CheckValue(kSection, object)) {
    Fail(pointer, section + ": " + *wrong);
    return false;
  }
  for (const auto& [key, value] : object.items()) {
    const Field* field = FindField(section, key);
    if (field == nullptr && !extra.empty()) field = FindField(extra, key);
    std::string at = pointer + "/" + Escaped(key);
    if (field == nullptr) {
      std::vector<std::string> known = FieldNames(section), more = FieldNames(extra);
      known.insert(known.end(), more.begin(), more.end());
      Fail(at + "#key", "unknown field " + Quoted(key) + " in " + section + Suggestion(key, known));
    } else if (auto wrong = CheckValue(*field, value)) {
      Fail(at, key + ": " + *wrong);
    } else if (field->type == "patterns") {
      Patterns(key, value, at);
    }
  }
  return true;
}

void CheckContext::Patterns(const std::string& key, const Json& value, const std::string& pointer) {
  if (value.is_string()) {
    if (auto wrong = PatternError(value.get<std::string>())) Fail(pointer, key + ": " + *wrong);
    return;
  }
  for (size_t i = 0; i < value.size(); ++i) {
    if (auto wrong = PatternError(value[i].get<std::string>())) Fail(pointer + "/" + std::to_string(i), key + ": " + *wrong);
  }
}

std::string CheckContext::OfTrain(const char* field, const char* otherwise) const {
  return tree_.contains("train") && tree_["train"].is_object() ? TextOr(tree_["train"], field, otherwise) : otherwise;
}

void CheckContext::Refuse(const Json& section, const std::string& pointer, std::initializer_list<const char*> fields, const std::string& text) {
  for (const char* field : fields) {
    if (section.contains(field)) Fail(pointer + "/" + field, std::string(field) + ": " + text);
  }
}

void CheckContext::Training(const Json& section, const std::string& pointer, const std::string& schedule) {
  if (section.contains("optimizer") && CheckValue(*FindField("train", "optimizer"), section["optimizer"])) return;  // said already
  std::string inherited = OfTrain("optimizer", "sgd"), optimizer = TextOr(section, "optimizer", inherited);
  auto only = [&](std::initializer_list<const char*> fields, bool meaningful, const std::string& with, const std::string& found) {
    if (!meaningful) Refuse(section, pointer, fields, "only with " + with + ", here it is " + found);
  };
  only({"momentum", "nesterov"}, optimizer == "sgd", "optimizer: sgd", optimizer);
  only({"beta1", "beta2", "epsilon"}, optimizer != "sgd", "optimizer: adam or adamw", optimizer);
  only({"milestones", "gamma"}, schedule == "multi_step", "schedule: multi_step", schedule);
  only({"final_learning_rate"}, schedule == "cosine" || schedule == "linear", "schedule: cosine or linear", schedule);
  if (section.value("nesterov", Json()) == true && NumberOr(section, "momentum", 0.9) == 0) Fail(pointer + "/nesterov", "nesterov: needs a momentum above 0");
  if (TextOr(section, "schedule", "") == "multi_step" && (!section.contains("milestones") || section["milestones"].empty())) {
    bool inherits = OfTrain("schedule", "constant") == "multi_step" && TextOr(section, "rewind", "none") != "none";
    if (!inherits || section.contains("milestones")) Fail(pointer + "/schedule", "schedule: multi_step needs milestones, the epochs at which the rate falls");
  }
  if ((optimizer == "sgd") != (inherited == "sgd") && !section.contains("learning_rate")) {
    Fail(pointer + "/optimizer", "optimizer: " + optimizer + " instead of train's " + inherited + " needs its own learning_rate");
  }
}

void CheckContext::Model(const Json& model, const std::string& pointer) {
  if (!model.is_object()) return;  // said already
  Json parameters = Json::object();
  for (const auto& [key, value] : model.items()) {
    if (const Field* field = FindField("model", key)) {
      if (auto wrong = CheckValue(*field, value)) Fail(pointer + "/" + key, key + ": " + *wrong);
    } else {
      parameters[key] = value;
    }
  }
  if (!model.contains("architecture")) {
    std::string known;
    for (const model::ArchitectureInfo& info : model::Architectures()) known += (known.empty() ? "" : ", ") + info.name;
    return Fail(pointer, "model: 'architecture' is missing; known are " + known);
  }
  if (!model["architecture"].is_string()) return;
  std::string name = model["architecture"].get<std::string>();
  auto plain = model::ResolveArchitecture(name, Json::object());
  if (!plain.ok()) {
    std::vector<std::string> known;
    for (const model::ArchitectureInfo& info : model::Architectures()) known.push_back(info.name);
    return Fail(pointer + "/architecture", "architecture: unknown architecture " + Quoted(name) + Suggestion(name, known));
  }
  std::vector<std::string> known = {"architecture", "weights"};
  for (const auto& [field, otherwise] : plain->items()) known.push_back(field);
  for (const auto& [key, value] : parameters.items()) {
    // One field at a time, so that the message stands at its field.
    auto resolved = model::ResolveArchitecture(name, Json{{key, value}});
    if (resolved.ok()) continue;
    bool unknown = std::find(known.begin(), known.end(), key) == known.end();
    Fail(pointer + "/" + Escaped(key) + (unknown ? "#key" : ""),
         unknown ? "unknown field " + Quoted(key) + " in model (architecture " + Quoted(name) + ")" + Suggestion(key, known) : resolved.error().message);
  }
}

}  // namespace pare::recipes
