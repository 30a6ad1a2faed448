// reference/reference.json (empty if it cannot be read), as PyTorch computed it, and the deterministic inputs that reference/make_reference.py uses.
#pragma once

#include <cmath>
#include <fstream>
#include <sstream>
#include <vector>

#include "common/json.h"
#include "model/graph.h"

namespace pare::engine {

inline Json ReadReference(const std::string& file) {
  std::ifstream in(std::string(PARE_SOURCE_DIR) + "/tests/worker/engine/reference/" + file);
  std::ostringstream text;
  text << in.rdbuf();
  auto parsed = ParseJson(text.str(), file);
  return parsed.ok() ? *parsed : Json::object();
}

inline const Json& Reference() {
  static const Json reference = ReadReference("reference.json");
  return reference;
}

// fill() of the script.
inline model::Tensor Fill(const model::Shape& shape, int ordinal) {
  model::Tensor tensor(model::DType::kF32, shape);
  auto values = tensor.mutable_values<float>();
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(0.3 * std::sin(0.37 * static_cast<double>(i) + 0.11 * ordinal + 0.05));
  }
  return tensor;
}

}  // namespace pare::engine
