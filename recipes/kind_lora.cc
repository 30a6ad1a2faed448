// lora and qlora: train adapters beside frozen layers, in float32 or in 4 bits; merge: folds adapters into their layers.
#include <algorithm>

#include "methods/lora.h"
#include "recipes/kinds.h"

namespace pare::recipes {
namespace {

constexpr Field kLoraFields[] = {
    {"lora", "rank", "integer", "8", 1, 1 << 16, "", "", "of the adapters", "4"},
    {"lora", "alpha", "number", "16", 0, 1e6, "", "", "adapters are scaled by alpha / rank", "8"},
    {"lora", "merge", "boolean", "false", 0, 0, "", "", "fold the trained adapters into the weights, exactly; false: the checkpoint holds the adapters alone", "true"},
    {"lora", "targets", "patterns", "", 0, 0, "", "", "which linears: layer or tensor name, glob, re:REGEX (whole name), or linear; default: query and value of attention, else every linear that is larger than rank", "[fc1, fc2]"},
    methods::Ignore("lora"),
};

constexpr Field kQloraFields[] = {
    {"qlora", "rank", "integer", "8", 1, 1 << 16, "", "", "of the adapters", "4"},
    {"qlora", "alpha", "number", "16", 0, 1e6, "", "", "adapters are scaled by alpha / rank", "8"},
    {"qlora", "merge", "boolean", "false", 0, 0, "", "", "fold the trained adapters into the decoded weights, which are float32 again", "true"},
    {"qlora", "block_size", "integer", "64", 2, 4096, "", "", "weights with one scale together; even", "128"},
    {"qlora", "double_quantization", "boolean", "true", 0, 0, "", "", "scales in 8 bits instead of 32", "false"},
    {"qlora", "targets", "patterns", "", 0, 0, "", "", "which linears become 4-bit and get adapters; default: every linear that is larger than rank", "linear"},
    methods::Ignore("qlora"),
};

void Check(CheckContext& context, const Json& section, const std::string& pointer) {
  context.Training(section, pointer, TextOr(section, "schedule", "constant"));
  if (section.contains("block_size") && section["block_size"].is_number_integer() && section["block_size"].get<int64_t>() % 2 != 0) {
    context.Fail(pointer + "/block_size", "block_size: two weights share a byte; give an even number");
  }
}

bool IsLinear(const model::Node* node) { return node != nullptr && node->op == model::OpType::kLinear; }

// Linears that are the query or the value of an attention.
std::vector<std::string> QueriesAndValues(const model::Graph& graph) {
  std::vector<std::string> nodes;
  for (const model::Node& node : graph.nodes) {
    if (node.op != model::OpType::kAttention) continue;
    for (size_t i : {size_t{0}, size_t{2}}) {
      if (IsLinear(graph.Find(node.inputs[i]))) nodes.push_back(node.inputs[i]);
    }
  }
  return nodes;
}

bool LargerThan(const model::Node& node, int64_t rank) { return std::min(node.attributes.in_features, node.attributes.out_features) > rank; }

std::vector<std::string> DefaultTensors(ResolveContext& context, const Json& section, const std::string& kind, const std::string& pointer) {
  Json linears = {{"targets", "linear"}};
  if (section.contains("ignore")) linears["ignore"] = section["ignore"];
  std::vector<std::string> tensors = context.Tensors(linears, pointer), preferred = QueriesAndValues(context.graph());
  std::erase_if(tensors, [&](const std::string& tensor) {
    std::string name = tensor.substr(0, tensor.rfind('.'));
    bool wanted = kind == "qlora" || preferred.empty() || std::find(preferred.begin(), preferred.end(), name) != preferred.end();
    return !wanted || !LargerThan(*context.graph().Find(name), section["rank"].get<int64_t>());
  });
  if (tensors.empty()) context.Fail(pointer, kind + ": no linear is larger than rank " + Canonical(section["rank"]) + "; lower rank");
  return tensors;
}

void CheckTargets(ResolveContext& context, const Json& section, const std::string& kind, const std::string& pointer) {
  for (const Json& tensor : section["tensors"]) {
    std::string name = tensor.get<std::string>();
    name = name.substr(0, name.rfind('.'));
    const model::Node& node = *context.graph().Find(name);
    if (!IsLinear(&node)) {
      context.Fail(pointer + "/targets", kind + ": " + name + " is " + std::string(model::ToString(node.op)) + "; adapters are for linear layers. Add it to ignore");
    } else if (!LargerThan(node, section["rank"].get<int64_t>())) {
      context.Fail(pointer + "/rank", kind + ": " + name + " is " + std::to_string(node.attributes.out_features) + "x" + std::to_string(node.attributes.in_features) + ", where rank " +
                                          Canonical(section["rank"]) + " is no low rank; lower rank or add " + name + " to ignore");
    }
  }
}

void ResolveAdapters(ResolveContext& context, Json& section, const std::string& kind, const std::string& pointer) {
  const Json written = section;
  if (!context.CanTrain(written, pointer)) return;
  FillDefaults(kind, section);
  Json train = context.FineTuning(written, pointer);
  context.CheckBatch(train, pointer);
  section["train"] = std::move(train);
  EraseTrainFields(section, kind);
  if (written.contains("targets")) {
    section["tensors"] = context.Tensors(section, pointer);
    CheckTargets(context, section, kind, pointer);
  } else {
    section["tensors"] = DefaultTensors(context, section, kind, pointer);
  }
}

void PlanAdapters(Chain& chain, const Json& section, const std::string& kind) {
  Json params = chain.Training(section["train"]);
  for (const char* field : {"tensors", "rank", "alpha", "merge", "block_size", "double_quantization"}) {
    if (section.contains(field)) params[field] = section[field];
  }
  if (!chain.Become(methods::OutlineLora(chain.outline(), params, kind))) return;
  chain.Advance(kind, std::move(params), {}, true);
}

Kind AdapterKind(const char* name, std::span<const Field> fields, const char* help) {
  Kind kind;
  kind.name = name;
  kind.help = help;
  kind.examples = {"{rank: 4}", "{rank: 4, merge: true}"};
  kind.fields = fields;
  kind.may_be_empty = true;
  kind.train_fields = true;
  kind.check = Check;
  kind.resolve = [name](ResolveContext& context, Json& section, const std::string& pointer) { ResolveAdapters(context, section, name, pointer); };
  kind.plan = [name](Chain& chain, const Json& section) { PlanAdapters(chain, section, name); };
  kind.trains = [](const Json&) { return true; };
  return kind;
}

}  // namespace

Kind LoraKind() { return AdapterKind("lora", kLoraFields, "train low-rank adapters beside frozen layers"); }
Kind QloraKind() { return AdapterKind("qlora", kQloraFields, "train low-rank adapters beside frozen layers in 4 bits"); }

Kind MergeKind() {
  Kind kind;
  kind.name = "merge";
  kind.help = "fold adapters into the layers that they stand beside";
  kind.may_be_empty = true;
  kind.resolve = [](ResolveContext&, Json&, const std::string&) {};
  kind.plan = [](Chain& chain, const Json&) {
    if (chain.Become(methods::FindMethod("merge")->outline(chain.outline(), Json::object()))) chain.Advance("merge", Json::object(), {}, false);
  };
  return kind;
}

}  // namespace pare::recipes
