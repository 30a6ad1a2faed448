// Pruning: which weights to remove, as new masks (METHODS, section 1). The rewrite of the weights themselves is ApplyMasks.
//
// Rules
//  - A weight that a mask has removed stays removed: masks only shrink, so any schedule's masks are nested.
//  - Counts are exact: a fraction f of n weights is round(f · n), halves away from zero. `sparsity` s removes
//    round(s · n) in all, weights removed earlier included (if more are removed already, nothing is added);
//    `fraction_of_remaining` f removes round(f · kept) more.
//  - Scope layer: n is each tensor's size. Scope global: n is the size of all `tensors`; they are ranked together.
//  - Density bounds hold per tensor: it keeps at least round(min_density · size) and at most round(max_density · size)
//    (what was removed earlier is not brought back). Scope layer clamps each tensor's own count; scope global takes the
//    difference from the other tensors, and refuses (kInvalid) an amount that the bounds leave no room for.
//  - Lowest score goes first: |w| for magnitude_l1 and magnitude_l2 (for single weights |w| and w² have one order; |w| does
//    not underflow), the word at the weight's index of stream (seed, kPruneRandom, tensor ordinal, draw) for random.
//    Ties: tensor order, then row-major index. A mask is therefore unique.
// Errors: kInvalid names the field or tensor; kDiverged: a weight is NaN. Pure, no thread rule.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/json.h"
#include "model/graph.h"
#include "model/mask.h"

namespace pare::methods {

enum class Criterion { kMagnitudeL1, kMagnitudeL2, kRandom };
enum class Scope { kLayer, kGlobal };

struct PruneOptions {
  Criterion criterion = Criterion::kMagnitudeL1;
  Scope scope = Scope::kLayer;
  std::vector<std::string> tensors;  // names of prunable tensors; their order is that of GraphInfo.tensors
  double min_density = 0.0, max_density = 1.0;
};
// Reads `criterion`, `scope`, `tensors`, `min_density`, `max_density`; sorts `tensors` into the order of `info`.
Result<PruneOptions> PruneOptionsFromJson(const Json& params, const model::GraphInfo& info);

// How much to remove: exactly one of the two.
struct PruneAmount {
  std::optional<double> sparsity;               // of all weights of the tensors
  std::optional<double> fraction_of_remaining;  // of those that the masks still keep
};

// The weights of one tensor where they lie.
struct WeightView {
  std::string name;
  model::Shape shape;
  std::span<const float> values;
  uint64_t ordinal = 0;  // index in GraphInfo.tensors
};

// A random criterion's key beside tensor and index.
struct PruneDraw {
  uint64_t seed = 0;
  int64_t draw = 0;
};

// Masks after pruning: an entry for every tensor of `options` (of `weights`, same order), other entries as they were.
Result<model::MaskMap> Prune(const PruneOptions& options, const PruneAmount& amount, std::span<const WeightView> weights,
                             const model::MaskMap& masks, const PruneDraw& draw);

// The views of options.tensors in a map of host tensors. kInvalid names one that is missing or not float32.
Result<std::vector<WeightView>> ViewWeights(const PruneOptions& options, const model::GraphInfo& info,
                                            const model::TensorMap& tensors);

// Removed weights become exactly +0.0. Tensors without a mask are shared, not copied; those of other types
// hold codes that stand for zero there already. REQUIRES: shapes fit.
void ApplyMasks(const model::MaskMap& masks, model::TensorMap& tensors);

}  // namespace pare::methods
