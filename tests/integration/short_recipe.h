// About a second on real images, with every kind of step: what whole-process tests run.
#pragma once

namespace pare {

inline constexpr const char* kShortRecipe = R"(version: 1
name: chaos
seed: 3
model: {architecture: mlp, hidden: [64]}
data: {dataset: fashion-mnist, validation: 5000}
train: {epochs: 3, batch_size: 128, optimizer: adam, learning_rate: 0.002}
goal: {max_accuracy_drop: 2.0, minimize: bytes}
snapshot: {every_epochs: 1}
gang: 2
variants:
  iterative:
    - repeat: {times: 2}
      steps:
        - prune: {fraction_of_remaining: 0.5}
        - retrain: {epochs: 2}
  gradual:
    - prune: {schedule: cubic, final_sparsity: 0.9, epochs: 3, end_epoch: 2}
promote: {as: chaos}
)";

}  // namespace pare
