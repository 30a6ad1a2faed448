#include "recipes/check.h"

#include <algorithm>
#include <cctype>

#include "model/architectures.h"
#include "recipes/planner.h"
#include "recipes/schema.h"
#include "recipes/select.h"

namespace pare::recipes {
namespace {

// Enough for any recipe, and small enough that sums of products cannot overflow.
constexpr size_t kManySteps = size_t{1} << 40;

const std::vector<std::string> kStepKinds = {"prune", "retrain", "evaluate", "repeat"};
const std::vector<std::string> kLaterKinds = {"distill", "low_rank", "quantize", "lora", "self_distill", "measure"};

constexpr const char* kNameRule = "letters, digits, '-', '_' and '.', at most 100, not '.' first";

bool GoodName(const std::string& name) {
  return !name.empty() && name.size() <= 100 && name[0] != '.' && std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return (c < 0x80 && std::isalnum(c)) || c == '-' || c == '_' || c == '.';
  });
}

std::vector<std::string> FieldNames(const std::string& section) {
  std::vector<std::string> names;
  for (const Field* f : FieldsOf(section)) names.emplace_back(f->name);
  return names;
}

}  // namespace

bool Checker::Section(const std::string& section, const Json& object, const std::string& pointer, const std::string& extra) {
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

void Checker::Patterns(const std::string& key, const Json& value, const std::string& pointer) {
  if (value.is_string()) {
    if (auto wrong = PatternError(value.get<std::string>())) Fail(pointer, key + ": " + *wrong);
    return;
  }
  for (size_t i = 0; i < value.size(); ++i) {
    if (auto wrong = PatternError(value[i].get<std::string>())) Fail(pointer + "/" + std::to_string(i), key + ": " + *wrong);
  }
}

void Checker::Run() {
  Section("recipe", tree_, "");
  if (!tree_.contains("name")) Fail("", "'name' is missing");
  else if (tree_["name"].is_string() && !GoodName(tree_["name"].get<std::string>())) Fail("/name", "name: expected " + std::string(kNameRule) + ", found " + Quoted(tree_["name"].get<std::string>()));
  if (tree_.contains("model")) Model(); else Fail("", "'model' is missing");
  if (tree_.contains("data")) Data(); else Fail("", "'data' is missing");
  Train();
  if (tree_.contains("snapshot")) Section("snapshot", tree_["snapshot"], "/snapshot");
  if (tree_.contains("goal") && Section("goal", tree_["goal"], "/goal") && tree_["goal"].contains("target")) {
    Section("target", tree_["goal"]["target"], "/goal/target");
  }
  if (tree_.contains("promote")) Promote();
  if (tree_.contains("variants")) Variants();
}

void Checker::Model() {
  const Json& model = tree_["model"];
  if (!model.is_object()) return;  // said already
  Json parameters = Json::object();
  for (const auto& [key, value] : model.items()) {
    if (const Field* field = FindField("model", key)) {
      if (auto wrong = CheckValue(*field, value)) Fail("/model/" + key, key + ": " + *wrong);
    } else {
      parameters[key] = value;
    }
  }
  if (!model.contains("architecture")) {
    std::string known;
    for (const model::ArchitectureInfo& info : model::Architectures()) known += (known.empty() ? "" : ", ") + info.name;
    return Fail("/model", "model: 'architecture' is missing; known are " + known);
  }
  if (!model["architecture"].is_string()) return;
  std::string name = model["architecture"].get<std::string>();
  auto plain = model::ResolveArchitecture(name, Json::object());
  if (!plain.ok()) {
    std::vector<std::string> known;
    for (const model::ArchitectureInfo& info : model::Architectures()) known.push_back(info.name);
    return Fail("/model/architecture", "architecture: unknown architecture " + Quoted(name) + Suggestion(name, known));
  }
  std::vector<std::string> known = {"architecture", "weights"};
  for (const auto& [field, otherwise] : plain->items()) known.push_back(field);
  for (const auto& [key, value] : parameters.items()) {
    // One field at a time, so that the message stands at its field.
    auto resolved = model::ResolveArchitecture(name, Json{{key, value}});
    if (resolved.ok()) continue;
    bool unknown = std::find(known.begin(), known.end(), key) == known.end();
    Fail("/model/" + Escaped(key) + (unknown ? "#key" : ""),
         unknown ? "unknown field " + Quoted(key) + " in model (architecture " + Quoted(name) + ")" + Suggestion(key, known) : resolved.error().message);
  }
}

void Checker::Data() {
  const Json& data = tree_["data"];
  if (!Section("data", data, "/data")) return;
  if (data.contains("augment")) Section("augment", data["augment"], "/data/augment");
  bool built_in = data.contains("dataset"), files = data.contains("train");
  if (built_in == files) return Fail("/data", "data: give either dataset (fashion-mnist) or the files train and test");
  if (files && !data.contains("test")) Fail("/data", "data: 'test' is missing: the report's accuracies come from samples that training never saw");
  for (const char* field : {"format", "train_labels", "test", "test_labels", "label_column", "shape"}) {
    if (built_in && data.contains(field)) Fail("/data/" + std::string(field), std::string(field) + ": only with files, not with dataset");
  }
  if (files && data.contains("directory")) Fail("/data/directory", "directory: only with dataset; give the files' paths instead");
}

void Checker::Train() {
  if (tree_.contains("train")) {
    if (Section("train", tree_["train"], "/train")) Training(tree_["train"], "/train", OfTrain("schedule", "constant"));
  } else if (!tree_.contains("model") || !tree_["model"].is_object() || !tree_["model"].contains("weights")) {
    Fail("", "'train' is missing; it can be omitted only when model.weights gives a trained model");
  }
}

void Checker::Promote() {
  const Json& promote = tree_["promote"];
  if (!Section("promote", promote, "/promote")) return;
  if (!promote.contains("as")) Fail("/promote", "promote: 'as', the model's name in the registry, is missing");
  else if (promote["as"].is_string() && !GoodName(promote["as"].get<std::string>())) Fail("/promote/as", "as: expected " + std::string(kNameRule) + ", found " + Quoted(promote["as"].get<std::string>()));
}

void Checker::Variants() {
  const Json& variants = tree_["variants"];
  if (!variants.is_object()) return;  // said already
  if (variants.size() > kMaxVariants) Fail("/variants", "at most " + std::to_string(kMaxVariants) + " variants, found " + std::to_string(variants.size()));
  size_t total = 0;
  for (const auto& [name, steps] : variants.items()) {
    std::string at = "/variants/" + Escaped(name);
    if (!GoodName(name)) Fail(at + "#key", "name of a variant: expected " + std::string(kNameRule) + ", found " + Quoted(name));
    size_t expanded = 0;
    Steps(steps, at, 1, expanded);
    if (expanded > kMaxVariantSteps) {
      Fail(at, "a variant has at most " + std::to_string(kMaxVariantSteps) + " steps after repeat, found " + std::to_string(expanded));
    }
    total += std::min(expanded, kMaxVariantSteps);
  }
  if (total > kMaxPlannedSteps) {
    Fail("/variants", "a job has at most " + std::to_string(kMaxPlannedSteps) + " steps, evaluations included; the variants have " + std::to_string(total) + " without them");
  }
}

void Checker::Steps(const Json& steps, const std::string& pointer, size_t factor, size_t& expanded) {
  if (!steps.is_array() || steps.empty()) return Fail(pointer, "expected a list of steps, each starting with '-'");
  for (size_t i = 0; i < steps.size(); ++i) Item(steps[i], pointer + "/" + std::to_string(i), factor, expanded);
}

void Checker::Item(const Json& item, const std::string& pointer, size_t factor, size_t& expanded) {
  if (!item.is_object() || item.empty()) return Fail(pointer, "expected a step: one of prune, retrain, evaluate, or repeat with steps");
  if (item.contains("repeat") || item.contains("steps")) return Repeat(item, pointer, factor, expanded);
  if (item.size() != 1) return Fail(pointer, "one step per list item; start the next one with '-'");
  auto [kind, value] = *item.items().begin();
  std::string inner = pointer + "/" + Escaped(kind);
  expanded += factor;
  if (kind == "prune") return Prune(value, inner);
  if (kind == "retrain") return Retrain(value, inner);
  if (kind == "evaluate") return Evaluate(value, inner);
  bool later = std::find(kLaterKinds.begin(), kLaterKinds.end(), kind) != kLaterKinds.end();
  Fail(inner + "#key", later ? "step kind '" + kind + "' is not available in this version; available: prune, retrain, evaluate, repeat"
                             : "unknown step kind " + Quoted(kind) + Suggestion(kind, kStepKinds));
}

void Checker::Repeat(const Json& item, const std::string& pointer, size_t factor, size_t& expanded) {
  for (const auto& [key, value] : item.items()) {
    if (key != "repeat" && key != "steps") Fail(pointer + "/" + Escaped(key) + "#key", "unknown field " + Quoted(key) + " beside repeat. Allowed: repeat, steps");
  }
  if (!item.contains("repeat") || !item.contains("steps")) return Fail(pointer, "repeat and steps belong together");
  if (Section("repeat", item["repeat"], pointer + "/repeat")) {
    Json times = item["repeat"].value("times", Json());
    if (times.is_null()) Fail(pointer + "/repeat", "repeat: 'times' is missing");
    if (times.is_number_integer() && times.get<int64_t>() > 0) factor = std::min(factor * static_cast<size_t>(std::min<int64_t>(times.get<int64_t>(), 1000)), kManySteps);
  }
  Steps(item["steps"], pointer + "/steps", factor, expanded);
}

}  // namespace pare::recipes
