// Structured pruning: masks over whole units of the network (methods/units.h), so that `remove` (methods/remove.h) can take
// them out of the graph. Inside methods/; Prune (methods/pruning.h) calls it.
//
//  - A unit's score is the sum of the scores of its kept weights, in double (magnitude_l2: of their squares); random: the
//    word at the unit's number of stream (seed, kPruneRandom, ordinal of its class, draw). Ties go to the earlier unit.
//  - Counts and density bounds are per class, in units. At least one unit of a class stays, branches excepted.
//  - round_to r: the width left becomes the nearest multiple of r (halves up), at least r; what was removed earlier is not
//    brought back: then it is the next multiple below. A class narrower than r keeps its width.
//  - A removed unit is masked with all that is only its own: its rows, and their biases and normalization, so that its value
//    is f(0): zero behind ReLU, GELU, SiLU and tanh. The weights that read it are not touched.
//  - unit "layer": all residual branches are one class; inner branches of a removed one go with it.
// Errors as methods/pruning.h. Pure, no thread rule.
#pragma once

#include "methods/pruning.h"
#include "methods/selection.h"

namespace pare::methods {

// How a criterion scores single weights; the stream of a random one is keyed by `ordinal`.
ScoreSource ScoresOf(Criterion criterion, const WeightView& view, uint64_t ordinal, const PruneDraw& draw);

// How many items of one source (or of all together) are gone, and may be gone afterwards.
struct Quota {
  int64_t size = 0, removed = 0;  // now
  int64_t least = 0, most = 0;    // removed afterwards, by the density bounds
};
Quota QuotaOf(const PruneOptions& options, const KeySource& source);
// The count that `amount` asks for, removed earlier included.
int64_t Wanted(const PruneAmount& amount, int64_t size, int64_t removed);
struct Ranking {
  std::vector<Bounds> bounds;
  Cut cut;
};
// One ranking over all sources. kInvalid: the bounds leave no room.
Result<Ranking> RankTogether(const PruneAmount& amount, std::span<const Quota> quotas, std::span<const KeySource> sources);

// As Prune. REQUIRES: options.units.
Result<model::MaskMap> PruneUnits(const PruneOptions& options, const PruneAmount& amount, std::span<const WeightView> weights,
                                  const model::MaskMap& masks, const PruneDraw& draw);

}  // namespace pare::methods
