#include "model/initialize.h"

#include <cmath>

#include "common/random.h"

namespace pare::model {

TensorMap InitializeWeights(const Graph& graph, const GraphInfo& info, uint64_t seed) {
  TensorMap weights;
  uint64_t ordinal = 0;
  for (const TensorSpec& spec : info.tensors) {
    Tensor tensor(spec.dtype, spec.shape);
    if (spec.dtype != DType::kF32) {  // codes: they come from a trained weight
      weights.emplace(spec.name, std::move(tensor));
      continue;
    }
    auto values = tensor.mutable_values<float>();
    RandomStream stream(seed, RandomPurpose::kInitialize, ordinal++);
    OpType op = graph.Find(spec.node)->op;
    if (spec.parameters == 0 && spec.role != "running_mean") {
      for (float& v : values) v = 1.0f;
    } else if (op == OpType::kLinear || op == OpType::kConv2d) {
      double bound = 1.0 / std::sqrt(static_cast<double>(spec.fan_in));
      for (float& v : values) v = static_cast<float>((2.0 * stream.Uniform() - 1.0) * bound);
    } else if (op == OpType::kEmbedding) {
      for (float& v : values) v = static_cast<float>(stream.Normal() * graph.Find(spec.node)->attributes.deviation);
    } else {
      float constant = spec.role == "weight" || spec.role == "running_var" ? 1.0f : 0.0f;
      for (float& v : values) v = constant;
    }
    weights.emplace(spec.name, std::move(tensor));
  }
  return weights;
}

Status CheckWeights(const GraphInfo& info, const TensorMap& tensors) {
  for (const TensorSpec& spec : info.tensors) {
    auto it = tensors.find(spec.name);
    if (it == tensors.end()) return Error{ErrorCode::kInvalid, "tensor '" + spec.name + "' is missing"};
    if (it->second.dtype() != spec.dtype || it->second.shape() != spec.shape) {
      return Error{ErrorCode::kInvalid, "tensor '" + spec.name + "' is " + std::string(ToString(it->second.dtype())) + " " +
                                            ToString(it->second.shape()) + ", the model needs " +
                                            std::string(ToString(spec.dtype)) + " " + ToString(spec.shape)};
    }
  }
  for (const auto& [name, tensor] : tensors) {
    bool known = false;
    for (const TensorSpec& spec : info.tensors) known = known || spec.name == name;
    if (!known) return Error{ErrorCode::kInvalid, "tensor '" + name + "' belongs to no operator of the model"};
  }
  return Ok();
}

}  // namespace pare::model
