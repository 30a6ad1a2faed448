// Logits: a teacher's answers to every training sample, as one small blob that all its students read.
//
// Format, version 1: one line of canonical JSON {"classes": C, "format": 1, "samples": N}, then the payload of an F16 tensor
// [N, C] (storage/tensor_codec.h). Each row is stored relative to its largest logit: a softmax at any temperature is unchanged,
// the largest is exactly 0, and half precision errs only where probabilities are small: by at most 2⁻¹¹ · d/T of a probability
// whose logit is d below the largest. Answers below −65504 become −∞ (probability 0).
// Rejected: float32 (twice the bytes, nothing gained that training could notice); probabilities at one temperature (every
// temperature would need a pass of the teacher); the k largest (the tail is what a student learns from).
// Plain values, no thread rule.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "common/result.h"
#include "model/tensor.h"

namespace pare::runner {

class Logits {
 public:
  // `values` [samples, classes], finite. REQUIRES: the sizes fit.
  Logits(std::span<const float> values, int64_t classes);

  // kCorrupt: these are not the bytes of Encode. kVersion: of a newer release.
  static Result<Logits> Decode(std::string_view bytes);
  std::string Encode() const;

  int64_t samples() const { return tensor_.shape()[0]; }
  int64_t classes() const { return tensor_.shape()[1]; }
  // Row `i` as float32, relative to its largest. REQUIRES: out.size() = classes().
  void Row(int64_t i, std::span<float> out) const;

 private:
  explicit Logits(model::Tensor tensor) : tensor_(std::move(tensor)) {}
  model::Tensor tensor_;
};

}  // namespace pare::runner
