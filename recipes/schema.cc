#include "recipes/schema.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "model/architectures.h"
#include "recipes/findings.h"
#include "recipes/kinds.h"

namespace pare::recipes {
namespace {

constexpr double kBig = 1e9;
constexpr size_t kMaxWord = 64;  // longer ones are no misspelt name

// The sections of the language but those of the step kinds. Steps that train may override the fields of section "train".
constexpr Field kFields[] = {
    {"recipe", "version", "integer", "1", 1, 1, "", "", "version of the language", "1"},
    {"recipe", "name", "text", "", 0, 0, "", "", "name of the job; letters, digits, '-', '_' and '.'", "fashion-lenet"},
    {"recipe", "seed", "integer", "0", 0, 9007199254740991.0, "", "", "every random draw follows from it", "1"},
    {"recipe", "device", "name", "\"cpu\"", 0, 0, "cpu", "", "device class on which the steps run", "cpu"},
    {"recipe", "model", "section", "", 0, 0, "", "", "the network", "{architecture: mlp, hidden: [300, 100]}"},
    {"recipe", "data", "section", "", 0, 0, "", "", "the samples", "{dataset: fashion-mnist, validation: 5000}"},
    {"recipe", "train", "section", "", 0, 0, "", "", "how the dense baseline is trained; omit it when model.weights is given", "{epochs: 20}"},
    {"recipe", "snapshot", "section", "{}", 0, 0, "", "", "how often running steps save their state; changes no result", "{every_epochs: 1}"},
    {"recipe", "gang", "integer", "", 1, 64, "", "workers", "how many workers may run one step of training together, where they would idle otherwise; absent: one. Changes no result", "4"},
    {"recipe", "goal", "section", "{}", 0, 0, "", "", "what the promoted candidate must fulfil", "{max_accuracy_drop: 0.5, minimize: bytes}"},
    {"recipe", "keep", "section", "{}", 0, 0, "", "", "which checkpoints stay when the job is finished; changes no result", "{policy: best, count: 3}"},
    {"recipe", "variants", "section", "{}", 0, 0, "", "", "named chains of steps, each starting from the baseline", "{one-shot: [{prune: {sparsity: 0.9}}]}"},
    {"recipe", "promote", "section", "", 0, 0, "", "", "register the best candidate under a name; omit it to promote nothing", "{as: fashion-lenet}"},

    {"model", "architecture", "text", "", 0, 0, "", "", "built-in architecture: mlp, lenet5, resnet (resnet20, …), encoder; its own fields stand beside it", "mlp"},
    {"model", "weights", "text", "", 0, 0, "", "path", "safetensors file with starting weights", "my-model/model.safetensors"},

    {"data", "dataset", "name", "", 0, 0, "fashion-mnist", "", "built-in dataset", "fashion-mnist"},
    {"data", "directory", "text", "", 0, 0, "", "path", "where a built-in dataset lies", "/data/fashion"},
    {"data", "format", "name", "", 0, 0, "idx,npy,npz,csv", "", "file format; by the file's name if absent", "npy"},
    {"data", "train", "text", "", 0, 0, "", "path", "training samples (npz, csv: with labels)", "train.npy"},
    {"data", "train_labels", "text", "", 0, 0, "", "path", "training labels (idx, npy)", "train_labels.npy"},
    {"data", "test", "text", "", 0, 0, "", "path", "test samples", "test.npy"},
    {"data", "test_labels", "text", "", 0, 0, "", "path", "test labels", "test_labels.npy"},
    {"data", "label_column", "text", "\"label\"", 0, 0, "", "", "csv: name or zero-based number of the label's column", "label"},
    {"data", "shape", "integers", "", 1, 1e6, "", "", "csv: shape of a sample", "[1, 28, 28]"},
    {"data", "validation", "integer", "0", 0, kBig, "", "samples", "cut from the training split; drives every decision", "5000"},
    {"data", "normalize", "name", "\"standard\"", 0, 0, "none,standard", "", "standard: (x − mean) / deviation per channel of the training split; bytes are divided by 255 first in both cases. Token ids (architecture encoder) are taken as they are", "standard"},
    {"data", "augment", "section", "{}", 0, 0, "", "", "random changes of training images", "{flip: true, shift: 2}"},
    {"augment", "flip", "boolean", "false", 0, 0, "", "", "mirror half of the images", "true"},
    {"augment", "shift", "integer", "0", 0, 64, "", "pixels", "shift by up to this much in each direction", "2"},

    {"train", "epochs", "integer", "20", 1, 100000, "", "epochs", "passes over the training split", "20"},
    {"train", "batch_size", "integer", "128", 1, 1e6, "", "samples", "samples per optimizer step", "128"},
    {"train", "shards", "integer", "", 1, 256, "", "", "logical shards of a batch (part of the result); default: one per 64 samples", "2"},
    {"train", "optimizer", "name", "\"sgd\"", 0, 0, "sgd,adam,adamw", "", "update rule", "adam"},
    {"train", "learning_rate", "number", "", 0, 1e6, "", "", "at the start, after warm-up; default: 0.05 for sgd, 0.001 for adam and adamw", "0.05"},
    {"train", "momentum", "number", "0.9", 0, 0.9999999, "", "", "sgd", "0.9"},
    {"train", "nesterov", "boolean", "false", 0, 0, "", "", "sgd: Nesterov's momentum", "true"},
    {"train", "beta1", "number", "0.9", 0, 0.9999999, "", "", "adam, adamw", "0.9"},
    {"train", "beta2", "number", "0.999", 0, 0.9999999, "", "", "adam, adamw", "0.999"},
    {"train", "epsilon", "number", "1e-8", 0, 1, "", "", "adam, adamw", "1e-8"},
    {"train", "weight_decay", "number", "0", 0, 1000, "", "", "sgd, adam: L2 term; adamw: decoupled", "1e-4"},
    {"train", "schedule", "name", "\"constant\"", 0, 0, "constant,multi_step,cosine,linear", "", "learning rate over time", "multi_step"},
    {"train", "milestones", "numbers", "[]", 0, 100000, "", "epochs", "multi_step: the rate is multiplied by gamma from each of these epochs on", "[10, 15]"},
    {"train", "gamma", "number", "0.1", 0, 1, "", "", "multi_step", "0.1"},
    {"train", "final_learning_rate", "number", "0", 0, 1e6, "", "", "cosine, linear: at the end", "0"},
    {"train", "warmup_epochs", "number", "0", 0, 100000, "", "epochs", "linear from 0 to learning_rate", "1"},
    {"train", "label_smoothing", "number", "0", 0, 0.999, "", "", "weight of the uniform distribution in the target", "0.1"},
    {"train", "labels", "number", "1", 0, 1e9, "", "", "how many training samples have a label that may be used: a fraction up to 1, or a number of samples; the others train only through a teacher", "3000"},
    {"train", "clip_norm", "number", "0", 0, 1e9, "", "", "largest gradient norm; 0: no clipping", "1.0"},

    {"snapshot", "every_epochs", "integer", "1", 0, 100000, "", "epochs", "save the state of a running step every so many epochs; 0: never", "1"},
    {"snapshot", "every_seconds", "integer", "0", 0, 86400, "", "seconds", "save also when so much time has passed; 0: never", "60"},

    {"goal", "max_accuracy_drop", "number", "0.5", 0, 100, "", "percentage points", "largest loss of validation accuracy against the baseline", "0.5"},
    {"goal", "minimize", "name", "\"bytes\"", 0, 0, "bytes,parameters,multiply_adds", "", "what to make small among candidates that meet max_accuracy_drop", "bytes"},
    {"goal", "target", "section", "{}", 0, 0, "", "", "where the model will run; kept for reports", "{device: cpu, threads: 1, batch: 32}"},
    {"goal", "price_per_hour", "number", "", 0, 1e6, "", "", "what an hour of the target costs, in any currency; measure turns it into a cost per million inferences", "0.17"},
    {"target", "device", "text", "\"cpu\"", 0, 0, "", "", "device", "cpu"},
    {"target", "threads", "integer", "1", 1, 4096, "", "", "threads", "1"},
    {"target", "batch", "integer", "1", 1, 1e6, "", "samples", "batch size", "32"},

    {"keep", "policy", "name", "\"all\"", 0, 0, "all,best,last,promoted", "", "which checkpoints stay when the job is finished: all; the best `count` candidates; the last `count` of each variant; or only what was promoted", "best"},
    {"keep", "count", "integer", "1", 1, 1e6, "", "checkpoints", "best, last: how many", "3"},
    {"keep", "pinned", "patterns", "", 0, 0, "", "", "names of steps whose checkpoints stay in any case, with * for any text; default: none", "[baseline, \"*/10-*\"]"},

    {"promote", "as", "text", "", 0, 0, "", "", "name of the model in the registry", "fashion-lenet"},
    {"promote", "keep_best_effort", "boolean", "true", 0, 0, "", "", "if no candidate meets the goal, promote the one that misses it least", "true"},

    {"repeat", "times", "integer", "", 1, 1000, "", "", "how often the steps beside it run", "10"},
};

std::string Range(const Field& f) {
  if (f.min == 0 && f.max == 0) return "";
  auto text = [](double v) { return v == std::floor(v) && v < 1e16 ? std::to_string(static_cast<int64_t>(v)) : Canonical(Json(v)); };
  if (f.min == f.max) return text(f.min);
  return f.max == kBig ? "at least " + text(f.min) : text(f.min) + " to " + text(f.max);
}

std::string Found(const Json& value) { return ", found " + Shortened(Canonical(value)); }

bool InRange(const Field& f, const Json& v) {
  double x = v.get<double>();
  return (f.min == 0 && f.max == 0) || (x >= f.min && x <= f.max);
}

std::vector<std::string> Names(std::string_view list) {
  std::vector<std::string> names;
  for (size_t end = 0; !list.empty(); list.remove_prefix(std::min(list.size(), end + 1))) {
    end = std::min(list.find(','), list.size());
    names.emplace_back(list.substr(0, end));
  }
  return names;
}

std::string Joined(const std::vector<std::string>& names) {
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  return list;
}

std::string Expected(const Field& f) {
  std::string range = Range(f);
  if (f.min == f.max && !range.empty()) return range;
  std::string in = range.empty() ? "" : (range[0] == 'a' ? " of " : " from ") + range;
  if (f.type == "integer") return "an integer" + in;
  if (f.type == "number") return "a number" + in;
  if (f.type == "boolean") return "true or false";
  if (f.type == "name") return "one of " + Joined(Names(f.allowed));
  if (f.type == "numbers") return "a list of numbers" + in;
  if (f.type == "integers") return "a list of integers" + in;
  if (f.type == "patterns") return "a pattern or a list of patterns";
  if (f.type == "rewind") return "init or an epoch number";
  if (f.type == "section") return "a section with fields";
  if (f.type == "map") return "names, each with a name behind it";
  return "text";
}

bool GoodList(const Field& f, const Json& value, bool integers) {
  return value.is_array() && std::all_of(value.begin(), value.end(), [&](const Json& v) {
    return (integers ? v.is_number_integer() : v.is_number()) && InRange(f, v);
  });
}

bool IsOneOf(std::string_view list, const Json& value) {
  std::vector<std::string> names = Names(list);
  return value.is_string() && std::find(names.begin(), names.end(), value.get<std::string>()) != names.end();
}

// With neighbours exchanged counting as one edit (optimal string alignment).
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> before, above, row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    before = std::exchange(above, row);
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) row[j] = std::min(row[j], before[j - 2] + 1);
    }
  }
  return row[b.size()];
}

}  // namespace

std::span<const Field> Fields() {
  static const std::vector<Field> fields = [] {
    std::vector<Field> all(std::begin(kFields), std::end(kFields));
    for (const Kind& kind : Kinds()) all.insert(all.end(), kind.fields.begin(), kind.fields.end());
    return all;
  }();
  return fields;
}

std::vector<const Field*> FieldsOf(std::string_view section) {
  std::vector<const Field*> fields;
  for (const Field& f : Fields()) {
    if (f.section == section) fields.push_back(&f);
  }
  return fields;
}

const Field* FindField(std::string_view section, std::string_view name) {
  for (const Field& f : Fields()) {
    if (f.section == section && f.name == name) return &f;
  }
  return nullptr;
}

std::optional<std::string> CheckValue(const Field& f, const Json& value) {
  bool good = false;
  if (f.type == "integer") good = value.is_number_integer() && InRange(f, value);
  else if (f.type == "number") good = value.is_number() && InRange(f, value);
  else if (f.type == "boolean") good = value.is_boolean();
  else if (f.type == "name") good = IsOneOf(f.allowed, value);
  else if (f.type == "numbers") good = GoodList(f, value, false);
  else if (f.type == "integers") good = GoodList(f, value, true);
  else if (f.type == "section") good = value.is_object();
  else if (f.type == "rewind") good = value == "init" || (value.is_number_integer() && value.get<int64_t>() >= 0);
  else if (f.type == "map") {
    good = value.is_object() && std::all_of(value.begin(), value.end(), [](const Json& v) { return v.is_string() && !v.get<std::string>().empty(); });
  } else if (f.type == "patterns") {
    good = value.is_string() || (value.is_array() && !value.empty() && std::all_of(value.begin(), value.end(), [](const Json& v) { return v.is_string(); }));
  } else {
    good = value.is_string() && !value.get<std::string>().empty();
    if (f.name == "label_column") good = good || value.is_number_unsigned() || value.is_number_integer();
  }
  if (good) return std::nullopt;
  std::string near = f.type == "name" && value.is_string() ? Nearest(value.get<std::string>(), Names(f.allowed)) : "";
  return "expected " + Expected(f) + Found(value) + (near.empty() ? "" : "; did you mean '" + near + "'?");
}

std::string Suggestion(std::string_view word, const std::vector<std::string>& known) {
  std::string near = Nearest(word, known);
  return (near.empty() ? ". Allowed: " : "; did you mean '" + near + "'? Allowed: ") + Joined(known);
}

std::string Nearest(std::string_view word, const std::vector<std::string>& known) {
  std::string best;
  if (word.size() > kMaxWord) return best;
  size_t distance = (word.size() < 4 ? 1 : std::max<size_t>(2, word.size() / 3)) + 1;
  for (const std::string& k : known) {
    size_t d = EditDistance(word, k);
    if (d < distance) {
      distance = d;
      best = k;
    }
  }
  return best;
}

void FillDefaults(std::string_view section, Json& object) {
  if (section == "train" && !object.contains("learning_rate")) {
    object["learning_rate"] = object.value("optimizer", "sgd") == "sgd" ? 0.05 : 0.001;
  }
  for (const Field* f : FieldsOf(section)) {
    std::string name(f->name);
    if (!object.contains(name)) {
      if (f->default_json.empty()) continue;
      object[name] = Json::parse(f->default_json);
    }
    Json& value = object[name];
    // 1 and 1.0 mean the same and must give the same step key.
    if (f->type == "number") value = value.get<double>() + 0.0;
    if (f->type == "numbers") {
      for (Json& item : value) item = item.get<double>() + 0.0;
    }
  }
}

namespace {

// The fields that stand beside `architecture`.
std::string RenderArchitectures() {
  std::string out;
  for (const model::ArchitectureInfo& architecture : model::Architectures()) {
    out += "\n#### architecture: " + architecture.name + "\n\n" + architecture.help + "\n\n| field | type | default | range | meaning |\n| --- | --- | --- | --- | --- |\n";
    for (const model::ArchitectureField& f : architecture.fields) {
      out += "| `" + f.name + "` | " + f.type + " | `" + f.default_value + "` | " + f.range + " | " + f.help + " |\n";
    }
  }
  return out;
}

}  // namespace

std::string RenderReference() {
  std::string out, section;
  for (const Field& f : Fields()) {
    if (f.section != section) {
      if (section == "model") out += RenderArchitectures();
      section = f.section;
      const methods::Method* method = methods::FindMethod(section);
      std::string help = method == nullptr || method->fields.empty() ? "" : std::string(method->help) + ".\n\n";
      out += "\n### " + section + "\n\n" + help + "| field | type | default | range | meaning | example |\n| --- | --- | --- | --- | --- | --- |\n";
    }
    std::string range = f.allowed.empty() ? Range(f) : Joined(Names(f.allowed));
    out += "| `" + std::string(f.name) + "` | " + std::string(f.type) + (f.unit.empty() ? "" : " (" + std::string(f.unit) + ")") + " | " +
           (f.default_json.empty() ? "—" : "`" + std::string(f.default_json) + "`") + " | " + (range.empty() ? "—" : range) + " | " +
           std::string(f.help) + " | `" + std::string(f.example) + "` |\n";
  }
  return out;
}

}  // namespace pare::recipes
