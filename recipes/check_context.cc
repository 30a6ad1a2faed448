#include "recipes/check_context.h"

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

}  // namespace pare::recipes
