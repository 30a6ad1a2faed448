// Optimizers on flat float32 buffers, with pruning masks fused in. Update rules are PyTorch's, term for term
// (torch.optim.SGD, Adam, AdamW, 2.11), so that recipes carry over. One pass over memory per step; bits do not depend on
// threads or vector width. Not thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/result.h"
#include "model/tensor.h"

namespace pare::engine {

struct OptimizerOptions {
  std::string kind = "sgd";  // sgd, adam, adamw
  double momentum = 0.0;     // sgd
  bool nesterov = false;     // sgd
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;  // adam, adamw
  double weight_decay = 0.0;  // sgd, adam: added to the gradient; adamw: decoupled
};

// Runs a body over disjoint ranges (first, count) that together are the whole buffer, on several threads perhaps:
// Network::ForRanges.
using ForRanges = std::function<void(const std::function<void(size_t first, size_t count)>& body)>;

class Optimizer {
 public:
  static std::unique_ptr<Optimizer> Create(const OptimizerOptions& options, int64_t size);
  virtual ~Optimizer() = default;

  // parameters ← update(parameters, gradients · gradient_scale). Where `mask` is not empty, parameters and momentum are
  // kept (1) or made zero (0) by it in the same pass: masked weights are exactly zero afterwards, and so is their momentum.
  // `ranges` empty: on this thread.
  virtual void Step(std::span<float> parameters, std::span<const float> gradients, std::span<const uint8_t> mask,
                    double learning_rate, double gradient_scale, const ForRanges& ranges = {}) = 0;

  // State for snapshots: float tensors in the order of the flat buffer, and the step count.
  virtual model::TensorMap State() const = 0;
  virtual Status SetState(const model::TensorMap& state) = 0;
};

// Sums over batches that belong to the same flat buffers, element by element; bits as above.
// sums += weight · gradients
void AddScaled(std::span<const float> gradients, float weight, std::span<float> sums, const ForRanges& ranges = {});
// sums += weight · gradients²
void AddSquares(std::span<const float> gradients, float weight, std::span<float> sums, const ForRanges& ranges = {});
// sums −= parameters · gradients (Sanh 2020, eq. 7)
void AddMovement(std::span<const float> parameters, std::span<const float> gradients, std::span<float> sums, const ForRanges& ranges = {});

// ‖gradients‖₂, accumulated in double in fixed blocks: the same on any number of threads.
double GradientNorm(std::span<const float> gradients);

}  // namespace pare::engine
