// Toolbox: what a method needs beside the model and its parameters, handed in by whoever runs it: the runner
// (worker/runner/toolbox.h), or a fake in a test. It keeps methods free of libtorch, data and disk.
//
// One thread. A method that needs something new gets one virtual function here.
#pragma once

#include <cstdint>
#include <string>

#include "common/json.h"
#include "common/result.h"
#include "model/graph.h"

namespace pare::methods {

// Over the first `samples` calibration samples, with the network as it is used (evaluation mode), for every weight:
struct GradientRequest {
  int64_t samples = 0;
  bool squares = false;  // the mean of single samples' squared gradients; otherwise the gradient of the mean loss
};

class Toolbox {
 public:
  virtual ~Toolbox() = default;
  // Everything random is keyed by it (common/random.h).
  virtual uint64_t seed() const = 0;
  // What the method did to a layer, or why it left it alone: {"layer", …`what`} in the `report` of the step's results.
  virtual void Report(const std::string& layer, Json what) = 0;
  // F32 tensors in the shapes of the trainable tensors, by name. kInvalid: fewer samples than asked for, or the network
  // cannot be trained; kDiverged: a loss that is not finite. REQUIRES: the method reads data.
  virtual Result<model::TensorMap> Gradients(const model::Graph& graph, const model::TensorMap& tensors, const GradientRequest& request) = 0;
};

}  // namespace pare::methods
