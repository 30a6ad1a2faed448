#include "recipes/recipe.h"

#include <algorithm>
#include <cctype>

#include "model/architectures.h"
#include "recipes/resolve.h"
#include "recipes/schema.h"
#include "recipes/select.h"
#include "recipes/yaml.h"

namespace pare::recipes {
namespace {

const std::vector<std::string> kStepKinds = {"prune", "retrain", "evaluate"};
const std::vector<std::string> kLaterKinds = {"distill", "low_rank", "quantize", "lora", "self_distill", "measure"};
constexpr size_t kMaxVariants = 256, kMaxExpandedSteps = 5000;

std::string Escaped(const std::string& key) {
  std::string out;
  for (char c : key) out += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
  return out;
}

// Collects every error of a recipe, so that one look is enough.
class Checker {
 public:
  Checker(std::string_view name, const std::map<std::string, YamlPosition>& positions) : name_(name), positions_(positions) {}

  void Fail(const std::string& pointer, const std::string& text) {
    auto it = positions_.find(pointer);
    std::string where = name_;
    if (it != positions_.end()) where += ":" + std::to_string(it->second.line) + ":" + std::to_string(it->second.column);
    messages_.push_back(where + ": " + text);
  }
  bool failed() const { return !messages_.empty(); }
  std::string Text() const {
    std::string text;
    for (const std::string& m : messages_) text += (text.empty() ? "" : "\n") + m;
    return text;
  }

  // Known fields with good values. `extra`: sections whose fields are allowed too.
  void Section(const std::string& section, const Json& object, const std::string& pointer, const std::vector<std::string>& extra = {}) {
    if (!object.is_object()) return Fail(pointer, section + ": expected a section with fields, found " + std::string(object.type_name()));
    for (const auto& [key, value] : object.items()) {
      const Field* field = FindField(section, key);
      for (size_t i = 0; field == nullptr && i < extra.size(); ++i) field = FindField(extra[i], key);
      if (field == nullptr) {
        Unknown(section, key, pointer, extra);
      } else if (auto wrong = CheckValue(*field, value)) {
        Fail(pointer + "/" + Escaped(key), key + ": " + *wrong);
      } else if (field->type == "patterns") {
        Patterns(key, value, pointer + "/" + key);
      }
    }
  }

 private:
  void Patterns(const std::string& key, const Json& value, const std::string& pointer) {
    if (value.is_string()) {
      if (auto wrong = PatternError(value.get<std::string>())) Fail(pointer, key + ": " + *wrong);
      return;
    }
    for (size_t i = 0; i < value.size(); ++i) {
      if (auto wrong = PatternError(value[i].get<std::string>())) Fail(pointer + "/" + std::to_string(i), key + ": " + *wrong);
    }
  }

  void Unknown(const std::string& section, const std::string& key, const std::string& pointer, const std::vector<std::string>& extra) {
    std::vector<std::string> known;
    for (const Field* f : FieldsOf(section)) known.emplace_back(f->name);
    for (const std::string& e : extra) {
      for (const Field* f : FieldsOf(e)) known.emplace_back(f->name);
    }
    std::string list;
    for (const std::string& k : known) list += (list.empty() ? "" : ", ") + k;
    std::string near = Nearest(key, known);
    Fail(pointer + "/" + Escaped(key) + "#key", "unknown field '" + key + "' in " + section + (near.empty() ? "" : "; did you mean '" + near + "'?") + " Allowed: " + list);
  }

  std::string name_;
  const std::map<std::string, YamlPosition>& positions_;
  std::vector<std::string> messages_;
};

bool GoodName(const std::string& name) {
  return !name.empty() && name.size() <= 100 && name[0] != '.' && std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '-' || c == '_' || c == '.';
  });
}

void CheckModel(const Json& model, Checker& check) {
  if (!model.is_object()) return check.Fail("/model", "model: expected a section with fields");
  Json parameters = Json::object();
  for (const auto& [key, value] : model.items()) {
    if (const Field* field = FindField("model", key)) {
      if (auto wrong = CheckValue(*field, value)) check.Fail("/model/" + key, key + ": " + *wrong);
    } else {
      parameters[key] = value;
    }
  }
  if (!model.contains("architecture")) {
    std::string known;
    for (const model::ArchitectureInfo& info : model::Architectures()) known += (known.empty() ? "" : ", ") + info.name;
    return check.Fail("/model", "model: 'architecture' is missing; known are " + known);
  }
  if (!model["architecture"].is_string()) return;
  std::string name = model["architecture"].get<std::string>();
  auto plain = model::ResolveArchitecture(name, Json::object());
  if (!plain.ok()) return check.Fail("/model/architecture", "model: " + plain.error().message);
  for (const auto& [key, value] : parameters.items()) {
    // One field at a time, so that the message stands at its field.
    auto resolved = model::ResolveArchitecture(name, Json{{key, value}});
    if (resolved.ok()) continue;
    std::vector<std::string> known = {"architecture", "weights"};
    for (const auto& [field, otherwise] : plain->items()) known.push_back(field);
    bool unknown = std::find(known.begin(), known.end(), key) == known.end();
    std::string near = unknown ? Nearest(key, known) : "", list;
    for (const std::string& k : known) list += (list.empty() ? "" : ", ") + k;
    check.Fail("/model/" + Escaped(key) + (unknown ? "#key" : ""),
               "model: " + resolved.error().message + (near.empty() ? "" : "; did you mean '" + near + "'?") + (unknown ? " Allowed: " + list : ""));
  }
}

void CheckData(const Json& data, Checker& check) {
  check.Section("data", data, "/data");
  if (!data.is_object()) return;
  if (data.contains("augment")) check.Section("augment", data["augment"], "/data/augment");
  bool built_in = data.contains("dataset"), files = data.contains("train");
  if (built_in == files) return check.Fail("/data", "data: give either dataset (fashion-mnist) or the files train and test");
  if (files && !data.contains("test")) check.Fail("/data", "data: 'test' is missing: the report's accuracies come from samples that training never saw");
  for (const char* field : {"format", "train_labels", "test", "test_labels", "label_column", "shape"}) {
    if (built_in && data.contains(field)) check.Fail("/data/" + std::string(field), std::string(field) + ": only with files, not with dataset");
  }
  if (files && data.contains("directory")) check.Fail("/data/directory", "directory: only with dataset; give the files' paths instead");
}

// Fields that mean nothing beside the chosen schedule.
void CheckSchedule(const Json& train, const std::string& pointer, Checker& check) {
  if (!train.is_object() || !train.contains("schedule") || !train["schedule"].is_string()) return;
  std::string schedule = train["schedule"].get<std::string>();
  if (schedule == "multi_step" && (!train.contains("milestones") || train["milestones"].empty())) {
    check.Fail(pointer + "/schedule", "schedule: multi_step needs milestones, the epochs at which the rate falls");
  }
  if (schedule != "multi_step" && train.contains("milestones")) check.Fail(pointer + "/milestones", "milestones: only with schedule: multi_step");
  if (schedule != "cosine" && schedule != "linear" && train.contains("final_learning_rate")) {
    check.Fail(pointer + "/final_learning_rate", "final_learning_rate: only with schedule: cosine or linear");
  }
}

void CheckPrune(const Json& prune, const std::string& pointer, Checker& check) {
  check.Section("prune", prune, pointer, {"train"});
  if (!prune.is_object()) return;
  bool one_shot = prune.value("schedule", Json("one_shot")) == "one_shot";
  if (one_shot) {
    if (prune.contains("sparsity") == prune.contains("fraction_of_remaining")) {
      check.Fail(pointer, "prune: a one_shot step needs exactly one of sparsity and fraction_of_remaining");
    }
    for (const auto& [key, value] : prune.items()) {
      bool scheduled = key == "init_sparsity" || key == "final_sparsity" || key == "start_epoch" || key == "end_epoch" || key == "update_frequency";
      if (scheduled || (FindField("train", key) && key != "schedule")) {
        check.Fail(pointer + "/" + key, key + ": only with schedule: linear or cubic");
      }
    }
    return;
  }
  if (!prune.contains("final_sparsity")) check.Fail(pointer, "prune: schedule linear or cubic needs final_sparsity");
  for (const char* key : {"sparsity", "fraction_of_remaining"}) {
    if (prune.contains(key)) check.Fail(pointer + "/" + key, std::string(key) + ": only with schedule: one_shot; use final_sparsity");
  }
  auto number = [&](const char* key, double otherwise) { return prune.contains(key) && prune[key].is_number() ? prune[key].get<double>() : otherwise; };
  if (number("init_sparsity", 0) > number("final_sparsity", 1)) check.Fail(pointer + "/init_sparsity", "init_sparsity is larger than final_sparsity");
  double epochs = number("epochs", kDefaultStepEpochs);
  if (prune.contains("end_epoch") && number("start_epoch", 0) >= number("end_epoch", 0)) {
    check.Fail(pointer + "/end_epoch", "end_epoch must be after start_epoch");
  }
  for (const char* key : {"start_epoch", "end_epoch"}) {
    if (number(key, 0) > epochs) check.Fail(pointer + "/" + key, std::string(key) + " is after the step's last epoch (epochs: " + Canonical(Json(static_cast<int64_t>(epochs))) + ")");
  }
}

void CheckRetrain(const Json& retrain, const std::string& pointer, Checker& check) {
  check.Section("retrain", retrain, pointer, {"train"});
  if (!retrain.is_object()) return;
  Json rewind = retrain.value("rewind", Json("none"));
  if (retrain.contains("to") && rewind == "none") check.Fail(pointer + "/to", "to: only with rewind: learning_rate or weights");
  // A rewound step may override one part of the schedule of train; a fine-tuning step brings its own.
  if (rewind != "none") return;
  CheckSchedule(retrain, pointer, check);
  if (retrain.contains("milestones") && !retrain.contains("schedule")) {
    check.Fail(pointer + "/milestones", "milestones: fine-tuning runs at a constant rate; add schedule: multi_step");
  }
}

void CheckSteps(const Json& steps, const std::string& pointer, Checker& check, size_t& expanded, size_t factor);

void CheckItem(const Json& item, const std::string& pointer, Checker& check, size_t& expanded, size_t factor) {
  if (!item.is_object() || item.empty()) return check.Fail(pointer, "a step is one of prune, retrain, evaluate, or repeat with steps");
  if (item.contains("repeat") || item.contains("steps")) {
    for (const auto& [key, value] : item.items()) {
      if (key != "repeat" && key != "steps") check.Fail(pointer + "/" + Escaped(key) + "#key", "unknown field '" + key + "' beside repeat; allowed: repeat, steps");
    }
    if (!item.contains("repeat") || !item.contains("steps")) return check.Fail(pointer, "repeat and steps belong together");
    check.Section("repeat", item["repeat"], pointer + "/repeat");
    Json times = item["repeat"].is_object() ? item["repeat"].value("times", Json()) : Json();
    if (times.is_null()) return check.Fail(pointer + "/repeat", "repeat: 'times' is missing");
    if (times.is_number_integer() && times.get<int64_t>() > 0) factor = std::min(factor * static_cast<size_t>(std::min<int64_t>(times.get<int64_t>(), 10000)), 2 * kMaxExpandedSteps);
    return CheckSteps(item["steps"], pointer + "/steps", check, expanded, factor);
  }
  if (item.size() != 1) return check.Fail(pointer, "one step per list item; start the next one with '-'");
  auto [kind, value] = *item.items().begin();
  std::string inner = pointer + "/" + Escaped(kind);
  expanded += factor;
  if (kind == "prune") return CheckPrune(value, inner, check);
  if (kind == "retrain") return CheckRetrain(value, inner, check);
  if (kind == "evaluate") return check.Section("evaluate", value.is_null() ? Json::object() : value, inner);
  bool later = std::find(kLaterKinds.begin(), kLaterKinds.end(), kind) != kLaterKinds.end();
  std::string near = Nearest(kind, kStepKinds);
  check.Fail(inner + "#key", later ? "step kind '" + kind + "' is not available in this version; available: prune, retrain, evaluate, repeat"
                                   : "unknown step kind '" + kind + "'" + (near.empty() ? "" : "; did you mean '" + near + "'?") + " Allowed: prune, retrain, evaluate, repeat");
}

void CheckSteps(const Json& steps, const std::string& pointer, Checker& check, size_t& expanded, size_t factor) {
  if (!steps.is_array() || steps.empty()) return check.Fail(pointer, "expected a list of steps, each starting with '-'");
  for (size_t i = 0; i < steps.size(); ++i) CheckItem(steps[i], pointer + "/" + std::to_string(i), check, expanded, factor);
}

void CheckVariants(const Json& variants, Checker& check) {
  if (!variants.is_object()) return check.Fail("/variants", "variants: expected names, each with a list of steps");
  if (variants.size() > kMaxVariants) check.Fail("/variants", "at most 256 variants");
  for (const auto& [name, steps] : variants.items()) {
    if (!GoodName(name)) check.Fail("/variants/" + Escaped(name) + "#key", "variant names are letters, digits, '-', '_' and '.', found '" + name + "'");
    size_t expanded = 0;
    CheckSteps(steps, "/variants/" + Escaped(name), check, expanded, 1);
    if (expanded > kMaxExpandedSteps) check.Fail("/variants/" + Escaped(name), "a variant has at most 5000 steps after repeat, this one has " + std::to_string(expanded));
  }
}

void CheckTree(const Json& tree, Checker& check) {
  check.Section("recipe", tree, "");
  if (!tree.is_object()) return;
  if (!tree.contains("name")) check.Fail("", "'name' is missing");
  else if (tree["name"].is_string() && !GoodName(tree["name"].get<std::string>())) check.Fail("/name", "name: letters, digits, '-', '_' and '.', at most 100");
  if (tree.contains("model")) CheckModel(tree["model"], check); else check.Fail("", "'model' is missing");
  if (tree.contains("data")) CheckData(tree["data"], check); else check.Fail("", "'data' is missing");
  if (tree.contains("train")) {
    check.Section("train", tree["train"], "/train");
    CheckSchedule(tree["train"], "/train", check);
    if (tree["train"].is_object() && tree["train"].contains("milestones") && !tree["train"].contains("schedule")) {
      check.Fail("/train/milestones", "milestones: only with schedule: multi_step");
    }
  } else if (!tree.contains("model") || !tree["model"].is_object() || !tree["model"].contains("weights")) {
    check.Fail("", "'train' is missing; it can be omitted only when model.weights gives a trained model");
  }
  if (tree.contains("snapshot")) check.Section("snapshot", tree["snapshot"], "/snapshot");
  if (tree.contains("goal")) check.Section("goal", tree["goal"], "/goal");
  if (tree.contains("goal") && tree["goal"].is_object() && tree["goal"].contains("target")) check.Section("target", tree["goal"]["target"], "/goal/target");
  if (tree.contains("variants")) CheckVariants(tree["variants"], check);
  if (tree.contains("promote")) {
    check.Section("promote", tree["promote"], "/promote");
    if (tree["promote"].is_object() && (!tree["promote"].contains("as") || !tree["promote"]["as"].is_string() || !GoodName(tree["promote"]["as"].get<std::string>()))) {
      check.Fail("/promote", "promote: 'as' must name the model (letters, digits, '-', '_' and '.')");
    }
  }
}

}  // namespace

Result<Recipe> Recipe::Parse(std::string_view yaml, std::string_view name) {
  ASSIGN_OR_RETURN(YamlDocument document, ParseYaml(yaml, name));
  Checker check(name, document.positions);
  if (!document.tree.is_object()) check.Fail("", "a recipe is a set of fields; start with 'version: 1' and 'name: …'");
  else CheckTree(document.tree, check);
  if (check.failed()) return Error{ErrorCode::kInvalid, check.Text()};
  Recipe recipe;
  recipe.tree_ = std::move(document.tree);
  recipe.text_ = std::string(yaml);
  recipe.name_ = std::string(name);
  for (const auto& [pointer, position] : document.positions) recipe.positions_[pointer] = {position.line, position.column};
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

Recipe::Position Recipe::position(const std::string& pointer) const {
  auto it = positions_.find(pointer);
  return it == positions_.end() ? Position{} : it->second;
}

}  // namespace pare::recipes
