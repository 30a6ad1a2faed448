// Pruning: which weights to remove, as new masks (METHODS, section 1). The rewrite of the weights themselves is ApplyMasks.
//
// Rules
//  - A weight that a mask has removed stays removed: masks only shrink, so any schedule's masks are nested.
//  - What is counted are items: weights, blocks, or units of the network (methods/granularity.h). An item is gone when all
//    its weights are. Counts are exact: a fraction f of n items is round(f · n), halves away from zero. `sparsity` s
//    removes round(s · n) in all, items removed earlier included (if more are removed already, nothing is added);
//    `fraction_of_remaining` f removes round(f · kept) more.
//  - Scope layer: n is each tensor's items. Scope global: n is the items of all `tensors`; they are ranked together.
//  - Density bounds hold per tensor: it keeps at least round(min_density · n) and at most round(max_density · n) items
//    (what was removed earlier is not brought back). Scope layer clamps each tensor's own count; scope global takes the
//    difference from the other tensors, and refuses (kInvalid) an amount that the bounds leave no room for.
//  - Lowest score goes first. Scores of a weight w (for single weights |w| also where w² is asked: one order, no underflow):
//      magnitude_l1  |w|                       magnitude_l2  w²
//      taylor        |w·g|, g = ∂L/∂w, L the mean loss of the calibration samples (Molchanov 2017, eq. 5; Lee 2019, SNIP)
//      fisher        w²·E[g²] over single samples (diagonal Fisher: LeCun 1990 with Theis 2018, eq. 11)
//      movement      −Σ w·g over the batches since the step began (Sanh 2020, eq. 7): moving towards zero goes first
//      random        the word at the item's index of stream (seed, kPruneRandom, tensor ordinal, draw)
//    g, E[g²] and the sum are handed in as `companion`. A block's or unit's score is the sum over its kept weights, in double.
//    Ties: tensor order, then row-major index. A mask is therefore unique.
//  - n_m: of every m consecutive weights of a row the n of lowest score go, ties as above; a schedule's sparsity s removes
//    round(s · m) of them, at most m − n. Scope layer only.
//  - structured: methods/prune_units.h.
// Memory beside weights, companions and masks: methods/selection.h; nothing grows with the model.
// Errors: kInvalid names the field or tensor; kDiverged: a weight or score is NaN. Pure, no thread rule.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "methods/granularity.h"
#include "methods/units.h"
#include "model/graph.h"
#include "model/mask.h"

namespace pare::methods {

enum class Criterion { kMagnitudeL1, kMagnitudeL2, kRandom, kTaylor, kFisher, kMovement };
enum class Scope { kLayer, kGlobal };

std::string_view ToString(Criterion criterion);  // "magnitude_l1", …
// Whether the criterion wants gradients of calibration samples.
inline bool WantsCalibration(Criterion c) { return c == Criterion::kTaylor || c == Criterion::kFisher; }

struct PruneOptions {
  Criterion criterion = Criterion::kMagnitudeL1;
  Scope scope = Scope::kLayer;
  std::vector<std::string> tensors;  // names of prunable tensors; their order is that of GraphInfo.tensors
  double min_density = 0.0, max_density = 1.0;
  Granularity granularity = {};
  int64_t calibration_samples = 0;  // taylor, fisher
  std::shared_ptr<const UnitPlan> units = {};  // structured
};
// Reads `criterion`, `scope`, `tensors`, `min_density`, `max_density`, `granularity`, `calibration_samples`; sorts `tensors`
// into the order of `info`.
Result<PruneOptions> PruneOptionsFromJson(const Json& params, const model::Graph& graph, const model::GraphInfo& info);

// How much to remove: exactly one of the two.
struct PruneAmount {
  std::optional<double> sparsity;               // of all items of the tensors
  std::optional<double> fraction_of_remaining;  // of those that the masks still keep
};

// The weights of one tensor where they lie.
struct WeightView {
  std::string name;
  model::Shape shape;
  std::span<const float> values;
  uint64_t ordinal = 0;  // index in GraphInfo.tensors
  std::span<const float> companion = {};  // taylor: g; fisher: E[g²]; movement: the score itself
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
