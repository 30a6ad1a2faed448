// The loss of one sample from its logits, with its gradient: cross entropy against the label and, in distillation, divergence
// from a teacher's opinion. In double, below no other library: the same bits wherever it runs. Pure functions, no thread rule.
#pragma once

#include <cstdint>
#include <span>

namespace pare::engine {

// A sample without a label: only a teacher says what it is.
inline constexpr int64_t kNoLabel = -1;

struct LossWeights {
  double label_smoothing = 0.0;  // weight of the uniform distribution in the label's target
  double temperature = 1.0;      // T > 0
  double hardness = 0.0;         // h in [0, 1]: weight of the teacher; without a teacher it counts as 0
};

struct RowLoss {
  double loss = 0.0;
  bool labelled = false;
  bool correct = false;  // labelled, and the largest logit (the first of equals) is that of the label
};

// (1 − h) · CE(student, label) + h · T² · KL(softmax(teacher/T) ‖ softmax(student/T)) (Hinton, Vinyals, Dean 2015, section 2;
// T² keeps the gradient's size when T changes). CE is PyTorch's CrossEntropyLoss with label_smoothing, KL its KLDivLoss(
// log_softmax(student/T), softmax(teacher/T)), summed over classes. kNoLabel: the first term is absent. `teacher` empty: the
// loss is CE alone. Where `gradient` is not empty, it becomes d loss / d logits · scale.
// REQUIRES: teacher and gradient are empty or as long as logits; the teacher's logits are finite, or −∞ for classes that it
// excludes (one at least is finite); label < logits.size().
RowLoss LossOfRow(std::span<const float> logits, int64_t label, std::span<const float> teacher, const LossWeights& weights,
                  double scale, std::span<float> gradient);

}  // namespace pare::engine
