#include "model/published.h"

#include <algorithm>
#include <bit>
#include <map>
#include <set>
#include <span>

#include "model/half.h"
#include "model/initialize.h"

namespace pare::model {
namespace {

Tensor Widened(const Tensor& tensor) {
  Tensor wide(DType::kF32, tensor.shape());
  std::span<const uint16_t> from = tensor.values<uint16_t>();
  std::span<float> to = wide.mutable_values<float>();
  bool half = tensor.dtype() == DType::kF16;
  for (size_t i = 0; i < from.size(); ++i) to[i] = half ? FloatOf(from[i]) : std::bit_cast<float>(static_cast<uint32_t>(from[i]) << 16);
  return wide;
}

bool IsHalf(const Tensor& tensor) { return tensor.dtype() == DType::kF16 || tensor.dtype() == DType::kBF16; }

// "LayerNorm.gamma" as "LayerNorm.weight".
std::string ModernName(std::string name) {
  for (auto [old, now] : {std::pair(".gamma", ".weight"), std::pair(".beta", ".bias")}) {
    if (name.ends_with(old)) return name.substr(0, name.size() - std::string_view(old).size()) + now;
  }
  return name;
}

// What may stand before the graph's names: the beginning that most of the file's names have before a name of the graph.
std::string PrefixOf(const TensorMap& file, const std::set<std::string>& names) {
  std::map<std::string, size_t> found;
  for (const auto& [full, tensor] : file) {
    std::string name = ModernName(full);
    size_t at = 0, dot = 0;
    while (names.count(name.substr(at)) == 0 && (dot = name.find('.', at)) != std::string::npos) at = dot + 1;
    if (dot != std::string::npos) ++found[name.substr(0, at)];
  }
  auto most = std::max_element(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == found.end() ? "" : most->first;
}

// Tensors of published encoders that are no part of a classifier: a buffer, and the heads of what they were trained for.
bool IsSpare(const std::string& name, const Graph& graph) {
  for (const char* head : {"cls.", "qa_outputs.", "lm_head.", "classifier.", "pooler."}) {
    if (name.starts_with(head)) return std::none_of(graph.nodes.begin(), graph.nodes.end(), [&](const Node& node) { return (node.name + ".").starts_with(head); });
  }
  return name.ends_with("position_ids");
}

std::string Some(const std::vector<std::string>& names) {
  std::string text = names[0];
  for (size_t i = 1; i < names.size() && i < 3; ++i) text += ", " + names[i];
  return text + (names.size() > 3 ? " and " + std::to_string(names.size() - 3) + " more" : "");
}

}  // namespace

Result<FittedWeights> FitWeights(const Graph& graph, const GraphInfo& info, const TensorMap& file, uint64_t seed) {
  FittedWeights fitted;
  if (CheckWeights(info, file).ok()) {
    fitted.tensors = file;
    return fitted;
  }
  std::set<std::string> names;
  for (const TensorSpec& spec : info.tensors) names.insert(spec.name);
  std::string prefix = PrefixOf(file, names);
  if (!prefix.empty()) fitted.notes.push_back("names begin with '" + prefix + "' in the file");
  std::vector<std::string> spare, widened;
  bool renamed = false;
  for (const auto& [full, tensor] : file) {
    std::string name = ModernName(full);
    // Heads stand beside the network, without the prefix.
    if (name.starts_with(prefix) && names.count(name) == 0) name.erase(0, prefix.size());
    if (names.count(name) == 0 && IsSpare(name, graph)) {
      spare.push_back(full);
      continue;
    }
    renamed = renamed || ModernName(full) != full;
    bool half = IsHalf(tensor) && names.count(name) != 0;
    if (half) widened.push_back(full);
    if (!fitted.tensors.emplace(name, half ? Widened(tensor) : tensor).second) {
      return Error{ErrorCode::kInvalid, "tensor '" + name + "' is there twice, once as '" + full + "'"};
    }
  }
  if (renamed) fitted.notes.push_back("norms' gamma and beta are their weight and bias");
  if (!widened.empty()) fitted.notes.push_back(std::to_string(widened.size()) + " tensors are widened from half precision to float32");
  if (!spare.empty()) fitted.notes.push_back("left out, no part of this network: " + Some(spare));
  auto of_head = [&](const TensorSpec& spec) { return spec.node == graph.output; };
  bool any_head = std::any_of(info.tensors.begin(), info.tensors.end(), [&](const TensorSpec& s) { return of_head(s) && fitted.tensors.count(s.name) != 0; });
  bool any_other = std::any_of(info.tensors.begin(), info.tensors.end(), [&](const TensorSpec& s) { return !of_head(s) && fitted.tensors.count(s.name) != 0; });
  if (!any_head && any_other) {
    TensorMap initial = InitializeWeights(graph, info, seed);
    for (const TensorSpec& spec : info.tensors) {
      if (of_head(spec)) fitted.tensors.emplace(spec.name, initial.at(spec.name));
    }
    fitted.new_head = true;
    fitted.notes.push_back("the file has no '" + graph.output + "': it starts from new weights");
  }
  TRY(CheckWeights(info, fitted.tensors));
  return fitted;
}

}  // namespace pare::model
