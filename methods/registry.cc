#include "methods/registry.h"

#include <algorithm>
#include <set>

#include "methods/cast.h"
#include "methods/lora.h"
#include "methods/one_shot_prune.h"
#include "methods/remove.h"

namespace pare::methods {
namespace {

constexpr Method kMethods[] = {
    {"prune", "mask the weights, blocks or units of lowest score, per layer or over all layers", {}, false, nullptr, OutlineOneShotPrune, OneShotPrune},
    {"remove", "take masked units out of the graph: narrower layers, fewer heads, fewer layers", kRemoveFields, false, nullptr, OutlineRemove, Remove},
    {"merge", "fold adapters into the layers that they stand beside", {}, false, nullptr, OutlineMerge, Merge},
    {"cast", "round weights to a 16-bit format: half the bytes in a checkpoint", kCastFields, false, nullptr, OutlineCast, Cast},
};

}  // namespace

std::span<const Method> Methods() { return kMethods; }

const Method* FindMethod(std::string_view name) {
  for (const Method& method : kMethods) {
    if (method.name == name) return &method;
  }
  return nullptr;
}

Result<std::vector<model::TensorSpec>> PresentTensors(const Json& params, const model::GraphInfo& info) {
  auto tensors = params.find("tensors");
  bool names = tensors != params.end() && tensors->is_array() && std::all_of(tensors->begin(), tensors->end(), [](const Json& t) { return t.is_string(); });
  if (!names) return Error{ErrorCode::kInvalid, "field 'tensors': expected a list of tensor names"};
  std::set<std::string> all, wanted, nodes;  // nodes: of tensors that are no longer there
  for (const model::TensorSpec& spec : info.tensors) all.insert(spec.name);
  for (const Json& tensor : *tensors) {
    std::string name = tensor.get<std::string>();
    wanted.insert(name);
    if (size_t dot = name.rfind('.'); dot != name.npos && all.count(name) == 0) nodes.insert(name.substr(0, dot));
  }
  std::vector<model::TensorSpec> present;
  for (const model::TensorSpec& spec : info.tensors) {
    bool factor = std::any_of(nodes.begin(), nodes.end(), [&](const std::string& node) { return spec.node.rfind(node + ".", 0) == 0; });
    if (wanted.count(spec.name) != 0 || (factor && spec.layer)) present.push_back(spec);
  }
  return present;
}

}  // namespace pare::methods
