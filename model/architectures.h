// Built-in architectures, by name, as graphs. Each is a pure function of its parameters and the data's shape and classes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "model/graph.h"

namespace pare::model {

// `parameters` is the recipe's model section less "architecture", e.g. {"hidden": [300, 100]}; unknown fields, wrong types
// and ranges are kInvalid and name the field and what is allowed. Missing fields take their defaults.
//   mlp       hidden: [300, 100]; activation: relu (relu, gelu, tanh, sigmoid, silu); dropout: 0. Nodes fc1, fc2, …
//   lenet5    activation: relu. conv1 6@5x5 pad 2, pool, conv2 16@5x5, pool, fc1 120, fc2 84, fc3 (LeCun 1998, max pooling)
//   resnet    depth: 20 (6n + 2), width: 16: the CIFAR-style residual network (He 2015, section 4.2), "resnet20" and
//             friends are accepted as names with depth implied
//   encoder   vocabulary: 30522, length: 512, types: 2, layers: 2, hidden: 128, heads: 2, intermediate: 512, pooling: first,
//             dropout: 0.1, padding: 0, separator: -1: BERT (Devlin 2018) as a classifier of token ids, with its names
//             ("embeddings.word_embeddings", "encoder.layer.0.attention.self.query", …, "pooler.dense", "classifier")
Result<Graph> BuildArchitecture(std::string_view name, const Json& parameters, const Shape& sample_shape,
                                int64_t classes);

struct ArchitectureField {
  std::string name, type, default_value, range, help;
};
struct ArchitectureInfo {
  std::string name, help;
  std::vector<ArchitectureField> fields;
};
// For documents, messages ("known architectures: …") and recipe validation.
const std::vector<ArchitectureInfo>& Architectures();
// `parameters` with every default written out, in the order of Architectures().
Result<Json> ResolveArchitecture(std::string_view name, const Json& parameters);

}  // namespace pare::model
