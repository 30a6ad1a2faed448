// docs/methods.md: its tables are made by planning. Each step kind is tried on a layer of every operator that has weights, and
// behind every other kind; what the planner says of the network afterwards, or why it refuses, is what the table says.
#include <set>

#include "model/encoding.h"
#include "recipes/kinds.h"
#include "recipes/plan.h"
#include "recipes/yaml.h"
#include "tests/recipes/fixture.h"

namespace pare::recipes {
namespace {

const std::string kPath = PARE_SOURCE_DIR "/docs/methods.md";

struct Try {
  const Kind* kind;
  std::string section;  // YAML
};

struct Outcome {
  std::string refusal;  // empty: planned
  methods::Outline outline;
  std::vector<std::string> steps;  // kinds of the variant's steps
};

model::Node Named(std::string name, model::OpType op, std::vector<std::string> inputs, model::Attributes attributes = {}) {
  return {std::move(name), op, std::move(inputs), std::move(attributes)};
}

// A small network with convolutions, and one with an embedding and attention.
model::Graph ImageNetwork() {
  using enum model::OpType;
  model::Graph g;
  g.nodes = {Named("x", kInput, {}, {.shape = {1, 28, 28}}),
             Named("conv1", kConv2d, {"x"}, {.in_channels = 1, .out_channels = 16, .kernel_h = 4, .kernel_w = 4}),
             Named("relu1", kRelu, {"conv1"}),
             Named("conv2", kConv2d, {"relu1"}, {.in_channels = 16, .out_channels = 32, .kernel_h = 5, .kernel_w = 5}),
             Named("relu2", kRelu, {"conv2"}),
             Named("pool", kMaxPool2d, {"relu2"}, {.kernel_h = 4, .kernel_w = 4, .stride_h = 4, .stride_w = 4}),
             Named("flat", kFlatten, {"pool"}),
             Named("fc1", kLinear, {"flat"}, {.in_features = 800, .out_features = 128}),
             Named("relu3", kRelu, {"fc1"}),
             Named("fc2", kLinear, {"relu3"}, {.in_features = 128, .out_features = 10})};
  g.output = "fc2";
  return g;
}

model::Graph TokenNetwork() {
  using enum model::OpType;
  model::Graph g;
  g.nodes = {Named("ids", kInput, {}, {.shape = {16}, .dtype = model::DType::kI64}),
             Named("words", kEmbedding, {"ids"}, {.vocabulary = 256, .dimension = 64}),
             Named("query", kLinear, {"words"}, {.in_features = 64, .out_features = 64}),
             Named("key", kLinear, {"words"}, {.in_features = 64, .out_features = 64}),
             Named("value", kLinear, {"words"}, {.in_features = 64, .out_features = 64}),
             Named("attention", kAttention, {"query", "key", "value"}, {.heads = 4}),
             Named("output", kLinear, {"attention"}, {.in_features = 64, .out_features = 64}),
             Named("flat", kFlatten, {"output"}),
             Named("classes", kLinear, {"flat"}, {.in_features = 1024, .out_features = 10})};
  g.output = "classes";
  return g;
}

// Plans one variant with these items on `graph`; the first works on the layer `target` only, if there is one and it can choose.
Outcome PlanOf(const model::Graph& graph, const std::vector<Try>& items, const std::string& target) {
  std::string list;
  for (const Try& item : items) list += (list.empty() ? "{" : ", {") + std::string(item.kind->name) + ": " + item.section + "}";
  auto recipe = Recipe::Parse(WithVariants(" {v: [" + list + "]}"), "r.yaml");
  if (!recipe.ok()) return {recipe.error().message, {}, {}};
  auto base = Recipe::Parse(WithVariants(" {v: [{evaluate: }]}"), "r.yaml");
  ResolvedRecipe resolved = *Resolve(*base, FashionInfo(), Digest());
  resolved.graph = graph;
  auto info = model::Analyze(graph);
  if (!info.ok()) return {info.error().message, {}, {}};
  Errors errors("r.yaml", recipe->positions());
  std::vector<Finding> warnings;
  Json steps = recipe->tree()["variants"]["v"];
  ResolveContext context(*recipe, resolved.tree, resolved, *info, errors, warnings);
  for (size_t i = 0; i < items.size(); ++i) {
    std::string name(items[i].kind->name);
    Json& section = steps[i][name];
    if (section.is_null()) section = Json::object();
    if (i == 0 && !target.empty() && FindField(name, "targets") != nullptr) section["targets"] = target;
    items[i].kind->resolve(context, section, "/variants/v/" + std::to_string(i) + "/" + name);
  }
  if (!errors.empty()) {
    std::string text = errors.ToError().message;
    text = text.substr(0, text.find('\n'));
    return {text.substr(text.find(": ") + 2), {}, {}};
  }
  resolved.tree["variants"] = {{"v", steps}};
  resolved.plan = nullptr;
  std::shared_ptr<const Plan> plan = MakePlan(resolved);
  if (plan == nullptr) return {"cannot be planned", {}, {}};
  if (!plan->refusals.empty()) return {plan->refusals[0].text, {}, {}};
  Outcome outcome{"", plan->left.at("v"), {}};
  for (const PlannedStep& step : plan->chains) {
    if (step.variant == "v" && step.spec.kind != "evaluate") outcome.steps.push_back(step.spec.kind);
  }
  return outcome;
}

std::vector<Try> Tries() {
  std::vector<Try> tries;
  for (const Kind& kind : Kinds()) {
    if (kind.name == "evaluate") continue;
    EXPECT_TRUE(kind.may_be_empty || !kind.examples.empty()) << kind.name << " has neither an example nor can it be empty";
    if (kind.examples.empty()) tries.push_back({&kind, "{}"});
    for (std::string_view example : kind.examples) tries.push_back({&kind, std::string(example)});
  }
  return tries;
}

// The step behind the one whose work it finishes, if it is such a step.
std::vector<Try> Finishing(const Try& item) {
  if (item.kind->name == "merge") return {{FindKind("lora"), "{targets: fc1, merge: false}"}, item};
  if (item.kind->name == "remove") return {{FindKind("prune"), "{sparsity: 0.5, granularity: channel}"}, item};
  return {item};
}

// What became of one layer.
std::string LayerText(const methods::Outline& outline, const methods::Outline& dense, const std::string& tensor) {
  const methods::LayerOutline &now = outline.layers.at(tensor), &before = dense.layers.at(tensor);
  std::vector<std::string> parts;
  if (now.factored) parts.push_back("two factors");
  if (!now.factored && now.weights < before.weights) parts.push_back("smaller");
  if (now.masked) parts.push_back("mask");
  if (now.encoding != model::Encoding::kDense) parts.push_back(std::string(model::ToString(now.encoding)));
  else if (now.bits < before.bits) parts.push_back("fewer bits");
  if (parts.empty()) return "as it is";
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : ", ") + part;
  return text;
}

std::string LayerCell(const Try& item, const model::Graph& graph, const std::string& layer) {
  if (FindField(item.kind->name, "targets") == nullptr) return "whole network";
  Outcome outcome = PlanOf(graph, {item}, layer);
  if (!outcome.refusal.empty()) return "— " + outcome.refusal;
  return LayerText(outcome.outline, methods::OutlineOf(graph, *model::Analyze(graph)), layer + ".weight");
}

// How an export holds what the kind leaves, from the table of encodings.
std::string ExportCell(const Outcome& outcome) {
  std::set<std::string> notes;
  for (const auto& [name, layer] : outcome.outline.layers) notes.insert(std::string(model::RowOf(layer.encoding).export_note));
  std::string text;
  for (const std::string& note : notes) text += (text.empty() ? "" : "; ") + note;
  if (!outcome.outline.adapters.empty()) text += "; adapters beside it";
  return text;
}

std::string RenderMethods() {
  std::string out = "| step | linear | conv2d | embedding | trains afterwards | in an export |\n| --- | --- | --- | --- | --- | --- |\n";
  for (const Try& item : Tries()) {
    Outcome all = PlanOf(ImageNetwork(), {item}, "");
    Status trains = methods::CheckTrainable(all.outline, "retrain");
    out += "| `" + std::string(item.kind->name) + ": " + item.section + "` | " + LayerCell(item, ImageNetwork(), "fc1") + " | " + LayerCell(item, ImageNetwork(), "conv2") +
           " | " + LayerCell(item, TokenNetwork(), "words") + " | " + (!all.refusal.empty() ? "—" : trains.ok() ? "yes" : "no") + " | " +
           (all.refusal.empty() ? ExportCell(all) : "—") + " |\n";
  }
  return out;
}

std::string RenderOrders() {
  std::vector<Try> tries;  // columns: the first example of each kind; rows: all
  for (const Try& item : Tries()) {
    if (tries.empty() || tries.back().kind != item.kind) tries.push_back(item);
  }
  std::string out = "| first \\ then |", line = "\n| --- |", reasons;
  for (const Try& then : tries) out += " " + std::string(then.kind->name) + " |", line += " --- |";
  out += line + "\n";
  std::vector<std::string> notes;
  for (const Try& first : Tries()) {
    std::vector<Try> before = Finishing(first);
    if (!PlanOf(ImageNetwork(), before, "").refusal.empty()) continue;  // refused in this network
    out += "| `" + std::string(first.kind->name) + ": " + first.section + "` |";
    for (const Try& then : tries) {
      std::vector<Try> chain = before;
      chain.push_back(then);
      std::string refusal = PlanOf(ImageNetwork(), chain, "").refusal;
      if (refusal.empty()) {
        out += " yes |";
        continue;
      }
      auto known = std::find(notes.begin(), notes.end(), refusal);
      if (known == notes.end()) known = notes.insert(notes.end(), refusal);
      out += " no (" + std::to_string(known - notes.begin() + 1) + ") |";
    }
    out += "\n";
  }
  for (size_t i = 0; i < notes.size(); ++i) reasons += "\n" + std::to_string(i + 1) + ". " + notes[i];
  return out + reasons + (reasons.empty() ? "" : "\n");
}

std::string RenderEncodings() {
  std::string out = "| encoding | the weight | operators | trains | in an export |\n| --- | --- | --- | --- | --- |\n";
  for (const model::EncodingRow& row : model::EncodingTable()) {
    std::string operators;
    for (model::OpType op : row.operators) operators += (operators.empty() ? "" : ", ") + std::string(model::ToString(op));
    out += "| " + std::string(row.name) + " | " + std::string(row.help) + " | " + operators + " | " + (row.trains ? "yes" : "no") + " | " + std::string(row.export_note) + " |\n";
  }
  return out;
}

std::string Replaced(const std::string& text, const std::string& part, const std::string& content) {
  std::string open = "<!-- " + part + ": begin";
  size_t begin = text.find(open), end = text.find("<!-- " + part + ": end -->");
  EXPECT_TRUE(begin != std::string::npos && end != std::string::npos) << part;
  if (begin == std::string::npos || end == std::string::npos) return text;
  begin = text.find('\n', begin) + 1;
  return text.substr(0, begin) + "\n" + content + "\n" + text.substr(end);
}

TEST(MethodsDocumentTest, ItsTablesAreWhatThePlannerSays) {
  std::string text = ReadText(kPath);
  text = Replaced(text, "methods", RenderMethods());
  text = Replaced(text, "orders", RenderOrders());
  text = Replaced(text, "encodings", RenderEncodings());
  ExpectGolden(kPath, text);
}

TEST(MethodsDocumentTest, EveryStepKindHasAHelpOfOneSentence) {
  for (const Kind& kind : Kinds()) EXPECT_FALSE(kind.help.empty() || kind.help.back() == '.') << kind.name;
}

// The examples of the table are good recipes by themselves.
TEST(MethodsDocumentTest, EveryExampleIsTaken) {
  for (const Try& item : Tries()) {
    std::vector<Try> chain = Finishing(item);
    Outcome outcome = PlanOf(ImageNetwork(), chain, "");
    Outcome tokens = PlanOf(TokenNetwork(), chain, "");
    EXPECT_TRUE(outcome.refusal.empty() || tokens.refusal.empty()) << item.kind->name << ": " << item.section << ": " << outcome.refusal << "; " << tokens.refusal;
  }
}

}  // namespace
}  // namespace pare::recipes
