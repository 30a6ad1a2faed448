#include "recipes/check.h"

#include <algorithm>
#include <cctype>

#include "recipes/kinds.h"
#include "recipes/model_section.h"
#include "recipes/outside.h"
#include "recipes/planner.h"
#include "recipes/schema.h"

namespace pare::recipes {
namespace {

// Enough for any recipe, and small enough that sums of products cannot overflow.
constexpr size_t kManySteps = size_t{1} << 40;
const Json kEmpty = Json::object();

constexpr const char* kNameRule = "letters, digits, '-', '_' and '.', at most 100, not '.' first";

bool GoodName(const std::string& name) {
  return !name.empty() && name.size() <= 100 && name[0] != '.' && std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return (c < 0x80 && std::isalnum(c)) || c == '-' || c == '_' || c == '.';
  });
}

std::string Listed(const std::vector<std::string>& names) {
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  return list;
}

// A `model` section with every field of its architecture; null if it is wrong, which is said elsewhere.
Json WrittenOut(const Json& model) {
  if (!model.is_object() || TextOr(model, "architecture", "").empty()) return Json();
  auto resolved = ResolveModelSection(model);
  return resolved.ok() ? *std::move(resolved) : Json();
}

}  // namespace

void Checker::Run() {
  context_.Section("recipe", tree_, "");
  if (!tree_.contains("name")) Fail("", "'name' is missing");
  else if (tree_["name"].is_string() && !GoodName(tree_["name"].get<std::string>())) Fail("/name", "name: expected " + std::string(kNameRule) + ", found " + Quoted(tree_["name"].get<std::string>()));
  if (tree_.contains("model")) Model(); else Fail("", "'model' is missing");
  if (tree_.contains("data")) Data(); else Fail("", "'data' is missing");
  Train();
  if (tree_.contains("snapshot")) context_.Section("snapshot", tree_["snapshot"], "/snapshot");
  if (tree_.contains("goal") && context_.Section("goal", tree_["goal"], "/goal") && tree_["goal"].contains("target")) {
    context_.Section("target", tree_["goal"]["target"], "/goal/target");
  }
  if (tree_.contains("keep")) Keep();
  if (tree_.contains("promote")) Promote();
  if (tree_.contains("variants")) Variants();
}

void Checker::Model() { context_.Model(tree_["model"], "/model"); }

void Checker::Data() {
  const Json& data = tree_["data"];
  if (!context_.Section("data", data, "/data")) return;
  if (data.contains("augment")) context_.Section("augment", data["augment"], "/data/augment");
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
    if (context_.Section("train", tree_["train"], "/train")) context_.Training(tree_["train"], "/train", context_.OfTrain("schedule", "constant"));
  } else if (!tree_.contains("model") || !tree_["model"].is_object() || !tree_["model"].contains("weights")) {
    Fail("", "'train' is missing; it can be omitted only when model.weights gives a trained model");
  }
}

void Checker::Keep() {
  const Json& keep = tree_["keep"];
  if (!context_.Section("keep", keep, "/keep")) return;
  const Json& pinned = keep.value("pinned", Json());
  for (size_t i = 0; i < (pinned.is_array() ? pinned.size() : pinned.is_string()); ++i) {
    const Json& name = pinned.is_array() ? pinned[i] : pinned;
    // The store, which deletes, knows no other patterns.
    bool plain = !name.is_string() || (name.get<std::string>().find_first_of("?[\\") == std::string::npos && name.get<std::string>().rfind("re:", 0) != 0);
    if (!plain) Fail("/keep/pinned" + (pinned.is_array() ? "/" + std::to_string(i) : ""), "pinned: expected names of steps, with * for any text, found " + Quoted(name.get<std::string>()));
  }
  std::string policy = TextOr(keep, "policy", "all");
  if (policy != "best" && policy != "last") context_.Refuse(keep, "/keep", {"count"}, "only with policy: best or last, here it is " + Shortened(policy));
}

void Checker::Promote() {
  const Json& promote = tree_["promote"];
  if (!context_.Section("promote", promote, "/promote")) return;
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
  std::vector<std::string> kinds = KindNames();
  if (!item.is_object() || item.empty()) return Fail(pointer, "expected a step: one of " + Listed(kinds) + " (with steps)");
  if (item.contains("repeat") || item.contains("steps")) return Repeat(item, pointer, factor, expanded);
  if (item.size() != 1) return Fail(pointer, "one step per list item; start the next one with '-'");
  auto [name, value] = *item.items().begin();
  std::string inner = pointer + "/" + Escaped(name);
  expanded += factor;
  if (const Kind* kind = FindKind(name)) {
    const Json& section = value.is_null() && kind->may_be_empty ? kEmpty : value;
    if (context_.Section(name, section, inner, kind->train_fields ? "train" : "") && kind->check) kind->check(context_, section, inner);
    return TeacherFile(section, inner);
  }
  Fail(inner + "#key", "unknown step kind " + Quoted(name) + Suggestion(name, kinds));
}

void Checker::TeacherFile(const Json& section, const std::string& pointer) {
  std::string file = section.is_object() ? TextOr(section, "teacher", "") : "";
  if (PlaceOf(file) != ModelPlace::kFile) return;
  const char* field = section.contains("teacher_model") ? "/teacher_model" : "/teacher";
  Json model = WrittenOut(section.value("teacher_model", tree_.value("model", Json())));
  auto [first, fresh] = file_teachers_.try_emplace(file, FileTeacher{model, pointer});
  if (fresh || first->second.model == model) return;
  Fail(pointer + field, "teacher: " + file + " holds one network, and is read as " + Canonical(first->second.model) + " at " + first->second.pointer + " and as " +
                            Canonical(model) + " here; give both the same teacher_model, or name another file");
}

void Checker::Repeat(const Json& item, const std::string& pointer, size_t factor, size_t& expanded) {
  for (const auto& [key, value] : item.items()) {
    if (key != "repeat" && key != "steps") Fail(pointer + "/" + Escaped(key) + "#key", "unknown field " + Quoted(key) + " beside repeat. Allowed: repeat, steps");
  }
  if (!item.contains("repeat") || !item.contains("steps")) return Fail(pointer, "repeat and steps belong together");
  if (context_.Section("repeat", item["repeat"], pointer + "/repeat")) {
    Json times = item["repeat"].value("times", Json());
    if (times.is_null()) Fail(pointer + "/repeat", "repeat: 'times' is missing");
    if (times.is_number_integer() && times.get<int64_t>() > 0) factor = std::min(factor * static_cast<size_t>(std::min<int64_t>(times.get<int64_t>(), 1000)), kManySteps);
  }
  Steps(item["steps"], pointer + "/steps", factor, expanded);
}

}  // namespace pare::recipes
