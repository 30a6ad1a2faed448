// Toolbox: what a method needs beside the model and its parameters, handed in by whoever runs it: the runner
// (worker/runner/toolbox.h), or a fake in a test. It keeps methods free of libtorch, data and disk.
//
// One thread. A method that needs something new gets one virtual function here.
#pragma once

#include <cstdint>
#include <string>

#include "common/json.h"

namespace pare::methods {

class Toolbox {
 public:
  virtual ~Toolbox() = default;
  // Everything random is keyed by it (common/random.h).
  virtual uint64_t seed() const = 0;
  // What the method did to a layer, or why it left it alone: {"layer", …`what`} in the `report` of the step's results.
  virtual void Report(const std::string& layer, Json what) = 0;
};

}  // namespace pare::methods
