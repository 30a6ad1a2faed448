// Teacher: what the samples of a batch are taught beside their labels (distillation, METHODS section 3). Two ways: logits that
// were computed before and stored (the usual one), or a frozen network that runs in the loop (augmented samples, matching of
// hidden states). Neither has state: a step resumes without it.
//
// Belongs to one thread; the network uses its own threads inside.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "worker/engine/network.h"
#include "worker/runner/logits.h"
#include "worker/runner/params.h"

namespace pare::runner {

class Teacher {
 public:
  virtual ~Teacher() = default;
  // Fills the teacher's part of `loss` for the batch of samples `rows` (of the training split), which `samples` gives. What it
  // points to is valid until the next call. kDiverged: what the teacher says is not a number; names it, and a remedy.
  virtual Status Teach(std::span<const uint32_t> rows, const engine::SampleSource& samples, engine::LossOptions& loss) = 0;
};

// `rows`: which samples `logits` has, in its order. kInvalid: their numbers differ, or the classes from `classes`.
Result<std::unique_ptr<Teacher>> NewCachedTeacher(Logits logits, std::span<const uint32_t> rows, int64_t classes,
                                                  const DistillOptions& options);

// `name`: of the teacher, for messages. The network was made with a tap for every node to be matched, in the order of the
// student's taps. REQUIRES: batches are not larger than the network's max_batch.
std::unique_ptr<Teacher> NewLoopTeacher(std::unique_ptr<engine::Network> network, std::string name, const DistillOptions& options);

// Where a teacher's answers stop being numbers. `sample`: its row in the split.
Error TeacherNotFinite(const std::string& teacher, int64_t sample);

}  // namespace pare::runner
